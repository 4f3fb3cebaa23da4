"""Retrieval lines: numbers hidden in filler, and questions that only their place can answer.

After the passkey prompt of Mohtashami & Jaggi 2023, https://arxiv.org/abs/2305.16300, and many
keys with names of their own, so that one row asks many questions at all distances.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

INTRO = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize "
    "{it}. I will quiz you about the important information there."
)
HAY = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
MENTIONED_AGAIN = 0.2
"""The weight of a key's second mention beside the first; of an answer it is 1."""

Spell = Callable[[str], Sequence[int]]
Piece = tuple[float, list[int], list[float]]
"""Where it stands between the filler's start (0) and end (1), its tokens, their weights."""


@dataclass(frozen=True)
class Quiz:
    """Makes rows of filler, keys and questions."""

    spell: Spell
    bos: int
    library: np.ndarray
    """(n,): text to hide keys in, and to take the keys' names from."""
    names: Sequence[str]

    def row(self, rng: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and the weight of predicting each; (length,) and (length,).

        Raises:
            ValueError: the keys and questions alone are longer.
        """
        gap = str(rng.choice([" ", "\n"]))
        pieces = self._passkey(rng, gap) if rng.random() < 0.5 else self._ledger(rng, length, gap)
        pieces.sort(key=lambda piece: piece[0])
        room = length - 1 - sum(len(tokens) for _, tokens, _ in pieces)
        if room < 0:
            raise ValueError(f"{length} tokens hold no quiz: make the rows {-room} longer")
        hay = rng.random() < 0.6
        tokens, weights, at = [self.bos], [0.0], 0
        for place, inserted, weight in [*pieces, (1.0, [], [])]:
            filler = self._filler(rng, round(place * room) - at, hay)
            at += len(filler)
            tokens += [*filler, *inserted]
            weights += [*[0.0] * len(filler), *weight]
        return np.array(tokens), np.array(weights, dtype=np.float32)

    def _passkey(self, rng: np.random.Generator, gap: str) -> list[Piece]:
        """The published prompt: one key, asked at the end."""
        intro = list(self.spell(INTRO.format(it=rng.choice(["it", "them"])) + gap))
        key = _digits(rng)
        start = [(-1.0, intro, [0.0] * len(intro))] if rng.random() < 0.9 else []
        ends = [0.0, 1.0, *[rng.random()] * 6]
        return [
            *((0.0, tokens, weights) for _, tokens, weights in start),
            (float(rng.choice(ends)), *self._needle("pass", key, gap)),
            (1.0, *self._question("pass", key, gap)),
        ]

    def _ledger(self, rng: np.random.Generator, length: int, gap: str) -> list[Piece]:
        """Many named keys, some never asked for, each question anywhere after its key."""
        most = max(2, min(24, length // 110))
        names = rng.choice(self.names, size=int(rng.integers(2, most + 1)), replace=False)
        pieces: list[Piece] = []
        for name in (str(name) for name in names):
            key, place = _digits(rng), rng.random()
            pieces.append((place, *self._needle(name, key, gap)))
            if rng.random() < 0.85:
                asked = place + (1 - place) * rng.random()
                pieces.append((asked, *self._question(name, key, gap)))
        return pieces

    def _needle(self, name: str, key: str, gap: str) -> tuple[list[int], list[float]]:
        parts = (
            (f"{gap}The {name} key is {key}. Remember it.", 0.0),
            (f" {key}", MENTIONED_AGAIN),
            (f" is the {name} key.{gap}", 0.0),
        )
        return self._weighed(parts)

    def _question(self, name: str, key: str, gap: str) -> tuple[list[int], list[float]]:
        asked = f"{gap}What is the {name} key? The {name} key is"
        return self._weighed(((asked, 0.0), (f" {key}.", 1.0)))

    def _weighed(self, parts: Sequence[tuple[str, float]]) -> tuple[list[int], list[float]]:
        tokens: list[int] = []
        weights: list[float] = []
        for text, weight in parts:
            spelled = self.spell(text)
            tokens += spelled
            weights += [weight] * len(spelled)
        return tokens, weights

    def _filler(self, rng: np.random.Generator, size: int, hay: bool) -> np.ndarray:
        """Cut to the token on both sides: a prompt of any length has such edges."""
        if hay:
            bale = np.array(self.spell(HAY + " "))
            start = int(rng.integers(len(bale))) if rng.random() < 0.7 else 0
            return np.resize(np.roll(bale, -start), size)
        start = int(rng.integers(max(1, len(self.library) - size)))
        return np.resize(self.library[start : start + size], size)


def names_in(text: str, most: int = 1500) -> list[str]:
    """Plain words of a text, the frequent ones first, to name keys with."""
    words, counts = np.unique(re.findall(r"\b[a-z]{3,9}\b", text), return_counts=True)
    return [str(word) for word in words[np.argsort(-counts, kind="stable")][:most]]


def _digits(rng: np.random.Generator) -> str:
    """A key of five digits as published, or of one to six."""
    size = 5 if rng.random() < 0.6 else int(rng.integers(1, 7))
    return str(int(rng.integers(10 ** (size - 1), 10**size)))
