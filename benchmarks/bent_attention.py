"""What methods that bend attention cost, beside plain attention, as a layer reads a long input.

One layer's attention in the shape of SmolLM2-135M, in blocks as the engine reads: keys turned and
kept, queries turned, everything merged. Both sides take turns in one process, in processor time, so
that other work on the machine changes little; the best turn counts.
"""

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.table import Table
from sides import Facts, Row, main, parser, threads

from harness import catalog
from harness.attention import Part, Turned
from harness.engine.evaluate import BLOCK
from harness.engine.kernels import kernel_for
from harness.engine.layers import Keys, Plain
from harness.lengths import label
from harness.rope import Encoding, Rope

HEADS, KEY_HEADS, DIM = 9, 3, 64
PARTED = ("self-extend", "dca", "rerope", "leaky-rerope")
LINEAR = ("lm-infinite", "streaming-llm")
MOST = 2.2
"""Times plain attention that two rotations may cost."""
GROWTH = 2.2
"""Times as long for twice as many tokens, of what is linear in them."""


@dataclass(frozen=True)
class Layer:
    """Queries, keys and values of an input, and how a layer attends."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor

    @classmethod
    def of(cls, length: int) -> "Layer":
        q = torch.randn(1, length, HEADS, DIM).bfloat16().transpose(1, 2)
        k, v = torch.randn(2, 1, length, KEY_HEADS, DIM).bfloat16().transpose(2, 3)
        return cls(q, k, v)

    def read(self, bend: Turned) -> None:
        length, attend, keys = self.q.shape[2], Plain(None, None), Keys(self.q.shape[2])
        keys.bend = bend
        for start in range(0, length, BLOCK):
            block, keys.start = slice(start, start + BLOCK), start
            k, v = keys.update(self.k[:, :, block], self.v[:, :, block])
            bend(attend, self.q[:, :, block], k, v, scale=DIM**-0.5, training=False)


def layer(given: Namespace) -> Facts:
    torch.manual_seed(0)
    rope = Rope(theta=1e4, dim=DIM, original_length=given.trained)
    own = Encoding(frequencies=rope.frequencies)
    found: dict[str, dict[str, float]] = {}
    with torch.inference_mode():
        for length in given.lengths:
            read, bends = Layer.of(length).read, {"plain": Turned([Part()], own)}
            for name in (*PARTED, *LINEAR):
                method = catalog.load("methods", name)
                bends[name] = Turned(method.parts(rope, length), own)
            for _ in range(given.repeats):
                for name, bend in bends.items():
                    row = found.setdefault(name, {})
                    took = _processor_seconds(lambda bend=bend, read=read: read(bend))
                    row[str(length)] = min(took, row.get(str(length), took))
    kernel = kernel_for("cpu", torch.bfloat16, DIM).name
    return {"seconds": found, "kernel": kernel, "threads": threads(), "trained": given.trained}


def rows(given: Namespace, found: dict[str, Facts]) -> list[Row]:
    seconds, lengths = found["layer"]["seconds"], sorted(given.lengths)
    longest, half = str(lengths[-1]), str(lengths[-2])
    plain, held = seconds["plain"], []
    for name in PARTED:
        ratio = seconds[name][longest] / plain[longest]
        held.append(
            Row(
                what=f"{name} at {label(lengths[-1])}, beside plain attention",
                ours=f"{seconds[name][longest]:.3g} s",
                peer=f"{plain[longest]:.3g} s",
                ratio=f"{ratio:.2f}x",
                bar=f"≤ {MOST:g}x",
                reached=ratio <= MOST,
            )
        )
    for name in LINEAR:
        growth = seconds[name][longest] / seconds[name][half]
        held.append(
            Row(
                what=f"{name}, {label(lengths[-1])} over {label(lengths[-2])}",
                ours=f"{seconds[name][longest]:.3g} s over {seconds[name][half]:.3g} s",
                peer=f"plain: {plain[longest] / plain[half]:.2f}x",
                ratio=f"{growth:.2f}x",
                bar=f"≤ {GROWTH:g}x",
                reached=growth <= GROWTH,
            )
        )
    return held


def curve(found: dict[str, Facts]) -> Table:
    """Processor seconds by length."""
    seconds = found["layer"]["seconds"]
    lengths = list(seconds["plain"])
    title = f"processor seconds of a layer's attention, {found['layer']['kernel']}"
    table = Table("", *(label(int(n)) for n in lengths), title=title)
    for name, row in seconds.items():
        table.add_row(name, *(f"{row[n]:.3f}" for n in lengths))
    return table


def flags() -> ArgumentParser:
    made = parser(__doc__, lengths="8k-32k")
    made.add_argument("--trained", type=int, default=4096, help="tokens of the trained window")
    made.add_argument("--repeats", type=int, default=3, help="turns of each; the best counts")
    return made


def _processor_seconds(work: Callable[[], None]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main(flags(), {"layer": layer}, rows, curve)
