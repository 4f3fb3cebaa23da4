"""LongLoRA: fine-tune cheaply, in groups that half of the heads shift; then read in full.

Chen et al. 2023, https://arxiv.org/abs/2309.12307. Position Interpolation by its encoding; adapters
of attention, embeddings and norms by its recipe; shifted sparse attention (S2-Attn) in training.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from harness.attention import Attend, Bend, bent
from harness.method import Recipe
from harness.rope import Rope
from harness.rotary import RotaryMethod

PAPER = Recipe(
    sequence_length=32768,
    steps=1000,
    batch_tokens=64 * 32768,
    learning_rate=2e-5,
    schedule="constant",
    warmup=20,
    betas=(0.9, 0.95),
    factor=8,
    trains="lora",
    also=("embed", "norm"),
    rank=8,
    alpha=16,
    data="RedPajama",
    sources={
        "sequence_length": "fine-tune.py: model_max_length 8192 * 4, of LLaMA-2 7B",
        "steps": "the repository's README: max_steps",
        "batch_tokens": "the repository's README: 8 devices x 1 sequence x 8 accumulated",
        "learning_rate": "the repository's README; of 7B and 13B in the paper (not re-checked)",
        "schedule": "the repository's README: constant_with_warmup",
        "warmup": "the repository's README",
        "weight_decay": "the repository's README",
        "betas": "section 4.1 (not re-checked)",
        "clip": "the default of transformers' Trainer, which the script leaves",
        "factor": "fine-tune.py: linear, the sequence's length over the model's, rounded up",
        "trains": "fine-tune.py: adapters of the query, key, value and output projections",
        "also": "fine-tune.py: trainable_params",
        "rank": "fine-tune.py",
        "alpha": "fine-tune.py",
        "data": "fine-tune.py: RedPajama-Data-1T-Sample",
        "seed": "the default of transformers' Trainer, which the script leaves",
    },
    disagreements=(
        "The paper has AdamW with betas 0.9 and 0.95 (not re-checked); the script leaves Trainer's "
        "default, 0.9 and 0.999.",
        "The published code without FlashAttention rolls the sequence round, so that in the "
        "shifted heads its first tokens see its last; with it, as here, the two ends are groups of "
        "their own.",
        "The README's command trains all weights, by low_rank_training False, on 8,192 tokens; "
        "True and 32,768 are the script's own defaults.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class LongLoRA(RotaryMethod):
    formula = (
        "theta'_i = theta_i / s; in training, attention within groups of n / G tokens, "
        "in half of the heads shifted by half a group"
    )
    paper = "Chen et al. 2023, https://arxiv.org/abs/2309.12307"
    recipes: ClassVar[Mapping[str, Recipe]] = {"paper": PAPER}

    groups: int = 4
    """G: into so many groups the training sequence is cut."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.groups < 1:
            raise ValueError(f"groups must be 1 or more, not {self.groups}.")

    def frequencies(self, rope: Rope, scale: float) -> Tensor:
        return rope.interpolated(scale)

    def native(self, rope: Rope, length: int) -> dict[str, Any]:
        return {"rope_type": "linear", "factor": self.scale(rope, length)}

    @contextmanager
    def in_training(self, model: nn.Module, length: int) -> Iterator[None]:
        with self.applied_to(model, length), bent(model, lambda _: Shifted(self.groups)):
            yield


class Shifted(Bend):
    """S2-Attn (section 3.2) in training, and the layer's own attention otherwise."""

    def __init__(self, groups: int) -> None:
        self.groups = groups

    def __call__(
        self, attend: Attend, q: Tensor, k: Tensor, v: Tensor, *, scale: float, training: bool
    ) -> Tensor:
        if not training:
            return attend(q, k, v, scale=scale)
        heads, n = q.shape[1:3]
        k, v = (x.repeat_interleave(heads // x.shape[1], 1) for x in (k, v))
        size, outs = -(-n // self.groups), []
        for half, shift in ((slice(0, heads // 2), 0), (slice(heads // 2, heads), size // 2)):
            if half.start == half.stop:  # a model with one head has it shifted
                continue
            edges = sorted({0, *range(shift, n, size), n})
            pieces = [
                attend(*(x[:, half, start:stop] for x in (q, k, v)), scale=scale)
                for start, stop in pairwise(edges)
            ]
            outs.append(torch.cat(pieces, 2))
        return torch.cat(outs, 1)


method = LongLoRA()
