"""`harness data`: mix and pack training text, and keep tests free of it."""

import re
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Option

if TYPE_CHECKING:
    from rich.console import Console

    from harness.train.decontaminate import Verdict
    from harness.train.mixture import Build, Source

BUILD_EXAMPLES = (
    "harness data build longcorpus --length 8k --tokens 10M --model smollm2-135m -o long-8k\n\n"
    "harness data build longcorpus --set book=parquet:novels.parquet --set qa=none --length 8k "
    "--tokens 10M -o long-8k\n\n"
    "harness data build stdlib:train --length 4k -o library-4k"
)
DECONTAMINATE_EXAMPLES = (
    "harness data decontaminate --train long-8k --test jsonl:questions.jsonl:context "
    "--domain-column subject -o clean.jsonl\n\n"
    "harness data decontaminate --train parquet:novels.parquet --test parquet:held-out.parquet "
    "--ngrams 13 -o clean.jsonl"
)
FETCH_EXAMPLES = (
    "harness data fetch short-context\n\n"
    "harness data fetch lm-eval:arc_easy longbench.hotpotqa --dry-run"
)
EXAMPLES = (
    "harness data build stdlib:train --length 4k -o library-4k\n\n"
    "harness data fetch longbench.hotpotqa --dry-run"
)
app = typer.Typer(
    help="Make training data, and fetch that of tasks.", epilog=EXAMPLES, no_args_is_help=True
)
LONG = 8
"""Words of an n-gram that two texts have in common only if one has it from the other."""
UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


@app.callback()
def _data() -> None: ...


@app.command(epilog=BUILD_EXAMPLES)
def build(
    mixture: Annotated[
        str, typer.Argument(help="longcorpus, a .yaml file, or a corpus as in `list corpora`.")
    ],
    output: Annotated[
        Path, Option("--output", "-o", metavar="DIR", help="The folder to build; must be new.")
    ],
    length: Annotated[str, Option(metavar="LENGTH", help="Tokens of a sequence: 8k; k is 1024.")],
    tokens: Annotated[
        str | None,
        Option(
            metavar="SIZE",
            help="In all, at most: 10M is 10,000,000. Else until a part has no more.",
        ),
    ] = None,
    model: Annotated[str, Option(metavar="NAME", help="Whose tokenizer reads.")] = "toy",
    replaced: Annotated[
        list[str] | None,
        Option("--set", metavar="PART=CORPUS", help="Other text for a part; none leaves it out."),
    ] = None,
    seed: Annotated[int, Option(min=0, metavar="N", help="The order follows from it.")] = 0,
    again: Annotated[
        bool, Option("--repeat", help="Read a part again when it has no more; needs --tokens.")
    ] = False,
    packing: Annotated[
        Literal["carried", "clex"],
        Option(help="clex: as its published script, which drops the tail of each buffer."),
    ] = "carried",
    trust_remote_code: Annotated[
        bool, Option("--trust-remote-code", help="Run code that comes with a model.")
    ] = False,
) -> None:
    """Mix parts by their shares of tokens, tokenise, and pack to sequences of one length.

    What documents begin where is recorded, and mixture.json says what came of it. The folder is
    there when it is whole, and `harness train --corpus DIR` reads it.
    """
    from harness.model import describe, tokenizer
    from harness.reader import TokenReader
    from harness.report.table import console
    from harness.train import mixture as mixtures

    parts = mixtures.find(mixture).replaced(_pairs(replaced or []))
    card = describe(model, trust_remote_code=trust_remote_code)
    name = Path(mixture).stem if mixture.endswith((".yaml", ".yml")) else mixture.partition(":")[0]
    wanted = mixtures.Build(
        name=name,
        mixture=parts,
        reader=TokenReader(tokenizer(card, trust_remote_code)),
        model=card.spec,
        length=_length(length),
        tokens=_amount(tokens) if tokens else None,
        seed=seed,
        again=again,
        packing=packing,
    )
    screen = console()
    try:
        made = _watched(wanted, output, screen)
    except KeyboardInterrupt:
        typer.echo("Interrupted: nothing was kept.", err=True)
        raise typer.Exit(130) from None
    _print_card(made, output, screen)


def _length(text: str) -> int:
    from harness.lengths import one

    return one(text, "--length")


