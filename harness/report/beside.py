"""Published tables beside a leaderboard: as they were printed, with their doubts, and not ranked.

They were made by other code on other samples, so they stand in sections of their own.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from harness.lengths import label, lengths
from harness.metric import LOWER
from harness.published import Published

Data = dict[str, Any]


def beside(numbers: Iterable[Published]) -> list[Data]:
    """One section a table, as the page's script takes it."""
    return [_section(list(those)) for _, those in groupby(numbers, key=lambda n: n.table)]


def _section(numbers: Sequence[Published]) -> Data:
    rows: dict[tuple[str, str, int | None], list[Published]] = {}
    for number in numbers:
        rows.setdefault((number.name, number.base, number.train_length), []).append(number)
    bases = dict.fromkeys(n.base for n in numbers)
    metrics = dict.fromkeys(n.metric for n in numbers)
    return {
        "model": next(iter(bases)) if len(bases) == 1 else "",
        "task": next(iter(dict.fromkeys(_family(n) for n in numbers))),
        "protocol": "",
        "title": numbers[0].title,
        "page": numbers[0].page,
        "source": numbers[0].source,
        "metric": " · ".join(metrics) if len(metrics) < 4 else "several metrics",
        "higher": not all(LOWER.search(n.metric) for n in numbers),
        "original": None,
        "published": True,
        "out": 0,
        "rows": [_row(those) for those in rows.values()],
    }


def _row(numbers: Sequence[Published]) -> Data:
    first = numbers[0]
    window = next((n.window for n in numbers if n.window), None)
    return {
        "rank": None,
        "method": first.method if first.counterpart else "",
        "name": first.name,
        "base": first.base,
        "tasks": list(dict.fromkeys(map(_family, numbers))),
        "protocols": list(dict.fromkeys(n.protocol for n in numbers if n.protocol)),
        "plain": False,
        "reach": None,
        "claimed": window,
        "claim": label(window) if window else "",
        "tax": None,
        "tokens": None,
        "window": label(first.train_length) if first.train_length else "",
        "points": [*_points(numbers)],
        "facts": _facts(numbers),
    }


def _points(numbers: Sequence[Published]) -> Iterator[list[Any]]:
    """A number that holds for several lengths is told once, and drawn from the first to the last.

    Length or column, what was printed, what came out again, value and no interval; and the column,
    where it says something else than the length, or nothing, of what is only drawn.
    """
    for _, those in groupby(numbers, key=lambda n: (n.column, n.task)):
        cell = list(those)
        for i, number in enumerate(cell):
            said = [] if len(cell) == 1 and _is_the_length(number) else ["" if i else number.column]
            yield [*_point(number), *said]


def _is_the_length(number: Published) -> bool:
    """Whether the column is nothing but the length, however written."""
    try:
        return number.length is None or lengths(number.column) == [number.length]
    except ValueError:
        return False


def _point(number: Published) -> list[Any]:
    """A bound is no value: it is printed, and not drawn."""
    where = number.length if number.length is not None else number.column
    again = "" if number.regenerated is None else f"again {number.regenerated:.4g}"
    return [where, number.printed, again, None if number.bound else number.value, None, None]


def _facts(numbers: Sequence[Published]) -> list[tuple[str, str]]:
    facts = [
        *(("corpus", n.corpus) for n in numbers),
        *(("trained on", n.trained) for n in numbers),
        *(("doubt", doubt) for n in numbers for doubt in n.doubts),
        *((n.column, n.why) for n in numbers),
    ]
    return [(name, text) for name, text in dict.fromkeys(facts) if text]


def _family(number: Published) -> str:
    return number.task.partition(".")[0]
