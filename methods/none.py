"""No extension: the checkpoint as it was trained. Every table starts from this row.

Su et al. 2021, https://arxiv.org/abs/2104.09864
"""

from dataclasses import dataclass

from harness.rotary import Unchanged


@dataclass(frozen=True, kw_only=True)
class Unextended(Unchanged):
    formula = "theta_i = b^(-2i/d), and any scaling the checkpoint carries"
    paper = "Su et al. 2021, https://arxiv.org/abs/2104.09864"


method = Unextended()
