"""Score anybody's predictions, row by row: files in the layouts of InfiniteBench and LongBench.

One JSON object a line, with what was said (`prediction` or `pred`), what is right (`ground_truth`,
`label`, `answers`, `answer` or `outputs`) and what else the task's rule looks at (`all_classes`,
`length`). A file that does not say what is right is matched with the task's questions by `id`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import catalog
from harness.judge import Judge, Judged, Question
from harness.predictions import NAMES, RIGHT, Line, lacks, lines, name_of, names_of, right, said


@dataclass(frozen=True)
class Row:
    """One prediction."""

    score: float
    """0 to 1."""
    extracted: str | None
    """What of it decided; None: nothing that could."""


@dataclass(frozen=True)
class Scored:
    """A file of predictions, or all those of a model that make an average."""

    task: str
    metric: str
    model: str
    rows: list[Row]
    """In the file's order."""
    value: float | None
    """In percent: the mean, or the average that the metric's name says; None: not all is there."""
    parts: dict[str, float] = field(default_factory=dict)
    """In percent: what the task tells apart, as lengths, or the columns of its leaderboard."""
    questions: int | None = None
    """Of the task; None: its data are not at hand, or have other ids."""
    unanswered: int = 0
    """Of them those that no row answers: the value knows nothing of them."""
    repeated: int = 0
    """Rows with the id of one before; each counts."""
    repaired: list[str] = field(default_factory=list)
    """Lines that were no JSON and were read without what stands behind the object."""
    unread: list[str] = field(default_factory=list)
    """Lines that cannot be read; they score 0, and count."""

    def about(self) -> dict[str, Any]:
        """As JSON, without the rows."""
        about = {
            "task": self.task,
            "metric": self.metric,
            "value": self.value,
            "n": len(self.rows),
            "questions": self.questions,
            "unanswered": None if self.questions is None else self.unanswered,
            "repeated": self.repeated,
        }
        return about | ({"parts": self.parts} if self.parts else {})


@dataclass(frozen=True)
class Source:
    """A file of predictions, and what is known of each of its rows beside what it says."""

    file: Path
    known: Mapping[str, Any] = field(default_factory=dict)


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
    return _scored(spec, [Source(file)], model or file.absolute().parent.name)


def folder(spec: str, place: Path) -> Iterator[Scored]:
    """Every file of predictions below a folder: MODEL/preds_TASK.jsonl, or MODEL/TASK.jsonl.

    Those of LongBench-E are in `pred_e/MODEL`, as its script leaves them, and those of LongBench v2
    are named after the model. An average over datasets is made of the files of each, and behind a
    benchmark's datasets come its averages.

    Raises:
        LookupError: there is none.
        ValueError: two are of the same task and model.
    """
    files, found = sorted(place.rglob("*.jsonl")), list[Scored]()
    for member in _members(spec):
        for model, sources in _sources(member, files).items():
            found.append(_scored(member, sources, model))
            yield found[-1]
    if not found:
        raise LookupError(
            f"No file below {place} is named after a task of {spec}: name them TASK.jsonl or "
            "preds_TASK.jsonl, in a folder for each model."
        )
    yield from _averages(spec, found)


def _members(spec: str) -> list[str]:
    """What a spec means, and of a benchmark's bare name what else its average is made of."""
    found, name = catalog.members("tasks", spec), catalog.split(spec)[0]
    if found == [spec]:
        return found
    averaged = judging(found[0]).averaged
    every = [v for v in catalog.variants("tasks", name) if v.partition(".")[2] in averaged]
    named = {catalog.split(member)[0] for member in found}
    return [*found, *(variant for variant in every if variant not in named)]


def _sources(member: str, files: Sequence[Path]) -> dict[str, list[Source]]:
    """By model, the files of a task, or of each of those that it averages."""
    task, spec = judging(member), catalog.split(member)[0]
    name = spec.partition(".")[2] or spec
    found = {model: [Source(file)] for model, file in _of(task, name, files).items()}
    if not found:
        for dataset, one in task.members().items():
            for model, file in _of(one, one.name, files).items():
                found.setdefault(model, []).append(Source(file, {"dataset": dataset}))
    return found


def _of(task: Judge, name: str, files: Sequence[Path]) -> dict[str, Path]:
    """By model, the files of one task."""
    found: dict[str, Path] = {}
    for file in files:
        model = task.whose(file, name)
        if model is not None and (other := found.get(model)):
            raise ValueError(
                f"{other} and {file} are both of {name} and {model}: score one at a time."
            )
        if model is not None:
            found[model] = file
    return found


