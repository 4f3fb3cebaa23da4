"""A benchmark of many datasets at one length: groups of bars, a bar for each method.

No radar: its area depends on the order of its axes. Rows that average the datasets by group, as
LongBench's leaderboard does, are shown by group, in a picture of their own; and what was asked with
other parameters, or scored otherwise, is in another picture too.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from harness.catalog import split
from harness.cell import Result
from harness.lengths import label
from harness.report.figures.style import (
    DOUBLE,
    Look,
    Picture,
    folded,
    legend,
    looks,
    panels,
    slug,
    styled,
)
from harness.report.sheet import named, readable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST = 3
"""Datasets that make a benchmark."""
MOST = 80
"""Bars side by side; more go into a further row."""
Scores = dict[str, dict[str, tuple[float, float | None, float | None]]]
"""By row, by dataset or group: value and interval."""


def pictures(results: Sequence[Result], benchmark: str) -> Iterator[Picture]:
    """One for each model, length and way to ask.

    Raises:
        ValueError: of no three datasets of this benchmark there are results that are asked alike.
    """
    alike: dict[tuple[str, int, str, bool], list[Result]] = {}
    for r in results:
        if r.value is not None and _family(r) == benchmark:
            how = r.cell.task.partition(",")[2]
            alike.setdefault((r.cell.base, r.cell.length, how, _averages(r)), []).append(r)
    if not alike:
        raise ValueError(f"no result is of {benchmark}")
    enough = {key: group for key, group in alike.items() if len(_names(_scores(group))) >= LEAST}
    if not enough:
        raise ValueError(f"fewer than {LEAST} datasets of {benchmark} were scored alike")
    for (base, length, how, groups), there in enough.items():
        words = f"{benchmark}{' groups' if groups else ''}"
        said = readable(f"{words},{how}" if how else words)
        yield Picture(
            name=f"bars-{slug(f'{base} {words} {label(length)} {how}'.strip())}",
            caption=f"{said}, {base} at {label(length)} tokens.{_whiskers(there)}",
            figure=draw(there),
        )


@styled
def draw(results: Sequence[Result]) -> "Figure":
    """Groups of bars for one model at one length, all asked alike.

    Raises:
        ValueError: fewer than three datasets or groups were scored.
    """
    scores = _scores(results)
    names = _names(scores)
    if len(names) < LEAST:
        raise ValueError(f"fewer than {LEAST} of its datasets were scored: {', '.join(names)}")
    every = looks(r.cell for r in results)
    each = max(1, MOST // len(every))
    count = -(-len(names) // each)
    each = -(-len(names) // count)
    figure, axes = panels(count, DOUBLE, 1.7, most=1)
    for i, one in enumerate(axes):
        _bars(one, names[i * each : (i + 1) * each], scores, every)
    legend(figure, axes, every)
    return figure


def _whiskers(results: Sequence[Result]) -> str:
    drawn = any(v[1] is not None for row in _scores(results).values() for v in row.values())
    return " Whiskers are 95 % intervals." if drawn else ""


def _family(result: Result) -> str:
    return split(result.cell.task)[0].partition(".")[0]


def _averages(result: Result) -> bool:
    """Whether this is of all datasets, by group."""
    return "average" in result.parts


def _names(scores: Scores) -> list[str]:
    return list(dict.fromkeys(name for row in scores.values() for name in row))


def _scores(results: Sequence[Result]) -> Scores:
    """Of rows that have them groups, of others datasets."""
    found: Scores = {}
    for r in results:
        if r.value is None:
            continue
        row = found.setdefault(named(r.cell), {})
        if _averages(r):
            row |= {group: (r.parts[group], None, None) for group in _groups(r)}
            if "average" in row:
                row["average"] = r.value, r.low, r.high
        else:
            variant = split(r.cell.task)[0].partition(".")[2] or r.cell.task
            row[variant] = (r.value, r.low, r.high)
    return found


def _groups(result: Result) -> list[str]:
    """`single` of `en single`, `zh single`, `single`: what an average is made of, and itself."""
    told = {part.split(" ", 1)[1] for part in result.parts if part.startswith(("en ", "zh "))}
    return [part for part in result.parts if part in told]


def _bars(axes: "Axes", names: list[str], scores: Scores, every: dict[str, Look]) -> None:
    width = 0.84 / len(every)
    for place, (row, look) in enumerate(every.items()):
        shown = [(x, scores[row][n]) for x, n in enumerate(names) if n in scores.get(row, {})]
        at = [x + width * (place - (len(every) - 1) / 2) for x, _ in shown]
        hatch = "" if look.line == "-" else "/////"
        axes.bar(
            at, [value for _, (value, _, _) in shown], 0.9 * width,
            color=look.colour, hatch=hatch, edgecolor="white", linewidth=0, label=row,
        )  # fmt: skip
        sure = [
            (x, low, high)
            for x, (_, (_, low, high)) in zip(at, shown, strict=True)
            if low is not None and high is not None
        ]
        if sure:
            axes.vlines(*zip(*sure, strict=True), color="black", linewidth=0.5)
    axes.set_xticks(range(len(names)), [folded(name.replace("_", " "), 14) for name in names])
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("score")
    axes.grid(axis="y")
