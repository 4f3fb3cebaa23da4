"""Causal attention to train through: no mask, no scores kept, and a recomputation saved.

Checkpointed layers run twice, attention with them, though its output and log-sum-exp are all that
its backward needs besides its inputs: FlashAttention-2, section 3.1, https://arxiv.org/abs/2307.08691
As one operator that gives both, attention is something a checkpoint can keep (`checkpoint_context`)
while it recomputes the rest. Inputs are whole sequences: no padding, no packing.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts
from transformers import AttentionInterface

from harness.engine import native
from harness.engine.bend import View
from harness.engine.kernels import chosen, native_cpu

INTERFACE = "context-harness-training"
ROWS = 512
"""Queries whose scores are held at once where there is no kernel."""


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Causal attention with a gradient, (batch, heads, tokens, dim).

    Args:
        q: (batch, heads, tokens, dim).
        k: (batch, key heads, tokens, dim); key heads divide heads.
        v: of the same shape.
        scale: what scores are multiplied by.
    """
    q, k, v = _as_autocast_would(q, k, v)
    if q.device.type != "cpu":
        groups = q.shape[1] // k.shape[1]
        if groups > 1 and q.dtype is torch.float32:  # else every score is kept: flash has halves
            k, v = (x.repeat_interleave(groups, 1) for x in (k, v))
        return scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )
    return torch.ops.context_harness.attention(q, k, v, scale)[0]


def checkpoint_context(
    products: bool = False,
) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """What `torch.utils.checkpoint` takes as `context_fn`: attention is kept, the rest recomputed.

    In transformers, `gradient_checkpointing_kwargs={"use_reentrant": False, "context_fn": ...}`.

    Args:
        products: what weights are multiplied to is kept, too: where there is room for it, nothing
            is recomputed that takes long.
    """
    return create_selective_checkpoint_contexts([*_KEPT, *_PRODUCTS] if products else _KEPT)


@torch.library.custom_op("context_harness::attention", mutates_args=())
def _forward(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp; it lies by token, as the layer's next step wants it."""
    out, lse = chosen("cpu", q.dtype, q.shape[-1]).call(q, k, v, True, scale)
    return out.transpose(1, 2).contiguous().transpose(1, 2), lse


@torch.library.custom_op("context_harness::attention_backward", mutates_args=())
def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values."""
    ours = chosen("cpu", q.dtype, q.shape[-1]).call is native_cpu
    if ours and native.fits(q, k, v, scale):
        grad, out = (x if x.stride(-1) == 1 else x.contiguous() for x in (grad, out))
        return native.backward(grad, q, k, v, out, lse, scale)
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, q, k, v, out, lse, 0.0, True, scale=scale
    )


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    lse = q.new_empty(q.shape[0], q.shape[2], q.shape[1], dtype=torch.float32)
    return _by_token(q), lse.transpose(1, 2)


@_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: object) -> tuple[Tensor, ...]:
    return _by_token(q), _by_token(k), _by_token(v)


def _by_token(x: Tensor) -> Tensor:
    """An empty tensor of the same shape in which a token's heads lie together."""
    return x.new_empty(x.transpose(1, 2).shape).transpose(1, 2)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *qkv, ctx.scale = inputs
    ctx.save_for_backward(*qkv, *output)
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    grads = torch.ops.context_harness.attention_backward(grad, *ctx.saved_tensors, ctx.scale)
    return *grads, None


_forward.register_autograd(_gradients, setup_context=_keep)

_KEPT = [
    torch.ops.context_harness.attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
]
_PRODUCTS = [torch.ops.aten.mm.default, torch.ops.aten.addmm.default]


def _as_autocast_would(*tensors: Tensor) -> tuple[Tensor, ...]:
    """In autocast's dtype, where that is on: rotary tables may have made queries float32."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(x.to(torch.get_autocast_dtype(device)) for x in tensors)


def _in_parts(
    views: Sequence[View], v: Tensor, scale: float, window: int | None, softcap: float | None
) -> Tensor:
    """What no kernel offers, some queries at a time over the keys that they see.

    Queries are the last of the positions. Each stretch's scores are recomputed for its gradient.
    """
    seen, outs = [view.seen(window) for view in views], []
    for start in range(0, views[0].q.shape[2], ROWS):
        rows = slice(start, start + ROWS)
        given = []
        for view, (first, stop) in zip(views, seen, strict=True):
            low, high = int(first[rows].min()), int(stop[rows].max())
            at = torch.arange(low, max(low, high))
            mask = (at >= first[rows, None]) & (at < stop[rows, None])
            if mask.any():
                keys = slice(low, high)
                given.append(
                    (view.q[:, :, rows], view.k[:, :, keys], v[:, :, keys], mask.to(v.device))
                )
        outs.append(checkpoint(_masked, given, scale, softcap, use_reentrant=False))
    return torch.cat(outs, 2)


def _masked(
    given: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], scale: float, softcap: float | None
) -> Tensor:
    """One softmax over all; of each, queries, keys, values, and which are seen."""
    scores, values = [], []
    with torch.autocast(given[0][0].device.type, enabled=False):
        for q, k, v, mask in given:
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1).float() for x in (k, v))
            found = q.float() @ k.mT * scale
            if softcap:
                found = softcap * torch.tanh(found / softcap)
            scores.append(found.masked_fill(~mask, -torch.inf))
            values.append(v)
        weights = torch.cat(scores, -1).softmax(-1)
        return (weights @ torch.cat(values, 2)).to(given[0][0].dtype)


def _by_rows(
    q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None, softcap: float | None
) -> Tensor:
    own = torch.arange(k.shape[2] - q.shape[2], k.shape[2])
    return _in_parts([View(q, k, 0 * own, own + 1)], v, scale, window, softcap)


def _refuse(mask: Tensor | None, dropout: float) -> None:
    if mask is not None or dropout:
        what = "a mask" if mask is not None else "dropout"
        raise ValueError(
            f"The attention {INTERFACE!r} takes no {what}; "
            "train on whole sequences without dropout, or use 'sdpa'."
        )


def in_parts_of_a_layer(
    views: Sequence[View],
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
    **_: object,
) -> Tensor:
    """Attention of several views under one softmax, (batch, heads, queries, dim), as `Attend`'s."""
    _refuse(attention_mask, dropout)
    (value,) = _as_autocast_would(value)
    views = [view._replace(**_cast(q=view.q, k=view.k)) for view in views]
    return _in_parts(views, value, scaling, sliding_window, softcap)


def _cast(**tensors: Tensor) -> dict[str, Tensor]:
    return dict(zip(tensors, _as_autocast_would(*tensors.values()), strict=True))


def of_a_layer(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention as transformers' interface asks for it."""
    _refuse(attention_mask, dropout)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    clipped = sliding_window if sliding_window and key.shape[2] > sliding_window else None
    if clipped or softcap or query.shape[2] != key.shape[2]:
        qkv = _as_autocast_would(query, key, value)
        out = _by_rows(*qkv, scale, clipped, softcap)
    else:
        out = attention(query, key, value, scale)
    return out.transpose(1, 2), None


AttentionInterface.register(INTERFACE, of_a_layer)
