"""RULER's lists of words: which ones come most often?"""

import random
import string
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import pi

from harness.task import Reader

from ._filled import Context
from ._prompt import Question, spelled
from ._ruler import Ruler
from ._words import kept, listed

COMMON = (
    "Below is a numbered list of words. In these words, some appear more often than others. "
    "Memorize the ones that appear most often.\n{context}\n"
    "Question: What are the 10 most common words in the above list?"
)
COMMON_ARE = " Answer: The top 10 words that appear most often in the list are:"
CODED = (
    "Read the following coded text and track the frequency of each coded word. Find the three "
    "most frequently appeared coded words. {context}\nQuestion: Do not provide any explanation. "
    "Please ignore the dots '....'. What are the three most frequently appeared words in the "
    "above coded text?"
)
CODED_ARE = (
    " Answer: According to the coded text above, the three most frequently appeared words are:"
)
TOP = 10
TOKENS_A_WORD = 50
"""Tokens of a prompt for each word of its vocabulary."""
APART = 75
"""Coded words from which on the fourth is always ahead of the fifth."""


@dataclass(frozen=True, kw_only=True)
class Mix:
    """How often words come."""

    often: int
    seldom: int
    words: int = 0
    """In the example, all together."""


LONG, LONG_EXAMPLE = Mix(often=30, seldom=3), Mix(often=10, seldom=3, words=40)
SHORT, SHORT_EXAMPLE = Mix(often=6, seldom=1), Mix(often=3, seldom=1, words=20)
SHORTER_THAN = 4096
"""Tokens below which the short mixes are used."""


class CommonWords(Ruler):
    """Ten words come often, all others seldom; an example stands before the question.

    Words are of the lists until those run out; then all are pairs of them, as published. Where the
    same is asked at every length, all are pairs at every length.
    """

    version = 2
    max_new_tokens = 120

    def questions(self, reader: Reader, length: int) -> Iterator[Question]:
        short = length < SHORTER_THAN
        mix, shown = (SHORT, SHORT_EXAMPLE) if short else (LONG, LONG_EXAMPLE)
        of_one = self.question(0, length, mix, shown, in_pairs=False)
        longest = spelled(reader, self.prompt, of_one.text(len(base())), of_one.prefix)
        in_pairs = self.pair_lengths or len(longest) + self.max_new_tokens <= length
        for i in range(self.samples):
            yield self.question(i, length, mix, shown, in_pairs=in_pairs)

    def question(self, i: int, length: int, mix: Mix, shown: Mix, *, in_pairs: bool) -> Question:
        names = kept(vocabulary(self.draw(i, length, "example"), in_pairs))(shown.words)
        example = listing(names, shown, self.draw(i, length, "example order"))
        example += f"{COMMON_ARE} {numbered(names[:TOP])}\n"
        words = kept(vocabulary(self.draw(i, length), in_pairs))
        return Question(
            text=lambda n: example + listing(words(n), mix, self.draw(i, length, "order")),
            prefix=COMMON_ARE,
            answers=tuple(words(TOP)),
            least=TOP + 1,
            most=None if in_pairs else len(base()),
        )


@cache
def base() -> tuple[str, ...]:
    """Every word there is, in alphabetical order."""
    return tuple(sorted({*listed("nouns"), *listed("adjectives")}))


def vocabulary(rng: random.Random, in_pairs: bool) -> Iterator[str]:
    """Words in a random order, no two alike."""
    words = base()
    if not in_pairs:
        yield from rng.sample(words, len(words))
    seen: set[str] = set()
    while in_pairs:
        word = f"{rng.choice(words)}-{rng.choice(words)}"
        if word not in seen:
            seen.add(word)
            yield word


def listing(words: list[str], mix: Mix, rng: random.Random) -> str:
    """The question over these words, of which the first ten come often."""
    every = words[:TOP] * mix.often + words[TOP:] * mix.seldom
    rng.shuffle(every)
    return COMMON.format(context=numbered(every))


def numbered(words: list[str]) -> str:
    return " ".join(f"{i}. {word}" for i, word in enumerate(words, 1))


class FrequentWords(Ruler):
    """Words without meaning, each rank squared times rarer than the first, which is dots."""

    version = 2
    max_new_tokens = 50

    def questions(self, reader: Reader, length: int) -> Iterator[Question]:
        words = max((length - self.max_new_tokens) // TOKENS_A_WORD, 5)
        for i in range(self.samples):
            coded = set_of_codes(self.draw(i, length), words)
            yield Question(
                text=self.text(["...", *coded[1:]], i, length),
                prefix=CODED_ARE,
                answers=tuple(coded[1:4]),
                least=APART,
            )

    def text(self, words: list[str], i: int, length: int) -> Context:
        """By how many words would be drawn: that of rank k comes n / (k**2 zeta(2)) times."""

        def text(n: int) -> str:
            often = [int(n * 6 / (pi * rank) ** 2) for rank in range(1, len(words) + 1)]
            every = [w for word, times in zip(words, often, strict=True) for w in [word] * times]
            self.draw(i, length, "order").shuffle(every)
            return CODED.format(context=" ".join(every))

        return text


def set_of_codes(rng: random.Random, n: int) -> list[str]:
    """Words of six letters, no two alike."""
    codes: dict[str, None] = {}
    while len(codes) < n:
        codes["".join(rng.choices(string.ascii_lowercase, k=6))] = None
    return list(codes)
