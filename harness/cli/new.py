"""`harness new`: the first file of a method or a task of one's own."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

HELP = (
    "Write the file of a new method or task, and say how to try it.\n\n"
    "It runs as it is, and keeps the laws that tests hold all methods and tasks to. Nothing need "
    "be installed: --method ./mine.py is enough."
)
EXAMPLES = (
    "harness new method my-rope\n\n"
    "harness new task my-task --into experiments\n\n"
    "harness run --method none,./my_rope.py --task passkey --lengths 4k,8k"
)


def new(
    kind: Annotated[Literal["method", "task"], Argument(help="What it is to be.")],
    name: Annotated[str, Argument(metavar="NAME", help="Such as my-rope: the file is my_rope.py.")],
    into: Annotated[Path, Option(metavar="DIR", help="The folder to write it in.")] = Path(),
) -> None:
    """Write the file of a new method or task."""
    from harness.new import attempt, write

    file = write(kind, name, into)
    print(f"{file} is a {kind} that runs. Try it:\n  {attempt(kind, file)}")
