"""`harness run-cell`: one cell file, on whatever machine a launcher chose."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from harness.cli.look import Folder

HELP = (
    "Run a cell file: what one pass needs, written by `harness run ... --write-cells DIR`.\n\n"
    "It needs this package, the model and the corpus where the file says, and a results folder; "
    "cells that have a result there are not run again. Exits as `harness run` does."
)
EXAMPLES = (
    "harness run -m yarn,pi -t passkey -l 4k-32k --write-cells cells\n\n"
    "ls cells/*.json | xargs -n 1 -P 4 harness run-cell --results results"
)


def run_cell(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A cell file.")],
    results: Folder = Path("results"),
    retry: Annotated[
        bool,
        Option("--retry", help="Run cells again that failed, ran out of memory or cannot be read."),
    ] = False,
    trust_remote_code: Annotated[
        bool, Option("--trust-remote-code", help="Run code that comes with a model.")
    ] = False,
    no_network: Annotated[
        bool,
        Option("--offline", help="Take everything from the cache that `data fetch` has filled."),
    ] = False,
) -> None:
    """Run one cell file."""
    from harness.executors import work
    from harness.report.live import Lines
    from harness.store import Store

    if no_network:
        from harness.network import offline

        offline()
    asked = work.read(file)
    from harness.executors.local import perform  # and torch with it, once the file is read

    store = Store(results, retry=retry)
    try:
        with Lines(len(asked.cells)) as watch:
            for _ in perform(asked, store, watch, trust_remote_code):
                pass
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    found = [store.get(share.cell) for share in asked.cells]
    raise typer.Exit(int(any(result is None or result.status == "failed" for result in found)))
