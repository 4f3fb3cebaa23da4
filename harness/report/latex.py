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
NARROWED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"
"""Behind it, what is made smaller where it is wider than the column; needs graphicx."""


def latex(tables: Iterable[PaperTable], *, intervals: bool = False) -> str:
    """One floating table after another, each with its caption and what its marks mean."""
    return "\n".join(_floating(table, intervals) for table in tables)


def tabular(table: PaperTable, *, intervals: bool = False) -> str:
    """The table alone."""
    heads = [*LEADS, *(label(n) for n in table.lengths)]
    return ruled(heads, [_cells(line, intervals) for line in table.lines])


def ruled(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Words of LaTeX between rules, the first column to the left."""
    lines = [
        rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines)


def floating(inside: str, caption: str, name: str) -> str:
    """A table that floats, by its name in lower-case letters.

    Args:
        inside: what stands in it.
        caption: in words of LaTeX.
        name: of anything.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering\small",
            rf"\caption{{{caption}}}",
            rf"\label{{tab:{slug}}}",
            inside,
            r"\end{table}",
            "",
        ]
    )


def explained(table: PaperTable, *, intervals: bool = False) -> str:
    """What its words and marks mean, as sentences of a caption."""
    return sentences(table.said(intervals=intervals))


def sentences(notes: Iterable[str]) -> str:
    """Notes as a caption has them."""
    return " ".join(map(_sentence, notes))


def _sentence(note: str) -> str:
    """A word that is explained stands apart from what it means; a mark does so by itself."""
    head, gap, meaning = note.rstrip(".").partition("  ")
    if gap and head.isalnum():
        return rf"\emph{{{escaped(head)}}}: {escaped(meaning)}."
    return escaped(f"{note.rstrip('.')}.")


def _floating(table: PaperTable, intervals: bool) -> str:
    caption = f"{escaped(table.title)}. {explained(table, intervals=intervals)}"
    inside = tabular(table, intervals=intervals)
    return floating(inside, caption, f"{table.base} {table.task}")


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
