"""NTK-aware scaling: raise the base, so that slow channels stretch and fast ones hardly do.

bloc97 2023, https://www.reddit.com/r/LocalLLaMA/comments/14lz7j5/
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from harness.method import Recipe
from harness.recipes import LCEG
from harness.rope import Rope
from harness.rotary import RotaryMethod

PAPER = replace(
    LCEG,
    factor=8,
    sources={**LCEG.sources, "factor": "LCEG: rows trained at 32k, over LLaMA-2's 4,096"},
    disagreements=(
        *LCEG.disagreements,
        "It was published without training: this is LCEG's row. There the base is raised as by a "
        "factor of 29 (dynamic, factor 4, frozen at 32k: 4 x 8 - 3).",
    ),
)


@dataclass(frozen=True, kw_only=True)
class NTKAware(RotaryMethod):
    formula = "theta'_i = b'^(-2i/d), b' = b s^(d/(d-2))"
    paper = "bloc97 2023, https://www.reddit.com/r/LocalLLaMA/comments/14lz7j5/"
    recipes: ClassVar[Mapping[str, Recipe]] = {"paper": PAPER}

    def frequencies(self, rope: Rope, scale: float) -> Tensor:
        return rope.ntk_aware(scale)

    def native(self, rope: Rope, length: int) -> dict[str, Any]:
        return {"rope_type": "default", "rope_theta": rope.ntk_base(self.scale(rope, length))}


method = NTKAware()
