"""Naive fine-tuning: the encoding stays as it is, and longer sequences must teach the rest.

Chen et al. 2023, table 1, https://arxiv.org/abs/2310.16450

There it is CLEX's baseline, and in Chen et al. 2023, section 3, https://arxiv.org/abs/2306.15595,
that of Position Interpolation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from harness.method import Recipe
from harness.recipes import COMPARISON
from harness.rotary import Unchanged

PAPER = replace(
    COMPARISON,
    disagreements=(
        *COMPARISON.disagreements,
        "Position Interpolation's paper fine-tunes the unchanged encoding for 10,000 updates of 64 "
        "sequences, and CLEX for the 2B tokens that all its rows read (not re-checked).",
    ),
)


@dataclass(frozen=True, kw_only=True)
class NaiveFineTuning(Unchanged):
    """Untrained it is `none`: all that it does is in its training."""

    formula = "theta_i = b^(-2i/d), and any scaling the checkpoint carries; fine-tuned"
    paper = "Chen et al. 2023, https://arxiv.org/abs/2310.16450"
    recipes: ClassVar[Mapping[str, Recipe]] = {"paper": PAPER}


method = NaiveFineTuning()
