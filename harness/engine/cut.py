"""Which rows of a tree pass the layers in this process, and in which blocks."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from harness.engine.tree import Run, Tree


@dataclass(frozen=True)
class Block:
    """Rows that pass a layer together."""

    row: int
    """Its first, among those that lie here."""
    position: int
    length: int
    wanted: bool = True
    """False: nobody asked for its output; its keys and values are all that is needed."""
    shares: tuple[int, ...] = ()
    """Where ranks read a stretch together, how many rows each does; this block is one's."""

    @property
    def read(self) -> int:
        """Rows that all ranks together have read once it is done."""
        return sum(self.shares) or self.length


@dataclass(frozen=True)
class Cut:
    """What one process does of a tree."""

    depth: int
    """Tokens of the longest input."""
    inner: list[Block]
    """Of every layer but the last."""
    last: list[Block]
    """Of the last layer, which runs only where somebody asked."""
    rows: Tensor | None = None
    """Of the tree, in the order in which they lie here, (n,); None: all."""
    told: Tensor | None = None
    """Which of these this process answers for, (n,), bool: a row may lie on several ranks."""


def whole(tree: Tree, wanted: Tensor, size: int) -> Cut:
    """All of it.

    Args:
        tree: of inputs.
        wanted: sorted rows whose output is asked for, (w,).
        size: most rows of a block.
    """
    return Cut(tree.depth, blocks(tree.runs, size), wanted_only(tree.runs, wanted, size))


def blocks(runs: Sequence[Run], size: int) -> list[Block]:
    """Cut runs into blocks of at most `size` rows."""
    return [
        Block(run.row + start, run.position + start, min(size, run.length - start))
        for run in runs
        for start in range(0, run.length, size)
    ]


def wanted_only(runs: Sequence[Run], wanted: Tensor, size: int) -> list[Block]:
    """As `blocks`, for the last layer: stretches without a wanted row only store their keys."""
    found = []
    for run in runs:
        inside = wanted[(wanted >= run.row) & (wanted < run.row + run.length)] - run.row
        start, stop = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (run.length,) * 2
        for low, high, asked in ((0, start, False), (start, stop, True), (stop, run.length, False)):
            piece = Run(run.position + low, run.row + low, high - low)
            found += [Block(b.row, b.position, b.length, asked) for b in blocks([piece], size)]
    return found
