"""How far a row of a table reads, and what that cost it on short inputs.

The rules are those of `harness.effective`. Both measures are taken against the model as it is, so
that a method that reads badly everywhere does not count as one that keeps what it had: a score
holds where it is at least 85 % of what the model as it is scores on short inputs (NoLiMa's share),
a perplexity where it is not significantly above that of the model as it is at its original length.
Where the model as it is was not measured, the row is held against itself.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from harness import catalog, effective
from harness.cell import UNEXTENDED, Result
from harness.effective import SHORT, Reach, by_perplexity, by_share, by_threshold
from harness.lengths import label

LOWER = re.compile(r"perplexity|ppl|bits_per_byte|loss", re.IGNORECASE)
"""In the names of metrics that are better where lower, if their task is not known here."""
BUDGET = re.compile(r": ([\d,]+) tokens of .* updates, sequences of ([\d,]+)$", re.DOTALL)


@dataclass(frozen=True)
class Curve:
    """One model, task and method over lengths, shortest first; None where there is no number."""

    lengths: Sequence[int]
    values: Sequence[float | None]
    lows: Sequence[float | None]
    highs: Sequence[float | None]

    def up_to(self, length: int | None) -> int | None:
        """Where the longest is that was measured up to a length; the shortest if None is given."""
        known = [i for i, value in enumerate(self.values) if value is not None]
        if length is None:
            return known[0] if known else None
        return max((i for i in known if self.lengths[i] <= length), default=None)


@dataclass(frozen=True)
class Held(Reach):
    """How far a row reads, and what was looked at."""

    first: int
    """The shortest length that could have failed."""

    def __str__(self) -> str:
        """`32k`; `≥ 32k`, where the longest that was measured holds; `< 4k`, where none does."""
        if self.length is None:
            return f"< {label(self.first)}"
        return f"{'≥ ' if self.censored else ''}{label(self.length)}"

    @property
    def interval(self) -> str:
        """`[8k, 32k]`; nothing where it is a point."""
        if self.low == self.high == self.length:
            return ""
        low, high = (f"<{label(self.first)}" if n is None else label(n) for n in self._ends)
        return f"[{low}, {high}]"

    @property
    def _ends(self) -> tuple[int | None, int | None]:
        return self.low, self.high


class Tax(NamedTuple):
    """What a method costs on inputs that the model could read without it."""

    share: float
    """Of the value of the model as it is; above 0 is worse, whichever way the metric points."""
    sure: bool
    """The interval of the difference leaves out 0."""
    length: int


def unextended(model: str, method: str) -> bool:
    """Whether this is a model as it is, against which others are held."""
    return method == UNEXTENDED and "+" not in model


def curve(results: Sequence[Result]) -> Curve:
    """Of one row's results."""
    found = sorted(results, key=lambda result: result.cell.length)
    parts = [[getattr(r, name) for r in found] for name in ("value", "low", "high")]
    return Curve([r.cell.length for r in found], *parts)


@cache
def higher_is_better(task: str, metric: str) -> bool:
    """As the task says; of a task that is not known here, or asks elsewhere, as its metric does."""
    try:
        said = getattr(type(catalog.load("tasks", task.split(",")[0])), "higher_is_better", None)
    except (LookupError, ValueError, ImportError):
        said = None
    return said if isinstance(said, bool) else not LOWER.search(metric)


def held(
    row: Curve,
    plain: Curve | None,
    original: int | None,
    higher: bool,
    threshold: float | None = None,
) -> Held | None:
    """How far the row holds against the model as it is; None: nothing can be said.

    Args:
        row: what was measured.
        plain: the model as it is on the same task, if it was measured.
        original: tokens of the window it was pretrained on, if known.
        higher: whether a higher value is better.
        threshold: of scores, hold the row against this one instead, as RULER does.
    """
    first = row.up_to(None)
    if first is None:
        return None
    try:
        if not higher:
            return _no_worse(row, plain, original)
        points = (row.lengths, row.values, row.lows, row.highs)
        if threshold is None:
            said = by_share(*points, base=plain and _base(plain))
        else:
            said = by_threshold(*points, threshold)
        return Held(**vars(said), first=row.lengths[first])
    except ValueError:  # what is compared, or a share is to be of, is not above zero
        return None


def tax(row: Curve, plain: Curve | None, original: int | None, higher: bool) -> Tax | None:
    """At the longest length within the original window that both were measured at."""
    if plain is None:
        return None
    there = {n: j for j, n in enumerate(plain.lengths) if plain.values[j]}
    within = original if original is not None else min(there, default=0)
    both = [n for i, n in enumerate(row.lengths) if row.values[i] is not None and n in there]
    length = max((n for n in both if n <= within), default=None)
    if length is None:
        return None
    i, j = list(row.lengths).index(length), there[length]
    mine, its = ((c.values[k] or 0.0, c.lows[k], c.highs[k]) for c, k in ((row, i), (plain, j)))
    try:
        value, low, high = effective.tax(*mine, *its, ratio=not higher)
    except ValueError:  # no perplexity
        return None
    same = 0 if higher else 1
    share = -value / abs(its[0]) if higher else value - 1
    return Tax(share, low is not None and high is not None and not low <= same <= high, length)


def claimed(method: str, factor: float | None, original: int | None, longest: int) -> int | None:
    """What a row is made for: the original window times its factor.

    A method that takes its factor from the input claims whatever it is given: the longest length.
    """
    if original is None or (factor is None and method != UNEXTENDED):
        return None
    if factor is None:
        return original
    return round(original * factor) if "factor" in catalog.split(method)[1] else longest


def budget(trained: str | None) -> tuple[int | None, int | None]:
    """Tokens and sequence length of a training, from `harness.trained`'s phrase about it."""
    said = BUDGET.search(trained or "")
    if not said:
        return None, None
    tokens, length = (int(text.replace(",", "")) for text in said.groups())
    return tokens, length


def _base(plain: Curve) -> float | None:
    """The best of the model as it is on short inputs, as `by_share` takes it of a row's own."""
    known = [(n, v) for n, v in zip(plain.lengths, plain.values, strict=True) if v is not None]
    short = max(SHORT, known[0][0]) if known else 0
    return max((value for length, value in known if length <= short), default=None)


def _no_worse(row: Curve, plain: Curve | None, original: int | None) -> Held | None:
    """By perplexity, against the model as it is in the place of the row's own start.

    To `by_perplexity` that is a length just below the shortest of the row's, which can thus fail as
    any other can.
    """
    against = plain if plain and plain.up_to(original) is not None else row
    within = against.up_to(original)
    at = within if within is not None else against.up_to(None) or 0
    start = against.lengths[at]
    if against is row:
        own = by_perplexity(row.lengths, row.values, row.lows, row.highs, original=start)
        return Held(**vars(own), first=start)
    there = [i for i, n in enumerate(row.lengths) if n >= start and row.values[i] is not None]
    if not there:
        return None
    pairs = ((against.values, row.values), (against.lows, row.lows), (against.highs, row.highs))
    columns = [[its[at], *(mine[i] for i in there)] for its, mine in pairs]
    lengths = [start - 1, *(row.lengths[i] for i in there)]
    said = by_perplexity(lengths, *columns, original=start - 1)
    length, low, high = (None if n == start - 1 else n for n in (said.length, said.low, said.high))
    censored = said.censored and length is not None
    return Held(length, low, high, said.rule, censored, row.lengths[there[0]])
