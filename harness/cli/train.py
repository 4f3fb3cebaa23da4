"""`harness train`: train a method's recipe, or the toy from nothing."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Option

if TYPE_CHECKING:
    from harness.model import Card
    from harness.train.course import Course
    from harness.train.parallel import Sharing
    from harness.trained import Trained

EXAMPLES = (
    "harness train --method yarn --model smollm2-135m --corpus parquet:novels.parquet "
    "--recipe quick --output my-yarn\n\n"
    "harness train -m clex --recipe paper --corpus longcorpus-8k --budget 10000000 --output my-clex"
    "\n\n"
    "harness run --model my-yarn --method yarn --task perplexity,passkey --lengths 4k-32k"
)
HELP = (
    "Train a method by its recipe, into a folder that `harness run --model` reads.\n\n"
    "Interrupt at any time, and give the same command to go on from the last save. "
    "`harness show recipe NAME/paper` prints a recipe with the source of every number."
)
TOY_EXAMPLES = (
    "harness train toy --output my-toy --steps 20\n\nharness train toy --output my-toy --seed 1"
)
app = typer.Typer(help=HELP, epilog=EXAMPLES, invoke_without_command=True)


@app.callback()
def train(
    context: typer.Context,
    method: Annotated[
        str | None, Option("--method", "-m", metavar="NAME", help="Such as clex or yarn,factor=4.")
    ] = None,
    output: Annotated[
        Path | None, Option("--output", "-o", metavar="DIR", help="The folder to train into.")
    ] = None,
    model: Annotated[
        str, Option(metavar="NAME", help="The base: a known name, a folder, a hub name.")
    ] = "toy",
    recipe: Annotated[
        str, Option(metavar="NAME", help="paper, quick, or another of the method's.")
    ] = "quick",
    corpus: Annotated[
        str,
        Option(
            metavar="CORPUS|DIR",
            help="Text as in `list corpora`, or a folder of `harness data build`.",
        ),
    ] = "stdlib:train",
    factor: Annotated[
        float | None,
        Option(metavar="X", help="How many times further than trained; else as the recipe says."),
    ] = None,
    steps: Annotated[
        int | None, Option(min=1, metavar="N", help="Updates; else the recipe's.")
    ] = None,
    budget: Annotated[
        int | None,
        Option(
            min=1,
            metavar="N",
            help="Tokens in all: sets the steps. Updates stay as large as the recipe's, which only "
            "in quick are alike for all methods; tables say what each row was trained on.",
        ),
    ] = None,
    sequence_length: Annotated[
        str | None, Option(metavar="LENGTH", help="Tokens of a sequence, 32k; else the recipe's.")
    ] = None,
    batch_tokens: Annotated[
        str | None, Option(metavar="LENGTH", help="Tokens of one update; else the recipe's.")
    ] = None,
    learning_rate: Annotated[float | None, Option(metavar="X", help="At its highest.")] = None,
    trains: Annotated[
        Literal["all", "encoding", "lora"] | None, Option(help="Which weights move.")
    ] = None,
    stage: Annotated[
        Literal["lm", "chat", "retrieval"],
        Option(help="Text; conversations with a chat template; or keys to find, hidden in text."),
    ] = "lm",
    loss_on: Annotated[
        Literal["assistant", "all"] | None,
        Option(help="Of a chat: which turns are learned; else the assistant's."),
    ] = None,
    seed: Annotated[
        int | None,
        Option(min=0, metavar="N", help="What is random follows from it; else the recipe's."),
    ] = None,
    device: Annotated[str, Option(metavar="NAME", help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[
        str, Option(metavar="NAME", help="Of products: auto, bfloat16 or float32.")
    ] = "auto",
    checkpointing: Annotated[
        bool,
        Option(
            help="Make activations again on the way back, products only where memory is short: "
            "less memory, more time."
        ),
    ] = True,
    save_every: Annotated[int, Option(min=1, metavar="N", help="Updates from save to save.")] = 10,
    distributed: Annotated[
        Literal["none", "fsdp2", "zero2", "zero3"],
        Option(help="How the processes of `accelerate launch` or `torchrun` share the weights."),
    ] = "none",
    context_parallel: Annotated[
        int,
        Option(min=1, metavar="N", help="Processes that share one sequence; needs GPUs and fsdp2."),
    ] = 1,
    plan: Annotated[
        bool, Option("--plan", help="Only say what would be trained, and the memory of a process.")
    ] = False,
    trust_remote_code: Annotated[
        bool, Option("--trust-remote-code", help="Run code that comes with a model.")
    ] = False,
) -> None:
    """Train a method by its recipe."""
    if context.invoked_subcommand:
        if given := [p.opts[0] for p in context.command.params if _given(context, p.name)]:
            raise typer.BadParameter(
                f"{', '.join(given)} before {context.invoked_subcommand} changes nothing: see "
                f"harness train {context.invoked_subcommand} --help"
            )
        return
    if method is None or (output is None and not plan):
        raise typer.BadParameter("--method and --output say what to train and where to; see --help")
    if loss_on and stage != "chat":
        raise typer.BadParameter("--loss-on belongs to --stage chat: leave it out")
    if steps and budget:
        raise typer.BadParameter("--budget sets the steps: leave --steps out")
    from harness import machine
    from harness.families import unseen
    from harness.model import describe
    from harness.plugins import named
    from harness.train.course import settle
    from harness.train.parallel import Sharing, arguments, speaks

    exact = dtype  # as it is here: a training does not go on in another
    if not plan:
        exact = str(machine.dtype(dtype, machine.device(device))).removeprefix("torch.")
    card = describe(model, trust_remote_code=trust_remote_code)
    course = settle(
        card, named(method), recipe, corpus=corpus, factor=factor, budget=budget,
        changes={
            "steps": steps,
            "sequence_length": _tokens(sequence_length, "--sequence-length"),
            "batch_tokens": _tokens(batch_tokens, "--batch-tokens"),
            "learning_rate": learning_rate, "trains": trains,
        },
        stage=stage, answers_only=loss_on != "all", dtype=exact, checkpointing=checkpointing,
    )  # fmt: skip
    if said := unseen(card.config.get_text_config(), course.target):
        typer.echo(f"note: {said}", err=True)
    on = None if plan else device
    shared = arguments(distributed, context_parallel, on, trains=course.numbers.trains)
    if plan:
        if speaks():
            _print_plan(course, card, Sharing.of(shared))
        return
    assert output is not None
    seed = course.numbers.seed if seed is None else seed
    _follow(course, card, output, device=device, seed=seed, save_every=save_every,
            distributed=shared, trust_remote_code=trust_remote_code)  # fmt: skip


def _given(context: typer.Context, name: str | None) -> bool:
    source = name and context.get_parameter_source(name)
    return source is not None and getattr(source, "name", "") == "COMMANDLINE"


def _tokens(text: str | None, flag: str) -> int | None:
    """None: the recipe's."""
    from harness.lengths import one

    return one(text, flag) if text else None


