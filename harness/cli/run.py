"""`harness run`: measure the cells of a grid that have no result yet."""

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Option

from harness.cli.look import Folder

if TYPE_CHECKING:
    from harness.cell import Result
    from harness.executors import Executor
    from harness.plan import Options, Planned
    from harness.store import Store

EXAMPLES = (
    "harness run --method longrope --task passkey --lengths 4k-32k\n\n"
    "harness run -m none,yarn,factor=8,pi -t passkey,perplexity -l 4k,8k,16k --dry-run\n\n"
    "harness run grid.yaml --results elsewhere --json"
)
HELP = (
    "Measure methods on tasks over lengths; cells that have a result are not run again.\n\n"
    "A cell that fails, does not fit or cannot run is kept with its reason, and counts as done: "
    "--retry runs failed, out-of-memory and unreadable cells once more. Interrupt at any time, and "
    "give the same command to go on. Exits with 0, with 1 if a cell of this grid failed or its "
    "result cannot be read, with 2 if the command is wrong, with 130 if interrupted."
)
INTERRUPTED = "Interrupted before anything was measured."
STORED = "Interrupted. What was measured is stored, and the same command shows it."
Names = list[str] | None


def run(
    grid: Annotated[
        Path | None, typer.Argument(help="A YAML file with these flags as keys.", metavar="[GRID]")
    ] = None,
    method: Annotated[
        Names,
        Option(
            "--method",
            "-m",
            metavar="NAMES",
            help="Such as none,yarn,factor=8: see `list methods`.",
        ),
    ] = None,
    task: Annotated[
        Names,
        Option(
            "--task", "-t", metavar="NAMES", help="Such as passkey,perplexity: see `list tasks`."
        ),
    ] = None,
    lengths: Annotated[
        str | None,
        Option(
            "--lengths",
            "-l",
            metavar="RANGE",
            help="4k-32k doubles, 2k-16k:2k steps, 4k,100k lists; k = 1024.",
        ),
    ] = None,
    model: Annotated[
        Names,
        Option(
            metavar="NAMES",
            help="Known names, folders or hub names. Unless given: toy, or of one method alone the "
            "toy as trained with it, where that ships.",
        ),
    ] = None,
    factor: Annotated[
        str | None,
        Option(
            metavar="X",
            help="A number, or auto: the longest length / the length the model was trained on. "
            "Methods that follow each input's length keep to that.",
        ),
    ] = None,
    factors: Annotated[
        str | None, Option(metavar="FILE", help="A file of LongRoPE's factors.")
    ] = None,
    corpus: Annotated[
        str | None, Option(metavar="CORPUS", help="Where text comes from: `list corpora`.")
    ] = None,
    samples: Annotated[
        int | None, Option(metavar="N", help="Documents, or trials at each depth.")
    ] = None,
    depths: Annotated[
        str | None, Option(metavar="SHARES", help="Where passkeys hide, such as 0,0.5,1.")
    ] = None,
    seed: Annotated[int | None, Option(metavar="N", help="What is random follows from it.")] = None,
    prompt: Annotated[
        str | None,
        Option(
            metavar="KIND",
            help="base: plain text; chat: a conversation by the tokenizer's template; auto: chat "
            "where it has one. For tasks that take it.",
        ),
    ] = None,
    no_context: Annotated[
        bool,
        Option(
            "--no-context",
            help="The control: ask without the text that holds the answer. For tasks that take it.",
        ),
    ] = False,
    pair_lengths: Annotated[
        bool,
        Option(
            "--pair-lengths",
            help="The same questions at every length, so that differences over length are paired. "
            "For tasks that take it.",
        ),
    ] = False,
    device: Annotated[str | None, Option(metavar="NAME", help="auto, cpu or cuda.")] = None,
    dtype: Annotated[str | None, Option(metavar="NAME", help="auto, bfloat16 or float32.")] = None,
    offload: Annotated[
        Literal["auto", "on", "off"],
        Option(help="Hidden states and keys in host memory; auto: where nothing else helps."),
    ] = "auto",
    memory: Annotated[
        str | None,
        Option(metavar="SIZE", help="Most of the device's memory to use, as 24GB or 800MB."),
    ] = None,
    device_map: Annotated[
        Literal["auto", "balanced", "sequential"] | None,
        Option(help="Let transformers place the weights; else they lie on one device."),
    ] = None,
    ranks: Annotated[
        int | None,
        Option(metavar="N", help="Processes that read each input together; or use torchrun."),
    ] = None,
    parallel: Annotated[
        Literal["context", "tensor"],
        Option(help="What ranks share: the tokens of an input, or each weight of the model."),
    ] = "context",
    results: Folder = Path("results"),
    dry_run: Annotated[
        bool, Option("--dry-run", help="Only list the cells and what they will take.")
    ] = False,
    as_json: Annotated[bool, Option("--json", help="Print one JSON array of the cells.")] = False,
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
    engine: Annotated[
        Literal["local", "ray", "slurm"],
        Option(help="Run cells in this process, on Ray's workers, or as Slurm's jobs."),
    ] = "local",
    workers: Annotated[
        int | None,
        Option(metavar="N", help="Cells at a time, with ray or slurm; else one a GPU or machine."),
    ] = None,
    gpus_per_worker: Annotated[
        int | None,
        Option(
            metavar="N", help="Of a Ray worker, with --device-map for models that need several."
        ),
    ] = None,
    address: Annotated[
        str | None,
        Option(metavar="HOST:PORT", help="Ray's head; without, Ray is started on this machine."),
    ] = None,
    job: Annotated[
        str | None,
        Option(
            metavar="WORDS",
            help="What a Slurm job is given, as gpus_per_node=1,slurm_partition=long.",
        ),
    ] = None,
    write_cells: Annotated[
        Path | None,
        Option(
            metavar="DIR",
            help="Run nothing: write a cell file for each pass, for `run-cell` and any launcher.",
        ),
    ] = None,
    record: Annotated[
        Path | None,
        Option(metavar="FILE.svg", help="Keep a picture of the command and its tables."),
    ] = None,
) -> None:
    """Measure methods on tasks over lengths; cells that have a result are not run again."""
    flags = {
        "method": method, "task": task, "lengths": lengths, "model": model, "factor": factor,
        "factors": factors, "corpus": corpus, "samples": samples, "depths": depths, "seed": seed,
        "prompt": prompt, "no_context": no_context or None, "pair_lengths": pair_lengths or None,
        "device": device, "dtype": dtype,
    }  # fmt: skip
    given = {key: value for key, value in flags.items() if value not in (None, [])}
    if no_network:
        from harness.network import offline

        offline()
    try:
        from harness.executors import chosen, launched
        from harness.gridfile import names_models, options, untaken
        from harness.store import Store

        if write_cells and (dry_run or as_json):
            raise ValueError("--write-cells runs nothing: leave out --dry-run and --json.")
        if record and (dry_run or write_cells or record.suffix != ".svg"):
            raise ValueError("--record takes a FILE.svg for a picture of what was measured.")
        if write_cells and (ranks or parallel == "tensor"):
            raise ValueError("--write-cells is for one process a cell: leave out --ranks.")
        if device_map and offload == "on":
            raise ValueError("--device-map has several devices, and --offload on needs one device.")
        if device_map and (ranks or launched() > 1):
            raise ValueError("--device-map has several devices, and each of --ranks has one.")
        executor = chosen(
            engine, workers=workers, address=address, job=_words(job), ranks=ranks,
            gpus=gpus_per_worker,
        )  # fmt: skip
        if launched() > 1 and int(os.environ["RANK"]):  # torchrun has started another as the first
            together = engine == "local" and not (dry_run or write_cells)
            raise typer.Exit(_read_along(trust_remote_code, device, grid) if together else 0)
        asked = options(given, grid, trust_remote_code=trust_remote_code)
        if asked.models != ("toy",) and not names_models(given, grid):
            typer.echo(f"note: {asked.models[0]} is read; --model toy is as it is.", err=True)
        for said in untaken(asked):
            typer.echo(f"note: {said}", err=True)
        placed = {"offload": offload, "memory": _bytes(memory), "device_map": device_map}
        asked = replace(asked, **placed, shards=_shards(parallel, ranks, engine))
        store = Store(results, retry=retry)
        cells, unread = _planned(asked)
        if write_cells:
            raise typer.Exit(_write(cells, store, asked, write_cells) or int(unread))
        code = 0 if dry_run else _measure(cells, store, asked, executor, as_json)
    except KeyboardInterrupt:
        typer.echo(INTERRUPTED, err=True)
        raise typer.Exit(130) from None
    if dry_run:
        _print_plan(cells, store, as_json)
    elif record:
        _draw(cells, store, record)
    raise typer.Exit(code or int(unread))


