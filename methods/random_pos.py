"""Randomised positions: train at ordered random positions of a range far longer than the input.

Ruoss et al. 2023, https://arxiv.org/abs/2305.16843. Read with, it is the checkpoint's own encoding
at positions 0 to n - 1.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from harness.method import Recipe
from harness.recipes import COMPARISON_4K
from harness.rope import Encoding, Rope
from harness.rotary import Unchanged
from harness.rotation import drawing

MAX_FACTOR = 16.0
"""CLEX's, which it is compared with."""
PAPER = replace(
    COMPARISON_4K,
    factor=MAX_FACTOR,
    sources={
        **COMPARISON_4K.sources,
        "factor": "the range of CLEX's own sampler, for it does not say from how long this draws",
        "sequence_length": "CLEX's table 1, https://arxiv.org/abs/2310.16450: row RandomPos-4k",
    },
    disagreements=(
        *COMPARISON_4K.disagreements,
        "Ruoss et al. train small models from nothing, on tasks of up to 40 tokens at positions "
        "below 2,048.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class RandomPositions(Unchanged):
    formula = (
        "in training, n sorted positions drawn without replacement from 0 .. L_max - 1; "
        "read with, 0 .. n - 1; theta_i = b^(-2i/d)"
    )
    paper = "Ruoss et al. 2023, https://arxiv.org/abs/2305.16843"
    recipes: ClassVar[Mapping[str, Recipe]] = {"paper": PAPER}

    max_factor: float | None = None
    """L_max, as a multiple of the original length; None: as far as it is trained for, or 16."""

    def __post_init__(self) -> None:
        if self.max_factor is not None and not 1 <= self.max_factor <= 1e6:
            raise ValueError(
                f"max_factor is a number from 1 up to 1,000,000, not {self.max_factor:g}."
            )

    def in_training(self, model: nn.Module, length: int) -> AbstractContextManager[None]:
        draw = partial(scattered, self.reach(Rope.of(model)))
        return drawing(model, Encoding.of(model, length), draw)

    def notice(self, model: nn.Module, length: int) -> str | None:
        reach = self.reach(Rope.of(model))
        beyond = f"Training draws no position beyond {reach:,}." if length > reach else None
        return " ".join(filter(None, (super().notice(model, length), beyond))) or None

    def made_for(self, model: nn.Module) -> float | None:
        return self.max_factor

    def trained_for(self, factor: float) -> dict[str, Any]:
        return {"max_factor": factor}

    def reach(self, rope: Rope) -> int:
        """L_max, in tokens."""
        return round((self.max_factor or MAX_FACTOR) * rope.original_length)


def scattered(reach: int, n: int) -> Tensor:
    """Sorted distinct positions below `reach`; (n,), int64.

    Raises:
        ValueError: there are not so many.
    """
    if n > reach:
        raise ValueError(
            f"Sequences of {n:,} tokens do not fit {reach:,} positions: raise max_factor."
        )
    return torch.randperm(reach)[:n].sort().values


method = RandomPositions()
