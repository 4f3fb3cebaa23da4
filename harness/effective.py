"""Effective context length: how far a score holds, by the field's named rules; and its price.

What is measured holds contiguously: a length counts only if every shorter one holds too. Each rule
gives an interval with the length: how far even the score's lower end holds, and how far its upper
end still does. A length that was not measured (None) is passed over; where an end of an interval is
not known, the lower one is taken not to hold, and the upper one to hold.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, hypot, inf, isfinite, log

NOLIMA = 0.85
"""NoLiMa's share of the base score, section 4.1: https://arxiv.org/abs/2502.05167."""
SHORT = 1024
"""The longest of the lengths that NoLiMa takes the base score from."""
RULER = 0.856
"""RULER's threshold, section 4, Llama-2-7b-chat's mean over thirteen tasks at 4k:
https://arxiv.org/abs/2404.06654."""
ALIKE = 1e-6
"""What the mean of items may differ from the value, by rounding."""
MOST = 700
"""Nats of which a ratio is a number still."""

Maybe = Sequence[float | None]
Items = Mapping[int, Mapping[str, float]]
"""Each item's own score, by length and id."""


@dataclass(frozen=True)
class Reach:
    """How far a score holds. None: not even at the shortest length that was measured."""

    length: int | None
    """The longest measured length that still holds."""
    low: int | None
    high: int | None
    rule: str
    censored: bool
    """The longest measured length still holds: it may reach further."""


def by_share(
    lengths: Sequence[int],
    values: Maybe,
    lows: Maybe,
    highs: Maybe,
    *,
    of: float = NOLIMA,
    base: float | None = None,
    short: int = SHORT,
    rule: str = "nolima",
) -> Reach:
    """The longest length with at least a share of the base score; higher is better.

    The base is the best score at up to `short` tokens, or at the shortest length that was measured
    if that is longer. NoLiMa takes the best of 250, 500 and 1k for each question and needle, and
    then the mean; here it is of the whole. The base is taken as known, its own
    error is not in the interval; what is shorter than where it was reached is not asked for.

    Raises:
        ValueError: nothing was measured, or a length twice, or the base score is not above zero.
    """
    points = _points(lengths, values, lows, highs)
    short = max(short, points[0].length)
    best = max((p for p in points if p.length <= short), key=lambda p: p.value)
    if (best.value if base is None else base) <= 0:
        raise ValueError("Nothing is found on short inputs, and of nothing there is no share.")
    if base is not None:
        return _at_least(points, of * base, rule)
    longer = [p for p in points if p.length > best.length]
    return _at_least([replace(best, low=best.value), *longer], of * best.value, rule)


def by_threshold(
    lengths: Sequence[int],
    values: Maybe,
    lows: Maybe,
    highs: Maybe,
    threshold: float = RULER,
    rule: str = "ruler",
) -> Reach:
    """The longest length with at least a fixed score, in the unit of the values.

    RULER's is Llama-2-7b-chat's at 4k, 85.6 %, and stands for no other mix of tasks: give your own.

    Raises:
        ValueError: nothing was measured, or a length twice.
    """
    return _at_least(_points(lengths, values, lows, highs), threshold, rule)


def by_perplexity(
    lengths: Sequence[int],
    values: Maybe,
    lows: Maybe = (),
    highs: Maybe = (),
    *,
    original: int,
    most: float = inf,
    items: Items | None = None,
    rule: str = "perplexity",
) -> Reach:
    """The longest length at which perplexity is not significantly worse than at the original one.

    Significantly: the 95 % interval of the difference in nats lies above 0. `low` is how far it is
    surely no worse, the interval lying at or below 0; `high` is the length itself. With more to
    read, perplexity normally falls, so a model may lose a part of what the longer context is worth
    and still hold; and the measure is the method's own, however bad it is at the original length.
    Few documents show little: what is above `most` does not hold, whether that is significant or
    not.

    Documents are paired where `items` has their mean losses in nats at both lengths. Else the two
    intervals give that of the difference as if they were independent, which is too wide for the
    same documents: Zou & Donner 2008, https://doi.org/10.1002/sim.3095, equation 9.

    Args:
        lengths: in tokens; those below the original one do not matter.
        values: perplexities.
        lows: of their intervals.
        highs: of their intervals.
        original: the length the model was pretrained on. If it was not measured, the longest below
            stands for it.
        most: the highest perplexity that holds beyond it.
        items: by length, each document's mean loss in nats.
        rule: what to call it.

    Raises:
        ValueError: no length up to the original one was measured, or a length twice, or a
            perplexity is not above zero.
    """
    blank = [None] * len(lengths)
    points = _points(lengths, values, lows or blank, highs or blank)
    start = max((p.length for p in points if p.length <= original), default=None)
    if start is None:
        raise ValueError(
            f"Nothing was measured at up to {original} tokens, the original length, to compare "
            "longer ones with: measure it there."
        )
    points = [p for p in points if p.length >= start]
    lengths, first = [p.length for p in points], points[0]
    worse = [(p.value <= most, *_worse(first, p, items or {})) for p in points[1:]]
    reached = _contiguous(lengths, [True, *(may and low <= 0 for may, low, _ in worse)])
    surely = _contiguous(lengths, [True, *(may and high <= 0 for may, _, high in worse)])
    return Reach(reached, surely, reached, rule, reached == points[-1].length)


