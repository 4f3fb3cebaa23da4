"""Self-Extend: near keys as they are, far ones by the position of their group; no training.

Jin et al. 2024, https://arxiv.org/abs/2401.01325. The window of 1,024 of LLaMA-2's 4,096 tokens is
the published code's; the group is the smallest that reaches, as its README begins with. Far queries
are shifted by whole positions, as where that code decodes; where it reads a prompt, by w - w / G.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import ClassVar

from harness.attention import Part, Stretched
from harness.rope import Rope


@dataclass(frozen=True, kw_only=True)
class SelfExtend(Stretched):
    formula = (
        "i - j where i - j < w, else floor(i / G) + w - floor(w / G) - floor(j / G); "
        "G the least with (n - w) / G + w <= L0"
    )
    paper = "Jin et al. 2024, https://arxiv.org/abs/2401.01325"
    share: ClassVar[int] = 4
    least: ClassVar[Mapping[str, int]] = {"window": 1, "group": 1}

    group: int | None = None
    """G: so many tokens share a far position, whatever the factor; None: as many as must."""

    @property
    def pace(self) -> tuple[str, float | None]:
        return "group", self.group

    def parts(self, rope: Rope, length: int) -> tuple[Part, ...]:
        w, g = self.near(rope), self.group or ceil(self.slower(rope, length) - 1e-9)
        return (
            Part(first=lambda i: i - w + 1),
            Part(
                stop=lambda i: i - w + 1,
                query=lambda i: i // g + w - w // g,
                key=lambda j: j // g,
            ),
        )


method = SelfExtend()
