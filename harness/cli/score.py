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
    "MODEL/preds_TASK.jsonl or MODEL/TASK.jsonl, MODEL.jsonl of LongBench v2. Of a benchmark's "
    "datasets the averages come last. With --task NAME,data=PATH, questions that nothing answers "
    "are counted."
)
EXAMPLES = (
    "harness score --task infinitebench.passkey --predictions preds_passkey.jsonl --json\n\n"
    "harness score --task longbench --predictions pred/"
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
    value = "-" if found.value is None else _percent(found.value)
    print(f"{found.task}  {found.metric}  {value} %  of {len(found.rows):,}")
    wide = max(map(len, found.parts), default=0)
    for name, value in found.parts.items():
        print(f"  {name:{wide}}  {_percent(value)} %")


def _table(every: "Sequence[Scored]") -> list[str]:
    """A row for each task and each of its parts, and a column for each model."""
    models = list(dict.fromkeys(s.model for s in every))
    cells: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for s in every:
        values = {"": s.value, **s.parts}
        rows = cells.setdefault((s.task, s.metric), {})
        for part, value in values.items():
            rows.setdefault(part, {})[s.model] = "-" if value is None else _percent(value)
    lines = [
        (f"  {part}" if part else task, "" if part else metric, by_model)
        for (task, metric), rows in cells.items()
        for part, by_model in rows.items()
    ]
    widest = max(len(title) for title, _, _ in lines)
    measure = max(len(metric) for _, metric, _ in lines)
    heads = "".join(f"  {model:>8}" for model in models)
    return [
        f"{'percent':{widest}}  {'':{measure}}{heads}",
        *(
            f"{title:{widest}}  {metric:{measure}}"
            + "".join(f"  {by_model.get(m, '-'):>{max(8, len(m))}}" for m in models)
            for title, metric, by_model in lines
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
        if found.unanswered or found.repeated:
            print(f"note: {found.task}, {found.model}: {_lacking(found)}", file=sys.stderr)


def _lacking(found: "Scored") -> str:
    """What the value leaves out, and what it counts more than once."""
    repeated = f"{found.repeated:,} repeated"
    if found.questions is None:
        return f"of {len(found.rows):,} predictions {repeated}"
    return f"{found.unanswered:,} of {found.questions:,} questions unanswered, {repeated}"


def _percent(value: float) -> str:
    """As it is published; with more digits where two would say nothing."""
    return f"{value:.2f}" if value >= 1 or value == 0 else f"{value:.4f}"


def _short(text: str | None) -> str:
    if text is None:
        return "-"
    line = " ".join(text.encode(errors="backslashreplace").decode().split())
    return line if len(line) <= WIDEST else f"{line[: WIDEST - 3]}..."
