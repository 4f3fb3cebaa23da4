"""`harness search`: find a method's factors for a model and a length."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

if TYPE_CHECKING:
    from harness.search.wish import Forecast, Wish

EXAMPLES = (
    "harness search --model smollm2-135m --target 32k --output factors.json\n\n"
    "harness search --model smollm2-135m --target 8k --append factors.json\n\n"
    "harness run --model smollm2-135m --method longrope,factors=factors.json -t passkey -l 4k-32k"
    "\n\n"
    "harness search --model smollm2-135m --progressive 16k --target 64k --short 8k "
    "--train '--recipe quick --corpus parquet:novels.parquet' --output extended"
)
HELP = (
    "Find a divisor for each pair of channels, and how many first tokens keep theirs, by "
    "LongRoPE's evolutionary search: the lowest perplexity over documents of the target length.\n\n"
    "Interrupt at any time, and give the same command to go on: every loss that was read is kept "
    "beside the output, in NAME.search.json. More --iterations go on from there, too.\n\n"
    "--progressive makes all of LongRoPE's stages, into a folder: search and train at each of its "
    "lengths, search for the target on what was trained, and for each of --short once more. A "
    "stage whose file is there is not made again."
)


def search(
    target: Annotated[
        str, Option("--target", metavar="LENGTH", help="Tokens to extend to, such as 32k.")
    ],
    method: Annotated[
        str,
        Option(
            "--method", "-m", metavar="NAME",
            help="longrope; longrope,factors=FILE starts from those too, stretched to the target.",
        ),
    ] = "longrope",
    model: Annotated[
        str, Option(metavar="NAME", help="A known name, a folder, a hub name.")
    ] = "toy",
    corpus: Annotated[
        str | None,
        Option(metavar="CORPUS", help="Text as in `list corpora`; else stdlib:validation."),
    ] = None,
    samples: Annotated[int, Option(metavar="N", help="Documents of the target's length.")] = 5,
    population: Annotated[int, Option(metavar="N", help="Of the first generation.")] = 64,
    parents: Annotated[int, Option(metavar="N", help="The best, which live on.")] = 32,
    mutations: Annotated[int, Option(metavar="N", help="Mutants of a generation.")] = 16,
    crossovers: Annotated[int, Option(metavar="N", help="Children of two, likewise.")] = 16,
    iterations: Annotated[int, Option(metavar="N", help="Generations after the first.")] = 40,
    scheme: Annotated[
        str, Option(metavar="NAME", help="dim-mono, or dim-piece-mono: three pieces.")
    ] = "dim-mono",
    start_tokens: Annotated[
        str, Option(metavar="search|N", help="First tokens that keep their rotation.")
    ] = "search",
    racing: Annotated[
        bool, Option(help="Leave off candidates that the first documents show to be worse.")
    ] = True,
    seed: Annotated[int, Option(metavar="N", help="What is random follows from it.")] = 42,
    output: Annotated[
        Path | None,
        Option("--output", "-o", metavar="FILE", help="Else METHOD-MODEL-TARGET.json, here."),
    ] = None,
    append: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="A file of factors for longer inputs: add a part for inputs up to the target.",
        ),
    ] = None,
    progressive: Annotated[
        str | None, Option(metavar="LENGTHS", help="Train at these first; --output is a folder.")
    ] = None,
    short: Annotated[
        str | None, Option(metavar="LENGTHS", help="Of --progressive: for inputs up to here.")
    ] = None,
    train: Annotated[
        str | None,
        Option(
            metavar="WORDS",
            help="Of --progressive: for harness train; else the recipe of each length, or paper.",
        ),
    ] = None,
    device: Annotated[str, Option(metavar="NAME", help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str, Option(metavar="NAME", help="auto, bfloat16 or float32.")] = "auto",
    plan: Annotated[bool, Option("--plan", help="Only say what it will take, and stop.")] = False,
    trust_remote_code: Annotated[
        bool, Option("--trust-remote-code", help="Run code that comes with a model.")
    ] = False,
) -> None:  # fmt: skip
    """Find a method's factors for a model and a length."""
    if output and append:
        raise typer.BadParameter("--append names the file it writes: leave --output out")
    from harness.lengths import one
    from harness.search.evolution import Settings
    from harness.search.wish import Wish

    settings = Settings(
        population=population, parents=parents, mutations=mutations, crossovers=crossovers,
        iterations=iterations, scheme=scheme, racing=racing, seed=seed,
    )  # fmt: skip
    wish = Wish(
        target=one(target, "--target"), model=model, method=method, corpus=corpus, samples=samples,
        start_tokens=_n_hat(start_tokens), settings=settings, output=output, append=append,
        device=device, dtype=dtype, trust_remote_code=trust_remote_code,
    )  # fmt: skip
    if progressive:
        _extended(wish, plan, progressive, short, train)
    elif short:
        raise typer.BadParameter(
            "--short belongs to --progressive; alone it is --target and --append"
        )
    elif train is not None:
        raise typer.BadParameter("--train belongs to --progressive: leave it out")
    else:
        _searched(wish, plan)


