"""A sheet says what a table shows: methods down, lengths across, a mark where there is no number.

How it is drawn, on a terminal or in Markdown, is `harness.report.table`'s business.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from harness.catalog import split
from harness.cell import UNEXTENDED, Cell, Result, in_any_dtype
from harness.lengths import label
from harness.metric import WHOLE, is_share

MARKS = {"failed": "failed", "out_of_memory": "OOM", "unfit": "n/a", "missing": "·"}
MEANINGS = {
    "failed": "an error stopped it",
    "out_of_memory": "out of memory",
    "unfit": "cannot be run here",
    "missing": "not measured",
}
CUT = "†"
"""Beside a number some of whose inputs were cut to fit."""
STAMP = re.compile(r"@([0-9a-f]{8})")
"""A trained model's content, in its name."""
WRITTEN_OUT = r" \1"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One cell as a reader sees it."""

    kind: str
    """A result's status, or `missing`."""
    text: str
    interval: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.interval}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One model on one task."""

    title: str
    lengths: list[int]
    rows: dict[str, list[Entry]]
    """By method; an entry for each length."""
    notes: list[str]
    """What marks mean, why cells have no number, and what must be known of those that have."""


def sheets(results: Iterable[Result], cells: Sequence[Cell] = ()) -> list[Sheet]:
    """One for each model and task, in the order they come; `cells` without a result are missing."""
    results = list(results)
    called = distinct({c.model for c in [*cells, *(result.cell for result in results)]})
    found = {result.cell: result for result in apart_by_name(results, called)}
    every = dict.fromkeys([*(shown(cell, called) for cell in cells), *found])
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in every:
        groups.setdefault((cell.base, cell.task), []).append(cell)
    names = apart(groups)
    return [_sheet(group, found, names[key]) for key, group in groups.items()]


def entry(result: Result | None) -> Entry:
    """The value with its interval, or the mark that stands for it."""
    if result is None:
        return Entry(kind="missing", text=MARKS["missing"])
    ends = result.low, result.high
    return written(result.status, result.metric, result.value, *ends, result.truncated)


def written(
    status: str,
    metric: str,
    value: float | None,
    low: float | None,
    high: float | None,
    truncated: float,
) -> Entry:
    """What of a result is written into a table."""
    if value is None:
        return Entry(kind=status, text=MARKS[status])
    interval = ""
    if low is not None and high is not None:
        interval = f"[{number(low, metric, unit='')}, {number(high, metric, unit='')}]"
    cut = CUT if truncated else ""
    return Entry(kind="scored", text=number(value, metric) + cut, interval=interval)


def number(x: float, metric: str, *, unit: str = " %") -> str:
    """Three figures, or percent where the metric is a share; 0 and 100 are said of nothing else."""
    if is_share(metric):
        return f"{_percent(100 * x, 0 if metric in WHOLE else 1)}{unit}"
    if abs(x) >= 1e5:
        return f"{x:.1e}".replace("e+0", "e").replace("e+", "e")
    if abs(x) >= 99.95:
        return f"{x:,.0f}"
    return f"{x:.1f}" if abs(x) >= 9.995 else f"{x:.2f}"


def _percent(x: float, places: int) -> str:
    said = (f"{x:.{n}f}" for n in range(places, 7))
    return next((text for text in said if float(text) not in (0.0, 100.0)), f"{x:.0f}")


def readable(spec: str, *, whole: bool = False) -> str:
    """A spec for reading: the factor behind a multiplication sign, the rest behind commas.

    How far documents must reach and the stamp of a corpus's content are left out, unless `whole`.
    """
    name, parameters = split(spec)
    if not whole:
        parameters = {
            key: re.sub(r"@[0-9a-f]{8}$", "", value) if key == "corpus" else value
            for key, value in parameters.items()
            if key != "reach"
        }
    if factor := parameters.pop("factor", ""):
        name = f"{name} ×{factor}"  # noqa: RUF001 - a multiplication sign is what is meant
    return ", ".join([name, *(f"{key} {value}" for key, value in parameters.items())])


def named(cell: Cell) -> str:
    """A cell's row: the method, and where the model was trained with it, what that is called."""
    return readable(cell.method) + (f" · {cell.training}" if cell.training else "")


def distinct(models: Iterable[str]) -> dict[str, str]:
    """Trained models that are called alike, each with its content written out.

    `toy+mine@67d57f0a` beside another `toy+mine` is called `mine 67d57f0a`.
    """
    groups: dict[str, set[str]] = {}
    for model in models:
        if "+" in model:
            groups.setdefault(_stamp(model, ""), set()).add(model)
    return {
        model: _stamp(model, WRITTEN_OUT)
        for group in groups.values()
        if len(group) > 1
        for model in group
    }


def _stamp(model: str, written: str) -> str:
    """With its content written so."""
    name = in_any_dtype(model)
    base, plus, mine = name.partition("+")
    return base + plus + STAMP.sub(written, mine) + model.removeprefix(name)


