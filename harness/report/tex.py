"""Words as LaTeX takes them."""

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
    "≈": r"$\approx$",
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


def _letter(c: str) -> str:
    if c in SPECIAL:
        return SPECIAL[c]
    return c if c.isascii() or "À" <= c <= "ÿ" else f"U+{ord(c):04X}"
