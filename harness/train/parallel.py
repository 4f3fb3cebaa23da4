"""Many processes, one model: the shipped FSDP2 and DeepSpeed settings, and who may use them."""

import json
import os
from importlib.resources import files
from importlib.util import find_spec
from typing import Any, NamedTuple

SHIPPED = files("harness.train") / "settings"


class Sharing(NamedTuple):
    """How many processes train, by what they share."""

    weights: int = 1
    """Those that share what moves the weights."""
    sequence: int = 1
    """Those of them that share a sequence."""
    machine: int = 1
    """Those on this machine, each with its part of the host's memory."""

    @classmethod
    def of(cls, distributed: dict[str, Any], world: int | None = None) -> "Sharing":
        """Of what `arguments` gives; `world`: all processes, None: as many as torchrun says."""
        world = int(os.environ.get("WORLD_SIZE", 1)) if world is None else world
        sequence = together(distributed)
        here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        return cls(max(world, sequence) if distributed else 1, sequence, here)


ALONE = Sharing()


def speaks() -> bool:
    """Whether this process is the one of all that says what they would do."""
    return os.environ.get("RANK", "0") == "0"


def together(distributed: dict[str, Any]) -> int:
    """Processes that share one sequence."""
    return getattr(distributed.get("parallelism_config"), "cp_size", 1)


def arguments(
    shared: str, context: int, device: str | None, *, trains: str = "all"
) -> dict[str, Any]:
    """Further arguments of transformers' TrainingArguments.

    Args:
        shared: `none`, `fsdp2`, `zero2`, `zero3`.
        context: processes that share one sequence.
        device: as asked for; a sequence is shared on GPUs only. None: it is planned, not trained.
        trains: which weights move.

    Raises:
        ValueError: the two do not go together, or not here.
    """
    if shared != "none" and trains == "lora":
        raise ValueError("Adapters are small: train them with --distributed none.")
    found: dict[str, Any] = {}
    if shared == "fsdp2":
        found = {"fsdp": True, "fsdp_config": settings("fsdp2")}
    elif shared != "none":
        if not find_spec("deepspeed"):
            raise ValueError(f"--distributed {shared} needs DeepSpeed. Run: pip install deepspeed")
        found = {"deepspeed": settings(shared)}
    if context > 1:
        from harness import machine

        if shared != "fsdp2":
            raise ValueError("--context-parallel shares a sequence under --distributed fsdp2 only.")
        if device is not None and machine.device(device) != "cuda":
            raise ValueError(
                "--context-parallel needs GPUs: torch has no rule to share attention on a CPU."
            )
        from accelerate.utils import ParallelismConfig

        found["parallelism_config"] = ParallelismConfig(cp_size=context)
    return found


def settings(name: str) -> dict[str, Any]:
    """A shipped file of settings, read anew."""
    return json.loads((SHIPPED / f"{name}.json").read_text("utf-8"))
