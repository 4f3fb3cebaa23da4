"""Many processes, one model: the shipped FSDP2 and DeepSpeed settings, and who may use them."""

import json
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

SHIPPED = files("harness.train") / "settings"


def arguments(shared: str, context: int, device: str, *, trains: str = "all") -> dict[str, Any]:
    """Further arguments of transformers' TrainingArguments.

    Args:
        shared: `none`, `fsdp2`, `zero2`, `zero3`.
        context: processes that share one sequence.
        device: as asked for; a sequence is shared on GPUs only.
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
        if machine.device(device) != "cuda":
            raise ValueError(
                "--context-parallel needs GPUs: torch has no rule to share attention on a CPU."
            )
        from accelerate.utils import ParallelismConfig

        found["parallelism_config"] = ParallelismConfig(cp_size=context)
    return found


def settings(name: str) -> dict[str, Any]:
    """A shipped file of settings, read anew."""
    return json.loads((SHIPPED / f"{name}.json").read_text("utf-8"))
