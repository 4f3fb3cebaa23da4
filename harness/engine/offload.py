"""Where hidden states and a layer's keys lie: on the device, or in the host's memory and streamed.

Attention is merged from parts by log-sum-exp anyway, so a few pieces of keys are all that need be
on the device: one in use, the next on its way. Every block of queries reads all keys before it, and
larger blocks read them less often: Sheng et al. 2023, FlexGen, https://arxiv.org/abs/2303.06865
"""

import math
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import finalize

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PIECE = 16384
"""Most keys that are brought to the device together."""


class Budget(TorchDispatchMode):
    """A device of so many bytes, of which everything counts that any operation makes.

    For a processor, which has no memory of its own that could run out: the same tensors lie on a
    GPU. What is made `elsewhere` is the host's, and so are all views of it.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.used = self.peak = 0
        """Bytes: now, and at most so far."""
        self._alive: dict[int, int] = {}
        """By storage, its bytes; 0 of the host's."""
        self._elsewhere = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        self.count(x for x in tree_leaves(made) if isinstance(x, Tensor))
        return made

    def count(self, tensors: Iterator[Tensor]) -> None:
        """These are there, as long as anything refers to them.

        Raises:
            torch.OutOfMemoryError: that is more than there is room for.
        """
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._alive:
                continue
            size = 0 if self._elsewhere else storage.nbytes()
            self._alive[key] = size
            finalize(storage, self._gone, key)
            self.used += size
            self.peak = max(self.peak, self.used)
            if self.used > self.room:
                raise torch.OutOfMemoryError(
                    f"out of memory: {self.used:,} bytes on a device of {self.room:,}"
                )

    def _gone(self, key: int) -> None:
        self.used -= self._alive.pop(key)

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """What is made in here is not on the device."""
        before, self._elsewhere = self._elsewhere, True
        try:
            yield
        finally:
            self._elsewhere = before


