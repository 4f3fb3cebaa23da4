"""Two methods, item by item: how they differ, how sure that is, and who wins most often.

Both were asked the same, so their scores are paired by item (a document, a trial), which is far
surer than two intervals beside each other. Of comparisons made together, each p is corrected for
all of them. Dror et al. 2018, https://aclanthology.org/P18-1128; on what a sample could have
shown, Card et al. 2020, https://aclanthology.org/2020.emnlp-main.745.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import exp, log

from harness import catalog
from harness.cell import Result
from harness.effective import ALIKE
from harness.metric import higher_is_better
from harness.pairing import NATS, Items, aligned, comparable, meant, name
from harness.stats import enough, holm, least_p, paired, sign_flip

__all__ = ["between", "comparable", "compare", "floor", "matrix"]

SIGNIFICANT = 0.05
Pair = tuple[Result, Result]


def own(result: Result) -> dict[str, float]:
    """The items that stand in the result itself; `harness.pairing.kept` looks beside it, too."""
    return result.items


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two rows at one length; differences are `a` less `b`."""

    model: str
    task: str
    length: int
    a: str
    b: str
    metric: str
    a_value: float
    """As it was measured, in the metric's unit."""
    b_value: float
    unit: str
    """Of the difference: nats, points (hundredths of one), or the metric's own."""
    difference: float
    """The mean over items, all counting alike."""
    low: float | None
    """The 95 % interval's lower end; None where there is one item."""
    high: float | None
    ratio: float | None
    """Of perplexities: a's is so many times b's."""
    p: float
    least: float
    """The smallest p that a sample of this size can give."""
    corrected: float
    """The p after Holm, for all comparisons made together."""
    detectable: float | None
    """The smallest true difference that this sample shows four times of five, its p corrected as
    if it were the smallest of all; None: none."""
    n: int
    """Items."""
    better: str | None = None
    """Whichever significantly is; None: neither."""
    caveat: str | None = None


@dataclass(frozen=True)
class Wins:
    """Of one method over another."""

    ahead: int = 0
    """Cells in which its score is the better one."""
    sure: int = 0
    """Cells in which it significantly is."""
    of: int = 0
    """Cells in which the two could be compared."""


@dataclass(frozen=True)
class Matrix:
    """Every method against every other; who is ahead most often comes first."""

    models: list[str]
    names: list[str]
    wins: dict[tuple[str, str], Wins]
    least: list[float]
    """The smallest p that each comparison could have."""
    left_out: list[str]
    """What could not be compared, and why."""


def compare(pairs: Iterable[Pair], items: Items = own) -> list[Comparison]:
    """Each pair of results, with p-values corrected for all of them together.

    Raises:
        ValueError: two may not be compared; says why.
        LookupError: the items of one are not known; says what to do.
    """
    pairs = list(pairs)
    found = [_compared(a, b, items, len(pairs)) for a, b in pairs]
    corrected = holm([comparison.p for comparison in found])
    return [_judged(c, p) for c, p in zip(found, corrected, strict=True)]


def between(
    results: Sequence[Result], a: str, b: str, items: Items = own
) -> tuple[list[Comparison], list[str]]:
    """Two methods wherever both were measured; and what was left out, and why.

    Raises:
        LookupError: no row is meant by a name, or several are.
        ValueError: nothing of the two may be compared, or they are one; says why.
    """
    first, second = meant(a, results), meant(b, results)
    if first == second:
        raise ValueError(f"{a!r} and {b!r} both mean {first}: name another method to compare with.")
    one, other = ([r for r in results if name(r.cell) == wanted] for wanted in (first, second))
    pairs, left_out = _possible(_met(one, other), items)
    if not pairs:
        never = f"{first} and {second} were not measured on one task at one length."
        raise ValueError(left_out[0] if left_out else never)
    return compare(pairs, items), left_out


def matrix(results: Sequence[Result], items: Items = own) -> Matrix:
    """Every method against every other, on each model and task and at each length."""
    met = (pair for group in _groups(results).values() for pair in combinations(group, 2))
    pairs, left_out = _possible(((a, b) for a, b in met if name(a.cell) != name(b.cell)), items)
    scores = [aligned(a, b, items) for a, b in pairs]
    differences = [[p - q for p, q in zip(x, y, strict=True)] for x, y in scores]
    draws = enough(len(pairs))
    least = [least_p(len(x), shares={*x, *y} <= {0, 1}, draws=draws) for x, y in scores]
    sure = [p < SIGNIFICANT for p in holm([sign_flip(d, draws=draws) for d in differences])]
    wins: dict[tuple[str, str], Wins] = {}
    for (a, b), difference, surely in zip(pairs, differences, sure, strict=True):
        by = sum(difference) * (1 if higher_is_better(a.cell.task, a.metric) else -1)
        for one, other, lead in ((a, b, by > 0), (b, a, by < 0)):
            key = name(one.cell), name(other.cell)
            old = wins.get(key, Wins())
            wins[key] = Wins(old.ahead + lead, old.sure + (lead and surely), old.of + 1)
    names = dict.fromkeys(name(result.cell) for result in results)
    order = sorted(names, key=lambda row: -_standing(row, wins))
    models = list(dict.fromkeys(result.cell.base for result in results))
    return Matrix(models, order, wins, least, left_out)


