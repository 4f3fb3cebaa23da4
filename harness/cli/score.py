"""`harness score`: grade predictions that anybody's model has made."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

if TYPE_CHECKING:
    from harness.score import Scored

HELP = (
    "Score a file of predictions, and say of each what was extracted from it.\n\n"
    "One JSON object a line: prediction or pred, and ground_truth, label or answers. A line with "
    "a stray word behind its object is read without it; one that cannot be read scores 0; both "
    "are named. A folder stands for all its files that are named after a task: "
    "MODEL/preds_TASK.jsonl or MODEL/TASK.jsonl."
)
EXAMPLES = (
    "harness score --task infinitebench.passkey --predictions preds_passkey.jsonl --json\n\n"
    "harness score --task infinitebench --predictions results/"
)
WIDEST = 72


def score(
    task: Annotated[
        str, Option("--task", "-t", metavar="NAME", help="Such as infinitebench.passkey.")
    ],
    predictions: Annotated[
        Path, Option(metavar="FILE", help="A file of predictions, or a folder of such.")
    ],
    model: Annotated[
        str | None,
        Option(metavar="NAME", help="Whose they are; the name of the file's folder unless given."),
    ] = None,
    as_json: Annotated[bool, Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score predictions."""
    from harness.plugins import named
    from harness.score import folder
    from harness.score import score as scored

    task = named(task)
    if predictions.is_dir():
        if model:
            raise ValueError(
                "--model says whose one file is; of a folder, each file's own folder says it: "
                "leave it out."
            )
        every = list(folder(task, predictions))
        _notes(every)
        if as_json:
            print(json.dumps([{"model": s.model, **s.about()} for s in every], indent=2))
        else:
            print("\n".join(_table(every)))
        return
    found = scored(task, predictions, model)
    _notes([found])
    if as_json:
        rows = [{"score": row.score, "extracted": row.extracted} for row in found.rows]
        print(json.dumps({**found.about(), "rows": rows}))
        return
    for i, row in enumerate(found.rows, 1):
        print(f"{i:>5}  {row.score:<6.4g}  {_short(row.extracted)}")
    print(f"{found.task}  {found.metric}  {_percent(found.value)} %  of {len(found.rows):,}")


def _table(every: "Sequence[Scored]") -> list[str]:
    """A row for each task and a column for each model."""
    models = list(dict.fromkeys(s.model for s in every))
    cells = {(s.task, s.model): _percent(s.value) for s in every}
    tasks = list(dict.fromkeys((s.task, s.metric) for s in every))
    widest = max(len(task) for task, _ in tasks)
    measure = max(len(metric) for _, metric in tasks)
    heads = "".join(f"  {model:>8}" for model in models)
    return [
        f"{'percent':{widest}}  {'':{measure}}{heads}",
        *(
            f"{task:{widest}}  {metric:{measure}}"
            + "".join(f"  {cells.get((task, m), '-'):>{max(8, len(m))}}" for m in models)
            for task, metric in tasks
        ),
    ]


def _notes(every: "Sequence[Scored]") -> None:
    for found in every:
        for line in found.repaired:
            print(f"note: repaired {line}", file=sys.stderr)
        for line in found.unread:
            print(f"note: scored 0, for it cannot be read: {line}", file=sys.stderr)
        if found.repaired or found.unread:
            print(
                f"note: of {len(found.rows):,} lines {len(found.repaired)} repaired, "
                f"{len(found.unread)} not read",
                file=sys.stderr,
            )


def _percent(value: float) -> str:
    """As it is published; with more digits where two would say nothing."""
    return f"{value:.2f}" if value >= 1 or value == 0 else f"{value:.4f}"


def _short(text: str | None) -> str:
    if text is None:
        return "-"
    line = " ".join(text.encode(errors="backslashreplace").decode().split())
    return line if len(line) <= WIDEST else f"{line[: WIDEST - 3]}..."
