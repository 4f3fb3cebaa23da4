"""One training step on 8k tokens: this project's course, and transformers' Trainer as it comes.

Both take the same sequences, products in bfloat16 (where the processor has them) beside float32
weights, AdamW and no adapters. The peer keeps all activations and all logits, as Trainer does
unless told otherwise; a third side tells it to checkpoint activations, which is what it takes to
compare like with like in memory.
"""

import time
from argparse import Namespace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sides import DTYPE, Facts, Row, gigabytes, main, parser, seconds, threads

from harness import machine

LEAST_MEMORY = 0.6
FIRST = 1
"""Updates that are not counted: caches fill, kernels are compiled."""


class Clock:
    """A `Watch` that keeps when updates were made."""

    def __init__(self) -> None:
        self.ticks: list[float] = []

    def begun(self, *_: object) -> None: ...

    def updated(self, entry: dict[str, float]) -> None:
        self.ticks.append(time.perf_counter())

    def saved(self, step: int) -> None: ...


def ours(given: Namespace) -> Facts:
    from harness.model import describe
    from harness.train.course import settle
    from harness.train.rows import rows as read
    from harness.train.trainer import train

    course = settle(
        describe(given.model), "naive-ft", "quick", corpus=given.text, dtype=DTYPE,
        changes=_changes(given),
    )  # fmt: skip
    clock, text = Clock(), read(course)
    machine.forget_peak("cpu")
    with TemporaryDirectory() as folder:
        train(course, text, Path(folder) / "out", watch=clock, device="cpu", save_every=10**6)
    return _facts(clock.ticks)


def plain(given: Namespace) -> Facts:
    return _stock(given, checkpointing=False)


def checkpointed(given: Namespace) -> Facts:
    return _stock(given, checkpointing=True)


def _stock(given: Namespace, *, checkpointing: bool) -> Facts:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from harness.model import describe, load
    from harness.train.course import settle
    from harness.train.rows import rows as read

    course = settle(
        describe(given.model), "naive-ft", "quick", corpus=given.text, changes=_changes(given)
    )
    text = read(course)
    live = load(given.model, device="cpu", dtype="float32")
    live.model.requires_grad_(True)
    ticks: list[float] = []

    class Tick(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ticks.append(time.perf_counter())

    def stacked(rows: Any) -> Any:
        import torch

        tokens = torch.stack([row["input_ids"] for row in rows])
        return {"input_ids": tokens, "labels": tokens}

    machine.forget_peak("cpu")
    with TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=given.steps, per_device_train_batch_size=1,
            learning_rate=course.numbers.learning_rate, bf16=DTYPE == "bfloat16", use_cpu=True,
            report_to=[], save_strategy="no", remove_unused_columns=False, disable_tqdm=True,
            seed=42, activation_checkpointing=checkpointing,
        )  # fmt: skip
        Trainer(
            model=live.model, args=arguments, train_dataset=text, data_collator=stacked,
            callbacks=[Tick()],
        ).train()  # fmt: skip
    return _facts(ticks)


def _changes(given: Namespace) -> dict[str, int]:
    return {"sequence_length": given.length, "batch_tokens": given.length, "steps": given.steps}


def _facts(ticks: list[float]) -> Facts:
    each = [later - sooner for sooner, later in pairwise(ticks)][FIRST - 1 :]
    peak = machine.peak_memory("cpu")
    return {"seconds": min(each), "steps": len(each), "peak_memory": peak, "threads": threads()}


def rows(given: Namespace, found: dict[str, Facts]) -> list[Row]:
    us = found["ours"]
    made = []
    for name, title in (("plain", "plain Trainer"), ("checkpointed", "Trainer, checkpointing")):
        peer, bar = found[name], name == "plain"
        faster, share = peer["seconds"] / us["seconds"], us["peak_memory"] / peer["peak_memory"]
        made += [
            Row(
                what=f"a step on {given.length:,} tokens, against {title}",
                ours=seconds(us),
                peer=seconds(peer),
                ratio=f"{faster:.2f}x",
                bar="≥ 1x" if bar else "",
                reached=faster >= 1 if bar else None,
            ),
            Row(
                what=f"peak memory, against {title}",
                ours=gigabytes(us["peak_memory"]),
                peer=gigabytes(peer["peak_memory"]),
                ratio=f"{share:.0%}",
                bar=f"≤ {LEAST_MEMORY:.0%}" if bar else "",
                reached=share <= LEAST_MEMORY if bar else None,
            ),
        ]
    return made


if __name__ == "__main__":
    made = parser(__doc__, model="smollm2-135m", text="stdlib:train")
    made.add_argument("--length", type=int, default=8192, help="tokens of a sequence")
    made.add_argument("--steps", type=int, default=3, help="updates; the first is not counted")
    main(made, {"ours": ours, "plain": plain, "checkpointed": checkpointed}, rows)
