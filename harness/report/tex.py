"""Words and tables as LaTeX takes them."""

from harness.lengths import label
from harness.report.sheet import Sheet

SPECIAL = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "×": r"$\times$",  # noqa: RUF001
    "·": r"$\cdot$",
    "…": r"\dots{}",
    "†": r"$\dagger$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "λ": r"$\lambda$",
    "θ": r"$\theta$",
    "—": "---",
    "–": "--",  # noqa: RUF001
    "’": "'",  # noqa: RUF001
}


def escaped(text: str, *, braces: bool = False) -> str:
    """So that it stays what it is; what pdfLaTeX has no letter for becomes its number.

    Args:
        text: plain.
        braces: leave braces, which keep BibTeX from abbreviating.
    """
    return "".join(c if braces and c in "{}" else _letter(c) for c in " ".join(text.split()))


def booktabs(sheet: Sheet) -> str:
    """A table alone, without its caption: methods down, lengths across."""
    head = " & ".join(["method", *(label(n) for n in sheet.lengths)])
    rows = [
        " & ".join([escaped(name), *(escaped(str(entry)) for entry in entries)])
        for name, entries in sheet.rows.items()
    ]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'r' * len(sheet.lengths)}}}",
            r"\toprule",
            rf"{head} \\",
            r"\midrule",
            *(rf"{row} \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _letter(c: str) -> str:
    if c in SPECIAL:
        return SPECIAL[c]
    return c if c.isascii() or "À" <= c <= "ÿ" else f"U+{ord(c):04X}"
