"""Pictures of results: a value by length, and where in the input a key is found."""

from collections.abc import Sequence
from math import ceil, isnan, log2, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cell import UNEXTENDED, Result
from harness.lengths import label
from harness.report.sheet import SHARES, apart, named

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ["#4d4d4d", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]
COLOURS += ["#7f3c8d", "#a6761d", "#999933"]
"""Okabe and Ito's, which the colour-blind tell apart, and three more; grey for the model as is."""
MARKERS = "osD^vPXp*<>"
DODGE = 0.3
"""Doublings of length that the methods' marks spread over, so that none hides another."""
DEPTH = "depth "
"""What parts of a score that belong to one depth begin with."""


def curve(results: Sequence[Result], path: Path) -> None:
    """Value by length, a line for each method with its 95 % interval; a panel for each task.

    Raises:
        ValueError: nothing was scored, or the picture is of an unknown kind.
    """
    groups = _groups(_scored(results))
    methods = methods_of(results)
    figure, panels = empty_panels(len(groups), 6.4, 3.9)
    for axes, (title, group) in zip(panels, groups.items(), strict=True):
        for index, method in enumerate(methods):
            _line(axes, [r for r in group if named(r.cell) == method], index, len(methods))
        _dress(axes, title, group)
    legend(figure, panels, methods, columns=3 + 2 * (len(groups) > 1))
    save(figure, path)


def depth(results: Sequence[Result], path: Path) -> None:
    """How often a key is found, by length and by depth; a panel for each method.

    Raises:
        ValueError: no result has depths, or the picture is of an unknown kind.
    """
    found = [r for r in results if _by_depth(r)]
    if not found:
        raise ValueError("No result here has depths to draw; passkey has: --where task=passkey.")
    groups = _groups(found)
    panels = [
        (title if len(groups) > 1 else "", [r for r in group if named(r.cell) == method])
        for title, group in groups.items()
        for method in methods_of(group)
    ]
    figure, axes = empty_panels(len(panels), 3.5, 2.5)
    for one, (title, row) in zip(axes, panels, strict=True):
        picture = _map(one, row, found)
        one.set_title(folded(f"{title}\n{named(row[0].cell)}".strip()), fontsize=10)
        one.label_outer()
    if len(groups) == 1:
        figure.suptitle(next(iter(groups)))
    bar = figure.colorbar(picture, ax=axes, aspect=40, pad=0.01, format="{x:.0%}")
    bar.set_label("found")
    bar.outline.set_visible(False)
    save(figure, path)


def legend(
    figure: "Figure", panels: "Sequence[Axes]", methods: Sequence[str], *, columns: int
) -> None:
    """One for all panels, below them: each method that any of them shows, once."""
    handles = {
        name: handle
        for axes in panels
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    names = [method for method in methods if method in handles]
    figure.legend(
        [handles[name] for name in names],
        names,
        loc="outside lower center",
        ncols=min(len(names), columns),
        frameon=False,
    )


def _scored(results: Sequence[Result]) -> list[Result]:
    scored = [r for r in results if r.value is not None]
    if not scored:
        raise ValueError("There is nothing to draw: no result here has a value.")
    return scored


def _groups(results: Sequence[Result]) -> dict[str, list[Result]]:
    """By model and task, in words."""
    names = apart((r.cell.base, r.cell.task) for r in results)
    groups: dict[str, list[Result]] = {}
    for r in results:
        name = names[r.cell.base, r.cell.task]
        groups.setdefault(f"{r.cell.base} · {name}", []).append(r)
    return groups


def methods_of(results: Sequence[Result]) -> list[str]:
    """The model as it is first, then by name: a method looks alike in every panel."""
    return sorted({named(r.cell) for r in results}, key=lambda name: (name != UNEXTENDED, name))


def empty_panels(count: int, width: float, height: float) -> "tuple[Figure, list[Axes]]":
    """So many axes, none of them empty, about twice as many across as down."""
    from matplotlib.figure import Figure

    def unlike_a_page(columns: int) -> float:
        rows = ceil(count / columns)
        return columns * rows - count + abs(columns / rows - 2)

    columns = min(range(1, min(count, 5) + 1), key=unlike_a_page)
    rows = ceil(count / columns)
    size = (width * columns, height * rows + 0.8)
    figure = Figure(figsize=size, layout="constrained", dpi=150)
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(count)]


