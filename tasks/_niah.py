"""A needle in a haystack: a value by its key; some keys are asked for. In the words of RULER."""

import random
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from harness.task import Reader

from ._filled import Context, placed, within
from ._haystack import NOISE, Hay
from ._prompt import Question
from ._ruler import Ruler
from ._words import Kind, kept, unlike

NEEDLE = "One of the special magic {kind} for {key} is: {value}."
TEMPLATE = (
    "Some special magic {kind} are hidden within the following text. Make sure to memorize it. I "
    "will quiz you about the {kind} afterwards.\n{context}\nWhat are all the special magic {kind} "
    "for {query} mentioned in the provided text?"
)
PREFIX = " The special magic {kind} for {query} mentioned in the provided text are"
DEPTHS = tuple(round(i * 100 / 39) for i in range(40))
"""Percent of a corpus that stand before a needle; published as percent of its sentences."""
ROOM: dict[Kind, int] = {"words": 16, "numbers": 16, "uuids": 64}
"""Tokens that a value is sure to need no more of, with what stands between two."""


@dataclass(frozen=True, kw_only=True)
class Needles:
    """What is hidden and what is asked for."""

    kind: Kind
    """Of the values."""
    hidden: tuple[tuple[str, str], ...]
    """Key and value, in the order in which they stand."""
    queries: tuple[str, ...]

    @property
    def answers(self) -> tuple[str, ...]:
        """The values of the keys that are asked for, key by key."""
        return tuple(v for query in self.queries for key, v in self.hidden if key == query)

    @property
    def lines(self) -> list[str]:
        return [line(self.kind, key, value) for key, value in self.hidden]

    def template(self) -> tuple[str, str]:
        """The question but for its context, and what the answer begins with."""
        template, prefix, kind = TEMPLATE, PREFIX, str(self.kind)
        if len(self.answers) == 1:
            for many, one in (("Some", "A"), ("are all", "is"), ("are", "is")):
                template, prefix = template.replace(many, one), prefix.replace(many, one)
            kind = kind.removesuffix("s")
        *most, last = self.queries
        query = f"{', '.join(most)}, and {last}" if most else last
        filled = template.replace("{kind}", kind).replace("{query}", query)
        return filled, prefix.format(kind=kind, query=query)


def line(kind: str, key: str, value: str) -> str:
    return NEEDLE.format(kind=kind, key=key, value=value)


def needles(
    rng: random.Random, keys: int, values: int, queries: int, key: Kind, value: Kind
) -> Needles:
    """No two keys and no two values alike; all are hidden, in a random order."""
    names = list(islice(unlike(key, rng), keys))
    found = unlike(value, rng)
    hidden = [(name, next(found)) for name in names for _ in range(values)]
    rng.shuffle(hidden)
    return Needles(kind=value, hidden=tuple(hidden), queries=tuple(rng.sample(names, queries)))


Haystack = Callable[[Needles, Sequence[float], random.Random], Context]
"""Hides needles at depths, which are in order and from 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Niah(Ruler):
    """Needles in a haystack: each is a value by its key, and some keys are asked for."""

    keys: int = 1
    """Needles of different names that are hidden."""
    values: int = 1
    """Of each key."""
    queries: int = 1
    """Keys that are asked for."""
    key: Kind = "words"
    """What names are: words, numbers or uuids."""
    value: Kind = "numbers"
    """What is hidden under them: words, numbers or uuids."""

    @property
    def version(self) -> int:  # type: ignore[override]
        """2 where more is asked for than is published: there was no room for it in 1."""
        return 1 + (self.max_new_tokens > Ruler.max_new_tokens)

    @property
    def max_new_tokens(self) -> int:  # type: ignore[override]
        """Published: 128; more where more values are asked for than that is sure to hold."""
        return max(Ruler.max_new_tokens, ROOM[self.value] * self.queries * self.values)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (1 <= self.queries <= self.keys and self.values >= 1):
            raise ValueError(
                f"Needles have at least 1 key, as many queries as keys or fewer and at least 1 "
                f"value a key; {self.keys} keys, {self.queries} queries and {self.values} values "
                "were asked for."
            )

    @abstractmethod
    def haystack(self, reader: Reader, length: int) -> Haystack: ...

    def drawn(self, rng: random.Random) -> Needles:
        return needles(rng, self.keys, self.values, self.queries, self.key, self.value)

    def places(self, rng: random.Random, n: int) -> list[float]:
        """Where n needles lie, as shares of the filler; published: anywhere."""
        return sorted(round(rng.random(), 4) for _ in range(n))

    def questions(self, reader: Reader, length: int) -> Iterator[Question]:
        haystack = self.haystack(reader, length)
        for i in range(self.samples):
            hidden = self.drawn(self.draw(i, length))
            places = self.places(self.draw(i, length, "depths"), len(hidden.hidden))
            context = haystack(hidden, places, self.draw(i, length, "hay"))
            yield asked_of(hidden, context, {"depths": places})


class InNoise(Niah):
    """Lines that say nothing."""

    def haystack(self, reader: Reader, length: int) -> Haystack:
        def hide(hidden: Needles, depths: Sequence[float], rng: random.Random) -> Context:
            return lambda n: "\n".join(placed([NOISE] * n, hidden.lines, depths))

        return hide


@dataclass(frozen=True, kw_only=True)
class InEssays(Niah):
    """A corpus, one sentence after another on one line."""

    corpus: str = "stdlib"

    def places(self, rng: random.Random, n: int) -> list[float]:
        """Published: n of forty; more than forty share some."""
        drawn = rng.sample(DEPTHS, n) if n <= len(DEPTHS) else rng.choices(DEPTHS, k=n)
        return sorted(percent / 100 for percent in drawn)

    def haystack(self, reader: Reader, length: int) -> Haystack:
        hay = Hay.of(reader, self.corpus, length)

        def hide(hidden: Needles, depths: Sequence[float], rng: random.Random) -> Context:
            return lambda n: hay.with_needles(n, hidden.lines, depths)

        return hide


class AmongNeedles(Niah):
    """Needles that nobody asks for, a line each."""

    def haystack(self, reader: Reader, length: int) -> Haystack:
        def hide(hidden: Needles, depths: Sequence[float], rng: random.Random) -> Context:
            lines = kept(others(hidden, self.key, rng))
            return lambda n: "\n".join(placed(lines(n), hidden.lines, depths))

        return hide


def others(hidden: Needles, key: Kind, rng: random.Random) -> Iterator[str]:
    """Needles whose keys and values are none of the hidden ones."""
    taken = {word for pair in hidden.hidden for word in pair}
    keys, values = unlike(key, rng), unlike(hidden.kind, rng)
    for name, value in zip(keys, values, strict=True):
        if not taken & {name, value}:
            yield line(hidden.kind, name, value)


def asked_of(hidden: Needles, context: Context, about: Mapping[str, Any]) -> Question:
    template, prefix = hidden.template()
    return Question(
        text=lambda n: within(template, context(n)),
        prefix=prefix,
        answers=hidden.answers,
        least=len(hidden.hidden),
        about={"queries": list(hidden.queries), **about},
    )
