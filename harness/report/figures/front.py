"""What training buys: the value of each row by the tokens it was trained on, and the Pareto front.

On the front are the rows that no other beats in tokens without being worse. A model as it is cost
none, and stands at the left.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from harness.cell import Result
from harness.effective import Point, pareto
from harness.lengths import label
from harness.metric import higher_is_better
from harness.report.figures.style import (
    FAINT,
    SINGLE,
    Picture,
    by_value,
    groups,
    legend,
    looks,
    panels,
    slug,
    styled,
)
from harness.report.page import counted
from harness.report.reach import budget
from harness.report.sheet import named

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEFT = 10
"""So many times fewer tokens than the fewest that any was trained on: where none are."""
ASIDE = 1.12
"""So many times further right than the one before is a row of as many tokens, so that bars show."""


def pictures(results: Sequence[Result]) -> Iterator[Picture]:
    """One for each model and task, at the longest length that rows of several budgets read."""
    found = False
    for title, group in groups(results).items():
        if rows := _rows(group):
            found = True
            yield Picture(
                name=f"front-{slug(title)}",
                caption=(
                    f"{_metric(rows[0])} at {label(rows[0].cell.length)} by the tokens trained "
                    f"on: {title}. Bars are 95 % intervals; grey joins the Pareto front."
                ),
                figure=draw(rows),
            )
    if not found:
        raise ValueError("no task was read by a trained model and another at one length")


@styled
def draw(results: Sequence[Result]) -> "Figure":
    """Of one model and task, at one length."""
    figure, (axes,) = panels(1, SINGLE, 2.1)
    every, values = looks(r.cell for r in results), [r.value or 0.0 for r in results]
    higher = higher_is_better(results[0].cell.task, results[0].metric)
    points = [
        Point(name=named(r.cell), tokens=_tokens(r) or 0, quality=value)
        for r, value in zip(results, values, strict=True)
    ]
    least = min(point.tokens for point in points if point.tokens)
    front = pareto(points, higher_is_better=higher)
    across = [point.tokens or least / LEFT for point in front]
    down = [point.quality for point in front]
    axes.plot(across, down, color=FAINT, linewidth=0.7, drawstyle="steps-post", zorder=0.5)
    places = _side_by_side([point.tokens or least / LEFT for point in points])
    for result, point, at in zip(results, points, places, strict=True):
        look = every[point.name].words | {"linestyle": "none", "label": point.name}
        if result.low is not None and result.high is not None:
            axes.vlines(at, result.low, result.high, color=look["color"], linewidth=0.6, alpha=0.7)
        axes.plot([at], [point.quality], **look)
    _by_tokens(axes, [point.tokens for point in points], least / LEFT)
    by_value(axes, results[0].metric, values)
    legend(figure, [axes], every)
    return figure


def _rows(group: Sequence[Result]) -> list[Result]:
    """Those at the longest length that rows of two budgets were scored at, if there is one."""
    told = [r for r in group if r.value is not None and _tokens(r) is not None]
    for length in sorted({r.cell.length for r in told}, reverse=True):
        rows = [r for r in told if r.cell.length == length]
        if len({_tokens(r) for r in rows}) > 1:
            return rows
    return []


def _metric(result: Result) -> str:
    return result.metric[0].upper() + result.metric[1:]


def _tokens(result: Result) -> int | None:
    """That it was trained on, beyond the model as it is; None: it does not say."""
    return budget(result.trained)[0] if result.cell.training else 0


def _side_by_side(places: Sequence[float]) -> list[float]:
    """Around where they are, those of one place in their order."""
    count, seen = Counter(places), Counter[float]()
    found = []
    for place in places:
        found.append(place * ASIDE ** (seen[place] - (count[place] - 1) / 2))
        seen[place] += 1
    return found


def _by_tokens(axes: "Axes", tokens: Sequence[int], none: float) -> None:
    """A logarithmic axis with a place for no tokens at all."""
    from matplotlib.ticker import NullFormatter, NullLocator

    some = sorted({n for n in tokens if n})
    powers = [10.0**i for i in range(3, 16) if some[0] / 1.6 < 10.0**i < some[-1] * 2]
    shown = [none] * (0 in tokens) + (powers[-5:] or some)
    axes.set_xscale("log")
    axes.set_xticks(shown, [counted(int(x)) if x != none else "0" for x in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim((none if 0 in tokens else some[0]) / 2.5, some[-1] * 2)
    axes.set_xlabel("tokens trained on")
