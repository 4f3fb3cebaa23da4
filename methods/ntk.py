"""NTK-aware scaling: raise the base, so that slow channels stretch and fast ones hardly do.

bloc97 2023, https://www.reddit.com/r/LocalLLaMA/comments/14lz7j5/
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from harness.method import Recipe
from harness.rotary import Rope, RotaryMethod

PAPER = Recipe(
    sequence_length=32768,
    steps=120,
    batch_tokens=256 * 32768,
    learning_rate=2e-5,
    schedule="linear",
    warmup=20,
    factor=29,
    data="SlimPajama, 1B tokens, each source down-sampled",
    sources={
        "sequence_length": "LCEG (Lu et al. 2024), https://arxiv.org/abs/2409.12181: NTK-32k",
        "steps": "LCEG: 30,774 sequences read once, 256 an update",
        "batch_tokens": "LCEG: 8 devices x 1 sequence x 32 accumulated",
        "learning_rate": "LCEG's scripts",
        "schedule": "LCEG's DeepSpeed file: WarmupDecayLR",
        "warmup": "LCEG's scripts",
        "weight_decay": "LCEG's scripts",
        "betas": "the default of transformers' Trainer; not re-checked in LCEG's scripts",
        "clip": "the default of transformers' Trainer; not re-checked in LCEG's scripts",
        "factor": "LCEG: dynamic factor 4 on full sequences, 4 x 32768 / 4096 - (4 - 1) = 29",
        "trains": "LCEG: all weights",
        "data": "LCEG",
        "seed": "the default of transformers' Trainer",
    },
    disagreements=(
        "NTK-aware scaling was published without any training: this is that of LCEG's comparison.",
        "LCEG's command line says constant_with_warmup; its DeepSpeed file decays linearly, and is "
        "what Trainer follows.",
        "YaRN's 8k ablation trains it with the base set to 20,000, a factor of 2 by name.",
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
