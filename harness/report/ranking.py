"""A leaderboard as Markdown: how far each method reads everywhere, then each model and task."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean

from harness.catalog import split
from harness.lengths import label
from harness.report.board import Board, Row, Section
from harness.report.page import between, counted, percent
from harness.report.reach import CLAIM, Tax
from harness.report.sheet import readable, told, written
from harness.report.table import escaped

MARK = re.compile(r"(<!-- leaderboard -->\n).*?(<!-- /leaderboard -->)", re.DOTALL)
BROAD, TALL, LONG = 6, 40, 60
"""Columns of a summary, rows of a table, and tables that somebody still reads."""
RULES = (
    "Ranked by **effective context**: the longest length at which a method keeps 85 % of what the "
    "model as it is scores on short inputs, or at which its perplexity is not significantly worse "
    "than at the original length (document by document, where the losses are at hand) and at most "
    "1 / 0.85 times that of the model as it is there. ≥: the longest length measured still holds; "
    "<: not even the shortest does. A perplexity of more text is of other text, too, which may be "
    "harder for all alike."
)
BRACKETS = (
    "In brackets, how far the ends of the 95 % intervals hold: of few trials or documents much is "
    "chance. Methods that read equally far share a rank; ≤ before it: not measured as far as "
    "others, and it held as far as it was. Where the model as it is was not measured on inputs "
    "that it reads, nothing is ranked."
)
COLUMNS = (
    f"**Claimed** is {CLAIM}. The **short-context tax** is what it loses within the original "
    "length, at the longest of these, as a share of what the model as it is has there: below 0, it "
    "gains."
)
NOTED = r"\*"
SETTINGS = (
    "Of a method that was measured with several settings, each column has the one that reads "
    "furthest there, and names it: it was chosen by the same numbers that rank it."
)
ALONE = (
    "the model as it is was not measured on inputs that it reads: each row is held against itself, "
    "and none is ranked"
)


def ranking(board: Board, published: int = 0, *, on_page: Board | None = None) -> str:
    """The whole page.

    Args:
        board: what was measured.
        published: rows of published numbers that the HTML page shows.
        on_page: what of the measured the HTML page shows; else all of it.
    """
    there = on_page or board
    parts = [
        "# Context-length leaderboard",
        f"{RULES} {BRACKETS}",
        COLUMNS,
        "[leaderboard.html](leaderboard.html) has the curves, where each number comes from, and "
        "the command that makes it again. Both are written by `harness leaderboard`.",
    ]
    if published:
        parts.append(
            f"{published:,} rows that papers published stand there beside the measured ones; none "
            "is ranked here."
        )
    if board.rows > there.shown:
        parts.append(f"Of {board.rows:,} rows the best {there.shown:,} are in that page.")
    if board.sections:
        parts += ["## How far each method reads", summary(board)]
    parts += [_section(section) for section in board.sections[:LONG]]
    if (more := len(there.sections) - LONG) > 0:
        parts.append(f"{more:,} more models and tasks are in that page.")
    return "\n\n".join(parts) + "\n"


def summary(board: Board) -> str:
    """Methods down, models and tasks across; of a method with several settings the best.

    What only one method was measured on compares nothing, what was at one length says nothing of
    how far, and without the model as it is there is no common measure: such are left out where
    there is more. The first is who ranks best in the mean, among methods, of those that were
    measured in at least half of the columns.
    """
    several = [s for s in board.sections if len(s.rows) + s.left_out > 1] or board.sections
    held = [s for s in several if s.common] or several
    compared = [s for s in held if len(s.lengths) > 1] or held
    sections = sorted(compared, key=lambda s: -(len(s.rows) + s.left_out))[:BROAD]
    sections = [section for section in board.sections if section in sections]
    best = [_best(section) for section in sections]
    heads = _heads(sections)
    lines = [_line(["method", *heads]), "|---" + "|--:" * len(heads) + "|"]
    for name in _in_order(best)[:TALL]:
        lines.append(_line([_said(name), *(_reached_by(of.get(name)) for of in best)]))
    found = [rows for of_section in best for rows in of_section.values()]
    if any(len(rows) > 1 for rows in found):
        lines += ["", SETTINGS]
    if any(rows[0].notices for rows in found):
        lines += ["", f"{NOTED} with a note, which stands in the whole leaderboard."]
    if len(board.sections) > len(sections):
        lines += ["", f"These are {len(sections)} of {len(board.sections):,} models and tasks."]
    return "\n".join(lines)


def _in_order(best: Sequence[Mapping[str, Sequence[Row]]]) -> list[str]:
    """By mean rank among methods, each by its best; what few columns have comes last."""
    ranks: dict[str, list[int]] = {}
    for of_section in best:
        first: dict[int | None, int] = {}
        for place, (name, (row, *_)) in enumerate(of_section.items(), 1):
            rank = first.setdefault(row.rank, place)
            ranks.setdefault(name, []).append(rank if row.rank else len(of_section))

    def order(name: str) -> tuple[bool, float, int, str]:
        found = ranks[name]
        return 2 * len(found) < len(best), fmean(found), -len(found), name

    return sorted(ranks, key=order)


def _heads(sections: Sequence[Section]) -> list[str]:
    """Model and task, each in the fewest words that no other has."""
    forms = []
    for section in sections:
        protocol, comma, rest = readable(section.task).partition(", ")
        task = protocol.split(".")[0]
        forms.append([(section.base, said) for said in (task, task + comma + rest, section.task)])
    counts = Counter(one for of_section in forms for one in {*of_section})
    found = [next((one for one in each if counts[one] == 1), each[-1]) for each in forms]
    return [f"{_said(base)}<br>{_said(task)}" for base, task in found]


def brief(board: Board, folder: str) -> str:
    """What the README beside a folder of results shows."""
    more = (
        f"[The whole leaderboard]({folder}/LEADERBOARD.md), [as a page]({folder}/leaderboard.html)."
    )
    order = (
        "Methods are in the order of their mean rank, those measured in fewer than half of the "
        "columns last. With few trials or documents a length can be luck: the whole leaderboard "
        "has the intervals."
    )
    return "\n\n".join([summary(board), f"{RULES} {order}", more])


def refreshed(page: str, text: Callable[[], str]) -> str:
    """The page with what stands between its marks made anew; as it is if it has none.

    The marks are `<!-- leaderboard -->` and `<!-- /leaderboard -->`, each on a line of its own.
    """
    return MARK.sub(lambda mark: f"{mark[1]}\n{text()}\n\n{mark[2]}", page)


_said = escaped


def _best(section: Section) -> dict[str, list[Row]]:
    """Of each method its rows, the one that ranks first before the others; trained ones apart."""
    best: dict[str, list[Row]] = {}
    for row in section.rows:
        of = row.name.partition(" · ")[2] if row.cell.training else ""
        best.setdefault(split(row.cell.method)[0] + (of and f" · {of}"), []).append(row)
    return best


def _reached_by(rows: Sequence[Row] | None) -> str:
    """How far the first of a method's settings reads, and which it is of several."""
    if rows is None:
        return "·"
    method = rows[0].cell.method
    setting = readable(method).removeprefix(split(method)[0]).lstrip(", ")
    which = f" {_said(setting or 'by default')}" if len(rows) > 1 else ""
    return _reached(rows[0]) + (which if rows[0].held else "")


