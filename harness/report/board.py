"""What a leaderboard says: methods ranked by how far they read, each model and task by itself.

It is made from columns, so that a million cells are no trouble. What is too much for a page is
left out by rank, and counted.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from heapq import nsmallest
from itertools import groupby
from typing import TYPE_CHECKING, Any

from harness.catalog import split
from harness.cell import Cell, base_of
from harness.machine import no_cycles
from harness.metric import higher_is_better
from harness.report.reach import (
    Curve,
    Held,
    Tax,
    against,
    budget,
    claimed,
    held,
    tax,
    unextended,
)
from harness.report.rows import Candidate, candidates
from harness.report.sheet import distinct, named, shown

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = (
    *("cell", "metric", "protocol", "corpus", "factor", "trained", "length", "status", "reason"),
    *("notice", "value", "low", "high", "n", "truncated", "seconds", "tokens", "peak_memory"),
)
"""What is looked at of each cell."""
MOST = 2000
"""Rows of a page."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model, extended by one method, on one task, over its lengths."""

    cell: Cell
    """At its longest length."""
    name: str
    """The method, and what was trained with it."""
    rank: int | None
    """Those that read equally far share theirs; None: nothing can be said."""
    open: bool
    """It was not measured as far as others, held as far as it was, and may rank higher."""
    curve: Curve
    held: Held | None
    tax: Tax | None
    claimed: int | None
    trained_tokens: int | None
    trained_length: int | None
    cells: list[dict[str, Any]] = field(repr=False)
    """The columns, a cell at a time, short lengths first."""

    @property
    def plain(self) -> bool:
        return unextended(self.cell.model, self.cell.method)

    @property
    def notices(self) -> list[str]:
        """What its numbers are not to be read without, each once."""
        return list(dict.fromkeys(cell["notice"] for cell in self.cells if cell["notice"]))


@dataclass(frozen=True, kw_only=True)
class Section:
    """One model on one task: what may be ranked together."""

    base: str
    task: str
    metric: str
    protocol: str
    corpus: str | None
    original: int | None
    """Tokens of the model's own window, if known."""
    higher: bool
    """Whether a higher value is better."""
    common: bool
    """Whether all are held against the model as it is: else none is ranked."""
    rows: list[Row]
    """The first is the best."""
    left_out: int = 0
    """Rows that are not here."""

    @property
    def lengths(self) -> list[int]:
        return sorted({n for row in self.rows for n in row.curve.lengths})


@dataclass(frozen=True, kw_only=True)
class Board:
    """All that was measured, ranked; of each model and task the best rows."""

    sections: list[Section]
    cells: int
    """That were measured, and are summed up."""
    rows: int
    """All there are."""

    @property
    def shown(self) -> int:
        return sum(len(section.rows) for section in self.sections)


@dataclass(frozen=True)
class _Group:
    """The candidates of one section, the best first."""

    original: int | None
    higher: bool
    rows: list[Candidate]
    plain: Curve | None
    """What all are held against."""


def board(
    columns: "pa.Table",
    original: Callable[[Cell], int | None],
    most: int = MOST,
    items: Callable[[Cell], Mapping[str, float]] = lambda cell: {},
) -> Board:
    """The best of each model and task, and the model as it is; then the second best, and so on.

    Which rows are kept goes by their intervals; a model and task of which all are kept is then
    paired by item.

    Args:
        columns: one row a cell, as `harness.archive.columns` gives them, at least `COLUMNS`.
        original: tokens of the window that a cell's model was pretrained on; asked once a model.
        most: rows that are kept.
        items: the scores of a cell's items; none where they are not at hand.
    """
    with no_cycles():
        groups = list(_groups(columns, original))
        kept = _kept(groups, most)
    for i, places in kept.items():
        if len(places) == len(groups[i].rows):  # else those that are left out rank by another rule
            groups[i] = _paired(groups[i], items)
    return Board(
        sections=[_told(columns, groups[i], places) for i, places in kept.items()],
        cells=columns.num_rows,
        rows=sum(len(group.rows) for group in groups),
    )


def fewer(board: Board, most: int) -> Board:
    """The same with fewer rows, chosen as before."""
    ranked = [[(row.plain, row.held) for row in section.rows] for section in board.sections]
    sections = []
    for i, places in _chosen(ranked, most).items():
        section = board.sections[i]
        rows = [section.rows[place] for place in places]
        left_out = section.left_out + len(section.rows) - len(rows)
        sections.append(replace(section, rows=rows, left_out=left_out))
    return replace(board, sections=sections)


def _groups(columns: "pa.Table", original: Callable[[Cell], int | None]) -> Iterator[_Group]:
    metrics, windows = columns["metric"], dict[str, int | None]()
    for (base, task), group in groupby(candidates(columns), key=_section):
        found = list(group)
        if base not in windows:  # a cell that could not run does not say it
            scored = next((cell for row in found for cell in _scored(row)), None)
            windows |= {base: original(scored)} if scored else {}
        metric = metrics[int(found[0].places[-1])].as_py()
        yield _judged(found, windows.get(base), higher_is_better(task, metric))


