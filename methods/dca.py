"""Dual Chunk Attention: positions start anew in each chunk, and only neighbours know their order.

An et al. 2024, https://arxiv.org/abs/2402.17463. Sizes are those of the published code,
https://github.com/HKUNLP/ChunkLlama, of LLaMA-2 a chunk of 2,560 and a local window of 512. It can
scale logits by the length as YaRN does; the paper's results are without: that is `yarn+dca`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from harness.attention import InParts, Part
from harness.method import Recipe
from harness.rope import Rope

PAPER = Recipe(
    sequence_length=16384,
    steps=1600,
    batch_tokens=16 * 16384,
    learning_rate=2e-5,
    schedule="cosine",
    warmup=0.03,
    factor=4,
    data="long conversations of ShareGPT and AlpacaGPT4, on LLaMA-2-chat",
    sources={
        "sequence_length": "the repository's README: model_max_length",
        "steps": "README: max_steps",
        "batch_tokens": "README: 8 devices x 1 sequence x 2 accumulated",
        "learning_rate": "README",
        "schedule": "README: lr_scheduler_type",
        "warmup": "README: warmup_ratio",
        "weight_decay": "README",
        "betas": "the default of transformers' Trainer, which the README leaves",
        "clip": "the default of transformers' Trainer, which the README leaves",
        "factor": "16,384 over LLaMA-2's 4,096",
        "trains": "fine-tune/trawithinllama_16k.py: all weights, by FSDP",
        "data": "README; the loss is of answers alone",
        "seed": "the default of transformers' Trainer, which the README leaves",
    },
    disagreements=(
        "The paper needs no training; the repository adds it for conversations.",
        "The last position of the neighbouring chunk is the paper's c - 1, and c in its code.",
        "The local window is an eighth of the trained length, and was a sixteenth at first.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class DCA(InParts):
    formula = (
        "keys at j mod s; queries at i mod s for their own chunk, min(i mod s + s, s + w) for the "
        "one before, min(2s - 1, s + w) for all earlier; s = 5/8 L0, w = 1/8 L0"
    )
    paper = "An et al. 2024, https://arxiv.org/abs/2402.17463"
    recipes: ClassVar[Mapping[str, Recipe]] = {"paper": PAPER}
    least: ClassVar[Mapping[str, int]] = {"chunk": 1, "local": 0}

    chunk: int | None = None
    """s: tokens of a chunk; None: five eighths of the trained length."""
    local: int | None = None
    """w: so many tokens behind a chunk's beginning, the one before is at its true distance; None:
    an eighth of the trained length."""

    @property
    def boundless(self) -> bool:
        return True

    def parts(self, rope: Rope, length: int) -> tuple[Part, ...]:
        trained = rope.original_length
        w = trained // 8 if self.local is None else self.local
        s = self.chunk or max(1, trained * 3 // 4 - trained // 8)
        if s + w >= trained:
            raise LookupError(
                f"Chunks of {s:,} and {w:,} tokens more are longer than the trained {trained:,}: "
                "give a smaller chunk or local."
            )

        def within(j: Tensor) -> Tensor:
            return j % s

        def begins(i: Tensor) -> Tensor:
            return i // s * s

        return (
            Part(first=begins, query=within, key=within),
            Part(
                first=lambda i: begins(i) - s,
                stop=begins,
                query=lambda i: (i % s + s).clamp(max=s + w),
                key=within,
            ),
            Part(
                stop=lambda i: begins(i) - s,
                query=lambda i: 0 * i + min(2 * s - 1, s + w),
                key=within,
            ),
        )


method = DCA()