def _averages(spec: str, found: Sequence[Scored]) -> Iterator[Scored]:
    """Of each model those of a benchmark's averages that its files make."""
    name = catalog.split(spec)[0]
    if "." in name:
        return
    for model in dict.fromkeys(one.model for one in found):
        own = [one for one in found if one.model == model]
        values = {catalog.split(one.task)[0].partition(".")[2]: one.value for one in own}
        if columns := judging(own[0].task).columns(values):
            rows = [row for one in own for row in one.rows]
            average = columns.get("average")
            yield Scored(name, "average", model, rows, average, parts=columns)


def _scored(spec: str, sources: Sequence[Source], model: str) -> Scored:
    """Every row of these files, as one."""
    task = judging(spec)
    known = {str(k): value for k, value in task.answers().items()} if task.local else {}
    found, rows, asked = list[Line](), list[Row](), list[Question]()
    repaired, unread, repeated = list[str](), list[str](), 0
    for source in sources:
        file, these = source.file, list(lines(source.file))
        if not any(line.row is not None for line in these):
            raise ValueError(f"{file} has no predictions: write one JSON object a line.")
        answers, names = _answers(task, these, known, file), names_of(these)
        own = known if known.keys() >= {*names} else {}  # else its ids are of another set
        questions = [_asked(line, answers, own, source) for line in these]
        pairs = zip(these, questions, strict=True)
        rows += [_judged(task, line, of, model, file) for line, of in pairs]
        found, asked = found + these, asked + questions
        repeated += len(names) - len({*names})
        repaired += [f"line {n.number} of {file}: {n.repaired}" for n in these if n.repaired]
        unread += [f"line {n.number} of {file}" for n in these if n.row is None]
    answered = {*names_of(found)}
    counted = bool(answered) and known.keys() >= answered
    return Scored(
        task=catalog.canonical("tasks", spec),
        metric=task.metric,
        model=model,
        rows=rows,
        value=100 * task.average(_of_rows(rows, asked)),
        parts=_parts(task, rows, asked),
        questions=len(known) if counted else None,
        unanswered=len(known) - len(answered) if counted else 0,
        repeated=repeated,
        repaired=repaired,
        unread=unread,
    )


def judging(spec: str) -> Judge:
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
    if not isinstance(task, Judge):
        every = catalog.names("tasks")
        able = [name for name in every if isinstance(catalog.load("tasks", name), Judge)]
        raise ValueError(
            f"{spec} cannot be scored from a file of predictions. These can: {', '.join(able)}."
        )
    return task


def _asked(
    line: Line, answers: Mapping[str, Any] | None, known: Mapping[str, Any], source: Source
) -> Question:
    """What is right, and what else the judge looks at."""
    if line.row is None:
        return None, {}
    where = f"{source.file}, line {line.number}"
    if answers is None:
        _, about = known.get(name_of(line.row) or "", (None, {}))
        return right(line.row, where), {**about, **line.row, **source.known}
    found, about = _matching(line.row, answers, where)
    return found, {**line.row, **about, **source.known}


def _judged(task: Judge, line: Line, asked: Question, model: str, file: Path) -> Row:
    if line.row is None:
        return Row(0.0, None)
    where = f"{file}, line {line.number}"
    gold, about = asked
    prediction = said(line.row, where)
    try:
        return Row(*task.judge(prediction, gold, {**about, "model": model}))
    except ValueError as error:
        raise ValueError(f"{where}: {error}. Are these the predictions of another task?") from None


def _parts(task: Judge, rows: list[Row], asked: list[Question]) -> dict[str, float]:
    """What the task tells apart, where every line can be read."""
    if any(not about for _, about in asked):
        return {}
    return {name: 100 * value for name, value in task.parts(_of_rows(rows, asked)).items()}


def _of_rows(rows: list[Row], asked: list[Question]) -> Judged:
    return [(row.score, about) for row, (_, about) in zip(rows, asked, strict=True)]


def _answers(
    task: Judge, found: list[Line], known: Mapping[str, Any], file: Path
) -> Mapping[str, Any] | None:
    """What is right by id, where the file does not say it and the task's own data are at hand."""
    rows = [line.row for line in found if line.row is not None]
    if any(key in row for row in rows for key in RIGHT) or not known:
        return None
    if not any(name_of(row) in known for row in rows):
        raise LookupError(
            f"None of the {len(rows):,} predictions of {file} matches a question of {task.data}, "
            f"whose ids are such as {', '.join(list(known)[:3])}."
        )
    return known


def _matching(row: Mapping[str, Any], answers: Mapping[str, Any], where: str) -> Any:
    if name_of(row) is None:
        raise ValueError(f"{lacks(row, NAMES, where)}.")
    if name_of(row) not in answers:
        raise LookupError(f"{where}: there is no question with the id {name_of(row)}.")
    return answers[name_of(row)]
