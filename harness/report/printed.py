"""Published tables: methods down, lengths across, the doubts below; on a terminal or in a paper."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.lengths import label
from harness.published import Published
from harness.report import tex
from harness.report.latex import NARROWED, floating, ruled, sentences
from harness.report.table import escaped, noted, separated

Cells = dict[tuple[str, str], Published]
"""By name and column."""
PLAIN = re.compile(r"[A-Za-z0-9:/.?=&~+,@_-]+")
"""An address that LaTeX takes as it is."""
MADE_OF = {"base": "base", "trained": "trained on"}
"""What rows are of, and what stands above it."""
FEW = 3
"""Columns beside which these have their own."""
T = TypeVar("T")


def shown(numbers: Iterable[Published], console: Console) -> None:
    """One table after another, an empty line between two."""
    for those in tables(numbers):
        console.print(Text(_title(those), "bold"))
        console.print(drawn(those))
        for note in (those[0].source, *notes(those)):
            console.print(Text(note, "dim"))
        console.print()


def markdown(numbers: Iterable[Published]) -> str:
    """One after another, the source and the notes of each below it."""
    return "\n\n".join(map(_page, tables(numbers))) + "\n"


def latex(numbers: Iterable[Published]) -> str:
    """One floating table after another, with booktabs and a source that is an address."""
    return "\n".join(map(_floating, tables(numbers)))


def commas(numbers: Iterable[Published]) -> str:
    """Every number with all that is known of it, in a line."""
    return separated([number.row() for number in numbers])


def tables(numbers: Iterable[Published]) -> list[list[Published]]:
    """The numbers of each, in the order they come."""
    return [those for _, those in _grouped((number.table, number) for number in numbers)]


def drawn(numbers: list[Published]) -> Table:
    """Of one published table."""
    heads, rows = laid(numbers)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    for i, head in enumerate(heads):
        table.add_column(Text(head), justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def laid(numbers: list[Published]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows. Where columns are no lengths, the longer side goes down."""
    cells: Cells = {(n.name, n.column): n for n in numbers}
    names = list(dict.fromkeys(name for name, _ in cells))
    columns = list(dict.fromkeys(column for _, column in cells))
    if len(columns) > len(names) and not any(n.length for n in numbers):
        return ["", *names], [[c, *(_cell(cells, n, c) for n in names)] for c in columns]
    of = {n.name: n for n in reversed(numbers)}
    made = [what for what in MADE_OF if _apart(numbers, what)]
    rows = [
        [
            *(name, _method(of[name]), *(getattr(of[name], what) or "" for what in made)),
            *(_tokens(of[name].train_length), *(_cell(cells, name, c) for c in columns)),
        ]
        for name in names
    ]
    return ["", "method", *(MADE_OF[what] for what in made), "trained at", *columns], rows


def _apart(numbers: list[Published], what: str) -> bool:
    """Whether it has a column of its own: it differs by row, and few others are there."""
    columns = {number.column for number in numbers}
    return len(columns) <= FEW and len({getattr(number, what) for number in numbers}) > 1


def notes(numbers: list[Published]) -> Iterator[str]:
    """What was measured, what is doubted, and what came out again."""
    for what in ("task", "metric", "corpus", "protocol"):
        said = _grouped((getattr(n, what), n) for n in numbers)
        if len(said) == 1 and said[0][0] is not None:
            yield f"{what}  {said[0][0]}"
        elif what == "metric":
            yield f"metric  {'; '.join(f'{_about(those, numbers)}: {m}' for m, those in said)}"
    for what, word in MADE_OF.items():
        made = _grouped((s, n) for n in numbers if (s := getattr(n, what)) not in (None, n.name))
        if len(made) == 1 and len(made[0][1]) == len(numbers):
            yield f"{word}  {made[0][0]}"
        elif made and not _apart(numbers, what):
            yield f"{word}  {'; '.join(f'{_about(those, numbers)}: {s}' for s, those in made)}"
    yield from _doubts(numbers)
    if any(n.regenerated is not None for n in numbers):
        yield "(in brackets)  what this project's scorer makes of the published predictions"
    for why, those in _grouped((n.why, _place(n)) for n in numbers if n.why):
        yield f"{', '.join(those)}: {why}"


def _title(numbers: list[Published]) -> str:
    return f"{numbers[0].page} · {numbers[0].title}"


def _page(numbers: list[Published]) -> str:
    heads, rows = laid(numbers)
    lines = [f"| {' | '.join(map(escaped, row))} |" for row in (heads, *rows)]
    lines.insert(1, "|---" + "|--:" * (len(heads) - 1) + "|")
    source = numbers[0].source.replace("<", "%3C").replace(">", "%3E")
    said = [f"- <{source}>", *(f"- {noted(note)}" for note in notes(numbers))]
    return "\n".join([f"### {escaped(_title(numbers))}", "", *lines, "", *said])


def _floating(numbers: list[Published]) -> str:
    """The notes stand below the table: a caption may not have an address in it."""
    heads, rows = laid(numbers)
    address = numbers[0].source
    where = rf"\url{{{address}}}" if PLAIN.fullmatch(address) else tex.escaped(address)
    below = rf"{{\footnotesize\raggedright {where}. {sentences(notes(numbers))}\par}}"
    table = ruled(_words(heads), map(_words, rows))
    inside = f"{NARROWED}{{%\n{table}}}\n\n\\medskip\n{below}"
    return floating(inside, f"{tex.escaped(_title(numbers))}.", f"published {numbers[0].table}")


def _words(row: list[str]) -> list[str]:
    return [tex.escaped(text) for text in row]


def _doubts(numbers: list[Published]) -> Iterator[str]:
    """Each once, with what it is about, unless that is all of the table."""
    every = [(doubt, number) for number in numbers for doubt in number.doubts]
    count = Counter(doubt for doubt, _ in every)
    for doubt, those in _grouped(every):
        if count[doubt] == len(numbers):
            yield f"doubt  {doubt}"
        else:
            yield f"doubt  {_about(those, numbers)}: {doubt}"


def _about(those: list[Published], numbers: list[Published]) -> str:
    """The rows or the columns that a doubt holds for all of; else the cells, one by one."""
    for place in ("name", "column"):
        labels = list(dict.fromkeys(getattr(n, place) for n in those))
        if len(those) == sum(getattr(n, place) in labels for n in numbers):
            return ", ".join(labels)
    return "; ".join(_place(n) for n in those)


def _grouped(pairs: Iterable[tuple[str, T]]) -> list[tuple[str, list[T]]]:
    groups: dict[str, list[T]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return list(groups.items())


def _place(number: Published) -> str:
    return f"{number.name} at {number.column}"


def _cell(cells: Cells, name: str, column: str) -> str:
    number = cells.get((name, column))
    if number is None:
        return ""
    again = "" if number.regenerated is None else f" ({number.regenerated:.2f})"
    return number.printed + again


def _method(number: Published) -> str:
    if not number.counterpart:
        return ""
    factor = number.parameters.get("factor")
    return number.method + (f" ×{factor}" if factor else "")  # noqa: RUF001 - a times sign


def _tokens(length: int | None) -> str:
    return "" if length is None else label(length)
