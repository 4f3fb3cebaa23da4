"""The verbs that handle results by the thousand: `results pack`, `results export`, `query`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Option

from harness.cli import look
from harness.cli.look import Folder, Where, existing

PACK_EXAMPLES = "harness results pack\n\nharness results pack --remove --results elsewhere"
EXPORT_EXAMPLES = (
    "harness results export elsewhere --as every_eval_ever --by 'Our Laboratory'\n\n"
    "harness results export results.parquet --as parquet --where 'task=passkey'"
)
QUERY_EXAMPLES = (
    'harness query "select method, avg(value) from results group by method"\n\n'
    'harness query "select * from results where length >= 16384" --format csv'
)
results = typer.Typer(invoke_without_command=True, epilog=look.RESULTS_EXAMPLES)
results.callback()(look.results)
Above = Annotated[
    Path | None,
    Option("--results", metavar="DIR", help="The folder they are kept in; results unless given."),
]


@results.command("pack", epilog=PACK_EXAMPLES)
def pack(
    context: typer.Context,
    folder: Above = None,
    remove: Annotated[
        bool,
        Option("--remove", help="Take away the single files that a pack now holds, to the letter."),
    ] = False,
) -> None:
    """Put single results into one Parquet file below packed/, read as they were before.

    Losses and answers stay where they lie.
    """
    from harness import archive

    done = archive.pack(existing(folder or context.obj), remove=remove)
    _name(done.broken)
    print(f"{done.cells:,} results packed{f' into {done.path}' if done.path else ''}")
    if remove:
        print(f"{done.removed:,} single files removed")


@results.command("export", epilog=EXPORT_EXAMPLES)
def export(
    context: typer.Context,
    place: Annotated[Path, typer.Argument(metavar="PLACE", help="A folder, or a Parquet file.")],
    form: Annotated[
        Literal["every_eval_ever", "eval_results", "parquet"],
        Option(
            "--as",
            help="JSON by the schema of Every Eval Ever; Hugging Face's YAML for a model's "
            ".eval_results folder; or one flat Parquet file.",
        ),
    ],
    by: Annotated[
        str, Option(metavar="NAME", help="Who measured, for every_eval_ever.")
    ] = "unknown",
    dataset: Annotated[
        str | None,
        Option(metavar="ID", help="The hub's benchmark, for eval_results of tasks that name none."),
    ] = None,
    where: Where = None,
    folder: Above = None,
) -> None:
    """Write results as others read them."""
    from harness import exchange
    from harness.store import Broken

    broken: list[Broken] = []
    meant = exchange.Meant(existing(folder or context.obj), where, broken)
    if form == "parquet":
        said = exchange.parquet(meant, place)
    elif form == "eval_results":
        said = exchange.eval_results(meant, place, dataset=dataset)
    else:
        said = exchange.every_eval_ever(meant, place, by=by)
    _name(broken)
    print(said)


def query(
    sql: Annotated[str, typer.Argument(help="A select over the table `results`, one row a cell.")],
    form: Annotated[Literal["table", "csv", "json"], Option("--format", help="How to print.")] = (
        "table"
    ),
    folder: Folder = Path("results"),
) -> None:
    """Ask the results in SQL, with DuckDB; nothing else can be read, and nothing written.

    The columns are those of `harness results --format json`, and `cell`, its path below runs/.
    """
    from harness import query as asking
    from harness.store import Broken

    broken: list[Broken] = []
    answer = asking.ask(sql, existing(folder), broken)
    _name(broken)
    asking.show(answer, form)


def _name(broken: list) -> None:
    for one in broken:
        print(f"note: {one}", file=sys.stderr)