def _amount(text: str) -> int:
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)([kmb]?)", text.strip().lower())
    amount = round(float(match[1]) * UNITS[match[2]]) if match else 0
    if amount < 1:
        raise ValueError(f"--tokens takes a number such as 500k, 10M or 2.5B, not {text!r}.")
    return amount


def _pairs(given: list[str]) -> dict[str, str]:
    pairs = dict[str, str]()
    for text in given:
        part, equals, corpus = text.partition("=")
        if not (part and equals and corpus):
            raise ValueError(f"--set takes part=corpus, such as book=text:novels, not {text!r}.")
        if part in pairs:
            raise ValueError(f"--set names {part!r} twice: name it once.")
        pairs[part] = corpus
    return pairs


def _watched(wanted: "Build", output: Path, screen: "Console") -> dict[str, Any]:
    """Build it with a bar a part."""
    from dataclasses import replace

    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:>13,.0f} tokens {task.fields[rate]:>9,.0f}/s"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as progress:
        goals = {
            name: float(share) * wanted.tokens if wanted.tokens else None
            for name, share in wanted.mixture.shares.items()
        }
        bars = {name: progress.add_task(name, total=goal, rate=0) for name, goal in goals.items()}
        started = time.monotonic()

        def watch(sources: "Sequence[Source]") -> None:
            seconds = max(time.monotonic() - started, 1e-9)
            for source in sources:
                done = source.sequences * wanted.length
                progress.update(bars[source.name], completed=done, rate=done / seconds)

        return replace(wanted, watch=watch).to(output)


def _print_card(card: dict[str, Any], output: Path, screen: "Console") -> None:
    from rich.table import Table

    table = Table("part", "corpus", box=None, pad_edge=False)
    for heading in ("wanted", "reached", "tokens", "documents"):
        table.add_column(heading, justify="right")
    for name, part in card["parts"].items():
        shares = (f"{part[key]:.2%}" for key in ("wanted", "reached"))
        counts = (f"{part[key]:,}" for key in ("tokens", "documents"))
        table.add_row(name, part["corpus"], *shares, *counts)
    screen.print(table)
    for name, part in card["parts"].items():
        if part["passes"] > 1:
            typer.echo(f"{name} is short: it was read to its end {part['passes']} times.")
    if (name := card["ended_by"]) is not None:
        short = card["wanted"] and f" before {card['wanted']:,} tokens were reached"
        typer.echo(
            f"{name} has no more text{short or ''}; {card['parts'][name]['left_over']:,} of its "
            "tokens are left over, too few for a sequence."
        )
    typer.echo(
        f"{output}: {card['sequences']:,} sequences of {card['length']:,} tokens, "
        f"{card['tokens']:,} in all, {card['label']}."
    )


@app.command(epilog=DECONTAMINATE_EXAMPLES)
def decontaminate(
    train: Annotated[
        list[str], Option(metavar="CORPUS|DIR", help="What was trained on; may be given again.")
    ],
    test: Annotated[str, Option(metavar="CORPUS", help="What is to be kept free of it.")],
    output: Annotated[
        Path, Option("--output", "-o", metavar="FILE", help="A .jsonl of the items that stay.")
    ],
    threshold: Annotated[
        float, Option(metavar="X", help="Drop items of at least this similarity.")
    ] = 0.10,
    ngrams: Annotated[
        str, Option(metavar="N,N", help="2,3,4 as published for LongCorpus; 13 finds copies only.")
    ] = "2,3,4",
    domain_column: Annotated[
        str | None, Option(metavar="NAME", help="The column by which to report what was dropped.")
    ] = None,
    model: Annotated[
        str | None,
        Option(metavar="NAME", help="Whose tokenizer a folder was built with; else as it says."),
    ] = None,
) -> None:
    """Drop the items of a test whose n-grams are found in training.

    Similarity is the share of an item's distinct n-grams of words that occur anywhere in training,
    the mean over the n. Ordinary prose has most of its short n-grams in common with any large
    text: beside one, 2,3,4 drops everything, and --ngrams 13 is what to take. What was dropped and
    why is written beside the output, in .report.json.
    """
    from harness.disk import takes_files
    from harness.report.table import console
    from harness.train import decontaminate as rule

    orders = _orders(ngrams)
    _spares(output, [test, *train])
    output.parent.mkdir(parents=True, exist_ok=True)
    takes_files(output)
    if not 0 < threshold <= 1:
        raise ValueError(f"--threshold is a share above 0 and up to 1, and {threshold:g} is not.")
    screen = console()
    verdicts = _judged(train, test, orders, domain_column, model, screen)
    about = {"train": [_named(t) for t in train], "test": _named(test), "ngrams": orders}
    items = rule.items(test, domain_column)
    found = rule.write(output, items, verdicts, threshold, about)
    _print_report(found, output, screen)


