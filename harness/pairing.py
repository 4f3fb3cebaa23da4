"""Which two results may be compared, and their items side by side.

Numbers of different protocols differ for reasons that are no method's: the same perplexity by 17 %.
So a pair is refused unless both were asked the same of the same model.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness import catalog, nearest
from harness.cell import Cell, Result
from harness.lengths import label
from harness.store import Store

Scores = Mapping[str, float]
Items = Callable[[Result], Scores]
NATS = {"perplexity", "LongPPL"}
"""Metrics whose items are mean losses."""


def name(cell: Cell) -> str:
    """A row's: its method, and what it was trained as behind a plus."""
    return cell.method + (f"+{cell.training}" if cell.training else "")


def meant(spec: str, results: Sequence[Result]) -> str:
    """The name of the row that a person means: whole, or as much of it as only one row has.

    `yarn` is `yarn,factor=4` where no other row is of that method; `yarn+mine`, or `mine` alone,
    is what was trained under that name.

    Raises:
        LookupError: it is of no row, or of several; says which there are.
    """
    cells = {name(result.cell): result.cell for result in results}
    if spec in cells:
        return spec
    found = [known for known, cell in cells.items() if _fits(spec, cell)]
    if len(found) == 1:
        return found[0]
    if found:
        raise LookupError(f"{spec!r} may be any of {', '.join(found)}: write one of them whole.")
    methods = {catalog.split(cell.method)[0] for cell in cells.values()}
    raise LookupError(
        f"No result here is of {spec!r}.{nearest.hint(spec, [*cells, *methods])} "
        f"There are: {', '.join(cells) or 'none'}."
    )


def comparable(a: Result, b: Result) -> str | None:
    """Why two results may not be compared, in a phrase; None: they may."""
    for result in (a, b):
        if result.value is None:
            return f"{name(result.cell)} was not scored ({result.reason})"
    for what, of in ASPECTS.items():
        if of(a) != of(b):
            return f"their {what} differ: {of(a)} and {of(b)}"
    return _parameters(a, b) or _versions(a, b) or _items(a, b)


def aligned(a: Result, b: Result, items: Items) -> tuple[list[float], list[float]]:
    """The scores of the same items, in the same order.

    Raises:
        ValueError: the two may not be compared; says why.
        LookupError: the items of one are not known; says what to do.
    """
    reason = comparable(a, b)
    scores = [dict(items(result)) for result in (a, b)] if not reason else [{}, {}]
    for result, found in zip((a, b), scores, strict=True):
        if not reason and not found:
            raise LookupError(
                f"{name(result.cell)} on {result.cell.task} at {label(result.cell.length)} has no "
                f"scores of its items: remove runs/{result.cell.path} and measure it again."
            )
    if reason := reason or _apart(a, b, *scores):
        raise ValueError(
            f"{name(a.cell)} and {name(b.cell)} cannot be compared on {a.cell.task} at "
            f"{label(a.cell.length)}: {' '.join(reason.split()).removesuffix('.')}."
        )
    return list(scores[0].values()), [scores[1][key] for key in scores[0]]


def kept(store: Store) -> Items:
    """Items from the results, or of those that have none from what lies beside them."""
    read: dict[Cell, Scores] = {}

    def items(result: Result) -> Scores:
        if result.items or result.value is None:
            return result.items
        if result.cell not in read:
            read[result.cell] = _beside(store, result)
        return read[result.cell]

    return items


def _beside(store: Store, result: Result) -> Scores:
    from harness.task import Sample

    rows, losses = store.samples(result.cell), store.losses(result.cell)
    if not rows:
        return {}
    fields = ("id", "score", "expected", "answer", "cut")
    samples = [
        Sample(
            **{key: row[key] for key in fields if key in row},
            about={key: value for key, value in row.items() if key not in fields},
            losses=losses.get(row["id"]),
        )
        for row in rows
    ]
    return catalog.load("tasks", result.cell.task).items(samples)


def _fits(spec: str, cell: Cell) -> bool:
    if cell.training and spec == cell.training:
        return True
    method, given = catalog.split(spec.removesuffix(f"+{cell.training}"))
    known, own = catalog.split(cell.method)
    return method == known and all(_number(own.get(key)) == _number(given[key]) for key in given)


def _number(value: str | None) -> float | str | None:
    """4.0 is 4. Without the catalog, which would load the method, and torch with it."""
    try:
        return float(value or "")
    except ValueError:
        return value


def _protocol(result: Result) -> str:
    return result.protocol or catalog.split(result.cell.task)[0]


ASPECTS: Mapping[str, Callable[[Result], Any]] = {
    "base models": lambda result: result.cell.base,
    "lengths": lambda result: label(result.cell.length),
    "tasks": lambda result: _protocol(result).split(".")[0],
    "protocols": _protocol,
    "metrics": lambda result: result.metric,
    "corpora": lambda result: result.corpus or "none",
    "shares of truncated inputs": lambda result: f"{result.truncated:.3g}",
}
"""What must be the same, but for parameters, versions and items."""


DEFAULT = "the default"


def _parameters(a: Result, b: Result) -> str | None:
    """Seeds first; every parameter where both say all, else those that are not the default."""
    every = [result.provenance.get("task") for result in (a, b)]
    if not all(every):
        every = [catalog.split(result.cell.task)[1] for result in (a, b)]
    for key in sorted(set().union(*every), key=lambda key: (key != "seed", key)):
        x, y = (parameters.get(key, DEFAULT) for parameters in every)
        if x != y and not (DEFAULT in (x, y) and _is_default(a.cell.task, key, x, y)):
            what = "seeds differ" if key == "seed" else f"task parameters differ, {key}"
            return f"their {what}: {x} and {y}"
    return None


def _is_default(task: str, key: str, *values: Any) -> bool:
    """Whether a parameter that came later than one of two results is what both mean."""
    try:
        known = catalog.settings(catalog.load("tasks", catalog.split(task)[0]))
    except (LookupError, ValueError):
        return False
    own = list(known[key]) if isinstance(known.get(key), tuple) else known.get(key, DEFAULT)
    return all(value in (DEFAULT, own) for value in values)


def _versions(a: Result, b: Result) -> str | None:
    """Of the task, of its data, and of the weights where the model is the same; if both say."""
    versions = {"task versions": "task_version", "dataset commits": "data_commit"}
    for what, key in {**versions, "weights": "weights"}.items():
        x, y = a.provenance.get(key), b.provenance.get(key)
        if (key != "weights" or a.cell.model == b.cell.model) and x and y and x != y:
            return f"their {what} differ: {str(x)[:8]} and {str(y)[:8]}"
    return None


def _items(a: Result, b: Result) -> str | None:
    return _apart(a, b, a.items, b.items) if a.items and b.items else None


def _apart(a: Result, b: Result, x: Scores, y: Scores) -> str | None:
    """Which items only one of them has."""
    sides = ((a, [key for key in x if key not in y]), (b, [key for key in y if key not in x]))
    alone = [f"{len(keys)} only of {name(r.cell)} ({keys[0]})" for r, keys in sides if keys]
    return f"their items differ, {' and '.join(alone)}" if alone else None
