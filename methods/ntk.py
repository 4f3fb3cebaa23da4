"""NTK-aware scaling: raise the base, so that slow channels stretch and fast ones hardly do.

bloc97 2023, https://www.reddit.com/r/LocalLLaMA/comments/14lz7j5/
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from harness.rotary import Rope, RotaryMethod


@dataclass(frozen=True, kw_only=True)
class NTKAware(RotaryMethod):
    formula = "theta'_i = b'^(-2i/d), b' = b s^(d/(d-2))"
    paper = "bloc97 2023, https://www.reddit.com/r/LocalLLaMA/comments/14lz7j5/"

    def frequencies(self, rope: Rope, scale: float) -> Tensor:
        return rope.ntk_aware(scale)

    def native(self, rope: Rope, length: int) -> dict[str, Any]:
        return {"rope_type": "default", "rope_theta": rope.ntk_base(self.scale(rope, length))}


method = NTKAware()
