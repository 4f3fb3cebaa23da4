"""NTK-by-parts: interpolate slow channels, leave fast ones, and blend in between.

Peng et al. 2023, section 3.2, https://arxiv.org/abs/2309.00071
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from harness.method import Recipe
from harness.recipes import COMPARISON
from harness.rotary import ByParts


@dataclass(frozen=True, kw_only=True)
class NTKByParts(ByParts):
    formula = "theta'_i = (1 - m_i) theta_i / s + m_i theta_i, m_i from 1 (fast) to 0 (slow)"
    paper = "Peng et al. 2023, section 3.2, https://arxiv.org/abs/2309.00071"
    recipes: ClassVar[Mapping[str, Recipe]] = {"comparison": COMPARISON}


method = NTKByParts()