def _judged(rows: list[Candidate], original: int | None, higher: bool) -> _Group:
    """How far each reads, ranked: of those that read equally far, by their value there."""
    as_it_is = next((row.curve for row in rows if unextended(row.model, row.method)), None)
    plain = against(as_it_is, original)
    judged = []
    for row in rows:
        other = None if row.curve is plain else plain
        judged.append(row._replace(held=held(row.curve, other, original, higher)))
    return _Group(original, higher, sorted(judged, key=lambda row: _merit(row, higher)), plain)


def _paired(group: _Group, items: Callable[[Cell], Mapping[str, float]]) -> _Group:
    """The group judged by the scores of its items, too."""

    def known(row: Candidate) -> Candidate:
        each = Cell(model=row.model, task=row.task, method=row.method, length=1)
        of = cache(lambda length: items(each.model_copy(update={"length": length})))
        return row._replace(curve=replace(row.curve, items=of))

    return _judged([*map(known, group.rows)], group.original, group.higher)


def _merit(row: Candidate, higher: bool) -> tuple[float, bool, float, str, str]:
    """The best sorts first: of those that read equally far who may read further, then by value.

    Names come last, so that the order is always the same.
    """
    far = -1 if row.held is None else row.held.length or 0
    place = row.curve.up_to(far) if far > 0 else row.curve.up_to(None)
    value = row.curve.values[place] if place is not None else None
    worth = float("inf") if value is None else -value if higher else value
    return -far, not (row.held and row.held.censored), worth, row.method, row.model


def _kept(groups: list[_Group], most: int) -> dict[int, list[int]]:
    """Which rows of which group."""
    return _chosen(
        [[(unextended(row.model, row.method), row.held) for row in group.rows] for group in groups],
        most,
    )


def _chosen(
    ranked: Sequence[Sequence[tuple[bool, Held | None]]], most: int
) -> dict[int, list[int]]:
    """Places by group: being first in one's own counts more than how far a row reads."""
    order = (
        (max(1, place) if plain else place, -(held.length or 0) if held else 1, i, place)
        for i, rows in enumerate(ranked)
        for place, (plain, held) in enumerate(rows)
    )
    kept: dict[int, list[int]] = {}
    for _, _, i, place in nsmallest(most, order):
        kept.setdefault(i, []).append(place)
    return {i: sorted(places) for i, places in sorted(kept.items())}


def _told(columns: "pa.Table", group: _Group, places: list[int]) -> Section:
    """The section of these rows."""
    first: dict[int | None, int] = {}
    for place, row in enumerate(group.rows, 1):
        first.setdefault(row.held and (row.held.length or 0), place)
    called = distinct({group.rows[place].model for place in places})
    longest = max(map(_longest, group.rows))
    rows = []
    for row in (group.rows[place] for place in places):
        rank = first[row.held.length or 0] if row.held and group.plain else None
        cells = columns.take(row.places).to_pylist()
        rows.append(_row(row, rank, longest, group, cells, called))
    cells = [cell for row in rows for cell in row.cells]
    return Section(
        base=rows[0].cell.base,
        task=rows[0].cell.task,
        metric=next((cell["metric"] for cell in cells if cell["metric"]), ""),
        protocol=split(rows[0].cell.task)[0],
        corpus=next((cell["corpus"] for cell in cells if cell["corpus"]), None),
        original=group.original,
        higher=group.higher,
        common=group.plain is not None,
        rows=rows,
        left_out=len(group.rows) - len(rows),
    )


def _row(
    row: Candidate,
    rank: int | None,
    longest: int,
    group: _Group,
    cells: list[dict[str, Any]],
    called: Mapping[str, str],
) -> Row:
    other = None if row.curve is group.plain else group.plain
    further = rank is not None and rank > 1 and _longest(row) < longest
    factor = next((cell["factor"] for cell in reversed(cells) if cell["factor"]), None)
    tokens, length = budget(next((c["trained"] for c in cells if c["trained"]), None))
    return Row(
        cell=_cell(row),
        name=named(shown(_cell(row), called)),
        rank=rank,
        open=further and row.held is not None and row.held.censored,
        curve=row.curve,
        held=row.held,
        tax=tax(row.curve, other, group.original, group.higher),
        claimed=claimed(_cell(row), factor, group.original),
        trained_tokens=tokens,
        trained_length=length,
        cells=cells,
    )


def _cell(row: Candidate) -> Cell:
    return Cell(model=row.model, task=row.task, method=row.method, length=row.curve.lengths[-1])


def _longest(row: Candidate) -> int:
    """That has a value; 0: none has."""
    numbers = zip(reversed(row.curve.lengths), reversed(row.curve.values), strict=True)
    return next((length for length, value in numbers if value is not None), 0)


def _scored(row: Candidate) -> Iterator[Cell]:
    """Those with a value, the longest first."""
    of = {"model": row.model, "task": row.task, "method": row.method}
    for length, value in zip(reversed(row.curve.lengths), reversed(row.curve.values), strict=True):
        if value is not None:
            yield Cell(**of, length=length)


def _section(row: Candidate) -> tuple[str, str]:
    return base_of(row.model), row.task
