"""Passkey retrieval: find a number in a haystack of nothing.

Mohtashami & Jaggi 2023, https://arxiv.org/abs/2305.16300
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import ClassVar

import numpy as np

from harness.stats import wilson
from harness.task import Outcome, Reader, Request, Sample, Score, Task, Text, Verdict

from ._filled import AtDepths
from ._haystack import NOISE
from ._prompt import see_some

INTRO = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize "
    "it. I will quiz you about the important information there."
)
NEEDLE = "The pass key is {key}. Remember it. {key} is the pass key."
QUESTION = "What is the pass key? The pass key is"
FOUND = "found"
"""The part that a score has beside its depths: trials in which every digit of the key is right,
given those before it, whatever else was said first."""
STEP = 128
"""Characters by which the published scripts grow a prompt."""


@dataclass(frozen=True, kw_only=True)
class Retrieval(Task):
    """What the standard test and the published generators share: how an answer is graded."""

    metric = "accuracy"
    source: ClassVar[str] = "generated"
    licence: ClassVar[str] = "Apache-2.0"
    size: ClassVar[str] = "any"
    offline: ClassVar[bool] = True
    max_new_tokens = 10  # where no verdict can be asked for, as published
    counts = (
        "the first number that is said, if it is the key; where numbers have one spelling, the key "
        "must be said at once"
    )

    samples: int
    seed: int = 0

    def __post_init__(self) -> None:
        see_some(self.samples, "Passkey")

    def grade(self, request: Request, outcome: Outcome, reader: Reader) -> Sample:
        """A hit is the key as the first number said, as the published scripts have it.

        A verdict's tokens are the key's, at once, which needs nothing written; the last is a full
        stop that need not be said, but no digit may stand there.
        """
        about, said = request.about, reader.text(outcome)
        number = re.search(r"\d+", said)
        hit = number is not None and int(number[0]) == int(about["key"])
        if isinstance(request.ask, Verdict):
            wanted = request.ask.answer[:-1]
            hit = hit and tuple(outcome[:-1]) == wanted
            digits = (i for i, token in enumerate(wanted) if re.search(r"\d", reader.text([token])))
            about = about | {FOUND: all(outcome[i : i + 1] == wanted[i : i + 1] for i in digits)}
        return Sample(
            id=request.id, score=float(hit), about=about, expected=about["key"], answer=said
        )

    def score(self, samples: Sequence[Sample]) -> Score:
        hits = sum(s.score for s in samples)
        low, high = wilson(round(hits), len(samples))
        found = [s.about[FOUND] for s in samples if FOUND in s.about]
        parts = {FOUND: fmean(found)} if found else {}
        return Score(value=hits / len(samples), low=low, high=high, n=len(samples), parts=parts)


@dataclass(frozen=True, kw_only=True)
class Passkey(AtDepths, Retrieval):
    """Lengths x depths x trials, each prompt exactly as long as the cell.

    All prompts of a cell begin alike up to the first needle, and the trials of a depth differ only
    from the key on: the engine reads what they share once.
    """

    samples: int = 1
    """Trials a depth."""
    digits: int = 5
    """Of a key."""
    pair_lengths: bool = False
    """Hide the same keys at every length."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.digits <= 18:
            raise ValueError(f"A key has 1 to 18 digits, and {self.digits} were asked for.")
        if len(self.depths) * self.samples > 9 * 10 ** (self.digits - 1):
            raise ValueError(f"There are too few keys of {self.digits} digits for so many trials.")

    def requests(self, reader: Reader, length: int) -> Iterator[Request]:
        keys = self.keys(length)
        needles = {k: continuation(reader, ".", f"\n{NEEDLE.format(key=k)}\n") for k in keys}
        intro = [reader.bos, *reader.tokens(f"{INTRO}\n")]
        question = continuation(reader, ".", f"\n{QUESTION}")
        frame = len(intro) + max(map(len, needles.values())) + len(question)
        if length < frame:
            raise ValueError(
                f"Passkey needs at least {frame:,} tokens with this tokenizer, "
                f"and {length:,} were asked for: take longer lengths."
            )
        hay = np.array(filler(reader, length), dtype=np.int64)
        for key, (depth, trial) in zip(
            keys, product(self.depths, range(self.samples)), strict=True
        ):
            before = round(depth * (length - frame))
            after = length - len(intro) - before - len(needles[key]) - len(question)
            pieces = (intro, hay[:before], needles[key], hay[:after], question)
            yield Request(
                id=f"depth-{depth:g}-trial-{trial}",
                tokens=np.concatenate(pieces, dtype=np.int64),
                ask=answer(reader, key),
                about={"depth": depth, "trial": trial, "key": key},
            )

    def keys(self, length: int) -> list[str]:
        """One for each depth and trial, no two alike."""
        keys: dict[str, None] = {}
        for depth, trial in product(self.depths, range(self.samples)):
            place = "" if self.pair_lengths else f" {length}"
            rng = random.Random(f"{self.seed}{place} {depth:g} {trial}")
            while (key := str(rng.randint(10 ** (self.digits - 1), 10**self.digits - 1))) in keys:
                pass
            keys[key] = None
        return list(keys)


