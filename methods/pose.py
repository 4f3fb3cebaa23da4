"""PoSE: train for a long window on short inputs, by skipping positions between chunks of them.

Zhu et al. 2023, https://arxiv.org/abs/2309.10400. Read with, it is an interpolation at positions 0
to n - 1.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from harness.method import Recipe
from harness.rope import Rope, yarn_attention_factor
from harness.rotary import RotaryMethod
from harness.rotation import drawing

PAPER = Recipe(
    sequence_length=2048,
    steps=1000,
    batch_tokens=64 * 2048,
    learning_rate=2e-5,
    schedule="linear",
    warmup=10,
    factor=8,
    data="The Pile, split 00, 100,000 texts of 2,048 tokens and more",
    sources={
        "sequence_length": "run_train_skipos.sh: model_max_position_embeddings, of LLaMA",
        "steps": "run_train_skipos.sh",
        "batch_tokens": "run_train_skipos.sh: 8 sequences, on the README's 8 devices",
        "learning_rate": "run_train_skipos.sh",
        "schedule": "deepspeed_config.json: WarmupDecayLR",
        "warmup": "run_train_skipos.sh",
        "weight_decay": "the default of transformers' Trainer, which the script leaves",
        "betas": "the default of transformers' Trainer, which the script leaves",
        "clip": "the default of transformers' Trainer, which the script leaves",
        "factor": "section 4.1, 2k to 16k (not re-checked); the script's first argument",
        "trains": "train_pose.py: all weights",
        "data": "the repository's README",
        "seed": "the default of transformers' Trainer, which the script leaves",
    },
    disagreements=(
        "The published code takes the second chunk's text, too, from further on in the document, "
        "up to 5 windows away; here only positions skip.",
        "The published code lets the first of its two chunks be at most half of the sequence; the "
        "paper draws lengths freely, and so does this.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class SkipWise(RotaryMethod):
    formula = (
        "in training, chunk i of the n tokens moved up by u_i, u_0 = 0, "
        "u_i from u_{i-1} .. s L0 - n; theta'_i as the interpolation has it"
    )
    paper = "Zhu et al. 2023, https://arxiv.org/abs/2309.10400"
    recipes: ClassVar[Mapping[str, Recipe]] = {"paper": PAPER}

    interpolation: Literal["linear", "ntk", "yarn"] = "linear"
    """What positions are encoded by: as `pi`, as `ntk`, or as `yarn`."""
    chunks: int = 2
    """N: so many stretches of contiguous positions in one sequence."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chunks < 1:
            raise ValueError(f"chunks must be 1 or more, not {self.chunks}.")

    def frequencies(self, rope: Rope, scale: float) -> Tensor:
        match self.interpolation:
            case "ntk":
                return rope.ntk_aware(scale)
            case "yarn":
                return rope.by_parts(scale)
        return rope.interpolated(scale)

    def attention_factor(self, rope: Rope, scale: float) -> float:
        return yarn_attention_factor(scale) if self.interpolation == "yarn" else 1.0

    def native(self, rope: Rope, length: int) -> dict[str, Any]:
        scale = self.scale(rope, length)
        match self.interpolation:
            case "ntk":
                return {"rope_type": "default", "rope_theta": rope.ntk_base(scale)}
            case "yarn":
                own = {"original_max_position_embeddings": rope.original_length}
                return {"rope_type": "yarn", "factor": scale} | own
        return {"rope_type": "linear", "factor": scale}

    def in_training(self, model: nn.Module, length: int) -> AbstractContextManager[None]:
        rope = Rope.of(model)
        target = round(self.scale(rope, length) * rope.original_length)
        draw = partial(skipping, target, self.chunks)
        return drawing(model, self.encoding(rope, length), draw)


def skipping(target: int, chunks: int, n: int) -> Tensor:
    """Sorted distinct positions below `target`, contiguous but for skips; (n,), int64.

    Raises:
        ValueError: the sequence alone is longer than that.
    """
    if n > target:
        raise ValueError(
            f"Sequences of {n:,} tokens leave nothing to skip of a window of {target:,}: "
            "train on shorter ones, or for a longer window."
        )
    positions, skip = torch.arange(n), 0
    for cut in (torch.randperm(n - 1)[: chunks - 1] + 1).sort().values.tolist():
        skip = int(torch.randint(skip, target - n + 1, ()))
        positions[cut:] = torch.arange(cut, n) + skip
    return positions


method = SkipWise()
