"""ReRoPE: no distance is longer than a window; what is further back stands at its edge.

Su 2023, https://kexue.fm/archives/9708. The window of 512 of LLaMA-2's 4,096 tokens is that of the
published code, https://github.com/bojone/rerope, which also scales logits: that is `rerope+log-n`.
"""

from dataclasses import dataclass

from harness.attention import InParts, Part
from harness.rope import Rope


@dataclass(frozen=True, kw_only=True)
class ReRoPE(InParts):
    formula = "i - j where i - j < w, else w"
    paper = "Su 2023, https://kexue.fm/archives/9708"

    window: int | None = None
    """w, in tokens; None: an eighth of the trained length."""

    @property
    def boundless(self) -> bool:
        return self.window is None

    def parts(self, rope: Rope, length: int) -> tuple[Part, ...]:
        w = self.window or max(1, rope.original_length // 8)
        return (
            Part(first=lambda i: i - w + 1),
            Part(stop=lambda i: i - w + 1, query=lambda i: 0 * i + w, key=lambda j: 0 * j),
        )


method = ReRoPE()
