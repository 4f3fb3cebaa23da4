"""`harness table`: what was measured, as a paper prints it."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from harness.cli.look import Folder, Where

HELP = (
    "Print tables as papers do: methods down, lengths across, the length trained at, claimed and "
    "effectively read before them.\n\n"
    "The best of each column is bold, in a file or a pipe ^; ≈ marks what cannot be told from it, "
    "item by item and each by itself: harness compare corrects for many. "
    "LaTeX needs booktabs."
)
EXAMPLES = (
    "harness table --where model=smollm2-135m --intervals\n\n"
    "harness table --where task=perplexity --format latex > tables.tex"
)


def table(
    form: Annotated[
        Literal["table", "markdown", "csv", "latex"], Option("--format", help="How to print.")
    ] = "table",
    where: Where = None,
    folder: Folder = Path("results"),
    intervals: Annotated[bool, Option("--intervals", help="With the 95 % intervals.")] = False,
    rule: Annotated[
        str,
        Option(
            metavar="nolima|ruler|SCORE",
            help="What a score must keep to count as read: 85 % of what the model as it is scores "
            "on short inputs; RULER's 0.856, which is of the mean over its thirteen tasks; or a "
            "score of your own, such as 0.7.",
        ),
    ] = "nolima",
) -> None:
    """Print what was measured as papers do."""
    from harness.archive import whole
    from harness.cli.look import _found
    from harness.report import latex, paper_text
    from harness.report.paper_table import paper_tables
    from harness.report.table import console
    from harness.store import Store
    from harness.window import windows

    threshold = _threshold(rule)
    found = _found(folder, where)
    shown = {result.cell for result in found}
    tables = paper_tables(whole(folder, found), windows(Store(folder)), threshold, shown)
    if form == "table":
        paper_text.printed(tables, console(), intervals=intervals)
        return
    write = {"markdown": paper_text.markdown, "csv": paper_text.commas, "latex": latex.latex}[form]
    print(write(tables, intervals=intervals), end="")


def _threshold(rule: str) -> float | None:
    """The score that must be kept; None: a share of the model's as it is."""
    from harness.effective import RULER

    if rule in ("nolima", "ruler"):
        return RULER if rule == "ruler" else None
    try:
        score = float(rule)
    except ValueError:
        score = 0
    if not 0 < score <= 1:
        raise ValueError(
            f"--rule is nolima, ruler, or a score above 0 and up to 1 such as 0.7, and {rule!r} is "
            "none."
        )
    return score
