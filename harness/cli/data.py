"""`harness data`: mix and pack training text, and keep tests free of it."""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Option

if TYPE_CHECKING:
    from rich.console import Console

    from harness.train.mixture import Build, Source

BUILD_EXAMPLES = (
    "harness data build longcorpus --length 8k --tokens 10M --model smollm2-135m -o long-8k\n\n"
    "harness data build longcorpus --set book=parquet:novels.parquet --set qa=none --length 8k "
    "--tokens 10M -o long-8k\n\n"
    "harness data build stdlib:train --length 4k -o library-4k"
)
app = typer.Typer(help="Make training data.", no_args_is_help=True)
UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


@app.callback()
def _data() -> None: ...


@app.command(epilog=BUILD_EXAMPLES)
def build(
    mixture: Annotated[
        str, typer.Argument(help="longcorpus, a .yaml file, or a corpus as in `list corpora`.")
    ],
    output: Annotated[Path, Option("--output", "-o", help="The folder to build; must be new.")],
    length: Annotated[str, Option(help="Tokens of a sequence: 8k; k is 1024.")],
    tokens: Annotated[
        str | None,
        Option(help="In all, at most: 10M is 10,000,000. Else until a part has no more."),
    ] = None,
    model: Annotated[str, Option(help="Whose tokenizer reads.")] = "toy",
    replaced: Annotated[
        list[str] | None,
        Option("--set", metavar="PART=CORPUS", help="Other text for a part; none leaves it out."),
    ] = None,
    seed: Annotated[int, Option(min=0, help="The order follows from it.")] = 0,
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
    from harness.lengths import lengths

    found = lengths(text)
    if len(found) != 1:
        raise ValueError(f"--length takes one length, and {text!r} names {len(found)}.")
    return found[0]


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