def _read_along(trust_remote_code: bool, device: str | None, grid: Path | None) -> int:
    from harness.executors.ranks import follow
    from harness.gridfile import read

    follow(trust_remote_code, device or (read(grid).get("device") if grid else None) or "auto")
    return 0


def _bytes(size: str | None) -> int | None:
    """`24GB` in bytes.

    Raises:
        ValueError: it is no size.
    """
    if size is None:
        return None
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([KMGT]?)B?", size.strip(), re.IGNORECASE)
    count = round(float(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " ")) if found else 0
    if not count:
        raise ValueError(f"--memory takes a size such as 24GB or 800MB, and {size!r} is none.")
    return count


def _planned(options: "Options") -> "tuple[list[Planned], bool]":
    """The grid; and whether a model of several could not be read, so that its cells have no name.

    Raises:
        LookupError, ValueError: what `harness.plan.plan` raises, or no model could be read.
    """
    from harness.model import Unread
    from harness.plan import plan, see_that_some_can_run, unextended

    found: list[Planned] = []
    unread: list[Unread] = []
    for name in options.models:
        try:
            found += plan(replace(options, models=(name,)))
        except Unread as error:
            unread.append(error)
    if unread and not found:
        raise unread[0]
    see_that_some_can_run(found)
    for error in unread:
        typer.echo(f"note: {error} The other models go on.", err=True)
    for said in unextended(found, options):
        typer.echo(f"note: {said}", err=True)
    return found, bool(unread)


