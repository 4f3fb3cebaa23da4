"""ALiBi without a matrix of biases, and the families that were trained with it: BLOOM and MPT.

Press et al. 2022, https://arxiv.org/abs/2108.12409. These two write attention out in a forward of
their own, scores and bias for every pair; while the engine runs, its attention stands in.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import pad

from harness.engine.bend import Attend, Bend
from harness.families import attention_layers


def slopes(heads: int) -> list[float]:
    """The m_h: a geometric series down to 2^-8.

    Where the number of heads is no power of two, that of the next lower one, then every other slope
    of twice as many heads (the released code; section 3 of the paper names the series alone).
    """
    power = 2 ** (heads.bit_length() - 1)
    series = [2.0 ** (-8 * h / power) for h in range(1, power + 1)]
    between = [2.0 ** (-4 * h / power) for h in range(1, 2 * power + 1, 2)]
    return series + between[: heads - power]


class Biased(Bend):
    """Adds the bias through channels of its own, so that every kernel there is can serve.

    A constant over a query's scores changes nothing, so -m (i - j) is as good as -m (S - 1 - j),
    which is a product of something of the query's head with something of the key. Both are written
    as sums that bfloat16 holds exactly: the distance in three digits to the base 256, the slope in
    three parts of 8 bits.
    """

    WIDTH = 16
    """Channels it takes of a head, 9 of them in use: kernels like multiples of 16."""

    def __init__(self, slopes: list[float]) -> None:
        self.slopes = slopes
        self._away = torch.empty(0)

    def __call__(
        self, attend: Attend, q: Tensor, k: Tensor, v: Tensor, *, scale: float, training: bool
    ) -> Tensor:
        toward = _here(self._of_heads(scale), q.shape[1]).to(q)[:, None].expand(*q.shape[:3], -1)
        wide, away = torch.cat([q, toward], -1), self._of_keys(k.shape[2], q)
        return attend(wide, k, v, scale=scale, more=away)[..., : v.shape[-1]]

    def _of_heads(self, scale: float) -> Tensor:
        """Parts of -m_h / scale, each times 1, 16 and 256; (heads, WIDTH)."""
        rest, parts = -torch.tensor(self.slopes, dtype=torch.float64) / scale, []
        for _ in range(3):
            part = rest.bfloat16().double()
            parts += [part, part * 16, part * 256]
            rest = rest - part
        return pad(torch.stack(parts, -1), (0, self.WIDTH - len(parts)))

    def _of_keys(self, keys: int, q: Tensor) -> Tensor:
        """Digits of S - 1 - j: 1, 16 and 256 of their 1, 256 and 65536; (S, WIDTH).

        Those of many keys end in those of fewer, so they are made once for many blocks.
        """
        kept = self._away
        if len(kept) < keys or (kept.dtype, kept.device) != (q.dtype, q.device):
            with torch.inference_mode(False):  # for training may follow
                back = torch.arange(2 ** keys.bit_length() - 1, -1, -1, device=q.device)
                self._away = q.new_zeros(len(back), self.WIDTH)
                digits = back % 256, back // 256 % 256 * 16, back // 65536 * 256
                for i, digit in enumerate(digits):
                    self._away[:, i:9:3] = digit[:, None]
        return self._away[-keys:]


def _here(of_heads: Tensor, heads: int) -> Tensor:
    """Of those heads that lie here, where ranks share a layer's."""
    if heads == len(of_heads):
        return of_heads
    return of_heads.split(heads)[dist.get_rank()]


@contextmanager
def standing_in(model: nn.Module, attention: Callable[..., tuple[Tensor, None]]) -> Iterator[None]:
    """Let a BLOOM or an MPT attend through `attention` for a while.

    Args:
        model: of a family that is `biased`.
        attention: as transformers' attention interface has it; it finds the bias as a bend.
    """
    layers = attention_layers(model.get_decoder())
    bias = Biased(slopes(int(model.config.num_attention_heads)))
    forward = FORWARDS[model.config.model_type]
    for layer in layers:
        layer.bend, layer.forward = bias, partial(forward, attention, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.bend, layer.forward


def _bloom(
    attention: Callable[..., tuple[Tensor, None]],
    layer: Any,
    hidden: Tensor,
    residual: Tensor,
    layer_past: Any,
    **_: object,
) -> tuple[Tensor, None]:
    q, k, v = layer._reshape(layer.query_key_value(hidden))
    k, v = layer_past.update(k, v, layer.layer_idx)
    out, none = attention(layer, q, k, v, None, scaling=layer.inv_norm_factor)
    return layer.dense(out.flatten(2)) + residual, none


def _mpt(
    attention: Callable[..., tuple[Tensor, None]],
    layer: Any,
    hidden: Tensor,
    past_key_values: Any,
    **_: object,
) -> tuple[Tensor, None]:
    mixed = layer.Wqkv(hidden)
    if layer.clip_qkv:
        mixed = mixed.clamp(-layer.clip_qkv, layer.clip_qkv)
    parts = mixed.chunk(3, 2)
    q, k, v = (x.unflatten(2, (layer.n_heads, layer.head_dim)).transpose(1, 2) for x in parts)
    k, v = past_key_values.update(k, v, layer.layer_idx)
    out, none = attention(layer, q, k, v, None, scaling=layer.softmax_scale)
    return layer.out_proj(out.flatten(2)), none


FORWARDS = {"bloom": _bloom, "mpt": _mpt}
