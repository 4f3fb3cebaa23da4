"""`harness published`: what others printed, with sources and doubts."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

from typer import BadParameter, Option

from harness.cli.look import Json, Where

HELP = (
    "Print what others published: their tables, each number with its source and its doubts.\n\n"
    "InfiniteBench's stand with what came out of the published predictions again. LaTeX needs "
    "booktabs, graphicx and url."
)
EXAMPLES = (
    "harness published --where 'task=perplexity length>=64k'\n\n"
    "harness published --where table=clex-infinitebench --json\n\n"
    "harness published --where base=LLaMA-2-7B --format latex > published.tex"
)


def published(
    form: Annotated[
        Literal["table", "markdown", "csv", "latex"],
        Option("--format", help="How to print; csv has a line for each number, and all of it."),
    ] = "table",
    where: Where = None,
    folder: Annotated[
        Path,
        Option("--results", metavar="DIR", help="The folder they are kept in, below published/."),
    ] = Path("results"),
    as_json: Json = False,
) -> None:
    """Print what others published."""
    from harness.published import published as read
    from harness.report import printed
    from harness.report.table import console
    from harness.where import conditions

    if as_json and form != "table":
        raise BadParameter(f"--json and --format {form} are two ways to print: give one of them")
    every = read(folder / "published")
    if not every:
        raise ValueError(
            f"There are no published tables in {str(folder / 'published')!r}: say with --results "
            "where they are."
        )
    wanted = conditions(where, every[0].row())
    found = [n for n in every if (row := n.row()) and all(c.holds(row) for c in wanted)]
    if not found:
        print(f"note: none of the {len(every)} published numbers matches", file=sys.stderr)
    if as_json:
        print(json.dumps([n.row() for n in found], indent=2, ensure_ascii=False))
    elif form == "table":
        printed.shown(found, console())
    else:
        write = {"markdown": printed.markdown, "csv": printed.commas, "latex": printed.latex}[form]
        print(write(found), end="")
