"""Llama 3.1's scaling: as NTK-by-parts, but blended over few channels and linear in turns.

Grattafiori et al. 2024, https://arxiv.org/abs/2407.21783; the released code has the formula.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

from torch import Tensor

from harness.method import Recipe
from harness.recipes import COMPARISON
from harness.rope import Rope
from harness.rotary import RotaryMethod


@dataclass(frozen=True, kw_only=True)
class Llama3(RotaryMethod):
    formula = (
        "theta'_i = (1 - m_i) theta_i / s + m_i theta_i, "
        "m_i = clip((L0 theta_i / 2 pi - low) / (high - low), 0, 1)"
    )
    paper = "Grattafiori et al. 2024, https://arxiv.org/abs/2407.21783"
    recipes: ClassVar[Mapping[str, Recipe]] = {"comparison": COMPARISON}

    low_freq_factor: float = 1.0
    """Channels that turn less often than this within the trained window are interpolated."""
    high_freq_factor: float = 4.0
    """Channels that turn more often than this keep their frequency."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not inf > self.high_freq_factor > self.low_freq_factor > 0:
            raise ValueError(
                "high_freq_factor must be above low_freq_factor, and both above 0; "
                f"they are {self.high_freq_factor:g} and {self.low_freq_factor:g}."
            )

    def frequencies(self, rope: Rope, scale: float) -> Tensor:
        return rope.by_turns(scale, self.low_freq_factor, self.high_freq_factor)

    def native(self, rope: Rope, length: int) -> dict[str, Any]:
        return {
            "rope_type": "llama3",
            "factor": self.scale(rope, length),
            "low_freq_factor": self.low_freq_factor,
            "high_freq_factor": self.high_freq_factor,
            "original_max_position_embeddings": rope.original_length,
        }


method = Llama3()