def _line(axes: "Axes", row: list[Result], index: int, count: int) -> None:
    if not row:
        return
    row = sorted(row, key=lambda r: r.cell.length)
    aside = 2 ** (DODGE * (index - (count - 1) / 2) / count)
    y = [r.value for r in row if r.value is not None]
    below = [r.value - r.low if r.value and r.low is not None else 0.0 for r in row]
    above = [r.high - r.value if r.high is not None and r.value is not None else 0.0 for r in row]
    axes.errorbar(
        [r.cell.length * aside for r in row],
        y,
        [below, above],
        label=named(row[0].cell),
        color=COLOURS[index % len(COLOURS)],
        marker=MARKERS[index % len(MARKERS)],
        linestyle=("-", "--", ":")[index // len(COLOURS) % 3],
        markersize=5,
        linewidth=1.6,
        elinewidth=0.9,
    )


def _dress(axes: "Axes", title: str, group: list[Result]) -> None:
    metric = group[0].metric
    axes.set_title(folded(title), fontsize=11)
    axes.set_xlabel("tokens")
    axes.set_xscale("log", base=2)
    _ticks(axes, sorted({r.cell.length for r in group}))
    values = [r.value for r in group if r.value is not None]
    if metric in SHARES:
        axes.set_ylim(-0.04, 1.04)
        axes.yaxis.set_major_formatter("{x:.0%}")
    elif min(values) > 0 and max(values) / min(values) > 8:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:,.4g}")
        axes.yaxis.set_minor_formatter("")
    axes.set_ylabel(metric)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _ticks(axes: "Axes", lengths: list[int]) -> None:
    """A label for each length, or for as many as keep apart."""
    from matplotlib.ticker import NullFormatter, NullLocator

    apart = (log2(lengths[-1] / lengths[0]) or 1) / 11
    shown = lengths[:1]
    for length in lengths[1:]:
        if log2(length / shown[-1]) >= apart:
            shown.append(length)
    axes.set_xticks(shown, [label(n) for n in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    if len(lengths) == 1:
        axes.set_xlim(lengths[0] / 2, lengths[0] * 2)


def _by_depth(result: Result) -> dict[float, float]:
    parts = result.parts.items()
    return {float(p.removeprefix(DEPTH)): v for p, v in parts if p.startswith(DEPTH)}


def _map(axes: "Axes", row: list[Result], every: list[Result]) -> Any:
    """One method's shares over the lengths and depths of all; grey where there is none."""
    lengths = sorted({r.cell.length for r in every})
    depths = sorted({d for r in every for d in _by_depth(r)})
    at = {r.cell.length: _by_depth(r) for r in row}
    grid = [[at.get(n, {}).get(d, nan) for n in lengths] for d in depths]
    axes.set_facecolor("#e4e4e4")
    picture = axes.imshow(grid, cmap="YlGnBu", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(lengths)), [label(n) for n in lengths], fontsize=8)
    axes.set_yticks(range(len(depths)), [f"{d:.0%}" for d in depths], fontsize=8)
    axes.set_xlabel("tokens")
    axes.set_ylabel("depth")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for y, line in enumerate(grid):
        for x, share in enumerate(line):
            said, ink = ("·", "#777777") if isnan(share) else (f"{100 * share:.0f}", "black")
            ink = "white" if share > 0.55 else ink
            axes.text(x, y, said, ha="center", va="center", fontsize=7, color=ink)
    return picture


def folded(title: str, width: int = 60) -> str:
    from textwrap import fill

    return "\n".join(fill(line, width) for line in title.split("\n"))


def save(figure: "Figure", path: Path) -> None:
    known = sorted(figure.canvas.get_supported_filetypes())
    if path.suffix.removeprefix(".") not in known:
        raise ValueError(f"{path} is no picture: its name must end in one of {', '.join(known)}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
