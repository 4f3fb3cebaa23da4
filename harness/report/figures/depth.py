"""How often something is found, by the input's length and by how deep in it it lies: heat maps.

A panel for each method; Kamradt 2023, https://github.com/gkamradt/LLMTest_NeedleInAHaystack, drew
them first. Grey is what was not measured.
"""

from collections.abc import Iterator, Sequence
from math import isnan, nan
from typing import TYPE_CHECKING, Any

from harness.cell import Result
from harness.lengths import label
from harness.report.figures.style import (
    DOUBLE,
    EMPTY,
    FAINT,
    SINGLE,
    SMALL,
    Picture,
    folded,
    groups,
    looks,
    panels,
    slug,
    styled,
)
from harness.report.sheet import named

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEPTH = "depth "
"""What parts of a score that belong to one depth begin with."""
MOST = 5
"""Maps side by side."""


def pictures(results: Sequence[Result]) -> Iterator[Picture]:
    """One for each model and task that has depths.

    Raises:
        ValueError: none has.
    """
    found = [r for r in results if by_depth(r)]
    if not found:
        raise ValueError("no result has parts by depth; passkey has them")
    for title, group in groups(found).items():
        trials = sorted({r.n // len(by_depth(r)) for r in group})
        each = " to ".join(dict.fromkeys(map(str, (trials[0], trials[-1]))))
        yield Picture(
            name=f"depth-{slug(title)}",
            caption=(
                f"Share found, in percent, by length and depth: {title}. "
                f"{each} {'trial' if each == '1' else 'trials'} a square; grey was not measured."
            ),
            figure=draw(group, titles=False),
        )


@styled
def draw(results: Sequence[Result], *, titles: bool = True) -> "Figure":
    """A panel for each method, of each model and task.

    Raises:
        ValueError: no result has depths.
    """
    found = [r for r in results if by_depth(r)]
    if not found:
        raise ValueError("No result here has depths to draw; passkey has: --where task=passkey.")
    held = groups(found)
    rows = [
        (title if len(held) > 1 else "", [r for r in group if named(r.cell) == row])
        for title, group in held.items()
        for row in looks(r.cell for r in group)
    ]
    width = SINGLE if len(rows) < 3 else DOUBLE
    figure, axes = panels(len(rows), width, 1.25 if len(held) == 1 else 1.5, most=MOST)
    for i, (one, (title, row)) in enumerate(zip(axes, rows, strict=True)):
        picture = _map(one, row, found)
        one.set_title(folded(f"{title}\n{named(row[0].cell)}".strip(), 26), pad=3)
        one.label_outer()
        if i + one.get_gridspec().ncols >= len(rows):  # nothing stands below
            one.tick_params(labelbottom=True)
            one.set_xlabel("tokens", labelpad=2)
    if titles and len(held) == 1:
        figure.suptitle(next(iter(held)), fontsize=7.5)
    bar = figure.colorbar(picture, ax=axes, aspect=30, pad=0.015, fraction=0.03, format="{x:.0%}")
    bar.set_label("found")
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    return figure


def by_depth(result: Result) -> dict[float, float]:
    """By depth, 0 to 1: the share found."""
    parts = result.parts.items()
    return {float(p.removeprefix(DEPTH)): v for p, v in parts if p.startswith(DEPTH)}


def _map(axes: "Axes", row: list[Result], every: list[Result]) -> Any:
    """One method's shares over the lengths and depths of all; grey where there is none."""
    lengths = sorted({r.cell.length for r in every})
    depths = sorted({d for r in every for d in by_depth(r)})
    at = {r.cell.length: by_depth(r) for r in row}
    grid = [[at.get(n, {}).get(d, nan) for n in lengths] for d in depths]
    axes.set_facecolor(EMPTY)
    picture = axes.imshow(grid, cmap="YlGnBu", vmin=0, vmax=1, aspect="auto")
    _ticks(axes, [label(n) for n in lengths], [f"{d:.0%}" for d in depths])
    axes.set_xlabel("tokens", labelpad=2)
    axes.set_ylabel("depth", labelpad=2)
    axes.spines[:].set_visible(False)
    if len(lengths) <= 6 and len(depths) <= 6:
        _numbers(axes, grid)
    return picture


def _ticks(axes: "Axes", lengths: list[str], depths: list[str]) -> None:
    """As many labels as keep apart."""
    across, down = -(-len(lengths) // 4), -(-len(depths) // 6)
    axes.set_xticks(range(0, len(lengths), across), lengths[::across], fontsize=SMALL)
    axes.set_yticks(range(0, len(depths), down), depths[::down], fontsize=SMALL)
    axes.tick_params(length=0, pad=2)


def _numbers(axes: "Axes", grid: list[list[float]]) -> None:
    for y, line in enumerate(grid):
        for x, share in enumerate(line):
            said, ink = ("·", FAINT) if isnan(share) else (f"{100 * share:.0f}", "black")
            ink = "white" if share > 0.55 else ink
            axes.text(x, y, said, ha="center", va="center", fontsize=SMALL, color=ink)
