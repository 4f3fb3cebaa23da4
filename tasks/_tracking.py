"""RULER's variable tracking: a value is handed from one variable to the next."""

import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

from harness.task import Reader

from ._filled import Context
from ._haystack import NOISE
from ._prompt import Question
from ._ruler import Ruler

TRACK = (
    "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n"
    "{context}\nQuestion: Find all variables that are assigned the value {query} in the text above."
)
TRACKED = (
    " Answer: According to the chain(s) of variable assignment in the text above, {number} "
    "variables are assigned the value {query}, they are: "
)
EXAMPLE = 500
"""Tokens."""


@dataclass(frozen=True, kw_only=True)
class VariableTracking(Ruler):
    """A value is given to a variable, that to another, and so on: which all have it?

    An example stands before the question; names and values of both are drawn for every sample.
    Every assignment has a line of its own, as published since 2025: with the spaces behind it and
    before the example's answer.
    """

    hops: int = 4
    """Assignments of one variable to the next, behind the one of a number."""

    @property
    def version(self) -> int:  # type: ignore[override]
        """One more where more is asked for than is published: there was no room for it at first."""
        return 2 + (self.hops > 4)

    @property
    def max_new_tokens(self) -> int:  # type: ignore[override]
        """Published: 30, for the five names of four hops."""
        return 30 * max(5, self.hops + 1) // 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.hops <= 100:
            raise ValueError(f"A chain has 1 to 100 hops, and {self.hops} were asked for.")

    def questions(self, reader: Reader, length: int) -> Iterator[Question]:
        lines = None
        for i in range(self.samples):
            rng = self.draw(i, length)
            example, prefix, names = self.chain(rng, letters=3)
            if lines is None:
                lines = self.lines_of_example(reader, example, prefix)
            shown = f"{example(lines)}{prefix} {' '.join(names)}\n\n"
            question, prefix, names = self.chain(rng, letters=5)
            yield Question(
                text=behind(shown, question),
                prefix=prefix,
                answers=tuple(names),
                least=len(names),
                about={"value": prefix.split(",")[1].split()[-1]},
            )

    def chain(self, rng: random.Random, letters: int) -> tuple[Context, str, list[str]]:
        """The question by its lines of noise, what its answer begins with, and its answer."""
        names = list(islice(variables(rng, letters), self.hops + 1))
        value = rng.randint(10_000, 99_998)
        links = [f"VAR {names[0]} = {value}"]
        links += [f"VAR {new} = VAR {old} " for old, new in pairwise(names)]
        depths = sorted(rng.random() for _ in links)

        def text(n: int) -> str:
            return TRACK.format(context="\n".join(among(n, links, depths)), query=value)

        return text, TRACKED.format(query=value, number=len(names)), names

    def lines_of_example(self, reader: Reader, example: Context, prefix: str) -> int:
        """So many that it has 500 tokens without its answer, as published; at least its links."""
        n = self.hops + 1
        while n < EXAMPLE and len(reader.tokens(example(n + 1) + prefix)) <= EXAMPLE:
            n += 1
        return n


def among(n: int, links: Sequence[str], depths: Sequence[float]) -> list[str]:
    """So many lines of noise and links among them, each before another line than the others."""
    places = [int(depth * (n - len(links) + 1)) + i for i, depth in enumerate(depths)]
    lines = [NOISE] * n
    for i, (place, link) in enumerate(zip(places, links, strict=True)):
        lines.insert(place + i, link)
    return lines


def variables(rng: random.Random, letters: int) -> Iterator[str]:
    """Names of so many capitals, no two alike."""
    seen: set[str] = set()
    while True:
        name = "".join(rng.choices(string.ascii_uppercase, k=letters))
        if name not in seen:
            seen.add(name)
            yield name


def behind(example: str, text: Context) -> Context:
    return lambda n: example + text(n)
