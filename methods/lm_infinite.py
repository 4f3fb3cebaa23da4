"""LM-Infinite: a query sees the first tokens and those near; no distance passes the trained length.

Han et al. 2023, https://arxiv.org/abs/2308.16137. What it costs grows with the length, not with its
square. The first 10 tokens, and the window as the limit, are as the published code has them for
LLaMA: https://github.com/Glaciohound/LM-Infinite
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from harness.attention import InParts, Part
from harness.rope import Rope


@dataclass(frozen=True, kw_only=True)
class LMInfinite(InParts):
    formula = "min(i - j, w) for keys with i - j < w or j < g, no others; w = L0"
    paper = "Han et al. 2023, https://arxiv.org/abs/2308.16137"
    least: ClassVar[Mapping[str, int]] = {"window": 1, "start": 0}

    window: int | None = None
    """w: so many last keys are seen, the query's own included, and no distance is longer; None:
    the trained length."""
    start: int = 10
    """g: so many first keys are always seen."""

    @property
    def boundless(self) -> bool:
        return self.window is None

    def parts(self, rope: Rope, length: int) -> tuple[Part, ...]:
        w, g = self.window or rope.original_length, self.start
        return (
            Part(first=lambda i: i - w + 1),
            Part(
                stop=lambda i: (i - w + 1).clamp(max=g),
                query=lambda i: 0 * i + w,
                key=lambda j: 0 * j,
            ),
        )


method = LMInfinite()
