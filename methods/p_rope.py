"""p-RoPE: rotate the fastest channels only; the slow ones, which carry meaning, stand still.

Barbero et al. 2024, https://arxiv.org/abs/2410.06205. The paper trains with it from nothing, best
with p = 0.75; a model that learned to rotate them all loses what the slow ones told it of far keys.
"""

from dataclasses import dataclass

from harness.rope import Encoding, Rope
from harness.rotary import Reencoding


@dataclass(frozen=True, kw_only=True)
class PRoPE(Reencoding):
    formula = "theta'_i = theta_i for i < p d / 2, else 0"
    paper = "Barbero et al. 2024, https://arxiv.org/abs/2410.06205"

    p: float = 0.75
    """The share of channels that rotate, fastest first; 1: all, 0: NoPE."""

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"p is a share from 0 to 1, not {self.p:g}.")

    def encoding(self, rope: Rope, length: int) -> Encoding:
        frequencies = rope.frequencies.clone()
        frequencies[int(self.p * (rope.dim // 2)) :] = 0
        return Encoding(frequencies=frequencies)


method = PRoPE()