def _extended(
    wish: "Wish", plan: bool, progressive: str, short: str | None, train: str | None
) -> None:
    from shlex import split

    from harness.lengths import lengths
    from harness.train.progressive import by_command, extend

    if plan or wish.append or not wish.output:
        raise typer.BadParameter("--progressive takes an --output folder; no --plan, no --append")
    try:
        model, factors = extend(
            wish,
            wish.output,
            through=lengths(progressive),
            short=lengths(short) if short else (),
            train=by_command(wish, split(train or "")),
            watching=_watch,
            note=lambda said: typer.echo(said, err=True),
        )
    except KeyboardInterrupt:
        typer.echo("Interrupted. The same command goes on where it was cut short.", err=True)
        raise typer.Exit(130) from None
    _tell_how_to_run(model, wish.method, factors)


def _searched(wish: "Wish", plan: bool) -> None:
    from harness.families import unseen
    from harness.search.search import prepare

    search = prepare(wish)
    if said := unseen(search.card.config.get_text_config(), wish.target):
        typer.echo(f"note: {said}", err=True)
    if plan:
        _print_plan(search.forecast())
        return
    try:
        with _watch() as watch:
            found = search.run(watch)
    except KeyboardInterrupt:
        typer.echo(
            f"Interrupted. The same command goes on; what was read is in {search.state.place}.",
            err=True,
        )
        raise typer.Exit(130) from None
    documents = "1 document" if wish.samples == 1 else f"{wish.samples} documents"
    part = f" for inputs up to {wish.target:,} tokens" if wish.append else ""
    typer.echo(
        f"{search.place} has the factors{part}: perplexity {found['perplexity']:.4f} over "
        f"{documents} of {wish.target:,} tokens, the best of "
        f"{found['evaluations']:,} individuals; racing left {found['documents_saved']:,} of "
        f"{found['documents_read'] + found['documents_saved']:,} documents unread."
    )
    _tell_how_to_run(wish.model, wish.method, search.place)


def _tell_how_to_run(model: str, method: str, factors: Path) -> None:
    import shlex

    from harness.catalog import extended
    from harness.disk import read_json
    from harness.lengths import label

    held = read_json(factors)
    s, target = float(held["factor"]), int(held["target"])
    spec = extended(method, {"factors": str(factors), "factor": s})
    lengths = f"{label(round(target / s))},{label(target)}"
    words = ["--model", model, "--method", spec, "-t", "passkey,perplexity", "-l", lengths]
    typer.echo(shlex.join(["harness", "run", *words]))


def _watch() -> AbstractContextManager[Any]:
    from harness.report.evolution import Evolution, Generations
    from harness.report.table import console

    screen = console()
    return Evolution(screen) if screen.is_terminal else Generations()


def _print_plan(it: "Forecast") -> None:
    from harness.report.live import duration, size

    before = f" ({it.done:,} of them read before)" if it.done else ""
    typer.echo(
        f"{it.evaluations:,} individuals, at most {it.documents:,} documents{before}, "
        f"{it.tokens:,} tokens: about {duration(it.seconds)} and {size(it.bytes)} of memory. "
        "Racing leaves some unread."
    )


def _n_hat(text: str) -> int | None:
    if text == "search":
        return None
    if not text.isdecimal():
        raise ValueError(f"--start-tokens is search, or a number from 0, not {text!r}.")
    return int(text)
