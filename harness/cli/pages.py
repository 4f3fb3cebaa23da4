"""`harness pages`: whatever shows results, made anew."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from harness.cli import look
from harness.cli.leaderboard import leaderboard
from harness.cli.report import report

HELP = (
    "Make anew whatever shows results: the README's tables, the leaderboard, and the pictures in "
    "the results folder's figures/."
)
EXAMPLES = "harness pages\n\nharness pages --check"


def pages(
    folder: look.Folder = Path("results"),
    check: Annotated[
        bool, Option("--check", help="Change nothing; exit with 1 if anything is behind.")
    ] = False,
) -> None:
    """Write what is behind the results."""
    made = (
        partial(_tables, folder, check),
        partial(leaderboard, folder, check),
        partial(report, figures=folder / "figures", check=check, folder=folder),
    )
    if any([_behind(part) for part in made]):
        raise typer.Exit(1)


def _tables(folder: Path, check: bool) -> None:
    readme = look.readme_of(folder)
    if readme and "<!-- table:" in readme.read_text("utf-8"):
        raise typer.Exit(look.refresh(readme, folder, check))


def _behind(part: Callable[[], None]) -> bool:
    """Each is asked, so that all that is behind is named."""
    try:
        part()
    except typer.Exit as left:
        return bool(left.exit_code)
    return False