def _spares(output: Path, specs: list[str]) -> None:
    """See that what is written takes the place of nothing that is read."""
    from harness import corpora

    for spec in specs:
        if Path(spec).is_dir():
            continue
        files = getattr(corpora.find(spec), "files", list)()
        if output.resolve() in {path.resolve() for _, path in files}:
            raise ValueError(f"{output} is what {spec} reads: give another --output.")


def _orders(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch(r"[1-9]\d?", word) for word in words):
        raise ValueError(f"--ngrams takes numbers of words such as 2,3,4 or 13, not {text!r}.")
    return sorted({int(word) for word in words})


def _named(spec: str) -> str:
    """By content, without this machine's folders."""
    from harness import corpora
    from harness.train.packing import read_card

    return read_card(Path(spec))["label"] if Path(spec).is_dir() else corpora.label(spec)


def _judged(
    train: list[str],
    test: str,
    orders: list[int],
    domain_column: str | None,
    model: str | None,
    screen: "Console",
) -> "list[Verdict]":
    from itertools import chain

    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from harness.model import describe, tokenizer
    from harness.train import decontaminate as rule

    def texts() -> "Iterator[str]":
        return chain.from_iterable(
            rule.training(spec, lambda name: tokenizer(describe(model or name))) for spec in train
        )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed:,.0f} words of training read"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as progress:
        bar = progress.add_task("", total=None)
        items = rule.items(test, domain_column)
        watch = partial(progress.advance, bar)
        return [*rule.judged(items, texts, orders, watch=watch)]


def _print_report(found: dict[str, Any], output: Path, screen: "Console") -> None:
    from rich.table import Table

    table = Table("domain", box=None, pad_edge=False)
    for heading in ("items", "dropped", "median similarity", "highest"):
        table.add_column(heading, justify="right")
    for domain, counts in found["domains"].items():
        near = (f"{counts[key]:.2%}" for key in ("median", "highest"))
        table.add_row(domain, f"{counts['items']:,}", f"{counts['dropped']:,}", *near)
    screen.print(table)
    stay = found["items"] - found["dropped"]
    typer.echo(f"{output}: {stay:,} of {found['items']:,} items stay.")
    if not stay and max(found["ngrams"]) < LONG:
        typer.echo(
            "None stays: so short n-grams are common to all prose of one language. --ngrams 13 "
            "finds copies only."
        )


@app.command(epilog=FETCH_EXAMPLES)
def fetch(
    task: Annotated[list[str], typer.Argument(metavar="TASK...", help="As in `list tasks`.")],
    dry_run: Annotated[bool, Option("--dry-run", help="Only list what would be fetched.")] = False,
) -> None:
    """Put the data of tasks into the cache, so that run --offline finds it.

    The cache is the hub's, in HF_HOME; copy that folder to a machine that has no network.
    """
    from harness import catalog, network
    from harness.gridfile import specs
    from harness.plugins import named

    if not dry_run and not network.reachable():
        network.offline()
    asked = [named(name) for name in specs(task)]
    for spec in [one for name in asked for one in catalog.members("tasks", name)]:
        wanted = catalog.load("tasks", spec)
        if getattr(wanted, "offline", True):
            typer.echo(f"{spec}: works offline, there is nothing to fetch")
            continue
        told = getattr(wanted, "source", "what it does not say")
        needs = wanted.needs() if hasattr(wanted, "needs") else [told]
        if dry_run:
            typer.echo(f"{spec}: {', '.join(needs)}")
        elif not _fetched(wanted):
            typer.echo(f"{spec}: comes from {', '.join(needs)}, which is to be given as a file")
        else:
            # What reads rows from the hub leaves the file they came in in the cache.
            wanted.fetch() if hasattr(wanted, "fetch") else next(iter(wanted.rows()), None)
            typer.echo(f"{spec}: {', '.join(needs)} is in the cache")


def _fetched(task: Any) -> bool:
    """Whether its data come by themselves: not of what reads a file that is yet to be named."""
    rows = hasattr(task, "rows") and getattr(task, "data", None) != ""
    return rows or hasattr(task, "fetch")
