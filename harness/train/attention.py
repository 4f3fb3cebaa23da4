"""Causal attention to train through: no mask, no scores kept, and a recomputation saved.

Checkpointed layers run twice, attention with them, though its output and log-sum-exp are all that
its backward needs besides its inputs: FlashAttention-2, section 3.1, https://arxiv.org/abs/2307.08691
As one operator that gives both, attention is something a checkpoint can keep (`checkpoint_context`)
while it recomputes the rest. Inputs are whole sequences: no padding, no packing.
"""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts
from transformers import AttentionInterface

from harness.engine import native
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
        return scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )
    return torch.ops.context_harness.attention(q, k, v, scale)[0]


def checkpoint_context() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """What `torch.utils.checkpoint` takes as `context_fn`: attention is kept, the rest recomputed.

    In transformers, `gradient_checkpointing_kwargs={"use_reentrant": False, "context_fn": ...}`.
    """
    return create_selective_checkpoint_contexts(_KEPT)


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


def _as_autocast_would(*tensors: Tensor) -> tuple[Tensor, ...]:
    """In autocast's dtype, where that is on: rotary tables may have made queries float32."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(x.to(torch.get_autocast_dtype(device)) for x in tensors)


def _by_rows(
    q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None, softcap: float | None
) -> Tensor:
    """What no kernel offers, some queries at a time over the keys that they see.

    Queries are the last of the positions. Each stretch's scores are recomputed for its gradient.
    """
    past, outs = k.shape[2] - q.shape[2], []
    for start in range(past, k.shape[2], ROWS):
        stop = min(start + ROWS, k.shape[2])
        first = 0 if window is None else max(0, start + 1 - window)
        rows = q[:, :, start - past : stop - past]
        seen = slice(first, stop)
        behind = torch.arange(start, stop, device=q.device)[:, None] - torch.arange(
            first, stop, device=q.device
        )
        mask = behind >= 0 if window is None else (behind >= 0) & (behind < window)
        given = (rows, k[:, :, seen], v[:, :, seen], mask, scale, softcap)
        outs.append(checkpoint(_masked, *given, use_reentrant=False))
    return torch.cat(outs, 2)


def _masked(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, softcap: float | None
) -> Tensor:
    groups = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(groups, 1) for x in (k, v))
    with torch.autocast(q.device.type, enabled=False):
        scores = q.float() @ k.float().mT * scale
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        return (scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v.float()).to(q.dtype)


def _of_a_layer(
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
    if attention_mask is not None or dropout:
        what = "a mask" if attention_mask is not None else "dropout"
        raise ValueError(
            f"The attention {INTERFACE!r} takes no {what}; "
            "train on whole sequences without dropout, or use 'sdpa'."
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    clipped = sliding_window if sliding_window and key.shape[2] > sliding_window else None
    if clipped or softcap or query.shape[2] != key.shape[2]:
        qkv = _as_autocast_would(query, key, value)
        out = _by_rows(*qkv, scale, clipped, softcap)
    else:
        out = attention(query, key, value, scale)
    return out.transpose(1, 2), None


AttentionInterface.register(INTERFACE, _of_a_layer)
