"""`harness published`: what others printed, with sources and doubts."""

import json
import sys
from pathlib import Path
from typing import Annotated

from typer import Option

from harness.cli.look import Json, Where

HELP = (
    "Print what others published: their tables, each number with its source and its doubts.\n\n"
    "InfiniteBench's stand with what came out of the published predictions again."
)
EXAMPLES = (
    "harness published --where 'task=perplexity length>=64k'\n\n"
    "harness published --where table=clex-infinitebench --json"
)


def published(
    where: Where = None,
    folder: Annotated[
        Path,
        Option("--results", metavar="DIR", help="The folder they are kept in, below published/."),
    ] = Path("results"),
    as_json: Json = False,
) -> None:
    """Print what others published."""
    from harness.published import published as read
    from harness.report.printed import shown
    from harness.report.table import console
    from harness.report.where import conditions

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
    else:
        shown(found, console())
