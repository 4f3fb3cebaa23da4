"""How far a row of a table reads, and what that cost it on short inputs.

The rules are those of `harness.effective`. A score holds where it is at least 85 % of what the
model as it is scores on short inputs (NoLiMa's share). A perplexity holds where it is not
significantly above the row's own at the original length, document by document, nor more than
1 / 0.85 times that of the model as it is there: few documents show little, and who reads badly
everywhere keeps nothing worth having. Where the model as it is was not measured on inputs that it
reads, the row is held against itself alone.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from harness import catalog, checkpoints, effective
from harness.cell import UNEXTENDED, Cell, Result, base_of, in_any_dtype
from harness.effective import NOLIMA, SHORT, Reach, by_perplexity, by_share, by_threshold
from harness.lengths import label

MOST = {"clex": 16}
"""How many times further than trained a method reads at most, where its spec does not say: the
defaults of files that would bring torch."""
CLAIM = (
    "what a method's factor, or the most that it takes, makes of the original length, or what a "
    "checkpoint's page says; a method that takes its factor from the input claims nothing"
)
"""Of `claimed`, for readers."""
BUDGET = re.compile(r": (?:([\d,]+) tokens of .* updates, )?sequences of ([\d,]+)$", re.DOTALL)


@dataclass(frozen=True)
class Curve:
    """One model, task and method over lengths, shortest first; None where there is no number."""

    lengths: Sequence[int]
    values: Sequence[float | None]
    lows: Sequence[float | None]
    highs: Sequence[float | None]
    items: Callable[[int], Mapping[str, float]] = field(
        default=lambda length: {}, repr=False, compare=False
    )
    """The scores of a length's items, by which two are paired; none where they were not kept."""

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
        ends = (f"<{label(self.first)}" if n is None else label(n) for n in (self.low, self.high))
        return f"[{', '.join(ends)}]"


class Tax(NamedTuple):
    """What a method costs on inputs that the model could read without it."""

    share: float
    """Of the value of the model as it is; above 0 is worse, whichever way the metric points."""
    low: float | None
    """The 95 % interval's lower end, the other value taken as it is; None: not known."""
    high: float | None
    length: int

    @property
    def sure(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def unextended(model: str, method: str) -> bool:
    """Whether this is a model as it is, against which others are held."""
    return method == UNEXTENDED and base_of(model) == model


def against(plain: Curve | None, original: int | None) -> Curve | None:
    """The model as it is, if it was measured on inputs that it reads: what others are held against.

    What it scores beyond its window is no measure of anything.
    """
    first = plain and plain.up_to(None)
    if plain is None or first is None or (original and plain.lengths[first] > original):
        return None
    return plain


def curve(results: Sequence[Result]) -> Curve:
    """Of one row's results."""
    found = sorted(results, key=lambda result: result.cell.length)
    parts = [[getattr(r, name) for r in found] for name in ("value", "low", "high")]
    items = {result.cell.length: result.items for result in found}
    return Curve([r.cell.length for r in found], *parts, items.__getitem__)


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
    if plain is None and threshold is None and original and row.lengths[first] > original:
        return None  # nothing short to hold it against: it would hold against itself
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
    try:
        value, low, high = _changed(row, i, plain, j, ratio=not higher)
    except ValueError:  # no perplexity
        return None
    if not higher:
        return Tax(value - 1, *(None if x is None else x - 1 for x in (low, high)), length)
    of = plain.values[j] or 0.0
    best = 1 - 1 / of if 0 < of <= 1 else -inf  # of a share that cannot be above 1
    ends = (None if x is None else min(1.0, max(best, -x / abs(of))) for x in (high, low))
    return Tax(-value / abs(of), *ends, length)  # less is worse


def claimed(cell: Cell, factor: float | None, original: int | None) -> int | None:
    """What a row is made for: the original window times its factor, or the longest it can read.

    A method that takes its factor from the input claims nothing: None. Of a published checkpoint it
    is what its page says.
    """
    if published := checkpoints.find(in_any_dtype(cell.model)):
        return published.tested
    if original is None:
        return None
    if cell.method == UNEXTENDED:  # a checkpoint may come with a factor
        return round(original * (factor or 1))
    name, said = catalog.split(cell.method)
    if "factor" in said:
        return round(original * factor) if factor is not None else None
    most = said.get("max_factor", MOST.get(name))
    return None if most is None else round(original * float(most))


def budget(trained: str | None) -> tuple[int | None, int | None]:
    """Tokens and sequence length of a training, from what its phrase says of them."""
    said = BUDGET.search(trained or "")
    tokens, length = said.groups() if said else (None, None)
    return tokens and int(tokens.replace(",", "")), length and int(length.replace(",", ""))


def _base(plain: Curve) -> float | None:
    """The best of the model as it is on short inputs, as `by_share` takes it of a row's own."""
    known = [(n, v) for n, v in zip(plain.lengths, plain.values, strict=True) if v is not None]
    short = max(SHORT, known[0][0]) if known else 0
    return max((value for length, value in known if length <= short), default=None)


def _no_worse(row: Curve, plain: Curve | None, original: int | None) -> Held | None:
    """By perplexity, against itself, if at the original length it is worth anything.

    Of lengths that the model as it is reads anyway, and no longer ones, nothing is said.
    """
    known = [n for n, value in zip(row.lengths, row.values, strict=True) if value is not None]
    start = max((n for n in known if original and n <= original), default=known[0])
    every = {n: row.items(n) for n in known}
    kept: tuple[float | None, ...] = (1, 1, 1)
    base = row.values[row.up_to(start) or 0]
    at = plain.up_to(original) if plain and original else None
    if plain and at is not None:
        if known[-1] < plain.lengths[at]:
            return None
        i, j = _anchors(row, plain, start, at)
        times, low, high = _changed(row, i, plain, j, ratio=True)
        kept = (times, high, low or 0)  # if it is as high as it may be, it holds less far
        base = plain.values[j]
    points = (row.lengths, row.values, row.lows, row.highs)
    own = by_perplexity(*points, original=start, most=(base or 0) / NOLIMA, items=every)
    reached = zip(kept, (own.length, own.low, own.high), strict=True)
    length, low, high = (n if k is not None and k <= 1 / NOLIMA else None for k, n in reached)
    return Held(length, low, high, own.rule, own.censored and length is not None, start)


def _anchors(row: Curve, plain: Curve, start: int, at: int) -> tuple[int, int]:
    """Where the two are held against each other: at the longest short length that both have.

    Of a row that begins beyond the original length, at its first, against the other's last.
    """
    there = {n: j for j, n in enumerate(plain.lengths[: at + 1]) if plain.values[j] is not None}
    both = [i for i, n in enumerate(row.lengths) if n in there and row.values[i] is not None]
    if both:
        return both[-1], there[row.lengths[both[-1]]]
    return list(row.lengths).index(start), at


def _changed(
    row: Curve, i: int, plain: Curve, j: int, *, ratio: bool
) -> tuple[float, float | None, float | None]:
    """One value against another, and the interval, as `harness.effective.tax` has them."""
    mine, its = ((c.values[k] or 0.0, c.lows[k], c.highs[k]) for c, k in ((row, i), (plain, j)))
    items = row.items(row.lengths[i]), plain.items(plain.lengths[j])
    return effective.tax(*mine, *its, ratio=ratio, items=items)
