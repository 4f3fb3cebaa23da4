"""The verbs that draw: `plot`, one picture; `report`, a paper's figures and tables or a page's."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Option

from harness.cli.look import Folder, Where

if TYPE_CHECKING:
    from harness.cell import Result
    from harness.report.paper import Inputs
    from harness.store import Store

PLOT_EXAMPLES = (
    "harness plot --output curve.png --where 'model=toy task=perplexity'\n\n"
    "harness plot --kind depth --output passkey.pdf --where task=passkey"
)
HELP = (
    "Make a paper's figures and tables, or the pictures of a page, from results.\n\n"
    "--paper writes PDF and PNG figures at column width, LaTeX tables, a bibliography, and a "
    "main.tex that puts them together and is never written over. --figures writes a PNG for each "
    "model and task. A figure without data is not drawn; why is said on standard error."
)
EXAMPLES = (
    "harness report --paper paper --where model=toy\n\n"
    "harness report --figures results/figures --check"
)


def plot(
    output: Annotated[Path, Option(help="The picture to write: .png, .svg or .pdf.")],
    kind: Annotated[
        Literal["curve", "depth", "position"],
        Option(
            help="Value by length; one map of length by depth for each method; or the mean loss by "
            "position, of results whose losses are still beside them."
        ),
    ] = "curve",
    where: Where = None,
    folder: Folder = Path("results"),
) -> None:
    """Draw what was measured."""
    from harness.cli.look import _found, tell_skipped
    from harness.report.figures import depth, length, position
    from harness.report.figures.saved import save
    from harness.report.sheet import apart_by_name
    from harness.store import Store

    found = _found(folder, where)
    shown = apart_by_name(found)
    if kind == "depth":
        figure = depth.draw(shown)
    elif kind == "curve":
        figure = length.draw(shown, _windows(found, folder))
    else:
        store = Store(folder)
        kept = [(one, store.losses(r.cell)) for one, r in zip(shown, found, strict=True)]
        tell_skipped(store.broken)
        figure = position.draw(kept, _windows(found, folder))
    save(figure, output)


def report(
    paper: Annotated[
        Path | None, Option(metavar="DIR", help="Write figures, tables and main.tex there.")
    ] = None,
    figures: Annotated[
        Path | None, Option(metavar="DIR", help="Write MODEL/TASK.png there instead.")
    ] = None,
    check: Annotated[
        bool, Option("--check", help="Write nothing; exit with 1 and say what is behind.")
    ] = False,
    where: Where = None,
    folder: Folder = Path("results"),
    search: Annotated[
        list[Path] | None,
        Option(metavar="FILE", help="A search's NAME.search.json; else all in RESULTS/search."),
    ] = None,
    training: Annotated[
        list[Path] | None,
        Option(metavar="DIR", help="A folder of harness train; else all in RESULTS/training."),
    ] = None,
    benchmarks: Annotated[
        Path, Option(metavar="DIR", help="Figures of the benchmarks: peers' memory and time.")
    ] = Path("benchmarks/figures"),
) -> None:
    """Make a paper's figures and tables, or the pictures of a page, from results."""
    from harness.cli.look import tell_skipped
    from harness.report import paper as made
    from harness.store import Store

    target = paper or figures
    if target is None or (paper and figures):
        raise typer.BadParameter("give --paper DIR, or --figures DIR")
    searches = search or sorted((folder / "search").glob("*.search.json"))
    trainings = training or sorted(log.parent for log in (folder / "training").glob("*/log.jsonl"))
    store = Store(folder)
    given = _inputs(store, where, searches, trainings, benchmarks)
    report = made.paper(given) if paper else made.page(given)
    tell_skipped(store.broken)
    for line in report.left_out:
        print(f"note: {line}", file=sys.stderr)
    if check:
        stale = report.stale(target)
        for line in stale:
            print(line)
        if stale:
            print("The same command without --check makes all of it anew.")
        raise typer.Exit(1 if stale else 0)
    written = report.write(target)
    for path in written:
        print(path)
    print(f"{len(written)} files written; all others in {target} are as they would be made now")


def _inputs(
    store: "Store", where: str | None, searches: list[Path], trainings: list[Path], benchmarks: Path
) -> "Inputs":
    from harness.archive import whole
    from harness.cli.look import _found
    from harness.report.paper import Inputs
    from harness.report.sheet import apart_by_name

    folder = store.root
    found = _found(folder, where)
    every = whole(folder, found)
    named = apart_by_name(every)
    kept = {shown.cell: real.cell for shown, real in zip(named, every, strict=True)}
    shown = {result.cell for result in found}
    return Inputs(
        results=[one for one in named if kept[one.cell] in shown],
        whole=named,
        losses=lambda cell: store.losses(kept[cell]),
        windows=_windows(found, folder),
        searches=searches,
        trainings=trainings,
        benchmarks=sorted(benchmarks.glob("*.json")),
    )


def _windows(results: "list[Result]", folder: Path) -> dict[str, int]:
    """By model: tokens of the window it was trained on, where anything says it."""
    from harness.store import Store
    from harness.window import windows

    of = windows(Store(folder))
    return {result.cell.base: window for result in results if (window := of(result.cell))}