def apart_by_name(
    results: Iterable[Result], called: Mapping[str, str] | None = None
) -> list[Result]:
    """Results for showing: no two trained models in them are called alike."""
    results = list(results)
    called = distinct({r.cell.model for r in results}) if called is None else called
    return [
        r if (cell := shown(r.cell, called)) is r.cell else r.model_copy(update={"cell": cell})
        for r in results
    ]


def shown(cell: Cell, called: Mapping[str, str]) -> Cell:
    """The cell under the name that its model has among others, as `distinct` gives them."""
    model = called.get(cell.model)
    return cell.model_copy(update={"model": model}) if model else cell


def apart(keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """By model and task, the task for reading; whole where another of the model reads alike."""
    keys = list(dict.fromkeys(keys))
    count = Counter((model, readable(task)) for model, task in keys)
    return {(m, t): readable(t, whole=count[m, readable(t)] > 1) for m, t in keys}


def told(text: str | None, cell: Cell) -> str:
    """A result's reason or notice, in one line; the method's name in it is made readable."""
    words = " ".join((text or "").replace(cell.method, readable(cell.method)).split())
    return words if len(words) <= 300 else f"{words[:299]}…"


def _sheet(cells: list[Cell], found: dict[Cell, Result], task: str) -> Sheet:
    lengths = sorted({cell.length for cell in cells})
    at = {(cell.model, cell.method, cell.length): found.get(cell) for cell in cells}
    results = [found[cell] for cell in cells if cell in found]
    noted = {(r.cell.model, r.cell.method) for r in results if r.notice}
    first = {(cell.model, cell.method): cell for cell in reversed(cells)}
    rows = {
        named(first[row]) + ("*" if row in noted else ""): [
            entry(at.get((*row, n))) for n in lengths
        ]
        for row in sorted(first, key=lambda row: _order(first[row]))
    }
    return Sheet(
        title=_title(cells[0], task, results),
        lengths=lengths,
        rows=rows,
        notes=_notes(rows, results),
    )


def _title(cell: Cell, task: str, results: list[Result]) -> str:
    metrics = dict.fromkeys(r.metric for r in results if r.metric and r.metric not in cell.task)
    corpora = dict.fromkeys(r.corpus for r in results if r.corpus and r.corpus not in cell.task)
    return " · ".join([cell.base, task, *metrics, *corpora])


def _order(cell: Cell) -> tuple[bool, str, float, str, str]:
    """The model as it is first, where every table starts; then by name, by factor, by training."""
    name, parameters = split(cell.method)
    try:
        factor = float(parameters.get("factor", 0))
    except ValueError:
        factor = 0.0
    as_it_is = cell.method == UNEXTENDED and not cell.training
    return not as_it_is, name, factor, cell.method, cell.model


def _notes(rows: dict[str, list[Entry]], results: list[Result]) -> list[str]:
    kinds = {e.kind for row in rows.values() for e in row}
    notes = []
    if any(e.interval for row in rows.values() for e in row):
        notes.append("[low, high]  the 95 % interval")
    if trials := sorted({r.n for r in results if is_share(r.metric) and r.n}):
        notes.append(
            f"n = {' to '.join(dict.fromkeys((str(trials[0]), str(trials[-1]))))} trials a cell"
        )
    if cut := sorted({r.truncated for r in results if r.truncated}):
        shares = dict.fromkeys(f"{100 * share:.3g}" for share in (cut[0], cut[-1]))
        notes.append(f"{CUT}  cut to fit: {' to '.join(shares)} % of inputs")
    versions = sorted({str(v) for r in results if (v := r.provenance.get("task_version"))})
    if len(versions) > 1:
        notes.append(
            f"unlike versions  asked by versions {' and '.join(versions)} of the task, whose "
            "numbers do not compare: measure the older rows again"
        )
    for kind in (k for k in MARKS if k in kinds):
        why = "; ".join(_reasons(kind, results))
        notes.append(f"{MARKS[kind]}  {MEANINGS[kind]}{why and ': '}{why}")
    noted: dict[str, dict[str, None]] = {}
    for r in results:
        if r.notice:
            noted.setdefault(told(r.notice, r.cell), {})[named(r.cell)] = None
    starred = [f"*  {', '.join(names)}: {notice}" for notice, names in noted.items()]
    trained = dict.fromkeys(f"{r.cell.training}  {r.trained}" for r in results if r.trained)
    return [*notes, *starred, *trained, *_budgets(list(trained))]


def _budgets(trained: list[str]) -> list[str]:
    """Whether what was trained differs by its method alone."""
    if len(trained) < 2:
        return []
    if len({said.partition(", recipe ")[2] for said in trained}) == 1:
        return ["one budget  all that was trained here read the same tokens in as many updates"]
    return ["unlike budgets  what was trained here differs by more than its method"]


def _reasons(kind: str, results: list[Result]) -> list[str]:
    """Why, once for each method and reason, with the lengths it holds for."""
    those = [r for r in results if r.status == kind]
    return [
        f"{name} at {', '.join(label(r.cell.length) for r in group)}, {reason}"
        for (name, reason), group in groupby(
            those, lambda r: (named(r.cell), told(r.reason, r.cell))
        )
    ]
