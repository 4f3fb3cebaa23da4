"""A table as papers print them: methods down, lengths across, what was trained, claimed and held.

It is a sheet with more said of its rows, and with the best of each column marked, and what cannot
be told from it: the 95 % interval of the difference, item by item, has 0 in it; or, where items
were not kept, or the value is no mean of them, the two intervals overlap.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import log
from typing import Literal

from harness import checkpoints
from harness.cell import Cell, Result, in_any_dtype
from harness.effective import ALIKE
from harness.lengths import label
from harness.metric import higher_is_better
from harness.pairing import NATS, aligned, comparable
from harness.report.reach import (
    Held,
    against,
    budget,
    claimed,
    curve,
    held,
    unextended,
)
from harness.report.sheet import MARKS, Entry, Sheet, apart_by_name, named, sheets
from harness.stats import paired

Mark = Literal["", "best", "tied"]
TIED = "≈"
SCORE = "85 % of what {} scores on short inputs"
PERPLEXITY = "perplexity not significantly worse than the row's own at the original length"
AS_GOOD = ", and at most 1 / 0.85 times that of the model as it is there"
PAIRED = (
    "cannot be told from it, each row by itself: the interval of the paired difference has 0 in it"
)
UNSURE = "no sign  where a value has no interval, nothing says whether it differs from the best"
OVERLAP = "; where items were not kept, or the value is not their mean, the two intervals overlap"
LEADS = ("method", "trained at", "claimed", "effective")
NOTHING = MARKS["missing"]
Windows = Callable[[Cell], int | None]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One method, or one model that was trained with it."""

    name: str
    train_length: int | None
    claimed: int | None
    held: Held | None
    entries: list[Entry]
    """For each length."""
    results: list[Result | None]
    marks: list[Mark]

    def lead(self, *, intervals: bool = False) -> list[str]:
        """What stands before the numbers: name, lengths trained at and claimed, and how far."""
        lengths = (label(n) if n else NOTHING for n in (self.train_length, self.claimed))
        far = str(self.held) if self.held else NOTHING
        more = f" {self.held.interval}" if intervals and self.held and self.held.interval else ""
        return [self.name, *lengths, far + more]


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One model on one task."""

    base: str
    task: str
    metric: str
    title: str
    lengths: list[int]
    lines: list[Line]
    notes: list[str]

    def said(self, *, intervals: bool = False) -> list[str]:
        """What must be known to read it."""
        return [note for note in self.notes if intervals or not note.startswith("[low, high]")]


def paper_tables(
    results: Iterable[Result],
    windows: Windows,
    threshold: float | None = None,
    shown: Collection[Cell] | None = None,
) -> list[PaperTable]:
    """One for each model and task, in the order they come.

    Args:
        results: what is to be shown, and what that is judged by, as `harness.archive.whole` has it.
        windows: tokens of the window that a cell's model was pretrained on, if known.
        threshold: the score that must be kept, as in RULER; None: a share of the model's as it is.
        shown: of which cells; None: of all.
    """
    results = list(results)
    first = {result.cell.base: result.cell for result in reversed(results)}
    groups: dict[tuple[str, str], _Group] = {}
    for result, named_apart in zip(results, apart_by_name(results), strict=True):
        group = groups.setdefault((result.cell.base, result.cell.task), _Group([], []))
        group.every.append(named_apart)
        if shown is None or result.cell in shown:
            group.shown.append(named_apart)
    kept = {key: group for key, group in groups.items() if group.shown}
    every = [result for group in kept.values() for result in group.shown]
    return [
        _table(sheet, group, windows(first[base]), threshold)
        for sheet, ((base, _), group) in zip(sheets(every), kept.items(), strict=True)
    ]


@dataclass(frozen=True)
class _Group:
    """Of one model and task."""

    shown: list[Result]
    every: list[Result]
    """Those, and what they are judged by."""


def _rows(results: Iterable[Result]) -> dict[str, dict[int, Result]]:
    rows: dict[str, dict[int, Result]] = {}
    for result in results:
        rows.setdefault(named(result.cell), {})[result.cell.length] = result
    return rows


def _table(
    sheet: Sheet, group: _Group, original: int | None, threshold: float | None
) -> PaperTable:
    cell = group.shown[0].cell
    metric = next((r.metric for r in group.every if r.metric), "")
    higher = higher_is_better(cell.task, metric)
    rows, whole = _rows(group.shown), _rows(group.every)
    as_it_is = next((list(row.values()) for row in whole.values() if _plain(row)), None)
    plain = against(as_it_is and curve(as_it_is), original)
    marks = _marked(sheet.lengths, rows, higher)
    lines = []
    for name, entries in sheet.rows.items():
        key = name if name in rows else name.removesuffix("*")
        row = whole[key]
        other = None if _plain(row) else plain
        last = row[max(row)]
        factor = next((r.factor for r in row.values() if r.factor), None)
        lines.append(
            Line(
                name=name,
                train_length=budget(last.trained)[1],
                claimed=claimed(last.cell, factor, original),
                held=held(curve(list(row.values())), other, original, higher, threshold),
                entries=entries,
                results=[rows[key].get(n) for n in sheet.lengths],
                marks=marks[key],
            )
        )
    return PaperTable(
        base=cell.base,
        task=cell.task,
        metric=metric,
        title=sheet.title,
        lengths=sheet.lengths,
        lines=lines,
        notes=[*_explained(lines, higher, threshold, plain is not None), *sheet.notes],
    )


def _plain(row: dict[int, Result]) -> bool:
    cell = next(iter(row.values())).cell
    return unextended(cell.model, cell.method)


def _marked(
    lengths: Sequence[int], rows: dict[str, dict[int, Result]], higher: bool
) -> dict[str, list[Mark]]:
    marks: dict[str, list[Mark]] = {name: [] for name in rows}
    for length in lengths:
        column = {name: row[length] for name, row in rows.items() if length in row}
        scored = [result for result in column.values() if result.value is not None]
        best = max(scored, key=lambda r: (r.value or 0.0) * (1 if higher else -1), default=None)
        for name in rows:
            result = column.get(name)
            rivals = len({one.value for one in scored}) > 1
            if rivals and best is not None and result is not None and result.value is not None:
                marks[name].append(_mark(result, best))
            else:
                marks[name].append("")
    return marks


def _mark(result: Result, best: Result) -> Mark:
    if result.value == best.value:
        return "best"
    if comparable(result, best):
        return ""
    return "tied" if alike(result, best) else ""


def alike(a: Result, b: Result) -> bool:
    """Whether the two cannot be told apart; False where nothing is known of how sure they are."""
    if ends := _paired(a, b):
        low, high = ends
        return low <= 0 <= high
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return False
    return a.low <= b.high and b.low <= a.high


def _paired(a: Result, b: Result) -> tuple[float, float] | None:
    """The interval of the difference of the two values, from their items; None: they give none.

    A value that averages groups, or weighs its documents, differs otherwise than they do.
    """
    try:
        found = paired(*aligned(a, b, lambda result: result.items))
        values = [log(r.value or 0) if r.metric in NATS else r.value or 0 for r in (a, b)]
    except (LookupError, ValueError):
        return None
    if found.low is None or found.high is None:
        return None
    same = abs(found.mean - (values[0] - values[1])) <= ALIKE
    return (found.low, found.high) if same else None


def _unsure(line: Line) -> bool:
    """Whether one of its numbers has no mark because nothing is known of how sure it is."""
    pairs = zip(line.results, line.marks, strict=True)
    return any(r and r.value is not None and r.low is None and not mark for r, mark in pairs)


def _ties(lines: Sequence[Line]) -> Iterator[tuple[Result, Result]]:
    """Each that cannot be told from the best of its column, and that best."""
    for column in zip(*(zip(x.marks, x.results, strict=True) for x in lines), strict=True):
        best = next((result for mark, result in column if mark == "best"), None)
        for mark, result in column:
            if mark == "tied" and result and best:
                yield result, best


def _explained(
    lines: Sequence[Line], higher: bool, threshold: float | None, common: bool
) -> Iterator[str]:
    """`common`: the model as it is was measured, and not each row is held against itself."""
    marks = {mark for line in lines for mark in line.marks}
    if "best" in marks:
        yield f"bold  the best of its column; {'higher' if higher else 'lower'} is better"
    if "tied" in marks:
        kept = all(_paired(*tie) for tie in _ties(lines))
        yield f"{TIED}  {PAIRED}{'' if kept else OVERLAP}"
    if any(_unsure(line) for line in lines):
        yield UNSURE
    if any(line.claimed for line in lines):
        ours = [r.cell.model for line in lines for r in line.results if r]
        said = any(checkpoints.find(in_any_dtype(model)) for model in ours)
        page = ", or what a checkpoint's page says" if said else ""
        yield f"claimed  the original length times the factor{page}"
    if any(line.held for line in lines):
        own = SCORE.format("the model as it is" if common else "the row itself")
        score = own if threshold is None else f"a score of {threshold:g}"
        loss = PERPLEXITY + (AS_GOOD if common else "")
        yield f"effective  the longest length that holds: {score if higher else loss}"
