"""A training on disk: whose folder it is, what is safe in it, and what it leaves when it ends."""

import hashlib
import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from harness import catalog, machine
from harness.adapters import ADAPTER
from harness.disk import let_others_read, read_json, saving, write_whole
from harness.model import KNOWN, Card, Live, tokenizer
from harness.train.course import Course, memory
from harness.train.moving import save_own
from harness.train.parallel import ALONE, Sharing
from harness.trained import FILE, Trained, read, write

PLAN = "course.json"
SAVES = "saves"
AMPLE = 0.6
"""Share of the free memory that may be planned to be taken to save time: a plan is rough."""
SAFE = "What was saved before is there still: make room, and the same command goes on from it."


class Rows(Protocol):
    """Sequences to learn from: a map-style dataset."""

    label: str
    """What they are, by content."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Tensor]: ...


def afford(course: Course, card: Card, device: str, sharing: Sharing = ALONE) -> bool:
    """See that memory allows it, before any weight is read; on CPUs processes share it.

    Returns:
        Whether there is so much that layers' products can be kept, too.

    Raises:
        ValueError: it does not; says by how much.
    """
    free, taken = machine.free_memory(device), memory(course, card, sharing)
    each = ""
    if device == "cpu" and sharing.machine > 1:
        free //= sharing.machine
        each = f" for each of {sharing.machine} processes"
    if taken > free:
        raise ValueError(
            f"Sequences of {course.numbers.sequence_length:,} tokens need about "
            f"{taken / 2**30:.1f} GiB, and {free / 2**30:.1f} are free{each}. "
            "Give a smaller --sequence-length, or train adapters with --trains lora."
        )
    return memory(course, card, sharing, products=True) <= AMPLE * free


def facts(course: Course, rows: Rows, card: Card, seed: int) -> dict[str, Any]:
    """What tells this training from another; weights on the hub are not known before they load."""
    known: dict[str, Any] = {"weights": card.weights, "corpus": rows.label, "seed": seed}
    if files := _files(course, card):
        known["files"] = {k: hashlib.sha256(v.encode()).hexdigest() for k, v in files.items()}
    return json.loads(json.dumps(course.identity() | known))


def _files(course: Course, card: Card) -> dict[str, str]:
    """What the method reads from files, by parameter."""
    return catalog.load("methods", course.method).files(SimpleNamespace(config=card.config))


def own(output: Path, facts: dict[str, Any]) -> None:
    """See that the folder is this training's, or free.

    Raises:
        ValueError: it is another's.
    """
    plan = output / PLAN
    if not plan.exists():
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise ValueError(
                f"{output} is there already, and holds no training to go on with: give another "
                "--output."
            )
        return
    try:
        was = read_json(plan)
    except ValueError:
        was = None
    if not isinstance(was, dict):
        raise ValueError(
            f"{plan} does not parse: mend it, give another --output, or delete {output} to train "
            "from the start."
        )
    if was.get("dtype") == "auto":  # of before it was settled with the course
        was["dtype"] = facts["dtype"]
    unlike = [k for k in {**was, **facts} if was.get(k) != facts.get(k)]
    if facts["weights"] is None:
        unlike = [k for k in unlike if k != "weights"]
    if unlike:
        raise ValueError(
            f"{output} holds a training with another {', '.join(sorted(unlike))}. Give another "
            "--output, or the same command to go on with that one."
        )


def begin(output: Path, facts: dict[str, Any], course: Course, card: Card) -> None:
    """Make the folder this training's; what the method reads from files is copied into it."""
    output.mkdir(parents=True, exist_ok=True)
    write_whole(output / PLAN, json.dumps(facts, indent=2, sort_keys=True) + "\n")  # whose it is
    for name, text in _files(course, card).items():
        write_whole(output / f"{name}.json", text)