def floor(least: Sequence[float]) -> str | None:
    """Why none of these comparisons can be significant, in a sentence; None: one can.

    Args:
        least: the smallest p that each could have.
    """
    best = min(least, default=0.0)
    if best * len(least) < SIGNIFICANT:
        return None
    corrected = f", and corrected for {len(least)} none below {min(1, best * len(least)):.2g}"
    return (
        f"With so few items no p can be below {best:.2g}{corrected if len(least) > 1 else ''}: "
        "nothing here can be significant. Measure more items, or compare less at once."
    )


def _compared(a: Result, b: Result, items: Items, together: int) -> Comparison:
    x, y = aligned(a, b, items)
    it = paired(x, y, draws=enough(together), together=together)
    nats = a.metric in NATS
    points = not nats and all(0 <= score <= 1 for score in [*x, *y])
    scale = 100 if points else 1
    low, high, least = (
        None if value is None else scale * value for value in (it.low, it.high, it.detectable)
    )
    caveats = []
    if points and abs(it.mean - ((a.value or 0.0) - (b.value or 0.0))) > ALIKE:
        caveats.append("compared item by item, all alike, where their values average groups")
    whole = log((a.value or 1.0) / (b.value or 1.0)) if nats else it.mean
    if abs(it.mean - whole) > ALIKE * (1 + abs(it.mean)):
        caveats.append("compared document by document, all alike, where their values weigh them")
    dtypes = [result.provenance.get("dtype") for result in (a, b)]
    if dtypes[0] != dtypes[1]:
        caveats.append(f"computed in {dtypes[0]} and {dtypes[1]}")
    return Comparison(
        model=a.cell.base,
        task=a.cell.task,
        length=a.cell.length,
        a=name(a.cell),
        b=name(b.cell),
        metric=a.metric,
        a_value=a.value or 0.0,
        b_value=b.value or 0.0,
        unit="nats" if nats else "points" if points else a.metric,
        difference=scale * it.mean,
        low=low,
        high=high,
        ratio=exp(it.mean) if nats else None,
        p=it.p,
        least=it.least,
        corrected=it.p,
        detectable=least,
        n=it.n,
        caveat="; ".join(caveats) or None,
    )


def _judged(comparison: Comparison, corrected: float) -> Comparison:
    higher = higher_is_better(comparison.task, comparison.metric)
    ahead = (comparison.difference > 0) == higher
    better = (comparison.a if ahead else comparison.b) if corrected < SIGNIFICANT else None
    return replace(comparison, corrected=corrected, better=better)


def _possible(pairs: Iterable[Pair], items: Items) -> tuple[list[Pair], list[str]]:
    """Those that may be compared, and why the others may not."""
    fine, left_out = [], []
    for a, b in pairs:
        try:
            aligned(a, b, items)
            fine.append((a, b))
        except (ValueError, LookupError) as error:
            left_out.append(str(error))
    return fine, left_out


def _groups(results: Iterable[Result]) -> dict[tuple[str, str, int], list[Result]]:
    """Of one model, extended by whatever, on one task at one length."""
    groups: dict[tuple[str, str, int], list[Result]] = {}
    for result in results:
        key = result.cell.base, result.cell.task, result.cell.length
        groups.setdefault(key, []).append(result)
    return groups


def _met(one: list[Result], other: list[Result]) -> Iterator[Pair]:
    """Pairs of the same model, task and length; if there is none, of tasks of one name."""
    theirs = _groups(other)
    pairs = [
        (a, b) for key, group in _groups(one).items() for a in group for b in theirs.get(key, [])
    ]
    if pairs:
        yield from pairs
        return
    for a in one:
        for b in other:
            if _loosely(a) == _loosely(b):
                yield a, b


def _loosely(result: Result) -> tuple[str, str, int]:
    cell = result.cell
    return cell.base, catalog.split(cell.task)[0].partition(".")[0], cell.length


def _standing(row: str, wins: dict[tuple[str, str], Wins]) -> float:
    """The share of its comparisons in which it is ahead."""
    mine = [w for (a, _), w in wins.items() if a == row]
    return sum(w.ahead for w in mine) / max(1, sum(w.of for w in mine))