def _words(job: str | None) -> dict[str, Any] | None:
    """`gpus_per_node=1,slurm_partition=long` as names and values."""
    if job is None:
        return None
    pairs = [part.partition("=") for part in job.split(",")]
    if not all(name.strip().isidentifier() and value.strip() for name, _, value in pairs):
        raise ValueError(f"--job takes name=value,name=value, and {job!r} is not written so.")
    given = {name.strip(): value.strip() for name, _, value in pairs}
    return {name: int(v) if v.isdecimal() else v for name, v in given.items()}


def _write(plan: "Sequence[Planned]", store: "Store", options: "Options", folder: Path) -> int:
    from harness.executors.work import write
    from harness.plan import missing

    files = write(missing(plan, store), options, folder)
    typer.echo(f"{len(files)} cell files are in {folder}; run each with: harness run-cell FILE")
    return 0


def _shards(parallel: str, ranks: int | None, engine: str) -> int:
    """Processes that share each weight.

    Raises:
        ValueError: there is one process, which has nobody to share with.
    """
    if parallel == "context":
        return 1
    from harness.executors import launched

    torchrun = launched() if engine == "local" else 1
    if max(torchrun, ranks or 1) < 2:
        raise ValueError("--parallel tensor is for several processes: give --ranks, or torchrun.")
    return torchrun if torchrun > 1 else ranks or 1


def _measure(
    plan: "Sequence[Planned]",
    store: "Store",
    options: "Options",
    executor: "Executor",
    as_json: bool,
) -> int:
    """Run what is missing, print everything; the exit code."""
    from harness.cli.interrupt import second_at_once
    from harness.plan import missing as not_measured

    missing = not_measured(plan, store)
    code = measured = 0
    with second_at_once():
        if missing:
            store.ready()
            store.sweep()
            with _watch(plan, missing, store, as_json) as watch:
                try:
                    for _ in executor.execute(missing, store, options, watch):
                        measured += 1
                except KeyboardInterrupt:
                    code = 130
        elif dismiss := getattr(executor, "dismiss", None):
            dismiss(options)
        if code and not measured:
            typer.echo(INTERRUPTED, err=True)
        try:
            found = [result for planned in plan if (result := store.get(planned.cell))]
            _name_broken(store)
            _print_results(plan, found, as_json)
        except KeyboardInterrupt:
            typer.echo(STORED, err=True)
            return 130
    unread = len(found) < len(plan)
    return code or int(unread or any(result.status == "failed" for result in found))


def _watch(
    plan: "Sequence[Planned]", missing: "Sequence[Planned]", store: "Store", as_json: bool
) -> Any:
    from harness.report.live import Display, Lines
    from harness.report.table import console

    screen = console()
    if as_json or not screen.is_terminal:
        return Lines(len(missing))
    left = {planned.cell for planned in missing}
    done = [r for p in plan if p.cell not in left and (r := store.get(p.cell))]
    return Display(plan, done, screen)


def _print_results(plan: "Sequence[Planned]", found: "Sequence[Result]", as_json: bool) -> None:
    from harness.report.sheet import sheets
    from harness.report.table import console, printed

    if as_json:
        print(json.dumps([result.row() for result in found], indent=2, allow_nan=False))
    else:
        printed(sheets(found, [planned.cell for planned in plan]), console())


def _draw(plan: "Sequence[Planned]", store: "Store", picture: Path) -> None:
    from harness.report.picture import save

    save(
        picture,
        ["harness", *_without("--record", sys.argv[1:])],
        filter(None, (store.get(p.cell) for p in plan)),
    )


def _without(flag: str, typed: Sequence[str]) -> list[str]:
    """A command line's words but for a flag and what it was given."""
    pairs = zip(["", *typed], typed, strict=False)
    return [word for before, word in pairs if flag not in (before, word.partition("=")[0])]


def _print_plan(plan: "Sequence[Planned]", store: "Store", as_json: bool) -> None:
    from harness.report.forecast import forecast, objects
    from harness.report.table import console

    done = {planned.cell for planned in plan if store.has(planned.cell)}
    _name_broken(store)
    if as_json:
        print(json.dumps(objects(plan, done), indent=2, allow_nan=False))
    else:
        console().print(forecast(plan, done))


def _name_broken(store: "Store") -> None:
    for broken in store.broken:
        typer.echo(f"note: {broken}; --retry measures that cell again", err=True)
