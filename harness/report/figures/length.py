"""A value by length: a line for each method, its 95 % interval a band, the trained window marked.

Where a few values are far above all others, the vertical axis is cut in two, so that the others
can be told apart; a line that leaves the lower part goes on in the upper one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from math import log2, nan, sqrt
from typing import TYPE_CHECKING

from harness.cell import Result
from harness.lengths import label
from harness.metric import is_share
from harness.report.figures.style import (
    DOUBLE,
    SINGLE,
    Look,
    Picture,
    by_length,
    by_value,
    folded,
    groups,
    legend,
    logarithmic,
    looks,
    mark,
    slug,
    styled,
)
from harness.report.sheet import named

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

GAP = 1.4
"""So many times the value below it must the next one be, for the axis to be cut between them."""
BANDS = 4
"""Rows whose bands can be told apart."""
DODGE = 0.12
"""Inches that the marks of a length spread over, so that none hides another; shares twice that."""
Windows = Mapping[str, int]
"""By model: tokens of the window it was trained on."""


def pictures(results: Sequence[Result], windows: Windows) -> Iterator[Picture]:
    """One for each model and task that was scored at two lengths or more."""
    found = False
    for title, group in groups(results).items():
        scored = _scored(group)
        if len({r.cell.length for r in scored}) > 1 and not _by_depth(scored):
            found = True
            yield Picture(
                name=f"length-{slug(title)}",
                caption=_caption(title, scored, windows),
                figure=draw(group, windows, width=SINGLE, titles=False),
            )
    if not found:
        raise ValueError("no task without depths was scored at two lengths or more")


@styled
def draw(
    results: Sequence[Result],
    windows: Windows | None = None,
    *,
    width: float = DOUBLE,
    titles: bool = True,
) -> "Figure":
    """A panel for each model and task.

    Raises:
        ValueError: nothing was scored.
    """
    from matplotlib.figure import Figure

    scored = _scored(results)
    if not scored:
        raise ValueError("There is nothing to draw: no result here has a value.")
    every = looks(r.cell for r in scored)
    found = {title: group for title, group in groups(results).items() if _scored(group)}
    columns = 1 if len(found) == 1 or width == SINGLE else 2
    rows = -(-len(found) // columns)
    height = 2.5 if width / columns < 4 else 2.9
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    frames = figure.subfigures(rows, columns, squeeze=False).ravel()
    drawn: list[Axes] = []
    for frame, (title, group) in zip(frames, found.items(), strict=False):
        drawn += _panel(frame, group, every, windows or {})
        if titles:
            drawn[-1 if len(frame.axes) == 1 else -2].set_title(
                folded(title, int(width / columns * 17)), pad=11
            )
    legend(figure, drawn, every)
    return figure


def _panel(
    frame: "SubFigure", group: list[Result], every: dict[str, Look], windows: Windows
) -> "list[Axes]":
    """One axes; or two, upper and lower, where the values fall apart."""
    failed = [r for r in group if r.value is None]
    group = _scored(group)
    cut = _cut(group)
    if cut is None:
        parts = [frame.add_subplot()]
    else:
        grid = frame.add_gridspec(2, 1, height_ratios=(1, 1.9), hspace=0.0)
        parts = [frame.add_subplot(grid[0]), frame.add_subplot(grid[1])]
    lengths = sorted({r.cell.length for r in group})
    inch = (log2(lengths[-1] / lengths[0]) or 1.0) * frame.dpi / parts[0].bbox.width
    bars = _bars(group)
    spread = DODGE * inch * (1 + bars)
    for axes in parts:
        for place, (row, look) in enumerate(every.items()):
            mine = [r for r in group if named(r.cell) == row]
            gaps = {r.cell.length for r in failed if named(r.cell) == row}
            _line(axes, mine, gaps, look, spread * (place / max(1, len(every) - 1) - 0.5), bars)
        by_length(axes, lengths)
        if window := _window(group, windows):
            said = f"trained to {label(window)}" if axes is parts[0] else ""
            mark(axes, window, said)
    values = [r.value for r in group if r.value is not None]
    by_value(parts[-1], group[0].metric, values)
    if cut is not None:
        _torn(parts[0], parts[1], group, cut)
    return parts


def _window(group: list[Result], windows: Windows) -> int | None:
    """What the model was trained to, if lengths on both sides of it, or it, were measured."""
    window, lengths = windows.get(group[0].cell.base), [r.cell.length for r in group]
    return window if window and min(lengths) <= window <= max(lengths) else None


def _bars(group: list[Result]) -> bool:
    """Whether intervals are bars: of shares, which jump, and of so many rows that bands blend."""
    return is_share(group[0].metric) or len({named(r.cell) for r in group}) > BANDS


def _scored(results: Iterable[Result]) -> list[Result]:
    return [r for r in results if r.value is not None]


def _line(
    axes: "Axes", row: list[Result], gaps: set[int], look: Look, aside: float, bars: bool
) -> None:
    """So many doublings to the right of where it is; broken where a length has no value."""
    if not row:
        return
    points = [(r.cell.length, r.value, _low(r), _high(r)) for r in row]
    points += [(length, nan, nan, nan) for length in gaps]
    lengths, values, low, high = zip(*sorted(points), strict=True)
    x = [length * 2**aside for length in lengths]
    if bars or len(row) == 1:
        axes.vlines(x, low, high, color=look.colour, linewidth=0.6, alpha=0.7)
    else:
        axes.fill_between(x, low, high, color=look.colour, alpha=0.07, linewidth=0)
    axes.plot(x, values, label=named(row[0].cell), **look.words)


def _cut(group: list[Result]) -> tuple[float, float] | None:
    """The ends of the lowest gap between values that is wide and has half of all below it."""
    values = sorted(r.value for r in group if r.value is not None)
    if is_share(group[0].metric) or values[0] <= 0 or len(values) < 8:
        return None
    upper = list(pairwise(values))[len(values) // 2 :]
    return next(((low, high) for low, high in upper if high / low > GAP), None)


def _torn(upper: "Axes", lower: "Axes", group: list[Result], cut: tuple[float, float]) -> None:
    """Give each part its range and show that something is left out between them."""
    below = [r for r in group if r.value is not None and r.value <= cut[0]]
    above = [r for r in group if r.value is not None and r.value >= cut[1]]
    between = sqrt(cut[0] * cut[1])
    lowest, highest = min(map(_low, below)), max(map(_high, above))
    lower.set_ylim(lowest / 1.04, min(max(map(_high, below)) * 1.04, between))
    upper.set_ylim(max(min(map(_low, above)) / 1.1, between), highest * 1.1)
    logarithmic(lower)
    logarithmic(upper)
    upper.grid(axis="y")
    upper.set_xlabel("")
    upper.tick_params(bottom=False, labelbottom=False)
    upper.spines["bottom"].set_visible(False)
    slash = {
        "marker": [(-1, -0.6), (1, 0.6)],
        "markersize": 5,
        "linestyle": "none",
        "color": "black",
        "markeredgewidth": 0.6,
        "clip_on": False,
    }
    upper.plot([0], [0], transform=upper.transAxes, **slash)
    lower.plot([0], [1], transform=lower.transAxes, **slash)


def _low(result: Result) -> float:
    return result.value or 0.0 if result.low is None else result.low


def _high(result: Result) -> float:
    return result.value or 0.0 if result.high is None else result.high


def _by_depth(group: list[Result]) -> bool:
    """It is drawn as maps instead."""
    return any(part.startswith("depth ") for r in group for part in r.parts)


def _caption(title: str, group: list[Result], windows: Windows) -> str:
    metric = group[0].metric
    words = [f"{metric[0].upper()}{metric[1:]} by length: {title}."]
    if any(r.low is not None for r in group):
        words.append(f"{'Bars' if _bars(group) else 'Bands'} are 95 % intervals.")
    if window := _window(group, windows):
        words.append(f"The model was trained to {label(window)} tokens (dashed).")
    if _cut(group):
        words.append("The vertical axis is broken.")
    return " ".join(words)
