"""Published tables as a terminal shows them: methods down, lengths across, the doubts below."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.lengths import label
from harness.published import Published

Cells = dict[tuple[str, str], Published]
"""By name and column."""
T = TypeVar("T")


def shown(numbers: Iterable[Published], console: Console) -> None:
    """One table after another, an empty line between two."""
    tables: dict[str, list[Published]] = {}
    for number in numbers:
        tables.setdefault(number.table, []).append(number)
    for those in tables.values():
        console.print(Text(f"{those[0].page} · {those[0].title}", "bold"))
        console.print(drawn(those))
        for note in notes(those):
            console.print(Text(note, "dim"))
        console.print()


def drawn(numbers: list[Published]) -> Table:
    """Of one published table. Where columns are no lengths, the longer side goes down."""
    cells: Cells = {(n.name, n.column): n for n in numbers}
    names = list(dict.fromkeys(name for name, _ in cells))
    columns = list(dict.fromkeys(column for _, column in cells))
    turned = len(columns) > len(names) and not any(n.length for n in numbers)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    if turned:
        heads, rows = ["", *names], [[c, *(_cell(cells, n, c) for n in names)] for c in columns]
    else:
        trained = {n.name: _tokens(n.train_length) for n in numbers}
        heads = ["", "method", "trained at", *columns]
        methods = {n.name: _method(n) for n in numbers}
        rows = [
            [name, methods[name], trained[name], *(_cell(cells, name, c) for c in columns)]
            for name in names
        ]
    for i, head in enumerate(heads):
        table.add_column(Text(head), justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def notes(numbers: list[Published]) -> Iterator[str]:
    """Source, what was measured, what is doubted, and what came out again."""
    yield numbers[0].source
    for what in ("task", "metric", "corpus", "protocol"):
        said = dict.fromkeys(getattr(n, what) for n in numbers)
        if len(said) == 1 and None not in said:
            yield f"{what}  {numbers[0].model_dump()[what]}"
    yield from _doubts(numbers)
    if any(n.regenerated is not None for n in numbers):
        yield "(in brackets)  what this project's scorer makes of the published predictions"
    for why, those in _grouped((n.why, _place(n)) for n in numbers if n.why):
        yield f"{', '.join(those)}: {why}"


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
