"""Naive fine-tuning: the encoding stays as it is, and longer sequences must teach the rest.

The baseline of Chen et al. 2023 (CLEX), table 1, https://arxiv.org/abs/2310.16450, and of Chen et
al. 2023 (Position Interpolation), section 3, https://arxiv.org/abs/2306.15595
"""

from dataclasses import dataclass

from harness.rotary import Unchanged


@dataclass(frozen=True, kw_only=True)
class NaiveFineTuning(Unchanged):
    """Untrained it is `none`: all that it does is in its training."""

    formula = "theta_i = b^(-2i/d), and any scaling the checkpoint carries; fine-tuned"
    paper = "Chen et al. 2023, https://arxiv.org/abs/2310.16450"


method = NaiveFineTuning()