@dataclass(frozen=True, kw_only=True)
class Published(Retrieval):
    """Prompts as the generator of eval/passkey.py of https://github.com/jquesnelle/yarn has them.

    Filler is cut by characters, the key is a number from 1 to 50000 and lies anywhere. Prompts are
    a little shorter than the length. YaRN's script draws without a seed; here a length draws with
    `seed`, its trials after one another.
    """

    samples: int = 20

    def characters(self, reader: Reader, length: int) -> int:
        """Of filler: more by 128 until the prompt would be as long as asked for, less the last."""
        return fitting_characters(reader, length, self.seed)

    def requests(self, reader: Reader, length: int) -> Iterator[Request]:
        characters = self.characters(reader, length)
        rng = random.Random(self.seed)
        for trial in range(self.samples):
            tokens, key, depth = fitting_prompt(reader, length, characters, rng)
            yield Request(
                id=f"trial-{trial}",
                tokens=tokens,
                ask=answer(reader, key),
                about={"depth": depth, "trial": trial, "key": key},
            )


@dataclass(frozen=True, kw_only=True)
class LongRope(Published):
    """The same prompts with 3.65 characters a token, from https://github.com/microsoft/LongRoPE.

    Where a tokenizer makes more tokens of so many characters than the length, as many as fit.
    """

    samples: int = 10
    seed: int = 42
    rate: float = 3.65
    """Characters of filler for each token of the length."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.rate <= 100:
            raise ValueError(f"A rate is above 0 and at most 100, and {self.rate:g} is not.")

    def characters(self, reader: Reader, length: int) -> int:
        characters = int(self.rate * length)
        prompt, _, _ = published_prompt(characters, random.Random(self.seed))
        if 1 + len(reader.tokens(prompt)) <= length:
            return characters
        return min(characters, super().characters(reader, length))


def continuation(reader: Reader, before: str, text: str) -> list[int]:
    """The tokens of a text as they are after another: some tokenizers begin a text with a space."""
    first, both = reader.tokens(before), reader.tokens(before + text)
    return both[len(first) :] if both[: len(first)] == first else reader.tokens(text)


def filler(reader: Reader, n: int) -> list[int]:
    """The first n tokens of endless hay, as the tokenizer reads it in one piece."""
    two, three = (reader.tokens(" ".join([NOISE] * bales)) for bales in (2, 3))
    if three[: len(two)] == two and len(three) > len(two):
        bale = three[len(two) :]
        return (two + bale * (n // len(bale) + 1))[:n]
    return reader.tokens(" ".join([NOISE] * (n + 1)))[:n]


def answer(reader: Reader, key: str) -> Verdict | Text:
    """Ask for the key and a full stop, or for text where the key can be spelled in several ways."""
    if not reader.spells_one_way:
        return Text(max_new_tokens=max(Retrieval.max_new_tokens, len(key) + 5))
    return Verdict(answer=tuple(continuation(reader, "is", f" {key}.")))


def published_prompt(characters: int, rng: random.Random) -> tuple[str, str, float]:
    """The prompt, its key and its depth; the same as the published code for the same seed.

    It says "memorize them", and both pieces of filler begin at the beginning.
    """
    before = rng.randint(0, characters)
    key = str(rng.randint(1, 50_000))
    hay = " ".join([NOISE] * (characters // (len(NOISE) + 1) + 1))
    intro = INTRO.replace("memorize it.", "memorize them.")
    lines = (intro, hay[:before], NEEDLE.format(key=key), hay[: characters - before], QUESTION)
    return "\n".join(lines), key, before / max(1, characters)


def fitting_characters(reader: Reader, length: int, seed: int) -> int:
    """The most filler, in steps of 128 characters, whose prompt stays below `length` tokens.

    Raises:
        ValueError: not even a prompt without filler does.
    """

    def tokens(characters: int) -> int:
        return 1 + len(reader.tokens(published_prompt(characters, random.Random(seed))[0]))

    bare = tokens(0)
    if bare >= length:
        raise ValueError(
            f"Passkey needs more than {bare:,} tokens with this tokenizer, "
            f"and {length:,} were asked for: take longer lengths."
        )
    sample = 128 * STEP
    steps = int((length - bare) * sample / (tokens(sample) - bare) / STEP)
    while tokens((steps + 1) * STEP) < length:
        steps += 1
    while steps and tokens(steps * STEP) >= length:
        steps -= 1
    return steps * STEP


def fitting_prompt(
    reader: Reader, length: int, characters: int, rng: random.Random
) -> tuple[np.ndarray, str, float]:
    """The next prompt of the generator, drawn again with less filler where it is too long."""
    drawn = rng.getstate()
    for fewer in range(characters, -1, -STEP):
        rng.setstate(drawn)
        prompt, key, depth = published_prompt(fewer, rng)
        tokens = np.array([reader.bos, *reader.tokens(prompt)], dtype=np.int64)
        if len(tokens) <= length:
            return tokens, key, depth
    raise ValueError(f"No passkey prompt of {length:,} tokens or fewer: take longer lengths.")


variants = {"standard": Passkey(), "yarn": Published(), "longrope": LongRope()}
