"""Retrieval to learn from: numbers hidden in a corpus's text, of which the answers are learned.

A model that is extended still has to find things that far away, and one that only continues text
is hardly ever asked to. Rows of made-up keys teach it in few updates: Xiong et al. 2024, From
Artificial Needles to Real Haystacks, https://arxiv.org/abs/2406.19292. As many other tokens are
learned as answers are, so that it does not forget how to go on with a text.
"""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import corpora
from harness.reader import TokenReader
from harness.train.chat import MASKED
from harness.train.quiz import Quiz, names_in

if TYPE_CHECKING:
    from torch import Tensor

MOST = 2**23
"""Tokens of the corpus that keys are hidden in: its first."""
LEAST_NAMES, SHORTEST = 24, 512
"""As many as a row may ask for; and tokens that hold a key and its question, however spelled."""
NAMED = 2**22
"""Characters of it from which keys get their names."""


@dataclass(frozen=True, eq=False)
class Questions:
    """Rows of hidden keys and questions: a map-style dataset, as torch calls it.

    Row i follows from the seed and i alone: it is made when asked for, and no row comes twice.
    """

    quiz: Quiz = field(repr=False)
    length: int
    sequences: int
    seed: int
    label: str
    """What they are, by content: the same on another machine."""

    def __len__(self) -> int:
        return self.sequences

    def __getitem__(self, i: int) -> dict[str, "Tensor"]:
        """`input_ids` and `labels`, (length,); the labels are not shifted, -100 is not learned."""
        import torch

        rng = np.random.default_rng((self.seed, range(len(self))[i]))
        learned = np.zeros(0, dtype=bool)
        while not learned.any():  # by chance none of its keys is asked for
            tokens, weights = self.quiz.row(rng, self.length)
            learned = weights == 1
        others = np.flatnonzero(weights[1:] == 0) + 1
        learned[rng.choice(others, min(len(others), int(learned.sum())), replace=False)] = True
        return {
            "input_ids": torch.from_numpy(tokens),
            "labels": torch.from_numpy(np.where(learned, tokens, MASKED)),
        }


def open_questions(
    spec: str, tokenizer: Any, length: int, sequences: int, seed: int, cached: Path | None = None
) -> Questions:
    """So many rows from a corpus of texts.

    Raises:
        LookupError: there is no such corpus.
        ValueError: it is shorter than one row.
    """
    reader = TokenReader(tokenizer, cached)
    texts, pieces, characters, held = [], [], 0, 0
    for text in corpora.find(spec).every():
        pieces.append(reader.tokens_of(text))
        held += len(pieces[-1])
        if characters < NAMED:
            texts.append("\n".join(text.parts))
            characters += len(texts[-1])
        if held >= MOST:
            break
    if held < length:
        raise ValueError(
            f"{spec} has {held:,} tokens, and one row takes {length:,}: take a shorter length or "
            "more text."
        )
    names = names_in("\n".join(texts))
    if len(names) < LEAST_NAMES or length < SHORTEST:
        raise ValueError(
            f"Keys are named after plain words of the text, at least {LEAST_NAMES}, and rows are "
            f"of at least {SHORTEST} tokens; here are {len(names)} words and {length} tokens."
        )
    spell = cache(reader.tokens)
    quiz = Quiz(spell, reader.bos, np.concatenate(pieces), names)
    return Questions(quiz, length, sequences, seed, f"retrieval in {corpora.label(spec)}")
