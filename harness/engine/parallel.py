"""One pass over many processes: each reads its share of every stretch, and all get its keys.

Context parallelism. Stretches go one after the other, as blocks do in one process; within each,
every rank computes keys and values of its own rows, all gather them, and each goes on with its own
queries. Keys are gathered, not passed round a ring (Liu et al. 2023,
https://arxiv.org/abs/2310.01889): only one layer's are ever alive, 8 GiB at 2M tokens and eight key
heads, so that a ring would save little, and all that bends attention or has a window would have to
know of it. Where even that is too much, they can lie in the host's memory. torch's own context
parallelism has no rule for attention on a processor.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from math import sqrt

import torch
import torch.distributed as dist
from torch import Tensor

from harness.engine.cut import Block, Cut, blocks, wanted_only, whole
from harness.engine.tree import Run, Tree

LEAST = 64
"""Rows a rank must have for sharing to be worth a message: every rank reads what is shorter."""
Read = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Rows of the hidden state that lie here, and their targets -> losses and argmaxes."""
FINE, NO_MEMORY, OTHER = range(3)
OUT_OF_MEMORY = re.compile(
    r"out of memory|not enough memory|(can't|cannot) allocate memory|_STATUS_ALLOC_FAILED"
    r"|CUBLAS_STATUS_NOT_INITIALIZED",
    re.IGNORECASE,
)
"""Words of the errors that say so; the last is what cuBLAS says where its handle has no room."""


def out_of_memory(error: Exception) -> bool:
    """Whether less at a time may cure it."""
    return isinstance(error, MemoryError) or bool(OUT_OF_MEMORY.search(str(error)))


class Elsewhere(RuntimeError):
    """Another rank could not go on."""


