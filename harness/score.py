"""Score anybody's predictions, row by row: files in the layouts of InfiniteBench and LongBench.

One JSON object a line, with what was said (`prediction` or `pred`), what is right (`ground_truth`,
`label`, `answers`, `answer` or `outputs`) and what else the task's rule looks at (`all_classes`,
`length`). A file that does not say what is right is matched with the task's questions by `id`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from harness import catalog

SAID = ("prediction", "pred")
RIGHT = ("ground_truth", "label", "answers", "answer", "outputs")
NAMES = ("id", "_id")
Question = tuple[Any, Mapping[str, Any]]
"""What is right, and what else is known of it."""


@dataclass(frozen=True)
class Row:
    """One prediction."""

    score: float
    """0 to 1."""
    extracted: str | None
    """What of it decided; None: nothing that could."""


@dataclass(frozen=True)
class Scored:
    """A file of predictions."""

    task: str
    metric: str
    model: str
    rows: list[Row]
    """In the file's order."""
    value: float
    """In percent: the mean, or the average that the metric's name says."""
    repaired: list[str] = field(default_factory=list)
    """Lines that were no JSON and were read without what stands behind the object."""
    unread: list[str] = field(default_factory=list)
    """Lines that cannot be read; they score 0, and count."""

    def about(self) -> dict[str, Any]:
        """As JSON, without the rows."""
        return {
            "task": self.task, "metric": self.metric, "value": self.value, "n": len(self.rows)
        }  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A line of a file, and the object in it; None: there is none."""

    number: int
    row: Mapping[str, Any] | None
    repaired: str | None = None
    """What stood behind the object."""


def score(spec: str, file: Path, model: str | None = None) -> Scored:
    """Every row of a file.

    Args:
        spec: a task by its whole name: `infinitebench.math_calc,scorer=fixed`.
        file: of predictions.
        model: whose they are; None: the name of the folder that the file is in, as is published.

    Raises:
        LookupError: there is no such task, or predictions match none of its questions.
        ValueError: the task cannot be scored from a file, or a line lacks a field.
        FileNotFoundError: there is no such file.
    """
    task = judging(spec)
    model = model or file.absolute().parent.name
    found = list(lines(file))
    if not any(line.row is not None for line in found):
        raise ValueError(f"{file} has no predictions: write one JSON object a line.")
    answers = _answers(task, found, file)
    asked = [_asked(line, answers, file) for line in found]
    rows = [_judged(task, line, of, model, file) for line, of in zip(found, asked, strict=True)]
    return Scored(
        task=catalog.canonical("tasks", spec),
        metric=task.metric,
        model=model,
        rows=rows,
        value=100 * _average(task, rows, asked),
        repaired=[f"line {n.number} of {file}: {n.repaired}" for n in found if n.repaired],
        unread=[f"line {n.number} of {file}" for n in found if n.row is None],
    )


def folder(spec: str, place: Path) -> Iterator[Scored]:
    """Every file of predictions below a folder: MODEL/preds_TASK.jsonl, or MODEL/TASK.jsonl.

    Those of LongBench-E are in `pred_e/MODEL`, as its script leaves them.

    Raises:
        LookupError: there is none.
        ValueError: two are of the same task and model.
    """
    seen: dict[tuple[str, str], Path] = {}
    for member in catalog.members("tasks", spec):
        name = catalog.split(member)[0].partition(".")[2]
        for file in sorted(place.rglob("*.jsonl")):
            stem = f"{file.stem}_e" if file.absolute().parent.parent.name == "pred_e" else file.stem
            if stem in (name, f"preds_{name}"):
                model = file.absolute().parent.name
                if other := seen.get((member, model)):
                    raise ValueError(
                        f"{other} and {file} are both of {name} and {model}: score one at a time."
                    )
                seen[member, model] = file
                yield score(member, file)
    if not seen:
        raise LookupError(
            f"No file below {place} is named after a task of {spec}: name them TASK.jsonl or "
            "preds_TASK.jsonl, in a folder for each model."
        )


def judging(spec: str) -> Any:
    """The task of this spec, if it can be scored from a file.

    Raises:
        LookupError: there is no such task, or the name means several.
        ValueError: it grades only what the engine was asked.
    """
    members = catalog.members("tasks", spec)
    if len(members) > 1:
        raise LookupError(
            f"{spec!r} means {len(members)} tasks, and a file has the predictions of one. "
            f"There are: {', '.join(members)}."
        )
    task = catalog.load("tasks", spec)
    if not hasattr(task, "judge"):
        able = [name for name in catalog.names("tasks") if _judges(name)]
        raise ValueError(
            f"{spec} cannot be scored from a file of predictions. These can: {', '.join(able)}."
        )
    return task


def lines(file: Path) -> Iterator[Line]:
    """Those that are not empty, each read as far as can be.

    Raises:
        FileNotFoundError: there is no such file.
    """
    with file.open("rb") as raw:
        for number, line in enumerate(raw, 1):
            if line.strip():
                yield _line(number, line)


def _line(number: int, raw: bytes) -> Line:
    try:
        text = raw.decode("utf-8-sig").strip()
        row, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return Line(number, None)
    rest = text[end:].strip()
    if not isinstance(row, dict) or not re.fullmatch(r"[\w.,;]*", rest):
        return Line(number, None)
    return Line(number, row, f"{rest!r} behind the object" if rest else None)


def _asked(line: Line, answers: Mapping[str, Any] | None, file: Path) -> Question:
    """What is right, and what else the judge looks at."""
    if line.row is None:
        return None, {}
    where = f"{file}, line {line.number}"
    if answers is None:
        return _right(line.row, where), line.row
    right, about = _matching(line.row, answers, where)
    return right, {**line.row, **about}


def _judged(task: Any, line: Line, asked: Question, model: str, file: Path) -> Row:
    if line.row is None:
        return Row(0.0, None)
    where = f"{file}, line {line.number}"
    right, about = asked
    said = _said(line.row, where)
    try:
        return Row(*task.judge(said, right, {**about, "model": model}))
    except ValueError as error:
        raise ValueError(f"{where}: {error}. Are these the predictions of another task?") from None


def _average(task: Any, rows: list[Row], asked: list[Question]) -> float:
    if not hasattr(task, "average"):
        return fmean(row.score for row in rows)
    if any(not about for _, about in asked):
        raise ValueError(
            f"A line cannot be read, so that nobody knows which dataset it is of: without it there "
            f"is no {task.metric}. Mend it, or score each dataset by its name."
        )
    every = zip(rows, asked, strict=True)
    return float(task.average([(row.score, about) for row, (_, about) in every]))


def _said(row: Mapping[str, Any], where: str) -> str:
    key = next((key for key in SAID if key in row), None)
    if key is None:
        raise ValueError(f"{where}: there is no field {_either(SAID)}; it has {_has(row)}.")
    if row[key] is None:
        return ""
    if not isinstance(row[key], str):
        raise ValueError(f"{where}: {key!r} holds {type(row[key]).__name__}, not text.")
    return row[key]


def _right(row: Mapping[str, Any], where: str) -> Any:
    key = next((key for key in RIGHT if key in row), None)
    if key is None:
        raise ValueError(
            f"{where}: there is no field {_either(RIGHT)}; it has {_has(row)}. A task whose "
            "questions are in a file is matched by id: give it as --task NAME,data=PATH."
        )
    return row[key]


def _answers(task: Any, found: list[Line], file: Path) -> Mapping[str, Any] | None:
    """What is right by id, where the file does not say it and the task's own data are at hand."""
    rows = [line.row for line in found if line.row is not None]
    if any(key in row for row in rows for key in RIGHT) or not getattr(task, "local", False):
        return None
    answers = {str(key): value for key, value in task.answers().items()}
    if not any(_name(row) in answers for row in rows):
        raise LookupError(
            f"None of the {len(rows):,} predictions of {file} matches a question of {task.data}, "
            f"whose ids are such as {', '.join(list(answers)[:3])}."
        )
    return answers


def _matching(row: Mapping[str, Any], answers: Mapping[str, Any], where: str) -> Any:
    if _name(row) is None:
        raise ValueError(f"{where}: there is no field {_either(NAMES)}; it has {_has(row)}.")
    if _name(row) not in answers:
        raise LookupError(f"{where}: there is no question with the id {_name(row)}.")
    return answers[_name(row)]


def _name(row: Mapping[str, Any]) -> str | None:
    return next((str(row[key]) for key in NAMES if key in row), None)


def _judges(name: str) -> bool:
    return hasattr(catalog.load("tasks", name), "judge")


def _either(names: tuple[str, ...]) -> str:
    return " or ".join((", ".join(map(repr, names[:-1])), repr(names[-1])))


def _has(row: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, row)) or "none"
