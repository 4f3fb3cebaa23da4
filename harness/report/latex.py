r"""A paper's table in LaTeX: booktabs, the best of each column in bold.

Needs `\usepackage{booktabs}`; as wide as its text, so a wide one belongs into `table*`.
"""

import re
from collections.abc import Iterable, Sequence

from harness.lengths import label
from harness.report.paper_table import LEADS, Line, PaperTable
from harness.report.sheet import Entry
from harness.report.tex import escaped

SIGN = r"\,$^{\approx}$"
"""Behind what cannot be told from the best of its column."""


def latex(tables: Iterable[PaperTable], *, intervals: bool = False) -> str:
    """One floating table after another, each with its caption and what its marks mean."""
    return "\n".join(_floating(table, intervals) for table in tables)


def tabular(table: PaperTable, *, intervals: bool = False) -> str:
    """The table alone."""
    heads = [*LEADS, *(label(n) for n in table.lengths)]
    lines = [
        rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        r"\midrule",
        *(" & ".join(_cells(line, intervals)) + r" \\" for line in table.lines),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines)


def _floating(table: PaperTable, intervals: bool) -> str:
    notes = [escaped(note) for note in table.said(intervals=intervals)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering\small",
            rf"\caption{{{escaped(table.title)}. {_sentences(notes)}}}",
            rf"\label{{tab:{_slug(table)}}}",
            tabular(table, intervals=intervals),
            r"\end{table}",
            "",
        ]
    )


def _cells(line: Line, intervals: bool) -> list[str]:
    lead = [escaped(text) for text in line.lead(intervals=intervals)]
    pairs = zip(line.entries, line.marks, strict=True)
    return [*lead, *(_cell(entry, mark, intervals) for entry, mark in pairs)]


def _cell(entry: Entry, mark: str, intervals: bool) -> str:
    text = escaped(entry.text)
    if mark == "best":
        text = rf"\textbf{{{text}}}"
    if intervals and entry.interval:
        text += rf" {{\scriptsize {escaped(entry.interval)}}}"
    return text + (SIGN if mark == "tied" else "")


def _sentences(notes: Sequence[str]) -> str:
    return " ".join(f"{' '.join(note.split()).rstrip('.')}." for note in notes)


def _slug(table: PaperTable) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"{table.base} {table.task}".lower()).strip("-")
