"""Tables from results, on a terminal and in Markdown. Reads files, runs nothing, loads no torch."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from harness.cell import Result
from harness.lengths import label
from harness.report.sheet import Entry, Sheet

STYLES = {
    "failed": "bold red",
    "out_of_memory": "bold yellow",
    "unfit": "yellow",
    "missing": "dim",
    "running": "bold cyan",
}
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
BORDER = 3
"""Columns that stand between two columns of a table."""


def drawn(sheet: Sheet, width: int) -> RenderableType:
    """For a terminal of so many columns: cut into several tables if one would not fit."""
    if not sheet.lengths:
        return Text(f"{sheet.title}: nothing to show")
    tall = sum(_widths(sheet, tall=False)) > width
    parts = [_table(sheet, part, tall) for part in fitting(_widths(sheet, tall), width)]
    return Group(Text(sheet.title, "bold"), *parts, *(Text(note, "dim") for note in sheet.notes))


def printed(sheets: Iterable[Sheet], console: Console) -> None:
    """Onto a console, an empty line between two."""
    for sheet in sheets:
        console.print(drawn(sheet, console.width))
        console.print()


class _Plain(Console):
    """Whatever a result says, a terminal gets letters of it, and no command to clear or to beep."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for part in super().render(renderable, options):
            yield part if part.control else Segment(plain(part.text), part.style)


def plain(text: str) -> str:
    """With a mark for each letter that would steer a terminal; lines stay lines."""
    return CONTROL.sub("\ufffd", text)


def console(*, stderr: bool = False) -> Console:
    """A terminal as wide as it is; a file or a pipe as wide as a table wants."""
    it = _Plain(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not it.is_terminal:
        it.width = 1000
    return it


def markdown(sheets: Iterable[Sheet]) -> str:
    """One table for each sheet, its notes below."""
    return "\n\n".join(_page(sheet) for sheet in sheets) + "\n"


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, whatever it is."""
    text = re.sub(r"([\\`*_{}\[\]<>#|~&!$])", r"\\\1", " ".join(text.split()))
    return text.replace("://", ":\u200b//")


def noted(note: str) -> str:
    """A note in Markdown: a word stands apart from what it means by a colon; a mark needs none."""
    head, gap, meaning = note.partition("  ")
    return f"{escaped(head)}: {escaped(meaning)}" if gap and len(head) > 1 else escaped(note)


def rows(results: Iterable[Result]) -> list[dict[str, Any]]:
    """One flat object a cell, as `--format json` prints them."""
    return [result.row() for result in results]


def commas(results: Iterable[Result]) -> str:
    """Comma-separated values, a header first."""
    return separated(rows(results))


def separated(every: Sequence[dict[str, Any]]) -> str:
    """Flat objects of the same names as comma-separated values, a header first."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([every[0].keys()] if every else [])
    writer.writerows([_flat(value) for value in row.values()] for row in every)
    return out.getvalue()


def _flat(value: Any) -> Any:
    if isinstance(value, dict):
        return ",".join(f"{k}={v}" for k, v in value.items())
    return " | ".join(value) if isinstance(value, list) else value


def refreshed(page: str, table: Callable[[str], str]) -> str:
    """The page with what stands between its marks made anew.

    A table stands between `<!-- table:NAME CONDITIONS -->` and `<!-- /table:NAME -->`; conditions,
    as `harness results --where` takes them, say what it shows, and `table` makes it of them.

    Raises:
        ValueError: a mark has no partner, or there is none.
    """
    opened = re.findall(r"<!-- table:(\S+)", page)
    closed = re.findall(r"<!-- /table:(\S+) -->", page)
    if opened != closed or not opened:
        raise ValueError(
            "A page holds tables between '<!-- table:NAME CONDITIONS -->' and '<!-- /table:NAME "
            f"-->'; this one opens {', '.join(opened) or 'none'} and closes "
            f"{', '.join(closed) or 'none'}."
        )
    mark = r"(<!-- table:(\S+)([^\n]*?)-->\n).*?(<!-- /table:\2 -->)"
    return re.sub(mark, lambda m: f"{m[1]}\n{table(m[3].strip())}\n{m[4]}", page, flags=re.DOTALL)


def _page(sheet: Sheet) -> str:
    lines = [
        f"### {escaped(sheet.title)}",
        "",
        f"| method | {' | '.join(label(n) for n in sheet.lengths)} |",
        "|---" + "|--:" * len(sheet.lengths) + "|",
        *(
            f"| {escaped(name)} | {' | '.join(map(str, entries))} |"
            for name, entries in sheet.rows.items()
        ),
    ]
    notes = [f"- {noted(note)}" for note in sheet.notes]
    return "\n".join([*lines, "", *notes] if notes else lines)


def _table(sheet: Sheet, columns: list[int], tall: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    table.add_column("method", no_wrap=True)
    for column in columns:
        table.add_column(label(sheet.lengths[column]), justify="right", no_wrap=True)
    for name, entries in sheet.rows.items():
        table.add_row(name, *(_written(entries[column], tall) for column in columns))
    return table


def _written(entry: Entry, tall: bool) -> Text:
    text = Text(entry.text, STYLES.get(entry.kind, ""))
    if entry.interval:
        text.append(("\n" if tall else " ") + entry.interval, "dim")
    return text


def _widths(sheet: Sheet, tall: bool) -> list[int]:
    """Of the first column and each length's, with what stands between."""
    names = max(len(name) for name in [*sheet.rows, "method"])
    every = zip(sheet.lengths, zip(*sheet.rows.values(), strict=True), strict=True)
    return [names] + [
        BORDER + max(len(label(n)), *(_width(e, tall) for e in column)) for n, column in every
    ]


def _width(entry: Entry, tall: bool) -> int:
    return max(len(entry.text), len(entry.interval)) if tall else len(str(entry))


def fitting(widths: list[int], width: int) -> Iterator[list[int]]:
    """Columns that fit side by side beside the names; at least one at a time."""
    names, *rest = widths
    part, used = [], names
    for column, wide in enumerate(rest):
        if part and used + wide > width:
            yield part
            part, used = [], names
        part.append(column)
        used += wide
    yield part
