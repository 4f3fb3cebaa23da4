"""What InfiniteBench's generated questions are made of: a draw of so many units, and what is right.

data/construct_synthetic_dataset.py of https://github.com/OpenBMB/InfiniteBench (MIT). The same
chance gives longer contexts that ask the same, as far as they can.
"""

import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

from ._haystack import NOISE

LINE = len(NOISE.split())
"""Words of a line of hay."""
KEY = "The pass key is {key}. Remember it. {key} is the pass key.\n"
SEQUENCE = "The sequence of digits is {key}. Remember it. {key} is the sequence of digits.\n"
WANTED = {
    "largest number": lambda numbers: sorted(set(numbers))[-1],
    "second largest number": lambda numbers: sorted(set(numbers))[-2],
    "third largest number": lambda numbers: sorted(set(numbers))[-3],
    "smallest number": lambda numbers: sorted(set(numbers))[0],
    "second smallest number": lambda numbers: sorted(set(numbers))[1],
    "third smallest number": lambda numbers: sorted(set(numbers))[2],
    "median": lambda numbers: float(median(numbers)),
}
"""Second and third are among different numbers; a median is one with a point."""
DEEP = (2, 4, 6, 8, 10)
"""Functions that call one another until one calls none."""


@dataclass(frozen=True)
class Drawn:
    """A question of one length."""

    fill: Mapping[str, str]
    """What stands in the prompt's template."""
    right: Any
    about: Mapping[str, Any] = field(default_factory=dict)


def hidden(rng: random.Random, words: int, depth: float, needle: str, question: str) -> Drawn:
    """A needle between lines of hay; the last line may be cut, so that every length can be made.

    Args:
        rng: of chance.
        words: of hay.
        depth: share of the whole lines that stand before the needle, 0 to 1.
        needle: how the key is said; of ten digits where it is a sequence.
        question: about it.
    """
    key = [str(rng.randint(0, 9)) for _ in range(5)]
    if needle is SEQUENCE:
        for _ in range(5):
            at = rng.randrange(len(key))
            key.insert(at, key[at])
    lines, rest = divmod(words, LINE)
    before = round(depth * lines)
    said = needle.format(key="".join(key))
    cut = " ".join(NOISE.split()[:rest])
    context = f"{NOISE}\n" * before + said + f"{NOISE}\n" * (lines - before) + cut
    return Drawn({"context": context, "input": question}, "".join(key), {"depth": depth})


def pairs(rng: random.Random, n: int, depth: float) -> Drawn:
    """A value by its key among others, as JSON; both are UUIDs.

    The depth is the share of pairs that stand before; 0 to 1.
    """

    def draw() -> str:
        return str(uuid.UUID(int=rng.getrandbits(128), version=4))

    key, value = draw(), draw()
    others = [f'"{draw()}": "{draw()}"' for _ in range(n - 1)]
    others.insert(round(depth * (n - 1)), f'"{key}": "{value}"')
    question = f'\nKey: "{key}"\nThe value associated with the specified key is: '
    context = "JSON data:\n{" + ", ".join(others) + "}"
    return Drawn({"context": context, "input": question}, value, {"depth": depth})


def listed(rng: random.Random, n: int, wanted: str) -> Drawn:
    """A list of whole numbers from 0 to 99, and one to find.

    For the largest the upper bound is drawn first, from 79 to 99, for the smallest the lower, to
    20; for the median one of both.
    """
    low, high = 0, 99
    if "largest" in wanted or (wanted == "median" and rng.random() < 0.5):
        high = rng.randint(79, 99)
    else:
        low = rng.randint(0, 19)
    numbers = [rng.randint(low, high) for _ in range(n)]
    fill = {
        "prefix": f"What is the {wanted} in the following list?",
        "context": str(numbers),
        "input": f"You should answer with only one number, no other words. The {wanted} of the "
        "list is: ",
    }
    return Drawn(fill, WANTED[wanted](numbers), {"part": wanted})


def expression(rng: random.Random, n: int) -> Drawn:
    """N numbers added and subtracted, never below 0 or above 99; right is each value on the way.

    What is right begins after the first operation.
    """
    value = rng.randint(0, 99)
    terms, values = [str(value)], []
    for _ in range(n - 1):
        plus, number = rng.random() < 0.5, rng.randint(0, 99)
        most = 99 - value if plus else value
        if number > most:
            number = rng.randint(0, most)
        value += number if plus else -number
        terms.append(f"{'+' if plus else '-'} {number}")
        values.append(value)
    return Drawn({"context": " ".join(terms)}, values)


def functions(rng: random.Random, n: int, deep: int) -> Drawn:
    """N functions in layers, each of which calls one of the next layer and adds to what it returns.

    What is asked for and what all its calls add is drawn first, so that it returns the same among
    however many; those left over when layers are equal stand in the last.
    """
    x, adds = rng.randint(-10, 10), [rng.randint(-12, 17) for _ in range(deep)]
    names = rng.sample(range(1, 2 * n + 1), n)
    bounds = [i * (n // deep) for i in range(deep)] + [n]
    layers = [names[a:b] for a, b in pairwise(bounds)]
    chain = [rng.choice(layer) for layer in layers]
    bodies = {}
    for depth, layer in enumerate(layers):
        for name in layer:
            on_chain = name == chain[depth]
            add = adds[depth] if on_chain else rng.randint(-12, 17)
            inner = "x"
            if depth + 1 < deep:
                called = chain[depth + 1] if on_chain else rng.choice(layers[depth + 1])
                inner = f"func_{called}(x)"
            bodies[name] = inner + (f" {'+' if add > 0 else '-'} {abs(add)}" if add else "")
    source = "\n\n".join(f"def func_{k}(x):\n    return {bodies[k]}" for k in sorted(bodies))
    fill = {
        "context": f"\nHere is the content of functions_module.py:\n\n{source}\n",
        "func": f"func_{chain[0]}",
        "func_call": f"func_{chain[0]}({x})",
    }
    return Drawn(fill, x + sum(adds), {"part": f"depth {deep}"})
