"""Code Llama's scaling: a larger base, whatever the length; meant to be fine-tuned with.

Rozière et al. 2023, section 2.4, https://arxiv.org/abs/2308.12950
"""

from dataclasses import dataclass
from math import inf
from typing import Any

from harness.rotary import Encoding, Reencoding, Rope


@dataclass(frozen=True, kw_only=True)
class BaseChange(Reencoding):
    """Takes no factor: the base is the method."""

    formula = "theta'_i = b'^(-2i/d), b' = 100 b or as given"
    paper = "Rozière et al. 2023, https://arxiv.org/abs/2308.12950"

    base: float | None = None
    """b'; None: 100 times the model's own, as Code Llama went from 10^4 to 10^6."""

    def __post_init__(self) -> None:
        if self.base is not None and not 1 < self.base < inf:
            raise ValueError(f"A base must be a number above 1, not {self.base:g}.")

    def encoding(self, rope: Rope, length: int) -> Encoding:
        return Encoding(frequencies=rope.with_base(self.base or 100 * rope.theta))

    def resolved(self, rope: Rope, length: int) -> dict[str, Any]:
        return {"base": self.base or 100 * rope.theta} | super().resolved(rope, length)

    def native(self, rope: Rope, length: int) -> dict[str, Any]:
        return {"rope_type": "default", "rope_theta": self.base or 100 * rope.theta}


method = BaseChange()