def tax(
    value: float,
    low: float | None,
    high: float | None,
    plain: float,
    plain_low: float | None,
    plain_high: float | None,
    *,
    ratio: bool = False,
    items: tuple[Mapping[str, float], Mapping[str, float]] = ({}, {}),
) -> tuple[float, float | None, float | None]:
    """What a method changes within the original length, and its interval: its score less the plain.

    With `ratio`, as perplexities are compared, by how many times; `plain` is the model as it is.
    Items, a score each or a mean loss in nats, are paired where both have the same; else the
    interval is from the two alone, as in `by_perplexity`, and so too wide.

    Raises:
        ValueError: a ratio is of perplexities that are not above zero.
    """
    ours, theirs = (value, low, high), (plain, plain_low, plain_high)
    if ratio:
        ours, theirs = _logs(ours), _logs(theirs)
    ends = _paired(*items, ours[0] - theirs[0]) or _difference(ours, theirs)
    if ratio:
        return value / plain, *map(_times, ends)
    return value - plain, *map(_known, ends)


@dataclass(frozen=True, kw_only=True)
class Point:
    """What a method took to train, and how good it is."""

    name: str
    tokens: int
    quality: float


def pareto(points: Iterable[Point], *, higher_is_better: bool = True) -> list[Point]:
    """Those that no other beats in tokens without being worse in quality; fewest tokens first."""
    sign = 1 if higher_is_better else -1
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.tokens, -sign * p.quality)):
        best = front[-1] if front else None
        alike = best and (best.tokens, best.quality) == (point.tokens, point.quality)
        if not best or alike or sign * point.quality > sign * best.quality:
            front.append(point)
    return front


@dataclass(frozen=True)
class _Point:
    length: int
    value: float
    low: float | None
    high: float | None


def _points(lengths: Sequence[int], values: Maybe, lows: Maybe, highs: Maybe) -> list[_Point]:
    """What was measured, shortest first."""
    if len(set(lengths)) < len(lengths):
        raise ValueError("A length stands there twice: how far a score holds is of one row.")
    rows = sorted(zip(lengths, values, lows, highs, strict=True), key=lambda row: row[0])
    points = [_Point(n, v, low, high) for n, v, low, high in rows if v is not None]
    if not points:
        raise ValueError("Nothing was measured at any length, so there is nothing to hold.")
    if not all(isfinite(point.value) for point in points):
        raise ValueError("How far a score holds is of finite scores, and one is not.")
    return points


def _at_least(points: list[_Point], bar: float, rule: str) -> Reach:
    lengths = [point.length for point in points]
    length = _contiguous(lengths, [p.value >= bar for p in points])
    low = _contiguous(lengths, [p.low is not None and min(p.low, p.value) >= bar for p in points])
    high = _contiguous(lengths, [p.high is None or max(p.high, p.value) >= bar for p in points])
    return Reach(length, low, high, rule, length == lengths[-1])


def _contiguous(lengths: Sequence[int], holds: Sequence[bool]) -> int | None:
    """The longest length before the first that does not hold."""
    first = holds.index(False) if False in holds else len(lengths)
    return lengths[first - 1] if first else None


def _paired(
    ours: Mapping[str, float], theirs: Mapping[str, float], difference: float
) -> tuple[float, float] | None:
    """The interval of a difference that is the mean one of the same items; None: it is not."""
    if len(ours) < 2 or ours.keys() != theirs.keys():
        return None
    from harness.stats import ROUNDING, difference_of_shares, mean_interval

    a, b = list(ours.values()), [theirs[name] for name in ours]
    changes = [x - y for x, y in zip(a, b, strict=True)]
    if abs(sum(changes) / len(changes) - difference) > ALIKE:
        return None
    if {*a, *b} <= {0, 1}:
        return difference_of_shares(a, b)
    if any(changes) and max(changes) - min(changes) <= ROUNDING * max(map(abs, changes)):
        return None  # all differ by the same: nothing is seen of how much they vary
    return mean_interval(changes)


def _worse(original: _Point, longer: _Point, items: Items) -> tuple[float, float]:
    """The interval of how much worse the longer one is, in nats."""
    first, second = items.get(original.length, {}), items.get(longer.length, {})
    ours, theirs = (_logs((p.value, p.low, p.high)) for p in (longer, original))
    return _paired(second, first, ours[0] - theirs[0]) or _difference(ours, theirs)


Ends = tuple[float, float | None, float | None]
"""A value and its interval."""


def _difference(a: Ends, b: Ends) -> tuple[float, float]:
    """The interval of a difference, from those of both; without end where one is not known."""
    (x, x_low, x_high), (y, y_low, y_high) = a, b
    below, above = (
        inf if p is None or q is None else hypot(x - p, y - q)
        for p, q in ((x_low, y_high), (x_high, y_low))
    )
    return x - y - below, x - y + above


def _logs(ends: Ends) -> Ends:
    value, low, high = ends
    if value <= 0:
        raise ValueError("A perplexity is above zero, and one here is not.")
    return log(value), *(log(x) if x else None for x in (low, high))


def _known(end: float) -> float | None:
    return end if isfinite(end) else None


def _times(nats: float) -> float | None:
    """As a ratio, if that is a number."""
    return exp(nats) if abs(nats) < MOST else None
