"""The verbs that ask behind a number: `explain`, `diff`, `rerun`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from harness.cli.look import Folder, Json, Where, existing

EXPLAIN_EXAMPLES = (
    "harness explain toy passkey yarn 16k\n\n"
    "harness explain --where 'model=toy task=passkey method=yarn length=16k' --json"
)
DIFF_EXAMPLES = (
    "harness diff toy/passkey/yarn/16k toy/passkey/pi/16k\n\n"
    "harness diff toy/passkey/yarn/16k toy/passkey/yarn/32k --json"
)
RERUN_EXAMPLES = (
    "harness rerun --check --sample 3 --where 'model=toy length<=8k'\n\n"
    "harness rerun --check --corpus parquet:books/test.parquet:text --where 'task=perplexity'"
)
RERUN_HELP = (
    "Measure a sample of stored cells again, elsewhere, and say whether they still hold.\n\n"
    "A cell holds if it is encoded as it was and its value is the same: exactly where machine, "
    "kernel, dtype, threads and torch are, else within a tolerance that is printed. Exits with 0 "
    "if every cell holds, with 1 if one does not or cannot be measured here, with 2 if the command "
    "is wrong. Nothing stored is changed."
)
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CELL]...", help="Its path, or words that name it: model, task, method, length."
    ),
]
Corpora = Annotated[
    list[str] | None,
    Option("--corpus", metavar="CORPUS", help="Where a corpus is that results name by content."),
]
Models = Annotated[
    list[str] | None,
    Option("--model", metavar="FOLDER", help="Where a model is that results name by content."),
]


def explain(
    cell: Words = None,
    where: Where = None,
    corpus: Corpora = None,
    model: Models = None,
    folder: Folder = Path("results"),
    as_json: Json = False,
) -> None:
    """Print everything behind a number, and the command that makes it again."""
    from harness import explain as behind
    from harness.again import Places
    from harness.report.table import plain

    result = behind.find(existing(folder), cell or [], where)
    about = behind.explained(folder, result, Places(tuple(corpus or ()), tuple(model or ())))
    if as_json:
        print(json.dumps(about, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print(plain("\n".join(behind.readable(about))))


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A path, or toy/passkey/yarn/16k.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The other.")],
    folder: Folder = Path("results"),
    as_json: Json = False,
) -> None:
    """Say what differs between two cells, down to the frequency of each dimension."""
    from harness import explain as behind
    from harness.report.table import plain

    about = behind.differences(*(behind.find(existing(folder), [cell]) for cell in (a, b)))
    if as_json:
        print(json.dumps(about, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print(plain("\n".join(behind.readable_differences(about))))


def rerun(
    check: Annotated[
        bool, Option("--check", help="Measure again and compare: the one thing this verb does.")
    ] = False,
    sample: Annotated[int, Option(min=1, metavar="N", help="How many cells.")] = 5,
    seed: Annotated[int, Option(metavar="N", help="Which cells follows from it.")] = 0,
    where: Where = None,
    corpus: Corpora = None,
    model: Models = None,
    folder: Folder = Path("results"),
    as_json: Json = False,
) -> None:
    """Measure a sample of stored cells again, and say whether they still hold."""
    from harness.again import Places
    from harness.nearby import near_here
    from harness.rerun import chosen, rerun

    if not check:
        raise ValueError("Write harness rerun --check; to fill a grid again, use harness run.")
    cells = chosen(existing(folder), sample=sample, seed=seed, where=where)
    print(f"measuring {len(cells)} again", file=sys.stderr)
    known = near_here(folder, (one.stored.cell for one in cells))
    verdicts = []
    for verdict in rerun(cells, Places(tuple(corpus or ()), tuple(model or ()), known)):
        verdicts.append(verdict)
        if not as_json:
            print(verdict, flush=True)
    if as_json:
        print(json.dumps([verdict.row() for verdict in verdicts], indent=2, allow_nan=False))
    raise typer.Exit(int(not all(verdict.holds for verdict in verdicts)))
