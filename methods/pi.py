"""Position Interpolation: squeeze every position back into the window the model knows.

Chen et al. 2023, https://arxiv.org/abs/2306.15595
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from harness.method import Recipe
from harness.rope import Rope
from harness.rotary import RotaryMethod

PAPER = Recipe(
    sequence_length=8192,
    steps=1000,
    batch_tokens=64 * 8192,
    learning_rate=2e-5,
    schedule="constant",
    warmup=20,
    betas=(0.9, 0.95),
    factor=4,
    data="The Pile",
    sources={
        "sequence_length": "section 3.1, of LLaMA 7B to 33B (not re-checked)",
        "steps": "section 3.1 (not re-checked)",
        "batch_tokens": "section 3.1: 64 sequences, of LLaMA 7B to 33B (not re-checked)",
        "learning_rate": "section 3.1, of 7B and 13B; 1e-5 of 33B and 65B (not re-checked)",
        "schedule": "section 3.1 names a warm-up and nothing after it (not re-checked)",
        "warmup": "section 3.1, from a tenth of the rate (not re-checked)",
        "weight_decay": "section 3.1 (not re-checked)",
        "betas": "section 3.1 (not re-checked)",
        "clip": "the paper is silent; 1 is what LLaMA was trained with",
        "factor": "8,192 tokens over LLaMA's 2,048",
        "trains": "section 3.1: full fine-tuning (not re-checked)",
        "data": "section 3.1; RedPajama for comparison in section 3.4 (not re-checked)",
        "seed": "the paper is silent",
    },
    disagreements=(
        "No code was published. CLEX's comparison trains PI at 16,384 tokens on 2B tokens; LCEG's "
        "at 32,768 tokens, s = 8, in about 120 updates of 8.4M tokens.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class PositionInterpolation(RotaryMethod):
    formula = "theta'_i = theta_i / s"
    paper = "Chen et al. 2023, https://arxiv.org/abs/2306.15595"
    recipes: ClassVar[Mapping[str, Recipe]] = {"paper": PAPER}

    def frequencies(self, rope: Rope, scale: float) -> Tensor:
        return rope.interpolated(scale)

    def native(self, rope: Rope, length: int) -> dict[str, Any]:
        return {"rope_type": "linear", "factor": self.scale(rope, length)}


method = PositionInterpolation()
