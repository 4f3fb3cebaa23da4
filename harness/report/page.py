"""A leaderboard as one page that needs nothing else: what is on it, as data for its script.

The template, its style and its script lie beside this file; rendered, all are in one file that
loads nothing, and the page's own policy forbids it to. What a result says is data, never markup.
"""

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.resources import files
from typing import Any

from harness.catalog import join, load, split
from harness.catalog import written as written_value
from harness.cell import SHIPPED, Cell, Result
from harness.lengths import label
from harness.report.board import Board, Row, Section, fewer
from harness.report.live import duration, size
from harness.report.reach import CLAIM
from harness.report.sheet import readable, told, written

LARGEST = 3_000_000
"""Bytes of a page."""
MUCH = 10_000
"""Times worse, of which no table needs all figures."""
STAMP = re.compile(r"@[0-9a-f]{8}(?=$|\+)")
Look = Callable[[Cell], Result | None]
Data = dict[str, Any]


def html(board: Board, printed: Sequence[Data], look: Look) -> str:
    """The page.

    Args:
        board: what was measured.
        printed: sections of published numbers, as `harness.report.beside` makes them.
        look: a cell's whole result, for where its number comes from; None where that is too much.
    """
    from jinja2 import Environment, PackageLoader
    from jinja2.utils import htmlsafe_json_dumps

    dumps = partial(json.dumps, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    style, script = (_asset(f"leaderboard.{kind}") for kind in ("css", "js"))
    environment = Environment(
        loader=PackageLoader("harness.report", ""), autoescape=True, keep_trailing_newline=True
    )
    return environment.get_template("leaderboard.html.j2").render(
        board=board,
        claim=CLAIM.capitalize(),
        published=sum(len(section["rows"]) for section in printed),
        data=htmlsafe_json_dumps(contents(board, printed, look), dumps=dumps),
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def fitting(
    board: Board, printed: Sequence[Data], look: Look, largest: int = LARGEST
) -> tuple[str, Board]:
    """The page, with fewer rows if it would be too large; and what is on it."""
    page = html(board, printed, look)
    while len(page.encode()) > largest and board.shown > 1:
        board = fewer(board, board.shown * 2 // 3)
        page = html(board, printed, look)
    return page, board


def contents(board: Board, printed: Sequence[Data], look: Look) -> Data:
    """All that the script shows."""
    measured = [_section(section, look) for section in board.sections]
    return {"sections": [*measured, *printed]}


def command(row: Row, *, trusting: bool = False) -> str:
    """What makes a row again, into another folder, for in its own the cells are done.

    Corpora and models of one's own are called as whoever measured them called them; `harness
    explain` finds where they are.

    Args:
        row: of a table.
        trusting: whether code that came with the model was allowed to run.
    """
    model, settings = split(row.cell.model)
    words = {
        "model": SHIPPED.get(model) or STAMP.sub("", model.partition("+")[2] or model),
        "method": row.cell.method,
        "task": _spelled(row.cell.task),
        "lengths": ",".join(label(n) for n in row.curve.lengths),
        "dtype": settings.get("dtype", "bfloat16"),
        "results": "again",
    }
    said = [w for key in words for w in (f"--{key}", words[key])]
    return shlex.join(["harness", "run", *said, *(["--trust-remote-code"] if trusting else [])])


@cache
def _spelled(task: str) -> str:
    """With what a command would fill in otherwise, and without the stamp of a corpus."""
    name, given = split(task)
    try:
        default = load("tasks", name)
    except (LookupError, ValueError, ImportError):
        default = None
    if hasattr(default, "reach"):
        given = {"reach": written_value(default.reach)} | given
    return join(name, {key: STAMP.sub("", value) for key, value in given.items()})


def _section(section: Section, look: Look) -> Data:
    return {
        "model": section.base,
        "task": split(section.task)[0].partition(".")[0],
        "protocol": section.protocol,
        "title": readable(section.task),
        "metric": section.metric,
        "higher": section.higher,
        "original": section.original,
        "alone": not section.common,
        "published": False,
        "out": section.left_out,
        "rows": [_row(row, section, look) for row in section.rows],
    }


def _row(row: Row, section: Section, look: Look) -> Data:
    held, tax = row.held, row.tax
    scored = [cell for cell in row.cells if cell["value"] is not None]
    longest = scored[-1] if scored else row.cells[-1]
    found = look(row.cell.model_copy(update={"length": longest["length"]}))
    trusting = bool(found and found.provenance.get("remote_code"))
    return {
        "rank": row.rank,
        "ranked": f"{'≤ ' if row.open else ''}{row.rank or ''}",
        "method": split(row.cell.method)[0],
        "name": row.name,
        "plain": row.plain,
        "noted": bool(row.notices),
        "trained": row.cell.training,
        "reach": held and (held.length or 0),
        "far": str(held) if held else "·",
        "spread": held.interval if held else "",
        "claimed": row.claimed,
        "claim": label(row.claimed) if row.claimed else "·",
        "tax": tax and _short(tax.share),
        "taxed": percent(tax.share) if tax else "·",
        "taxes": between(tax.low, tax.high) if tax else "",
        "sure": bool(tax and tax.sure),
        "tokens": row.trained_tokens,
        "budget": counted(row.trained_tokens),
        "window": label(row.trained_length) if row.trained_length else "",
        "points": [_point(cell) for cell in row.cells],
        "facts": _facts(row, section, found),
        "command": command(row, trusting=trusting),
    }


def _point(cell: Data) -> list[Any]:
    """Length, what a table says, value and interval."""
    keys = ("status", "metric", "value", "low", "high", "truncated")
    shown = written(*(cell[key] for key in keys))
    numbers = (_short(cell[key]) for key in ("value", "low", "high"))
    return [cell["length"], shown.text, shown.interval, *numbers]


def _facts(row: Row, section: Section, found: Result | None) -> list[tuple[str, str]]:
    """Where a row's numbers come from, in words."""
    scored = [cell for cell in row.cells if cell["value"] is not None]
    facts = [
        ("items", _between([cell["n"] for cell in scored])),
        ("corpus", section.corpus),
        ("training", next((cell["trained"] for cell in row.cells if cell["trained"]), None)),
        ("cut to fit", _cut(scored)),
        *_made(found),
        ("time", duration(sum(cell["seconds"] or 0 for cell in row.cells))),
        ("memory", size(max(cell["peak_memory"] or 0 for cell in row.cells))),
        *(("note", text) for text in row.notices),
        *((label(cell["length"]), cell["reason"]) for cell in row.cells if cell["reason"]),
    ]
    return [(name, told(text, row.cell)) for name, text in facts if text]


def _made(result: Result | None) -> list[tuple[str, str | None]]:
    """What made it, as the result at the longest length has it."""
    if result is None:
        return []
    facts = result.provenance
    versions = facts.get("versions") or {}
    with_ = " · ".join(f"{n} {versions[n]}" for n in ("torch", "transformers") if n in versions)
    kernel = " · ".join(str(facts[key]) for key in ("kernel", "dtype") if facts.get(key))
    commit = str(facts.get("commit") or "")[:12]
    return [
        ("weights", str(facts.get("weights") or "")[:12]),
        ("code of the model's own", "allowed to run" if facts.get("remote_code") else ""),
        ("task version", str(facts.get("task_version") or "")),
        ("kernel", kernel),
        ("device", str(facts.get("device") or "")),
        ("commit", f"{commit}{', with changes' if facts.get('dirty') else ''}" if commit else ""),
        ("versions", with_),
    ]


def _between(counts: Sequence[int]) -> str:
    ends = dict.fromkeys(str(n) for n in (min(counts, default=0), max(counts, default=0)))
    return " to ".join(ends)


def _cut(scored: Sequence[Data]) -> str | None:
    most = max((cell["truncated"] for cell in scored), default=0)
    return f"up to {100 * most:.3g} % of inputs" if most else None


def percent(share: float) -> str:
    """`+19 %`, `+0.4 %`, or with a minus sign what got better; of what blew up, only that it did.

    Two figures, so that what can be told from nothing is not printed as nothing.
    """
    if share > MUCH:
        return f"> +{100 * MUCH:,} %"
    size = abs(100 * share)
    said = f"{size:,.{0 if size >= 9.95 else 1 if size >= 0.095 else 2}f}"
    if not float(said.replace(",", "")):
        return "0 %"
    return f"{'+' if share > 0 else '−'}{said} %"  # noqa: RUF001


def between(low: float | None, high: float | None) -> str:
    """`[+2, +8]`; nothing where an end is not known."""
    if low is None or high is None:
        return ""
    return f"[{', '.join(percent(share).removesuffix(' %') for share in (low, high))}]"


def counted(tokens: int | None) -> str:
    """`1.2 B`; a model that was not trained has none."""
    if tokens is None:
        return ""
    for unit, name in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if tokens >= unit:
            return f"{tokens / unit:.3g}{name}"
    return str(tokens)


def _short(value: float | None) -> float | None:
    """Six figures are more than a curve shows."""
    return None if value is None else float(f"{value:.6g}")


def _asset(name: str) -> str:
    return files("harness.report").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    """As a content security policy names what may run."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