class Alone:
    """One process, that reads everything itself."""

    rank, size = 0, 1

    def cut(self, tree: Tree, wanted: Tensor, size: int, row_cost: float) -> Cut:
        """What this process does of a tree.

        Args:
            tree: of inputs.
            wanted: sorted rows whose output is asked for, (w,).
            size: most rows of a block; a rank that begins a stretch may take somewhat more.
            row_cost: what a row takes beside attention, in keys that it could see instead.
        """
        return whole(tree, wanted, size)

    def stretches(
        self, runs: Sequence[Run], wanted: Tensor, size: int, row_cost: float
    ) -> list[Block]:
        """Blocks of rows of the tree, for one pass through all layers at a time."""
        return blocks(runs, size)

    def gathered(
        self, start: int, shares: tuple[int, ...], keys: Tensor, values: Tensor
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Of each rank: the position of its first row, and keys and values of all its rows."""
        yield start, keys, values

    def told(self, cut: Cut, rows: Tensor, targets: Tensor, read: Read) -> tuple[Tensor, Tensor]:
        """Losses and argmaxes of rows of the tree, wherever their hidden states lie."""
        return read(rows, targets)

    def agreed(self, written: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """What the first rank has written: on another, a tie may have fallen otherwise."""
        return written

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """What goes wrong in here on one rank goes wrong on all, and none waits for it."""
        yield


ALONE = Alone()


class Ranks(Alone):
    """This process is one of those of torch.distributed's own group, begun with gloo at least."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def cut(self, tree: Tree, wanted: Tensor, size: int, row_cost: float) -> Cut:
        found, rows, told, at = [], [], [], 0
        for block in self.stretches(tree.runs, wanted, size, row_cost):
            found.append(replace(block, row=at))
            rows.append(torch.arange(block.row, block.row + block.length))
            told.append(torch.full((block.length,), bool(block.shares) or self.rank == 0))
            at += block.length
        inner = [replace(block, wanted=True) for block in found]
        return Cut(tree.depth, inner, found, torch.cat(rows), torch.cat(told))

    def stretches(
        self, runs: Sequence[Run], wanted: Tensor, size: int, row_cost: float
    ) -> list[Block]:
        every = wanted_only(runs, wanted, size * self.size)
        return [self._share(block, row_cost) for block in every]

    def _share(self, block: Block, row_cost: float) -> Block:
        if block.length < LEAST * self.size:
            return block
        ends = even(block.position, block.length, self.size, row_cost)
        start = ends[self.rank]
        shares = tuple(stop - begin for begin, stop in pairwise(ends))
        return replace(
            block,
            row=block.row + start,
            position=block.position + start,
            length=shares[self.rank],
            shares=shares,
        )

    def gathered(
        self, start: int, shares: tuple[int, ...], keys: Tensor, values: Tensor
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        if not shares:  # everybody has computed all of them
            yield start, keys, values
            return
        start -= sum(shares[: self.rank])
        # A message a rank, of one size: token by token, keys beside values, as bytes, for of those
        # every backend knows how to send them. There is room for all before any is sent.
        mine = torch.cat([x.transpose(1, 2).flatten(2) for x in (keys, values)], -1)[0]
        sent = mine.new_zeros(max(shares), mine.shape[1])
        sent[: len(mine)] = mine
        came = [torch.empty_like(sent) for _ in shares]
        self._tell(FINE)
        with _message():
            dist.all_gather([x.view(torch.uint8) for x in came], sent.view(torch.uint8))
        width = keys.shape[1] * keys.shape[3]
        for count, theirs in zip(shares, came, strict=True):
            k, v = theirs[:count, :width], theirs[:count, width:]
            yield start, _by_head(k, keys), _by_head(v, values)
            start += count

    def told(self, cut: Cut, rows: Tensor, targets: Tensor, read: Read) -> tuple[Tensor, Tensor]:
        lies = torch.full((int(max(rows.max(), cut.rows.max())) + 1,), -1)
        lies[cut.rows[cut.told]] = torch.arange(len(cut.rows))[cut.told]
        at = lies[rows.cpu()]
        mine = at >= 0
        losses, best = torch.zeros(len(at), dtype=torch.float64), torch.zeros_like(at)
        here = mine.to(targets.device)
        losses[mine], best[mine] = read(at[mine].to(targets.device), targets[here])
        self._tell(FINE)
        for told in (losses, best):
            dist.all_reduce(told)
        return losses, best

    def agreed(self, written: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        self._tell(FINE)
        counts = torch.tensor([len(tokens) for tokens in written])
        dist.broadcast(counts, 0)
        every = torch.zeros(int(counts.sum()), dtype=torch.int64)
        if self.rank == 0:
            every[:] = torch.tensor([token for tokens in written for token in tokens])
        dist.broadcast(every, 0)
        return [tuple(some.tolist()) for some in every.split(counts.tolist())]

    @contextmanager
    def in_step(self) -> Iterator[None]:
        try:
            yield
        except Elsewhere:
            raise
        except Exception as error:
            self._tell(NO_MEMORY if out_of_memory(error) else OTHER, quietly=True)
            raise
        self._tell(FINE)

    def say(self, text: str = "") -> str:
        """What the first rank says, on every rank; the others give nothing.

        Raises:
            Elsewhere: a rank has died.
        """
        said = torch.tensor(list(text.encode()), dtype=torch.uint8)
        length = torch.tensor([len(said)])
        with _message():
            dist.broadcast(length, 0)
            if self.rank:
                said = torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(said, 0)
        return bytes(said.tolist()).decode()

    def _tell(self, how: int, *, quietly: bool = False) -> None:
        """Say how it goes, and hear from the others: before every message, and at the end.

        Raises:
            Elsewhere: it goes badly on another rank, or one has died.
        """
        worst = torch.tensor([how])
        with _message():
            dist.all_reduce(worst, dist.ReduceOp.MAX)
        if int(worst) and not quietly:
            what = "is out of memory" if int(worst) == NO_MEMORY else "could not go on"
            raise Elsewhere(f"another rank {what}")


class Shards(Ranks):
    """Ranks that share each weight: all read every row, each with its heads and channels.

    Tensor parallelism, as transformers lays it out (Shoeybi et al. 2019,
    https://arxiv.org/abs/1909.08053): for weights that one device has no room for. Keys and values
    lie with their heads, so that they take as much less. All do the same, and so run out of memory
    together; what one of them alone fails of ends them all.
    """

    cut, stretches = Alone.cut, Alone.stretches
    gathered, told = Alone.gathered, Alone.told


@contextmanager
def _message() -> Iterator[None]:
    """A message that does not come through: whoever should have heard it is gone.

    Unless there was no room for it here.
    """
    try:
        yield
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        raise Elsewhere(f"another rank has died: {str(error).splitlines()[0]}") from error


def even(position: int, length: int, ranks: int, row_cost: float) -> list[int]:
    """Where each rank's rows begin, and the end, so that all have as much to do.

    The row at position p costs p + row_cost, so the first x rows from there x (p + row_cost) +
    x^2 / 2: a rank that begins a stretch gets more of them.
    """
    first = position + row_cost
    whole = length * first + length**2 / 2
    shares = (whole * rank / ranks for rank in range(ranks))
    return [round(sqrt(first**2 + 2 * share) - first) for share in shares] + [length]


def _by_head(x: Tensor, like: Tensor) -> Tensor:
    """(n, heads * dim) -> (1, heads, n, dim)."""
    return x.unflatten(1, (like.shape[1], like.shape[3])).transpose(0, 1)[None]
