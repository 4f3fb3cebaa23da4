"""Leaky ReRoPE: beyond a window positions go on, but k times slower.

Su 2023, https://kexue.fm/archives/9708. The published code, https://github.com/bojone/rerope, has a
window of 512 of LLaMA-2's 4,096 tokens and k = 16, and also scales logits: `leaky-rerope+log-n`.
"""

from dataclasses import dataclass
from math import inf
from typing import ClassVar

from harness.attention import Part, Stretched
from harness.rope import Rope


@dataclass(frozen=True, kw_only=True)
class LeakyReRoPE(Stretched):
    formula = (
        "i - j where i - j < w, else w + (i - j - w) / k; k the least with w + (n - w) / k <= L0"
    )
    paper = "Su 2023, https://kexue.fm/archives/9708"
    share: ClassVar[int] = 8

    slowness: float | None = None
    """k: how many times slower far positions go, whatever the factor; None: as slow as they
    must."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.slowness is not None and not 1 <= self.slowness < inf:
            raise ValueError(f"slowness is a number from 1 up, not {self.slowness:g}.")

    @property
    def pace(self) -> tuple[str, float | None]:
        return "slowness", self.slowness

    def parts(self, rope: Rope, length: int) -> tuple[Part, ...]:
        w, k = self.near(rope), self.slowness or self.slower(rope, length)
        return (
            Part(first=lambda i: i - w + 1),
            Part(stop=lambda i: i - w + 1, query=lambda i: i / k + w - w / k, key=lambda j: j / k),
        )


method = LeakyReRoPE()
