"""StreamingLLM: a rolling cache that keeps the first tokens; positions are those in the cache.

Xiao et al. 2023, https://arxiv.org/abs/2309.17453. What it costs grows with the length, not with
its square. Four first tokens are the paper's; so many recent ones that the cache with the query's
own key is as long as the trained window.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from harness.attention import InParts, Part
from harness.rope import Rope


@dataclass(frozen=True, kw_only=True)
class StreamingLLM(InParts):
    formula = (
        "i - j for keys with i - j <= r, min(i, s + r) - j for those with j < s, no others; "
        "s + r + 1 = L0"
    )
    paper = "Xiao et al. 2023, https://arxiv.org/abs/2309.17453"
    least: ClassVar[Mapping[str, int]] = {"recent": 1, "start": 0}

    start: int = 4
    """s: so many first keys are always seen, the attention sinks."""
    recent: int | None = None
    """r: so many keys before the query's own; None: those that fit the trained length."""

    @property
    def boundless(self) -> bool:
        return self.recent is None

    def parts(self, rope: Rope, length: int) -> tuple[Part, ...]:
        s = self.start
        r = self.recent or rope.original_length - s - 1
        if r < 1:
            raise LookupError(
                f"The {rope.original_length:,} tokens of the trained window have no room for "
                f"{s:,} first ones and recent ones: give fewer."
            )
        return (
            Part(first=lambda i: i - r),
            Part(stop=lambda i: (i - r).clamp(max=s), query=lambda i: i.clamp(max=s + r)),
        )


method = StreamingLLM()