class OnDevice:
    """Everything lies where the model is."""

    offloads = False

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget

    @contextmanager
    def counted(self, model: nn.Module) -> Iterator[None]:
        """Where there is a budget, count the weights and whatever is made in here."""
        if self.budget is None:
            yield
            return
        self.budget.count(model.parameters())
        self.budget.count(model.buffers())
        with self.budget:
            yield

    def account(self) -> dict[str, Any]:
        """What was counted of the device, in bytes: plain data."""
        if self.budget is None:
            return {}
        return {"device_memory": {"room": self.budget.room, "peak": self.budget.peak}}

    def empty(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Room for much of what `like` is little of."""
        return _apart(shape, like) if like.device.type == "cpu" else like.new_empty(shape)

    def room_for_keys(self, capacity: int, like: Tensor) -> Tensor:
        """As `empty`, for keys or values, (1, heads, T, dim)."""
        return self.empty((1, like.shape[1], capacity, like.shape[3]), like)

    def here(self, x: Tensor) -> Tensor:
        """A stretch of what lies in such room, on the device."""
        return x

    def keep(self, room: Tensor, new: Tensor) -> None:
        """Write a stretch of it."""
        room.copy_(new, non_blocking=True)

    def settle(self) -> None:
        """Wait until all that was written is there, for whoever reads it on the host."""

    def rows(self, x: Tensor, at: Tensor) -> Tensor:
        """Of (n, width) in such room, some rows, on the device."""
        return x[at]

    def pieces(self, k: Tensor, v: Tensor, most: int | None = None) -> Iterator[tuple[Tensor, ...]]:
        """Keys and values in stretches that are on the device, one after the other.

        Args:
            k: (1, key heads, n, dim).
            v: the same.
            most: keys of a stretch; None: as many as lie there together.
        """
        yield from zip(*(x.split(most or k.shape[2], 2) for x in (k, v)), strict=True)


class OnHost(OnDevice):
    """Hidden states, keys, values and rotary tables lie in the host's memory.

    Args:
        device: what computes.
        budget: of that device, if it is a processor that stands in for one.
        piece: most keys that are brought to it together.
    """

    offloads = True

    def __init__(
        self, device: torch.device | str, budget: Budget | None = None, piece: int = PIECE
    ) -> None:
        super().__init__(budget)
        self.device, self.piece = torch.device(device), piece
        self._side = torch.cuda.Stream() if self.device.type == "cuda" else None
        """Keys come along it while the device attends to those before them."""

    def empty(self, shape: Sequence[int], like: Tensor) -> Tensor:
        with self._on_the_host():
            return torch.empty(shape, dtype=like.dtype, pin_memory=self._side is not None)

    def room_for_keys(self, capacity: int, like: Tensor) -> Tensor:
        # A token's heads lie together, so that a stretch of keys is one stretch of memory: else it
        # could not be copied at once, nor beside other work.
        return self.empty((1, capacity, like.shape[1], like.shape[3]), like).transpose(1, 2)

    def here(self, x: Tensor) -> Tensor:
        return torch.empty_like(x, device=self.device, pin_memory=False).copy_(x, non_blocking=True)

    def settle(self) -> None:
        if self._side is not None:
            torch.cuda.synchronize()

    def rows(self, x: Tensor, at: Tensor) -> Tensor:
        self.settle()
        with self._on_the_host():
            picked = x[at.cpu()]
        return self.here(picked)

    def pieces(self, k: Tensor, v: Tensor, most: int | None = None) -> Iterator[tuple[Tensor, ...]]:
        coming, size = None, min(self.piece, most or self.piece)
        for start in range(0, k.shape[2], size):
            stretch = slice(start, start + size)
            sent = self._sent(k[:, :, stretch], v[:, :, stretch])
            if coming is not None:
                yield self._come(*coming)
            coming = sent
        if coming is not None:
            yield self._come(*coming)

    def _sent(self, *stretches: Tensor) -> tuple[tuple[Tensor, ...], torch.cuda.Event | None]:
        if self._side is None:
            return tuple(map(self.here, stretches)), None
        self._side.wait_stream(torch.cuda.current_stream())  # which may still be writing them
        with torch.cuda.stream(self._side):
            return tuple(map(self.here, stretches)), self._side.record_event()

    def _come(
        self, stretches: tuple[Tensor, ...], event: torch.cuda.Event | None
    ) -> tuple[Tensor, ...]:
        if event is not None:
            now = torch.cuda.current_stream()
            now.wait_event(event)
            for x in stretches:
                x.record_stream(now)  # or its memory would be taken anew along the side
        return stretches

    @contextmanager
    def _on_the_host(self) -> Iterator[None]:
        if self.budget is None:
            yield
            return
        with self.budget.elsewhere():
            yield


ON_DEVICE = OnDevice()


def _apart(shape: Sequence[int], like: Tensor) -> Tensor:
    """Room asked of the system, to which it goes back; among blocks it would leave holes as large.

    Raises:
        MemoryError: there is none.
    """
    size = math.prod(shape) * like.itemsize
    if not size or os.name != "posix":
        return like.new_empty(shape)
    try:
        room = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        raise MemoryError(f"out of memory: no room for {size:,} bytes") from None
    if hasattr(mmap, "MADV_HUGEPAGE"):
        room.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(room, dtype=like.dtype).view(shape)


def memory(model: nn.Module, *, offload: bool, limit: int | None = None) -> OnDevice:
    """Where a pass keeps what grows with its length.

    Args:
        model: whose device it is.
        offload: in the host's memory.
        limit: most bytes of the device to use: of a GPU its allocator sees to it, of a processor
            they are counted.
    """
    budget = None
    if model.device.type == "cuda":  # always: an earlier pass may have had another limit
        whole = torch.cuda.get_device_properties(model.device).total_memory
        share = min(1.0, limit / whole) if limit else 1.0
        torch.cuda.set_per_process_memory_fraction(share, model.device)
    elif limit:
        budget = Budget(limit)
    return OnHost(model.device, budget) if offload else OnDevice(budget)