def newest(output: Path) -> Path | None:
    """The last save that is whole: its state is written after all else, by all processes."""
    saves = sorted(
        (s for s in (output / SAVES).glob("checkpoint-*") if s.name[11:].isdigit()),
        key=lambda s: int(s.name[11:]),
        reverse=True,
    )
    return next((s for s in saves if _whole(s)), None)


def _whole(save: Path) -> bool:
    try:
        return bool(read_json(save / "trainer_state.json")["global_step"])
    except (OSError, ValueError, KeyError):
        return False


def account(
    course: Course, rows: Rows, live: Live, seed: int, own: Collection[str] = ()
) -> Trained:
    """What `training.json` says; `own`: names of the method's own weights."""
    beside = {name: f"{name}.json" for name in _files(course, live.card)}
    numbers = {k: v for k, v in asdict(course.numbers).items() if k != "sources"}
    return Trained(
        method=catalog.extended(course.method, beside),
        files=tuple(beside),
        own=tuple(sorted(own)),
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
        made_with={
            "dtype": str(machine.dtype(course.dtype, live.device)).removeprefix("torch."),
            "versions": machine.versions(),
            **machine.commit(),
        },
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
        learner: what was trained: the model, or adapters around it, which are merged, and kept in
            `adapter/` too, which is read as the whole is, if the base is no such folder itself.
        weights: all of its, gathered from whoever holds them.
        live: the base.
        own: names of the method's own weights, which stay float32.
        output: the folder.
        trained: what `training.json` will say.
    """
    model = learner
    if hasattr(learner, "merge_and_unload"):
        if not live.card.adapter:
            _apart(learner, own, output, trained, live)
        model = learner.merge_and_unload()
        weights = model.state_dict()
    dtype = getattr(live.card.config, "dtype", None) or torch.float32
    with saving(output, SAFE):
        model.save_pretrained(output, state_dict=_held(model, weights, own, dtype))
        model.config.dtype = dtype  # a save writes down the one that was trained in
        model.config.save_pretrained(output)
        live.tokenizer.save_pretrained(output)
        let_others_read(output)
        write(output, trained)
    shutil.rmtree(output / SAVES, ignore_errors=True)


def _held(
    model: nn.Module, weights: Mapping[str, Tensor], own: Collection[str], dtype: torch.dtype
) -> dict[str, Tensor]:
    """What is written, by name, in this dtype; weights that are tied are one tensor."""
    first: dict[int, str] = {}
    named = model.named_parameters(remove_duplicate=False)
    tied = {name: first.setdefault(id(weight), name) for name, weight in named}
    held: dict[str, Tensor] = {}
    for name, weight in weights.items():
        there = held.get(tied.get(name, name))
        if there is None:
            there = weight if name in own else weight.to(dtype)
        held[name] = there
    return held


def _apart(
    learner: nn.Module, own: Collection[str], output: Path, trained: Trained, live: Live
) -> None:
    """The adapters and the method's own weights, with what tells whose they are."""
    folder, name = output / ADAPTER, live.card.name
    base = name if name in KNOWN or not Path(name).exists() else str(Path(name).resolve())
    with saving(folder, SAFE):
        for config in learner.peft_config.values():
            config.base_model_name_or_path = base
        learner.save_pretrained(folder)
        if own:
            save_own(learner, own, folder)
        let_others_read(folder)
        base_reads = tokenizer(live.card, live.remote_code)
        if live.tokenizer.chat_template != base_reads.chat_template:  # it learned one
            live.tokenizer.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)  # a form that nobody filled in
        for name in trained.files:
            shutil.copyfile(output / f"{name}.json", folder / f"{name}.json")
        write(folder, trained)


def done(course: Course, rows: Rows, output: Path, card: Card, seed: int) -> Trained | None:
    """What came of this training, if it has come to its end.

    Raises:
        ValueError: the folder is another's.
    """
    if not (output / FILE).exists():
        return None
    own(output, facts(course, rows, card, seed))
    return read(output)