def _reached(row: Row) -> str:
    """Bold where it reads furthest of those held against one model."""
    if row.held is None:
        return "·"
    far, note = _said(str(row.held)), NOTED if row.notices else ""
    return (f"**{far}**" if row.rank == 1 and row.held.length else far) + note


def _section(section: Section) -> str:
    rows, lengths = section.rows[:TALL], section.lengths
    leads = ("rank", "method", "effective", "claimed", "short-context tax", "trained on")
    better = "higher" if section.higher else "lower"
    said = [section.metric, f"{better} is better"]
    if section.original:
        said.append(f"original length {label(section.original)}")
    if not section.common:
        said.append(ALONE)
    lines = [
        f"## {_said(section.base)} · {_said(readable(section.task))}",
        "",
        _said(" · ".join(filter(None, said))),
        "",
        _line([*leads, *map(label, lengths)]),
        "|--:|---" + "|--:" * (len(leads) - 2 + len(lengths)) + "|",
        *(_row(row, lengths) for row in rows),
    ]
    noted = (
        f"- {NOTED} {_said(f'{row.name}: {told(n, row.cell)}')}"
        for row in rows
        for n in row.notices
    )
    if notes := [*dict.fromkeys(noted)]:
        lines += ["", *notes]
    if left := section.left_out + len(section.rows) - len(rows):
        lines += ["", f"{left:,} more rows are not in this table."]
    return "\n".join(lines)


def _row(row: Row, lengths: Sequence[int]) -> str:
    tokens = counted(row.trained_tokens)
    interval = row.held.interval if row.held else ""
    cells = [
        f"{'≤ ' if row.open else ''}{row.rank or '·'}",
        _said(row.name),
        f"{_reached(row)} {_said(interval)}".rstrip(),
        label(row.claimed) if row.claimed else "·",
        _taxed(row.tax) if row.tax else "·",
        f"{tokens} at {label(row.trained_length)}".lstrip() if row.trained_length else "·",
    ]
    return _line([*cells, *_values(row, lengths)])


def _taxed(tax: Tax) -> str:
    return f"{percent(tax.share)} {_said(between(tax.low, tax.high))}".rstrip()


def _values(row: Row, lengths: Sequence[int]) -> Iterator[str]:
    at = {cell["length"]: cell for cell in row.cells}
    keys = ("status", "metric", "value", "low", "high", "truncated")
    for length in lengths:
        yield written(*(at[length][key] for key in keys)).text if length in at else "·"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
