"""Attention of a block: to its past without a mask, to itself causally, merged by log-sum-exp.

No mask tensor exists, so 2M tokens cost no 2M-wide mask, and no kernel can align one wrongly. A
sliding window only clips the past. Merging partial softmaxes: Dao et al. 2022, section 3.1,
https://arxiv.org/abs/2205.14135
"""

import torch
from torch import Tensor

from harness.engine.kernels import Kernel, kernel_for


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """The block's attention output, (1, heads, T, dim).

    Args:
        q: the block's queries, (1, heads, T, dim); they are the last T of the S positions.
        k: keys of all positions so far, (1, key heads, S, dim).
        v: values of the same.
        scale: what scores are multiplied by.
        window: each query sees so many last keys, itself included; None: all.
        softcap: scores are capped at this by tanh; None: not.
    """
    kernel = kernel_for(q.device.type, q.dtype, q.shape[-1], softcap)
    past, total = k.shape[2] - q.shape[2], k.shape[2]
    if window is None or total <= window:
        return _full(kernel, q, k, v, past, scale)
    unclipped = max(0, window - past)  # queries that still see everything
    outs = []
    if unclipped:
        seen = past + unclipped
        outs.append(_full(kernel, q[:, :, :unclipped], k[:, :, :seen], v[:, :, :seen], past, scale))
    step = min(window, 1024)
    for start in range(past + unclipped, total, step):
        stop = min(start + step, total)
        outs.append(
            _banded(kernel, q[:, :, start - past : stop - past], k, v, start, stop, window, scale)
        )
    return torch.cat(outs, 2)


def _full(kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, past: int, scale: float) -> Tensor:
    own = kernel.call(q, k[:, :, past:], v[:, :, past:], True, scale)
    if not past:
        return own[0]
    return _merge(kernel.call(q, k[:, :, :past], v[:, :, :past], False, scale), own)[0]


def _banded(
    kernel: Kernel,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    start: int,
    stop: int,
    window: int,
    scale: float,
) -> Tensor:
    """Queries start..stop-1, none before window-1, with stop - start <= window."""
    own = kernel.call(q, k[:, :, start:stop], v[:, :, start:stop], True, scale)
    edge = stop - window  # from here to the block, every query sees every key
    seen = own
    if edge < start:
        middle = kernel.call(q, k[:, :, edge:start], v[:, :, edge:start], False, scale)
        seen = _merge(middle, own)
    first = start - window + 1
    if first == edge:
        return seen[0]
    # Of the keys before the edge each query sees one less than the query before it. Read
    # backwards, that is a square causal block, which every kernel has.
    back = (x.flip(2) for x in (q[:, :, :-1], k[:, :, first:edge], v[:, :, first:edge]))
    tail = tuple(x.flip(2) for x in kernel.call(*back, True, scale))
    rest = tuple(x[:, :, :-1] for x in seen)
    return torch.cat([_merge(tail, rest)[0], seen[0][:, :, -1:]], 2)


def _merge(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Two attentions over disjoint keys, as one over both."""
    (out_a, lse_a), (out_b, lse_b) = a, b
    share = torch.sigmoid(lse_b - lse_a)[..., None]
    out = torch.lerp(out_a.float(), out_b.float(), share).to(out_a.dtype)
    return out, torch.logaddexp(lse_a, lse_b)
