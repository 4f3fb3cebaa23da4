"""ALiBi: no rotary embedding; each head likes a token the less, the further back it is.

Press et al. 2022, https://arxiv.org/abs/2108.12409
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from harness.attention import Attend, Bend, bent, straight
from harness.method import Method, Recipe
from harness.recipes import COMPARISON_4K
from harness.rope import Rope
from harness.rotation import unturned

PAPER = replace(
    COMPARISON_4K,
    sources={
        **COMPARISON_4K.sources,
        "sequence_length": "CLEX's table 1, https://arxiv.org/abs/2310.16450: row ALiBi-4k",
    },
    disagreements=(
        *COMPARISON_4K.disagreements,
        "Press et al. train models with it from nothing; CLEX's row swaps it in for the rotary "
        "embedding of LLaMA-2.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class ALiBi(Method):
    """Swapped into a model that was trained to rotate, it reads nothing until it is fine-tuned."""

    formula = "softmax(q_i k_j / sqrt(d) - m_h (i - j)), m_h = 2^(-8h/H), h = 1 .. H"
    paper = "Press et al. 2022, https://arxiv.org/abs/2108.12409"
    recipes: ClassVar[Mapping[str, Recipe]] = {"paper": PAPER}
    bends: ClassVar[bool] = True

    @contextmanager
    def applied_to(self, model: nn.Module, length: int) -> Iterator[None]:
        bias = Biased(slopes(_heads(model)))
        with unturned(model), bent(model, lambda _: bias):
            yield

    def unfit(self, model: nn.Module, length: int) -> str | None:
        try:
            Rope.of(model)
        except LookupError as error:
            return str(error)
        config = model.config.get_text_config()
        if getattr(config, "attn_logit_softcapping", None):
            return f"A {config.model_type} caps its scores, and would cap the bias with them."
        return straight(model)

    def provenance(self, model: nn.Module, length: int) -> dict[str, Any]:
        return {
            "factor": None,
            "attention_factor": 1.0,
            "frequencies": [0.0] * (Rope.of(model).dim // 2),
            "slopes": slopes(_heads(model)),
        }


def _heads(model: nn.Module) -> int:
    return int(model.config.get_text_config().num_attention_heads)


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
        toward = self._of_heads(scale).to(q)[:, None].expand(*q.shape[:3], -1)
        away = self._of_keys(k).expand(*k.shape[:3], -1)
        q, k = torch.cat([q, toward], -1), torch.cat([k, away], -1)
        return attend(q, k, pad(v, (0, self.WIDTH)), scale=scale)[..., : v.shape[-1]]

    def _of_heads(self, scale: float) -> Tensor:
        """Parts of -m_h / scale, each times 1, 16 and 256; (heads, WIDTH)."""
        rest, parts = -torch.tensor(self.slopes, dtype=torch.float64) / scale, []
        for _ in range(3):
            part = rest.bfloat16().double()
            parts += [part, part * 16, part * 256]
            rest = rest - part
        return pad(torch.stack(parts, -1), (0, self.WIDTH - len(parts)))

    def _of_keys(self, k: Tensor) -> Tensor:
        """Digits of S - 1 - j: 1, 16 and 256 of their 1, 256 and 65536; (S, WIDTH).

        Those of many keys end in those of fewer, so they are made once for many blocks.
        """
        keys, kept = k.shape[2], self._away
        if len(kept) < keys or (kept.dtype, kept.device) != (k.dtype, k.device):
            with torch.inference_mode(False):  # for training may follow
                back = torch.arange(2 ** keys.bit_length() - 1, -1, -1, device=k.device)
                digits = [back % 256, back // 256 % 256 * 16, back // 65536 * 256]
                columns = torch.stack([digit.to(k.dtype) for digit in digits] * 3, -1)
                self._away = pad(columns, (0, self.WIDTH - columns.shape[1]))
        return self._away[-keys:]


method = ALiBi()
