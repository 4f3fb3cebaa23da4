"""Dynamic NTK: raise the base with the input's length, so that short inputs stay as they were.

emozilla 2023, https://www.reddit.com/r/LocalLLaMA/comments/14mrgpr/
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from harness.rope import Rope
from harness.rotary import RotaryMethod


@dataclass(frozen=True, kw_only=True)
class DynamicNTK(RotaryMethod):
    formula = "theta'_i = b'^(-2i/d), b' = b (f n/L0 - (f - 1))^(d/(d-2)), n the input's length"
    paper = "emozilla 2023, https://www.reddit.com/r/LocalLLaMA/comments/14mrgpr/"
    depends_on_length = True

    factor: float = 1.0
    """f, how fast the base grows with the input; 1: exactly as NTK-aware scaling by n / L0."""

    def scale(self, rope: Rope, length: int) -> float:
        return max(1.0, length / rope.original_length)

    def made_for(self, model: nn.Module) -> float | None:
        return None  # its factor says how fast, not how far

    def frequencies(self, rope: Rope, scale: float) -> Tensor:
        growth = self.factor * scale - (self.factor - 1)
        return rope.with_base(rope.theta * growth ** (rope.dim / (rope.dim - 2)))

    def native(self, rope: Rope, length: int) -> dict[str, Any]:
        return {"rope_type": "dynamic", "factor": self.factor}


method = DynamicNTK()
