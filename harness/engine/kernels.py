"""The attention kernels this machine has, behind one signature that also gives the log-sum-exp.

Each reads (batch, heads, tokens, head_dim) and may be given fewer key heads than query heads:
repeating keys for grouped queries would cost time and memory for the same numbers. These torch
operators are private, so tests hold them to this contract. CONTEXT_HARNESS_KERNEL=stock keeps to
torch's on a processor.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module

import torch
from torch import Tensor

from harness.engine import native

KEYS, SCORES = 4096, 2**24
"""Of `tiled`: keys and scores that are alive at a time."""


@dataclass(frozen=True)
class Kernel:
    """One way to attend: `call(q, k, v, causal, scale)` -> output, log-sum-exp over the keys.

    Causal only where queries and keys are equally many: kernels disagree on how to align others.
    """

    name: str
    call: Callable[[Tensor, Tensor, Tensor, bool, float], tuple[Tensor, Tensor]]


def torch_cpu(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Flash attention of torch for processors."""
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, 0.0, causal, scale=scale
    )


def native_cpu(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """The kernel of `harness.engine.native`, and torch's for what it does not fit."""
    kernel = native.attention if native.fits(q, k, v, scale) else torch_cpu
    return kernel(q, k, v, causal, scale)


def torch_cuda(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Flash attention of torch for GPUs."""
    # Fewer key heads need no repeating: torch's own grouped attention hands them to this operator
    # as they are, and `mha_fwd` in its flash_api.cpp only asks that they divide the query heads.
    dim = q.shape[-1]
    if dim % 8:  # padding by nothing would still copy every key
        q, k, v = (torch.nn.functional.pad(x, (0, -dim % 8)) for x in (q, k, v))
    out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
        q, k, v, 0.0, causal, False, scale=scale
    )
    return out[..., :dim], lse[..., : q.shape[2]]  # some operators pad lse; today's does not


def flash_attn(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float, softcap: float | None = None
) -> tuple[Tensor, Tensor]:
    """The package of that name, which caps logits, too (Dao 2023)."""
    from flash_attn import flash_attn_func

    out, lse, _ = flash_attn_func(
        *(x.transpose(1, 2) for x in (q, k, v)),
        softmax_scale=scale,
        causal=causal,
        softcap=softcap or 0.0,
        return_attn_probs=True,
    )
    return out.transpose(1, 2), lse


def tiled(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float, softcap: float | None = None
) -> tuple[Tensor, Tensor]:
    """Plain matrix products in float32, a tile of queries and keys at a time.

    For what no kernel offers: capped logits (Gemma 2) without flash-attn, float32, wide heads or
    an old chip on a GPU.
    """
    size = max(1, SCORES // (KEYS * q.shape[1]))
    parts = [
        _tile(q[:, :, start : start + size], k, v, start if causal else None, scale, softcap)
        for start in range(0, q.shape[2], size)
    ]
    return tuple(torch.cat(each, 2) for each in zip(*parts, strict=True))


def _tile(
    q: Tensor, k: Tensor, v: Tensor, first: int | None, scale: float, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """Some queries over all keys, the first of them up to key `first`; by an online softmax.

    Heads that share keys lie below one another, so that no key is repeated for them. Dao 2023,
    algorithm 1, https://arxiv.org/abs/2307.08691
    """
    groups, count = q.shape[1] // k.shape[1], q.shape[2]
    folded = q.unflatten(1, (k.shape[1], groups)).flatten(2, 3).float()
    seen = k.shape[2] if first is None else first + count
    last = torch.arange(seen - count, seen, device=q.device).repeat(groups)
    top, total, out = folded.new_full(folded.shape[:3], -torch.inf), 0.0, 0.0
    for start in range(0, seen, KEYS):
        stop = min(start + KEYS, seen)
        keys, values = (x[:, :, start:stop].float() for x in (k, v))
        scores = folded @ keys.mT * scale
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        if first is not None:
            future = torch.arange(start, stop, device=q.device) > last[:, None]
            scores = scores.masked_fill(future, -torch.inf)
        before, top = top, torch.maximum(top, scores.amax(-1))
        less, weights = torch.exp(before - top), torch.exp(scores - top[..., None])
        total = total * less + weights.sum(-1)
        out = out * less[..., None] + weights @ values
    found = (out / total[..., None]).to(q.dtype), top + total.log()
    return tuple(x.unflatten(2, (groups, count)).flatten(1, 2) for x in found)


@cache
def chosen(device: str, dtype: torch.dtype = torch.bfloat16, head_dim: int = 64) -> Kernel:
    """The fastest kernel here that can do this dtype and head dimension."""
    if device == "cpu":
        stock = os.environ.get("CONTEXT_HARNESS_KERNEL") == "stock"
        if not stock and native.supported(dtype, head_dim) and native.library():
            return Kernel("native-avx512-bf16", native_cpu)
        return Kernel("torch-flash-cpu", torch_cpu)
    if dtype in (torch.float16, torch.bfloat16) and head_dim <= 256 and not _before_ampere():
        if _flash_attn_works():
            return Kernel("flash-attn", flash_attn)
        return Kernel("torch-flash-cuda", torch_cuda)
    return Kernel("tiled-float32", tiled)


def kernel_for(
    device: str, dtype: torch.dtype, head_dim: int, softcap: float | None = None
) -> Kernel:
    """The kernel that really runs, capped logits included, under the name results record."""
    kernel = chosen(device, dtype, head_dim)
    if not softcap:
        return kernel
    if kernel.call is not flash_attn:  # torch's operators cap nothing
        kernel = Kernel("tiled-float32", tiled)
    return Kernel(kernel.name, partial(kernel.call, softcap=softcap))


def _before_ampere() -> bool:
    """Neither flash kernel runs on such a GPU, torch's included: both raise."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0)


def _flash_attn_works() -> bool:
    """To be installed is not enough: one built for another torch fails to import."""
    try:
        return hasattr(import_module("flash_attn"), "flash_attn_func")  # version 4 has none
    except ImportError:
        return False
