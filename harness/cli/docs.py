"""`harness docs`: the pages that are made from the command line and from results."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from harness.cli.settle import settle

HELP = (
    "Make docs/commands.md anew from the command line itself, and the measured tables of the "
    "other pages.\n\n"
    "For whoever changes a verb or a flag of this project: a test holds the pages to the code."
)
EXAMPLES = "harness docs\n\nharness docs --check"


def docs(
    folder: Annotated[Path, Option(metavar="DIR", help="Where the pages are.")] = Path("docs"),
    check: Annotated[
        bool, Option("--check", help="Change nothing; exit with 1 and say what is behind.")
    ] = False,
) -> None:
    """Make the pages anew that say what the code says."""
    from harness.cli import app
    from harness.documentation import pages

    raise typer.Exit(settle(dict(pages(folder, typer.main.get_command(app))), check))