def _follow(course: "Course", card: "Card", output: Path, **how: Any) -> None:
    from harness.report.learning import Learning, Updates
    from harness.report.table import console
    from harness.train.checkpoint import done
    from harness.train.rows import rows
    from harness.train.trainer import train as follow

    screen, code = console(), how["trust_remote_code"]
    try:
        with Learning(screen) if screen.is_terminal else Updates() as watch:
            data = rows(course, seed=how["seed"], trust_remote_code=code)
            before = done(course, data, output, card, how["seed"])
            trained = before or follow(course, data, output, watch=watch, **how)
    except KeyboardInterrupt:
        typer.echo("Interrupted. The same command goes on from the last save.", err=True)
        raise typer.Exit(130) from None
    except FloatingPointError as error:
        typer.echo(f"harness: {error}", err=True)
        raise typer.Exit(2) from None
    _tell(trained, output, "was trained before" if before else "is trained")


def _tell(trained: "Trained", output: Path, state: str) -> None:
    import shlex

    from harness.lengths import label

    typer.echo(f"{output} {state}: {trained.base}, {trained.phrase}.")
    original = trained.original_length
    reach = max(trained.sequence_length, round(original * (trained.numbers.get("factor") or 1)))
    words = {
        "model": str(output),
        "method": trained.method.partition(",")[0],
        "task": "passkey,perplexity",
        "lengths": ",".join(map(label, sorted({original, max(original, reach)}))),
    }
    flags = [word for name, value in words.items() for word in (f"--{name}", value)]
    typer.echo(shlex.join(["harness", "run", *flags]))


def _print_plan(course: "Course", card: "Card", sharing: "Sharing") -> None:
    from harness.report.live import size
    from harness.train.course import memory

    numbers, count = course.numbers, sharing.weights
    each = f" for each of {count} processes" if count > 1 else ""
    typer.echo(
        f"{course.method} on {card.name}, recipe {course.recipe}: {numbers.steps:,} updates of "
        f"{course.rows} x {numbers.sequence_length:,} tokens, {course.tokens:,} in all, to read "
        f"{course.target:,} tokens; about {size(memory(course, card, sharing))} of memory{each}."
    )


@app.command(epilog=TOY_EXAMPLES)
def toy(
    output: Annotated[
        Path, Option(metavar="DIR", help="The folder to train it into; given again, it goes on.")
    ],
    steps: Annotated[
        int | None, Option(min=1, metavar="N", help="Fewer than its recipe has.")
    ] = None,
    seed: Annotated[int, Option(min=0, metavar="N", help="What is random follows from it.")] = 0,
) -> None:
    """Train the small model that ships with the package, by its recipe."""
    from harness.train.toy import train

    train(output, steps=steps, seed=seed)
