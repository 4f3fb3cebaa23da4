"""`harness compare`: two methods, or every one against every other, and how sure that is."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Option

from harness.cli.look import Folder, Where, existing, tell_skipped

if TYPE_CHECKING:
    from harness.cell import Result
    from harness.compare import Comparison, Matrix
    from harness.pairing import Scores

HELP = (
    "Compare two methods item by item, at each length both were measured at; without --a and --b "
    "every method with every other.\n\n"
    "Shows the difference with its 95 % interval, a permutation test's p, the same corrected for "
    "all comparisons made (Holm), and the smallest difference that so many items would have shown "
    "four times of five. Rows of different protocols, corpora, truncation, seeds, parameters or "
    "items are refused."
)
EXAMPLES = (
    "harness compare --a yarn --b pi --model smollm2-135m --lengths 8k-32k\n\n"
    "harness compare --matrix --model smollm2-135m --format markdown"
)
SHOWN = 5
"""Reasons for leaving something out that are told one by one."""


@dataclass(frozen=True)
class Table:
    """What is printed, on a terminal and in Markdown alike."""

    title: str
    header: Sequence[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


def compare(
    a: Annotated[
        str | None,
        Option("--a", metavar="METHOD", help="yarn, or yarn,factor=4 where several are there."),
    ] = None,
    b: Annotated[
        str | None, Option("--b", metavar="METHOD", help="METHOD+NAME is one trained as NAME.")
    ] = None,
    all_of_them: Annotated[
        bool, Option("--matrix", help="Who is ahead of whom, over all methods.")
    ] = False,
    model: Annotated[str | None, Option(metavar="NAME", help="Only of this model.")] = None,
    task: Annotated[
        str | None, Option("--task", "-t", metavar="NAME", help="passkey, or passkey.standard.")
    ] = None,
    lengths: Annotated[str | None, Option(metavar="RANGE", help="4k-32k, 4k,100k ...")] = None,
    where: Where = None,
    folder: Folder = Path("results"),
    form: Annotated[
        Literal["table", "json", "csv", "markdown"], Option("--format", help="How to print.")
    ] = "table",
) -> None:
    """Compare methods."""
    from harness.compare import between, floor
    from harness.compare import matrix as everyone
    from harness.pairing import kept
    from harness.report.sheet import apart_by_name
    from harness.store import Store

    if (a is None) != (b is None) or (all_of_them and a is not None):
        raise ValueError("Name both methods, --a and --b, or none of them to compare them all.")
    chosen = _chosen(Store(existing(folder)), model, task, lengths, where)
    store = Store(folder)
    results, stored = apart_by_name(chosen), kept(store)
    real = {shown.cell: result for shown, result in zip(results, chosen, strict=True)}

    def items(result: "Result") -> "Scores":
        known = len(store.broken)
        scores = stored(real[result.cell])
        tell_skipped(store.broken[known:])
        return scores

    if a is None or b is None:
        made = everyone(results, items)
        if not made.wins:
            raise ValueError(
                made.left_out[0]
                if made.left_out
                else "No two results here are of one model, "
                "task and length: measure another method with harness run."
            )
        _print([_matrix(made)], _wins(made), made.left_out, form)
        return
    found, left_out = between(results, a, b, items)
    tables = list(_tables(found))
    tables[-1].notes.extend(filter(None, [floor([c.least for c in found])]))
    _print(tables, [asdict(c) for c in found], left_out, form)


def _chosen(
    store: Any, model: str | None, task: str | None, lengths: str | None, where: str | None
) -> "list[Result]":
    """Results that the flags mean; files that are none are named on standard error."""
    from harness.catalog import split
    from harness.cell import unstamped
    from harness.lengths import lengths as read
    from harness.where import matching

    wanted = read(lengths) if lengths else None
    every = [*store.results()]
    tell_skipped(store.broken)
    found = [
        result
        for result in matching(every, where)
        if (model is None or result.cell.of_model(model))
        and task in (None, result.cell.task, *_names(split(result.cell.task)[0]))
        and (wanted is None or result.cell.length in wanted)
    ]
    if exact := [r for r in found if model in map(unstamped, (r.cell.model, r.cell.base))]:
        found = exact  # not what was computed in another dtype than usual
    if not found:
        raise LookupError(
            f"None of the {len(every)} results in {str(store.root)!r} is meant: see what there is "
            "with harness results, and measure more with harness run."
        )
    return found


def _names(task: str) -> tuple[str, str]:
    return task, task.split(".")[0]


def _tables(found: "Sequence[Comparison]") -> Iterator[Table]:
    """One for each model and task."""
    from harness.report.sheet import readable

    for (model, task), group in groupby(found, lambda c: (c.model, c.task)):
        several = list(group)
        first = several[0]
        unit = f" ({first.unit})"
        ratio = ["ratio"] if first.ratio is not None else []
        yield Table(
            f"{first.a} less {first.b} · {model} · {readable(task)} · {first.metric}",
            [
                "length",
                "a",
                "b",
                "a - b" + unit,
                *ratio,
                "p",
                "Holm",
                "least seen",
                "items",
                "better",
            ],
            [_row(comparison) for comparison in several],
            list(_notes(several)),
        )


def _row(c: "Comparison") -> list[str]:
    from harness.lengths import label
    from harness.report.sheet import number

    difference = _signed(c.difference, c.unit)
    if c.low is not None and c.high is not None:
        difference += f" [{_signed(c.low, c.unit)}, {_signed(c.high, c.unit)}]"
    return [
        label(c.length),
        number(c.a_value, c.metric),
        number(c.b_value, c.metric),
        difference,
        *([] if c.ratio is None else [f"{c.ratio:.3g}"]),
        _p(c.p),
        _p(c.corrected),
        "-" if c.detectable is None else _signed(c.detectable, c.unit)[1:],
        str(c.n),
        {c.a: "a", c.b: "b"}.get(c.better or "", "-"),
    ]


def _notes(several: "Sequence[Comparison]") -> Iterator[str]:
    from harness.metric import higher_is_better

    less = not higher_is_better(several[0].task, several[0].metric)
    yield (
        f"Below 0, {'a' if less else 'b'} is better. Least seen: the smallest true difference that "
        "so many items show four times of five."
    )
    for caveat in dict.fromkeys(c.caveat for c in several if c.caveat):
        yield f"The two were {caveat}."


def _signed(x: float, unit: str) -> str:
    tenths = unit == "points" and (not x or abs(x) >= 0.05)
    return f"{x:+.1f}" if tenths else f"{x:+.3g}" if x else "+0"


def _p(x: float) -> str:
    return "1" if x == 1 else f"{x:.1e}" if x < 0.001 else f"{x:.3f}"


def _matrix(made: "Matrix") -> Table:
    """Numbers stand for the methods in the columns: their names would not fit."""
    from harness.compare import Wins, floor

    def cell(a: str, b: str) -> str:
        if a == b:
            return ""
        wins = made.wins.get((a, b), Wins())
        return (
            "·" if not wins.of else f"{wins.ahead}/{wins.of}" + f" ({wins.sure})" * bool(wins.sure)
        )

    names = made.names
    notes = [
        "Row ahead of column: in how many of the cells both were measured in (in brackets: "
        f"significantly, after Holm for all {len(made.least)} comparisons); ·: in none.",
        *filter(None, [floor(made.least)]),
    ]
    return Table(
        f"Who is ahead of whom · {', '.join(made.models)}",
        ["", "method", *(str(i) for i, _ in enumerate(names, 1))],
        [[str(i), a, *(cell(a, b) for b in names)] for i, a in enumerate(names, 1)],
        notes,
    )


def _wins(made: "Matrix") -> list[dict[str, Any]]:
    return [{"a": a, "b": b, **asdict(wins)} for (a, b), wins in made.wins.items()]


def _print(
    tables: list[Table], rows: list[dict[str, Any]], left_out: Sequence[str], form: str
) -> None:
    if form == "json":
        print(json.dumps(rows, indent=2, allow_nan=False))
    elif form == "csv":
        writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    elif form == "markdown":
        print("\n\n".join(map(_page, tables)))
    else:
        for table in tables:
            _draw(table)
    more = len(left_out) - SHOWN
    for reason in [*left_out[:SHOWN], *([f"and {more} more were left out"] if more > 0 else [])]:
        print(f"note: {reason}", file=sys.stderr)


def _page(table: Table) -> str:
    from harness.report.table import escaped

    def line(entries: Iterable[str]) -> str:
        return f"| {' | '.join(map(escaped, entries))} |"

    lines = [f"### {escaped(table.title)}", "", line(table.header)]
    lines += ["|" + "---|" * len(table.header), *map(line, table.rows), ""]
    return "\n".join([*lines, *(f"- {escaped(note)}" for note in table.notes)])


def _draw(table: Table) -> None:
    from rich import box
    from rich import table as drawing

    from harness.report.table import console

    out = console()
    grid = drawing.Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    for head in table.header:
        grid.add_column(head, justify="left" if head == "method" else "right")
    for row in table.rows:
        grid.add_row(*row)
    out.print(table.title, style="bold")
    out.print(grid)
    for note in table.notes:
        out.print(note, style="dim")
    out.print()
