"""Position Interpolation: squeeze every position back into the window the model knows.

Chen et al. 2023, https://arxiv.org/abs/2306.15595
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from harness.rotary import Rope, RotaryMethod


@dataclass(frozen=True, kw_only=True)
class PositionInterpolation(RotaryMethod):
    formula = "theta'_i = theta_i / s"
    paper = "Chen et al. 2023, https://arxiv.org/abs/2306.15595"

    def frequencies(self, rope: Rope, scale: float) -> Tensor:
        return rope.interpolated(scale)

    def native(self, rope: Rope, length: int) -> dict[str, Any]:
        return {"rope_type": "linear", "factor": self.scale(rope, length)}


method = PositionInterpolation()
