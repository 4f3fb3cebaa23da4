"""`harness plan`: what a grid costs before it runs, here and on named GPUs."""

import json
import re
import shlex
from collections.abc import Sequence
from contextlib import redirect_stdout
from inspect import Parameter, signature
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Option

from harness.cli.run import run
from harness.cli.settle import settle

if TYPE_CHECKING:
    from harness.plan import Options, Planned

HELP = (
    "Cost a grid before it runs: tokens, operations, time and peak memory.\n\n"
    "It takes the flags of a grid as `harness run` does. Here, time is from a layer of the model "
    "that is run for some three seconds. With --gpu, it is from the GPU's data sheet and what "
    "kernels are known to reach of it, in bfloat16, for the whole grid, whatever has results; a "
    "third more or less is likely."
)
EXAMPLES = (
    "harness plan -m none,yarn,longrope -t passkey,perplexity -l 4k-32k --model smollm2-135m\n\n"
    "harness plan -m longrope -t passkey -l 4k-2048k --stand-in --model meta-llama/Llama-2-7b-hf "
    "--gpu h100 --gpus 8\n\n"
    "harness plan --page docs/scale.md --check"
)
GRID = (
    "grid", "method", "task", "lengths", "model", "factor", "factors", "corpus", "samples",
    "depths", "seed", "prompt", "no_context", "pair_lengths", "device", "dtype",
)  # fmt: skip
SHARED = (*GRID, "trust_remote_code", "no_network", "results")
"""Flags that `harness run` has too."""
FEW = 60
"""Cells that are listed one by one."""


def plan(
    *,
    gpu: Annotated[
        str | None,
        Option(metavar="NAME", help="a100-40, a100-80, h100, h200, b200, 4090; or all."),
    ] = None,
    gpus: Annotated[int, Option(metavar="N", help="How many there are.", min=1, max=4096)] = 1,
    share: Annotated[
        int, Option(metavar="N", help="Most of them that may share one pass.", min=1, max=64)
    ] = 1,
    offload: Annotated[
        Literal["auto", "off"],
        Option(help="auto: what does not fit a GPU may lie in the host's memory."),
    ] = "off",
    stand_in: Annotated[
        bool,
        Option(
            "--stand-in",
            help="Count with bytes as tokens and empty documents, for what is not here: gated "
            "models, long books.",
        ),
    ] = False,
    form: Annotated[
        Literal["table", "markdown", "json"], Option("--format", help="How to print.")
    ] = "table",
    page: Annotated[
        Path | None, Option(help="Make the tables anew between the marks of this file instead.")
    ] = None,
    check: Annotated[
        bool, Option("--check", help="With --page: change nothing, exit with 1 if it is behind.")
    ] = False,
    **given: Any,
) -> None:
    """Cost a grid before it runs."""
    if page:
        raise typer.Exit(settle({page: refreshed(page.read_text("utf-8"))}, check))
    if check:
        raise typer.BadParameter("--check is for --page")
    if not gpu and (gpus > 1 or share > 1 or offload == "auto"):
        raise typer.BadParameter("--gpus, --share and --offload are for --gpu: say which")
    if not gpu and form == "markdown":
        raise typer.BadParameter("--format markdown is for --gpu: say which")
    if gpu and given.get("dtype") not in (None, "auto", "bfloat16"):
        raise typer.BadParameter("--gpu counts in bfloat16: leave --dtype out")
    options = _options(given, stand_in or bool(gpu))
    from harness.plan import plan as planned
    from harness.plan import see_that_some_can_run

    cells = planned(options, stand_in=stand_in)
    see_that_some_can_run(cells)
    if gpu:
        _on_gpus(cells, gpu, gpus, share, offload == "auto", form)
    elif stand_in:
        raise ValueError("--stand-in counts for machines elsewhere: say which with --gpu.")
    else:
        _here(cells, given["results"], form)


def _options(given: dict[str, Any], elsewhere: bool) -> "Options":
    from harness.gridfile import options

    if given["no_network"]:
        from harness.network import offline

        offline()
    flags = {key: given[key] or None if given[key] is False else given[key] for key in GRID[1:]}
    if elsewhere and not flags["dtype"]:
        flags["dtype"] = "bfloat16"
    words = {key: value for key, value in flags.items() if value not in (None, [])}
    return options(words, given["grid"], trust_remote_code=given["trust_remote_code"])


def _here(cells: "Sequence[Planned]", results: Path, form: str) -> None:
    from harness.plan import missing
    from harness.report.forecast import forecast, objects
    from harness.report.table import console
    from harness.store import Store

    left = {planned.cell for planned in missing(cells, Store(results))}
    done = {planned.cell for planned in cells} - left
    if form == "json":
        print(json.dumps(objects(cells, done), indent=2, allow_nan=False))
    else:
        console().print(forecast(cells, done))


def _on_gpus(
    cells: "Sequence[Planned]", name: str, most: int, shared: int, offload: bool, form: str
) -> None:
    from harness import bill, gpus

    if name == "all":
        rows = bill.by_gpu(cells, most, offload=offload, shared=shared)
        tables = [(f"{len(cells):,} cells on at most {most} GPUs of a kind", rows)]
    else:
        kind = gpus.named(name)
        found = gpus.passes(cells, kind, offload=offload)
        tables = [
            (f"{len(cells):,} cells on one {kind.title}, by length", bill.by_length(found)),
            ("and on more of them", bill.by_count(found, most, shared=shared)),
        ]
    _print(tables, form)


def _print(tables: list[tuple[str, list[dict[str, Any]]]], form: str) -> None:
    from harness.report.costs import markdown, table
    from harness.report.table import console

    if form == "json":
        print(json.dumps([rows for _, rows in tables], indent=2, allow_nan=False))
    elif form == "markdown":
        print("\n\n".join(markdown(rows) for _, rows in tables))
    else:
        for title, rows in tables:
            console().print(table(rows, title))


MARK = re.compile(r"(<!-- plan (.+?) -->\n).*?(<!-- /plan -->)", re.DOTALL)


def refreshed(text: str) -> str:
    """A page with what stands between `<!-- plan FLAGS -->` and `<!-- /plan -->` made anew.

    Raises:
        ValueError: it has no such marks.
    """
    if not MARK.search(text) or len(MARK.findall(text)) != text.count("<!-- plan "):
        raise ValueError(
            "A page holds plans between '<!-- plan FLAGS -->' and '<!-- /plan -->', each on a line "
            "of its own."
        )
    return MARK.sub(lambda m: f"{m[1]}{_told(m[2])}{m[3]}", text)


def _told(flags: str) -> str:
    """What this command prints with these flags."""
    from harness.cli import app

    with redirect_stdout(StringIO()) as printed:
        app(["plan", "--format", "markdown", *shlex.split(flags)], standalone_mode=False)
    return f"\n{printed.getvalue()}\n"


def _with_the_flags_of_a_run() -> None:
    """A grid is named in one way: `harness run` says how."""
    theirs = signature(run).parameters
    own = [p for p in signature(plan).parameters.values() if p.kind is Parameter.KEYWORD_ONLY]
    taken = [theirs[name].replace(kind=Parameter.KEYWORD_ONLY) for name in SHARED]
    plan.__signature__ = signature(plan).replace(parameters=[*taken, *own])


_with_the_flags_of_a_run()
