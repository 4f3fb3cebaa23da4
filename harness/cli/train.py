"""`harness train`: make a model from nothing but this repository and Python."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

app = typer.Typer(help="Train a model.", no_args_is_help=False)


@app.callback()
def _train() -> None: ...


@app.command(epilog="harness train toy --output my-toy --steps 20")
def toy(
    output: Annotated[Path, Option(help="The folder to train it into; given again, it goes on.")],
    steps: Annotated[int | None, Option(min=1, help="Fewer than its recipe has.")] = None,
    seed: Annotated[int, Option(min=0, help="What is random follows from it.")] = 0,
) -> None:
    """Train the small model that ships with the package, by its recipe."""
    from harness.train.toy import train

    train(output, steps=steps, seed=seed)
