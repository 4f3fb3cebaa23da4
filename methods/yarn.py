"""YaRN: interpolate slow channels, leave fast ones, blend in between, and sharpen attention.

Peng et al. 2023, https://arxiv.org/abs/2309.00071
"""

from dataclasses import dataclass
from math import inf

from harness.rotary import ByParts, Rope, yarn_attention_factor


@dataclass(frozen=True, kw_only=True)
class YaRN(ByParts):
    formula = (
        "theta'_i = (1 - m_i) theta_i / s + m_i theta_i, m_i from 1 (fast) to 0 (slow); "
        "cos and sin times 0.1 ln s + 1"
    )
    paper = "Peng et al. 2023, https://arxiv.org/abs/2309.00071"

    attention: float | None = None
    """What cos and sin are multiplied by; None: 0.1 ln s + 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attention is not None and not 0 < self.attention < inf:
            raise ValueError(f"attention must be a number above 0, not {self.attention:g}.")

    def attention_factor(self, rope: Rope, scale: float) -> float:
        return yarn_attention_factor(scale) if self.attention is None else self.attention


method = YaRN()
