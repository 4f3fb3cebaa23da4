"""A benchmark of many datasets at one length: groups of bars, a bar for each method.

No radar: its area depends on the order of its axes. Where a row averages the datasets by group, as
LongBench's leaderboard does, the groups are shown; else each dataset that was measured.
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
from harness.report.sheet import named

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
    """One for each model and length.

    Raises:
        ValueError: no result is of this benchmark.
    """
    mine = [r for r in results if r.value is not None and _family(r) == benchmark]
    if not mine:
        raise ValueError(f"no result is of {benchmark}")
    for base, length in dict.fromkeys((r.cell.base, r.cell.length) for r in mine):
        there = [r for r in mine if (r.cell.base, r.cell.length) == (base, length)]
        yield Picture(
            name=f"bars-{slug(f'{base} {benchmark} {label(length)}')}",
            caption=f"{benchmark}, {base} at {label(length)} tokens.{_whiskers(there)}",
            figure=draw(there),
        )


@styled
def draw(results: Sequence[Result]) -> "Figure":
    """Groups of bars for one model at one length.

    Raises:
        ValueError: fewer than three datasets or groups were scored.
    """
    scores = _scores(results)
    names = list(dict.fromkeys(name for row in scores.values() for name in row))
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


def _scores(results: Sequence[Result]) -> Scores:
    """Groups of the rows that have them; else datasets."""
    averaged = [r for r in results if "average" in r.parts]
    found: Scores = {}
    for r in averaged or results:
        if r.value is None:
            continue
        row = found.setdefault(named(r.cell), {})
        if averaged:
            row |= {group: (r.parts[group], None, None) for group in _groups(r)}
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
