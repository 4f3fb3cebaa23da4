"""YaRN: interpolate slow channels, leave fast ones, blend in between, and sharpen attention.

Peng et al. 2023, https://arxiv.org/abs/2309.00071
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar

from harness.method import Recipe
from harness.rope import Rope, yarn_attention_factor
from harness.rotary import ByParts

PAPER = Recipe(
    sequence_length=65536,
    steps=400,
    batch_tokens=64 * 65536,
    learning_rate=2e-5,
    schedule="linear",
    warmup=20,
    betas=(0.9, 0.95),
    clip=None,
    factor=16,
    data="PG19, in chunks of 65,536 tokens with start and end tokens",
    sources={
        "sequence_length": "section 4.1; finetune.py",
        "steps": "section 4.1; finetune.py",
        "batch_tokens": "section 4.1: 64 sequences; finetune.py: 8 devices x 1 x 8 accumulated",
        "learning_rate": "section 4.1; finetune.py",
        "schedule": "finetune.py; the paper names only the warm-up",
        "warmup": "section 4.1; finetune.py",
        "weight_decay": "section 4.1",
        "betas": "section 4.1",
        "clip": "finetune.py: --grad-norm is a switch that is read as a number, so it never clips",
        "factor": "section 4.1, of LLaMA-2",
        "trains": "section 4.1: all weights, by FSDP",
        "data": "section 4.1; finetune.py",
        "seed": "finetune.py",
    },
    disagreements=(
        "The paper has AdamW with betas 0.9 and 0.95 and no decay; without DeepSpeed the code "
        "takes torch's defaults, 0.9, 0.999 and a weight decay of 0.01.",
        "On 8 devices without DeepSpeed the schedule is stepped 8 times an update: the rate is at "
        "0 after 50 of the 400.",
        "The paper's ramp is linear in turns, the code's in the pair's index; this is the code's.",
        "Here a start token stands before each document, and no end token behind it.",
    ),
)
LONGER = replace(
    PAPER,
    steps=200,
    factor=32,
    seed=31337,
    data="the same as for s = 16, from the model that was trained on it",
    sources={
        **PAPER.sources,
        "steps": "section 4.1: so many more, from the model of s = 16",
        "factor": "section 4.1; the sequences stay at 65,536 tokens",
        "seed": "the repository's train.sh",
    },
)


@dataclass(frozen=True, kw_only=True)
class YaRN(ByParts):
    formula = (
        "theta'_i = (1 - m_i) theta_i / s + m_i theta_i, m_i from 1 (fast) to 0 (slow); "
        "cos and sin times 0.1 ln s + 1"
    )
    paper = "Peng et al. 2023, https://arxiv.org/abs/2309.00071"
    recipes: ClassVar[Mapping[str, Recipe]] = {"paper": PAPER, "128k": LONGER}

    attention: float | None = None
    """What cos and sin are multiplied by; None: 0.1 ln s + 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attention is not None and not 0 < self.attention < inf:
            raise ValueError(f"attention must be a number above 0, not {self.attention:g}.")

    def attention_factor(self, rope: Rope, scale: float) -> float:
        return yarn_attention_factor(scale) if self.attention is None else self.attention


method = YaRN()
