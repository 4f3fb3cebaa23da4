"""Things to find that no text has by chance: pairs of words, long numbers, identifiers.

The words are of this project's own lists, tasks/data/nouns.txt and adjectives.txt.
"""

import random
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Literal
from uuid import UUID

DATA = Path(__file__).with_name("data")
Kind = Literal["words", "numbers", "uuids"]


@cache
def listed(name: str) -> tuple[str, ...]:
    """One of the lists of tasks/data, in alphabetical order."""
    return tuple((DATA / f"{name}.txt").read_text("utf-8").split())


def drawn(kind: Kind, rng: random.Random) -> str:
    """`wooden-lantern`, a number of seven digits, or a random uuid."""
    if kind == "words":
        return f"{rng.choice(listed('adjectives'))}-{rng.choice(listed('nouns'))}"
    if kind == "numbers":
        return str(rng.randint(10**6, 10**7 - 1))
    return str(UUID(int=rng.getrandbits(128), version=4))


def unlike(kind: Kind, rng: random.Random) -> Iterator[str]:
    """One after another, no two alike."""
    seen: set[str] = set()
    while True:
        if (new := drawn(kind, rng)) not in seen:
            seen.add(new)
            yield new


def kept(stream: Iterator[str]) -> Callable[[int], list[str]]:
    """The first so many of a stream, which is drawn from no further than was asked for."""
    drawn: list[str] = []

    def first(n: int) -> list[str]:
        drawn.extend(islice(stream, max(0, n - len(drawn))))
        return drawn[:n]

    return first
