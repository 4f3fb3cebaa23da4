"""`harness docs`: the pages that are made from the command line and from results."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

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
    from harness.cli import command
    from harness.documentation import pages

    behind = 0
    for page, text in pages(folder, command()):
        if page.exists() and page.read_text("utf-8") == text:
            continue
        behind += 1
        if check:
            print(f"{page} is behind the code: run harness docs", file=sys.stderr)
        else:
            page.write_text(text, "utf-8")
            print(page)
    raise typer.Exit(int(check and behind > 0))
