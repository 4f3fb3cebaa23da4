"""Attention of a block: to its past without a mask, to itself causally, merged by log-sum-exp.

No mask tensor exists, so 2M tokens cost no 2M-wide mask, and no kernel can align one wrongly. What
a query sees is a stretch of keys; from one query to the next each end of it stays or moves on by
one, so that a block of them is at most a rectangle and two triangles. A sliding window is such a
stretch, and so are a method's parts. Merging partial softmaxes: Dao et al. 2022, section 3.1,
https://arxiv.org/abs/2205.14135
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from harness.engine.bend import View
from harness.engine.kernels import Kernel, kernel_for
from harness.engine.offload import ON_DEVICE, PIECE, OnDevice

BAND = 1024
"""Most queries that are read together where a stretch moves at both of its ends."""
Ends = tuple[np.ndarray, np.ndarray]
"""By query, the first key it sees and the one after the last; (T,) each."""


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    memory: OnDevice = ON_DEVICE,
    more: Tensor | None = None,
) -> Tensor:
    """The block's attention output, (1, heads, T, dim).

    Args:
        q: the block's queries, (1, heads, T, dim); they are the last T of the S positions.
        k: keys of all positions so far, (1, key heads, S, dim).
        v: values of the same.
        scale: what scores are multiplied by.
        window: each query sees so many last keys, itself included; None: all.
        softcap: scores are capped at this by tanh; None: not.
        memory: where keys and values lie.
        more: further channels of each key, as a `View` has them.
    """
    own = torch.arange(k.shape[2] - q.shape[2], k.shape[2])
    whole = View(q, k, torch.zeros_like(own), own + 1, more)
    return attend_in_parts([whole], v, scale=scale, window=window, softcap=softcap, memory=memory)


def attend_in_parts(
    views: Sequence[View],
    v: Tensor,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    memory: OnDevice = ON_DEVICE,
) -> Tensor:
    """As `attend`, by one softmax over several views that share no key a query sees.

    Args:
        views: of the block; each query sees a key in at least one of them.
        v: values of all positions so far, (1, key heads, S, dim).
        scale: what scores are multiplied by.
        window: as of `attend`.
        softcap: as of `attend`.
        memory: as of `attend`.
    """
    q = views[0].q
    kernel = kernel_for(q.device.type, q.dtype, q.shape[-1], softcap)
    ends = [(first.numpy(), stop.numpy()) for first, stop in (x.seen(window) for x in views)]
    outs = []
    for start, stop in _tiles(ends):
        found = None
        for view, sees in zip(views, ends, strict=True):
            first, after = (end[start:stop] for end in sees)
            if after[0] > first[0]:
                rows = view._replace(q=view.q[:, :, start:stop])
                part = _strip(kernel, rows, v, (first, after), scale, memory)
                found = part if found is None else merged(part, found)
        assert found is not None, "a query sees no key"
        outs.append(found[0].to(q.dtype))
    return outs[0] if len(outs) == 1 else torch.cat(outs, 2)


def _tiles(ends: Sequence[Ends]) -> Iterator[tuple[int, int]]:
    """Rows that go together: throughout, each end of each stretch stays, or each step moves it."""
    for start, stop in _even(ends):
        size = stop - start
        for first, after in ends:
            seen = after[start] - first[start]
            moves = size > 1 and first[start] < first[start + 1] and after[start] < after[start + 1]
            if moves and seen > 0:
                size = min(size, BAND, seen)
        for at in range(start, stop, max(1, size)):
            yield at, min(at + max(1, size), stop)


def _even(ends: Sequence[Ends]) -> Iterator[tuple[int, int]]:
    rows = len(ends[0][0])
    if rows == 1:
        yield 0, 1
        return
    steps, jump = [], np.zeros(rows - 1, bool)
    for first, after in ends:
        seen = after > first
        both = seen[1:] & seen[:-1]
        moves = np.stack([np.diff(first), np.diff(after)]) * both
        jump |= (seen[1:] != seen[:-1]) | (moves < 0).any(0) | (moves > 1).any(0)
        steps.append(moves)
    taken = np.concatenate(steps)
    turns = np.zeros(rows - 1, bool)
    turns[1:] = (taken[:, 1:] != taken[:, :-1]).any(0)
    start = 0
    for step in np.flatnonzero(jump | turns):
        if jump[step] or step > start:  # a first step may be of any kind
            yield start, int(step) + 1
            start = int(step) + 1
    yield start, rows


def _strip(
    kernel: Kernel, view: View, v: Tensor, sees: Ends, scale: float, memory: OnDevice
) -> tuple[Tensor, Tensor]:
    """Queries of one tile, all of which see something."""
    (first, after), q, k = sees, view.q, view.k
    rows = q.shape[2]
    low, high = int(first[0]), int(after[0])
    falls, grows = (rows > 1 and bool(end[1] > end[0]) for end in sees)
    edge = low + rows - 1 if falls else low  # from here on, every query sees every key
    found = None
    if grows:
        high -= 1
        new = slice(high, high + rows)
        own = view.widened(*(memory.here(x[:, :, new]) for x in (k, v)), high)
        found = kernel.call(q, *own, True, scale)
    if edge < high:
        at, most = edge, None if view.more is None else PIECE  # what is widened is a copy
        for piece in memory.pieces(k[:, :, edge:high], v[:, :, edge:high], most):
            middle = kernel.call(q, *view.widened(*piece, at), False, scale)
            found = middle if found is None else merged(middle, found)
            at += piece[0].shape[2]
    assert found is not None
    if not falls:
        return found
    # Of the keys before the edge each query sees one less than the query before it. Read
    # backwards, that is a square causal block, which every kernel has.
    ending = view.widened(*(memory.here(x[:, :, low:edge]) for x in (k, v)), low)
    back = (x.flip(2) for x in (q[:, :, :-1], *ending))
    tail = tuple(x.flip(2) for x in kernel.call(*back, True, scale))
    ahead = merged(tail, tuple(x[:, :, :-1] for x in found))
    out, lse = (
        torch.cat([x, y[:, :, -1:].to(x.dtype)], 2) for x, y in zip(ahead, found, strict=True)
    )
    return out, lse


def merged(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Two attentions over disjoint keys, as one over both; its output is float32."""
    (out_a, lse_a), (out_b, lse_b) = a, b
    share = torch.sigmoid(lse_b - lse_a)[..., None]
    return torch.lerp(out_a.float(), out_b.float(), share), torch.logaddexp(lse_a, lse_b)
