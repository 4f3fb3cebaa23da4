"""A training on disk: whose folder it is, what is safe in it, and what it leaves when it ends."""

import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from harness import machine
from harness.model import Live
from harness.train.course import Course, memory
from harness.trained import FILE, Trained, write

PLAN = "course.json"
SAVES = "saves"


class Rows(Protocol):
    """Sequences to learn from: a map-style dataset."""

    label: str
    """What they are, by content."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Tensor]: ...


def begin(course: Course, rows: Rows, output: Path, live: Live, seed: int) -> None:
    """See that the folder is this course's, and that memory allows it.

    Raises:
        ValueError: it is another's, or the training would not fit.
    """
    free, taken = machine.free_memory(live.device), memory(course, live.card)
    if taken > free:
        raise ValueError(
            f"Sequences of {course.numbers.sequence_length:,} tokens need about "
            f"{taken / 2**30:.1f} GiB, and {free / 2**30:.1f} are free. "
            "Give a smaller --sequence-length, or train adapters with --trains lora."
        )
    facts = course.identity() | {"weights": live.weights, "corpus": rows.label, "seed": seed}
    plan = output / PLAN
    text = json.dumps(facts, indent=2, sort_keys=True) + "\n"
    if plan.exists() and plan.read_text("utf-8") != text:
        was = json.loads(plan.read_text("utf-8"))
        now = json.loads(text)
        unlike = ", ".join(sorted(k for k in now if was.get(k) != now[k]))
        raise ValueError(
            f"{output} holds a training with another {unlike}. Give another --output, or the same "
            "command to go on with that one."
        )
    output.mkdir(parents=True, exist_ok=True)
    beside = plan.with_suffix(".part")
    beside.write_text(text, "utf-8")
    beside.replace(plan)


def newest(output: Path) -> Path | None:
    """The last save that is whole: its state is written after all else."""
    saves = sorted(
        (s for s in (output / SAVES).glob("checkpoint-*") if s.name[11:].isdigit()),
        key=lambda s: int(s.name[11:]),
        reverse=True,
    )
    return next((s for s in saves if _whole(s)), None)


def _whole(save: Path) -> bool:
    try:
        return bool(json.loads((save / "trainer_state.json").read_text("utf-8"))["global_step"])
    except (OSError, ValueError, KeyError):
        return False


def account(course: Course, rows: Rows, live: Live, seed: int) -> Trained:
    numbers = {k: v for k, v in asdict(course.numbers).items() if k != "sources"}
    return Trained(
        method=course.method,
        recipe=course.recipe,
        numbers=numbers,
        base=live.card.spec,
        base_weights=live.weights,
        original_length=course.original_length,
        corpus=rows.label,
        steps=course.numbers.steps,
        sequence_length=course.numbers.sequence_length,
        tokens=course.tokens,
        seed=seed,
        made_with={"versions": machine.versions(), **machine.commit()},
    )


def publish(
    learner: nn.Module,
    weights: Mapping[str, Tensor],
    live: Live,
    own: Collection[str],
    output: Path,
    trained: Trained,
) -> None:
    """The checkpoint as anybody can load it; it counts once `training.json` is there.

    Args:
        learner: what was trained: the model, or adapters around it, which are merged.
        weights: all of its, gathered from whoever holds them.
        live: the base.
        own: names of the method's own weights, which stay float32.
        output: the folder.
        trained: what `training.json` will say.
    """
    model = learner
    if hasattr(learner, "merge_and_unload"):
        model = learner.merge_and_unload()
        weights = model.state_dict()
    dtype = getattr(live.card.config, "dtype", None) or torch.float32
    model.config.dtype = dtype
    held = {name: w if name in own else w.to(dtype) for name, w in weights.items()}
    model.save_pretrained(output, state_dict=held)
    live.tokenizer.save_pretrained(output)
    write(output, trained)
    shutil.rmtree(output / SAVES, ignore_errors=True)


def done(output: Path) -> bool:
    """Whether a training into this folder has come to its end."""
    return (output / FILE).exists()
