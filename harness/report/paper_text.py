"""A paper's table on a terminal, in Markdown and as comma-separated values."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from harness.lengths import label
from harness.report.paper_table import LEADS, TIED, Line, Mark, PaperTable
from harness.report.table import BORDER, STYLES, escaped, fitting, noted

BOLD: Mapping[Mark, str] = {"tied": TIED}
PLAIN: Mapping[Mark, str] = {"tied": TIED, "best": "^"}
"""What stands behind a number by its mark: in a file or a pipe nothing is bold."""


def printed(tables: Iterable[PaperTable], console: Console, *, intervals: bool = False) -> None:
    """Onto a console, an empty line between two; a wide one is cut into several."""
    signs = BOLD if console.color_system else PLAIN
    for table in tables:
        parts = _parts(table, console.width, intervals, signs)
        said = (_signed(note, signs) for note in table.said(intervals=intervals))
        notes = (Text(note, "dim") for note in said)
        console.print(Group(Text(table.title, "bold"), *parts, *notes))
        console.print()


def markdown(tables: Iterable[PaperTable], *, intervals: bool = False) -> str:
    """One after another, the notes of each below it."""
    return "\n\n".join(_page(table, intervals) for table in tables) + "\n"


def commas(tables: Sequence[PaperTable], *, intervals: bool = False) -> str:
    """Comma-separated values, a header first; numbers as they are, marks where there is none."""
    out, every = io.StringIO(), sorted({n for table in tables for n in table.lengths})
    ends = ("", "_low", "_high") if intervals else ("",)
    writer = csv.writer(out, lineterminator="\n")
    reach = ("effective", "effective_at_least", "effective_low", "effective_high")
    reach = reach if intervals else reach[:2]
    leads = ("model", "task", "metric", "method", "train_length", "claimed", *reach)
    writer.writerow([*leads, *(f"{label(n)}{end}" for n in every for end in ends)])
    for table in tables:
        for line in table.lines:
            numbers = _numbers(table, line, every, intervals)
            writer.writerow([*_facts(table, line, intervals), *numbers])
    return out.getvalue()


def _signed(note: str, signs: Mapping[Mark, str]) -> str:
    head, gap, meaning = note.partition("  ")
    return f"{signs.get('best', head)}{gap}{meaning}" if head == "bold" else note


def _parts(
    table: PaperTable, width: int, intervals: bool, signs: Mapping[Mark, str]
) -> list[Table]:
    """One table, or what stands before the numbers by itself and as many lengths as fit."""
    leads = [line.lead(intervals=intervals) for line in table.lines]
    name, *others = (max(map(len, column)) for column in zip(LEADS, *leads, strict=True))
    columns = range(len(table.lengths))
    numbers = [BORDER + _width(table, column, intervals, signs) for column in columns]
    if name + sum(BORDER + other for other in others) + sum(numbers) <= width:
        return [_drawn(table, columns, LEADS, intervals, signs)]
    cut = fitting([name, *numbers], width)
    parts = (_drawn(table, part, LEADS[:1], intervals, signs) for part in cut)
    return [_drawn(table, (), LEADS, intervals, signs), *parts]


def _drawn(
    table: PaperTable,
    columns: Sequence[int],
    leads: Sequence[str],
    intervals: bool,
    signs: Mapping[Mark, str],
) -> Table:
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    for i, name in enumerate(leads):
        drawn.add_column(name, no_wrap=not i, justify="right" if i else "left")
    for column in columns:
        drawn.add_column(label(table.lengths[column]), justify="right", no_wrap=True)
    for line in table.lines:
        lead = (Text(text) for text in line.lead(intervals=intervals)[: len(leads)])
        entries = (_written(table, line, column, intervals, signs) for column in columns)
        drawn.add_row(*lead, *entries)
    return drawn


def _written(
    table: PaperTable, line: Line, column: int, intervals: bool, signs: Mapping[Mark, str]
) -> Text:
    """With room for a sign where another row of the column has one, so that numbers line up."""
    entry, mark = line.entries[column], line.marks[column]
    text = Text(entry.text, "bold" if mark == "best" else STYLES.get(entry.kind, ""))
    if intervals and entry.interval:
        text.append(f" {entry.interval}", "dim")
    if any(other.marks[column] in signs for other in table.lines):
        text.append(f" {signs.get(mark, ' ')}", "dim")
    return text


def _width(table: PaperTable, column: int, intervals: bool, signs: Mapping[Mark, str]) -> int:
    entries = (len(_written(table, line, column, intervals, signs)) for line in table.lines)
    return max(len(label(table.lengths[column])), *entries)


def _page(table: PaperTable, intervals: bool) -> str:
    heads = [*LEADS, *(label(n) for n in table.lengths)]
    lines = [
        f"### {escaped(table.title)}",
        "",
        f"| {' | '.join(heads)} |",
        "|---" + "|--:" * (len(heads) - 1) + "|",
        *(f"| {' | '.join(_cells(line, intervals))} |" for line in table.lines),
    ]
    notes = [f"- {noted(note)}" for note in table.said(intervals=intervals)]
    return "\n".join([*lines, "", *notes] if notes else lines)


def _cells(line: Line, intervals: bool) -> list[str]:
    cells = [escaped(text) for text in line.lead(intervals=intervals)]
    for entry, mark in zip(line.entries, line.marks, strict=True):
        text = escaped(entry.text)
        text = f"**{text}**" if mark == "best" else f"{text} {TIED}" if mark == "tied" else text
        more = f" {escaped(entry.interval)}" if intervals and entry.interval else ""
        cells.append(text + more)
    return cells


def _facts(table: PaperTable, line: Line, intervals: bool) -> list[object]:
    """What stands before the numbers; a length that does not hold anywhere is 0.

    Whether it holds at the longest that was measured, and may hold further, is 1 or 0.
    """
    held = line.held
    facts = (held.length, held.censored, held.low, held.high) if held else (None,) * 4
    reach = ["" if held is None else int(n or 0) for n in facts[: 4 if intervals else 2]]
    lengths = ["" if n is None else n for n in (line.train_length, line.claimed)]
    return [table.base, table.task, table.metric, line.name.removesuffix("*"), *lengths, *reach]


def _numbers(
    table: PaperTable, line: Line, lengths: Sequence[int], intervals: bool
) -> Iterable[object]:
    at = dict(zip(table.lengths, zip(line.results, line.entries, strict=True), strict=True))
    for length in lengths:
        result, entry = at.get(length, (None, None))
        if result is None or result.value is None:
            yield entry.text if result is not None and entry is not None else ""
            yield from ("", "") if intervals else ()
        else:
            yield result.value
            yield from (result.low, result.high) if intervals else ()
