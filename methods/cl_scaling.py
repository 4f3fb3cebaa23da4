"""Code Llama's scaling: a larger base, whatever the length; meant to be fine-tuned with.

Rozière et al. 2023, section 2.4, https://arxiv.org/abs/2308.12950
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

from harness.method import Recipe
from harness.rope import Encoding, Rope
from harness.rotary import Reencoding

PAPER = Recipe(
    sequence_length=16384,
    steps=10_000,
    batch_tokens=2 * 2**20,
    learning_rate=2e-5,
    schedule="cosine",
    warmup=1000,
    weight_decay=0.1,
    betas=(0.9, 0.95),
    data="Code Llama's own mixture, mostly code",
    sources={
        "sequence_length": "section 2.6 (not re-checked)",
        "steps": "section 2.6: by default; 3,000 of 7B, 11,000 of 34B (not re-checked)",
        "batch_tokens": "section 2.6: 2M tokens of 7B and 13B, 1M of 34B (not re-checked)",
        "learning_rate": "section 2.6 (not re-checked)",
        "schedule": "section 2.6, of the training before it (not re-checked)",
        "warmup": "section 2.6, of the training before it (not re-checked)",
        "weight_decay": "the paper is silent; this is LLaMA-2's",
        "betas": "section 2.6 (not re-checked)",
        "clip": "the paper is silent; this is LLaMA-2's",
        "trains": "section 2.4: a stage of full fine-tuning (not re-checked)",
        "data": "section 2.2 (not re-checked)",
        "seed": "the paper is silent",
    },
    disagreements=(
        "The paper's cosine ends at a thirtieth of its highest rate, this one at 0.",
        "No training code was published. CLEX's row CL-Scaling has the base of this one and the "
        "training of its other rows: 2B tokens of RedPajama-Book at 16,384.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class BaseChange(Reencoding):
    """Takes no factor: the base is the method."""

    formula = "theta'_i = b'^(-2i/d), b' = 100 b or as given"
    paper = "Rozière et al. 2023, https://arxiv.org/abs/2308.12950"
    recipes: ClassVar[Mapping[str, Recipe]] = {"paper": PAPER}

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
