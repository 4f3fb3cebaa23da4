"""Lengths as people write them: `4k-2048k`, `2k-16k:2k`, `4k,100k,128k`.

k is 1024 tokens, m is 1024k. A length counts every token of the input, the start token included.
"""

import re
from collections.abc import Iterable

K = 1024
MOST = 10_000
LONGEST = 2**31 - 1
"""Tokens; positions and tables beyond would overflow."""
_UNITS = {"": 1, "k": K, "m": K * K}
_HOW = "Write 4096 or 4k, 4k-32k to double, 2k-16k:2k to step, or 4k,100k to list (k = 1024)."


def lengths(text: str) -> list[int]:
    """Every length the text names, shortest first, each once.

    `4k-32k` doubles from 4k for as long as it does not pass 32k; `2k-16k:2k` goes in steps of 2k.

    Raises:
        ValueError: it is malformed, reversed, zero, too long, or names more than 10,000 lengths.
    """
    found: set[int] = set()
    for item in text.split(","):
        found.update(_range(item.strip()))
        if len(found) > MOST:
            raise ValueError(_too_many(text))
    return sorted(found)


def one(text: str, flag: str) -> int:
    """The length that a flag was given.

    Raises:
        ValueError: it is none, or several.
    """
    found = lengths(text)
    if len(found) != 1:
        raise ValueError(f"{flag} takes one length, and {text!r} names {len(found)}.")
    return found[0]


def label(length: int) -> str:
    """The shortest way to write a length: 4096 is `4k`, 1000 is `1000`."""
    return str(length) if length % K else f"{length // K}k"


def _range(item: str) -> Iterable[int]:
    bounds, colon, step = item.partition(":")
    first, dash, last = bounds.partition("-")
    start = _length(first, item)
    if not dash:
        if colon:
            raise ValueError(f"{item!r} has a step but no range. {_HOW}")
        return [start]
    stop = _length(last, item)
    if stop < start:
        raise ValueError(f"{item!r} runs backwards: write it {last}-{first}.")
    return _steps(start, stop, _length(step, item)) if colon else _doublings(start, stop)


def _doublings(start: int, stop: int) -> Iterable[int]:
    while start <= stop:
        yield start
        start *= 2


def _steps(start: int, stop: int, step: int) -> range:
    if (stop - start) // step >= MOST:
        raise ValueError(_too_many(f"{label(start)}-{label(stop)}:{label(step)}"))
    return range(start, stop + 1, step)


def _length(text: str, item: str) -> int:
    match = re.fullmatch(r"(\d{1,15})([km]?)", text.strip().lower())
    if match is None:
        part = "" if text.strip() in ("", item) else f"{text.strip()!r} in "
        raise ValueError(f"{part}{item!r} is no length. {_HOW}")
    length = int(match[1]) * _UNITS[match[2]]
    if length == 0:
        raise ValueError(f"{item!r} has a zero, and a length is at least 1 token. {_HOW}")
    if length > LONGEST:
        raise ValueError(f"{item!r} is too long: a length is at most {LONGEST:,} tokens. {_HOW}")
    return length


def _too_many(text: str) -> str:
    return f"{text!r} names more than {MOST:,} lengths: take a larger step, as in 2k-16k:2k."
