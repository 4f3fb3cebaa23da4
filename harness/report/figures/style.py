"""One style for every figure: legible at column width, and a method looks alike wherever it is.

Colours are Okabe and Ito's (https://jfly.uni-koeln.de/color/) and three more that the colour-blind
tell from those and from one another at least as well as those among themselves; methods that share
one differ in mark and line. Rows of one method with other parameters differ in filling and line.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from itertools import pairwise
from math import ceil, floor, log2, log10
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from zlib import crc32

from harness import catalog
from harness.cell import UNEXTENDED, Cell, Result
from harness.lengths import label
from harness.metric import is_share
from harness.report.sheet import apart, named

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")
SINGLE, DOUBLE = 3.3, 6.9
"""Inches: a column of a two-column page, and both."""
GREY = "#4d4d4d"
"""Of the model as it is."""
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]
COLOURS += ["#320e9d", "#a46bf5", "#582f02"]
ORDER = ("pi", "ntk", "ntk-by-parts", "yarn", "dynamic-ntk", "dynamic-yarn", "llama3", "longrope")
ORDER += ("cl-scaling", "clex", "pose", "longlora", "random-pos", "alibi", "naive-ft")
ORDER += ("rerope", "leaky-rerope", "self-extend", "dca", "lm-infinite", "streaming-llm")
"""Who has which colour. A name that is not here comes after, so that no new method changes how the
others look; put it at the end, and it keeps its own."""
MARKERS = "sD^vPXp<"
LINES = ("-", "--", ":", "-.")
FILLS = ("full", "none")
FAINT, GRID, EMPTY = "#777777", "#dddddd", "#e4e4e4"
SMALL = 6.0
"""Points: the smallest text in any figure."""
APART = 0.22
"""Inches between two labels of an axis, before the layout takes its share."""
FAMILIES = ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1, 3))
"""Round numbers of each power of ten, the densest first."""
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
RC = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine has it
    "font.size": 7.0,
    "text.parse_math": False,  # a name with dollars in it stays text
    "axes.titlesize": 7.0,
    "axes.labelsize": 7.0,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "lines.markeredgewidth": 0.8,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "legend.columnspacing": 1.2,
    "legend.handletextpad": 0.5,
    "legend.labelspacing": 0.35,
    "figure.constrained_layout.h_pad": 0.02,
    "figure.constrained_layout.w_pad": 0.02,
    "pdf.fonttype": 42,
    "svg.hashsalt": "context-harness",
    "savefig.dpi": 200,
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure of a paper."""

    name: str
    """Of its files, without an ending."""
    caption: str
    figure: "Figure"

    @property
    def wide(self) -> bool:
        """It spans both columns."""
        return float(self.figure.get_size_inches()[0]) > SINGLE


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a row is drawn, wherever it is."""

    colour: str
    marker: str
    line: str = "-"
    fill: str = "full"

    @property
    def words(self) -> dict[str, Any]:
        """As matplotlib's `plot` takes them."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "linestyle": self.line,
            "fillstyle": self.fill,
        }


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Draw in this style, whatever matplotlib is set to."""

    @wraps(draw)
    def in_style(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib as mpl

        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(RC)
            return draw(*args, **kwargs)

    return in_style


@cache
def _places() -> dict[str, int]:
    """Each method's place among all, the model as it is aside."""
    rest = (name for name in catalog.names("methods") if name not in (UNEXTENDED, *ORDER))
    return {name: place for place, name in enumerate([*ORDER, *rest])}


def look(method: str, variant: int = 0, strangers: Sequence[str] = ()) -> Look:
    """A method's, by its place among all names; its variants differ in filling and line.

    Args:
        method: its bare name.
        variant: which of several rows of this method.
        strangers: names that no catalog has, which come after all others.
    """
    fill = FILLS[variant % len(FILLS)]
    if method == UNEXTENDED:
        return Look(colour=GREY, marker="o", line=_line(variant // 2), fill=fill)
    places = _places()
    others = [name for name in strangers if name not in places]
    i = places.get(method, len(places) + (others.index(method) if method in others else 0))
    turn = i // len(COLOURS)
    return Look(
        colour=COLOURS[i % len(COLOURS)],
        marker=MARKERS[(i + turn) % len(MARKERS)],
        line=_line(turn + variant // 2),
        fill=fill,
    )


def _line(turn: int) -> str:
    return LINES[turn % len(LINES)]


def looks(cells: Iterable[Cell]) -> dict[str, Look]:
    """By row, in the order of a legend: the model as it is first, then by name and number."""
    methods = {named(cell): catalog.split(cell.method)[0] for cell in cells}
    strangers = sorted({*methods.values()} - {UNEXTENDED, *_places()})
    seen: dict[str, int] = {}
    found = {}
    for row in sorted(methods, key=lambda row: (methods[row] != UNEXTENDED, _natural(row))):
        method = methods[row]
        found[row] = look(method, seen.get(method, 0), strangers)
        seen[method] = seen.get(method, 0) + 1
    return found


def groups(results: Iterable[Result]) -> dict[str, list[Result]]:
    """By model and task, in words."""
    every = list(results)
    names = apart((r.cell.base, r.cell.task) for r in every)
    found: dict[str, list[Result]] = {}
    for r in every:
        title = f"{r.cell.base} · {names[r.cell.base, r.cell.task]}"
        found.setdefault(title, []).append(r)
    return found


def slug(text: str) -> str:
    """Of words, a file's name that LaTeX takes."""
    said = "-".join(
        "".join(c if c.isascii() and c.isalnum() else " " for c in text).lower().split()
    )
    lost = any(c.isalnum() and not c.isascii() for c in text)
    return f"{said}-{crc32(text.encode()):08x}" if lost else said  # else two share a file


def panels(count: int, width: float, height: float, most: int = 5) -> "tuple[Figure, list[Axes]]":
    """So many axes, none of them empty, in rows of at most `most`; each row so high, in inches."""
    from matplotlib.figure import Figure

    rows = ceil(count / most)
    columns = ceil(count / rows)
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(count)]


def legend(figure: "Figure", axes: "Sequence[Axes]", order: Iterable[str] = ()) -> None:
    """One for all axes, below them: each row that any of them shows, once; the figure grows."""
    handles = {
        name: handle
        for one in axes
        for handle, name in zip(*one.get_legend_handles_labels(), strict=True)
    }
    names = [name for name in order if name in handles] or [*handles]
    if not names:
        return
    width, height = figure.get_size_inches()
    each = 0.36 + 0.047 * max(map(len, names))
    columns = max(1, min(len(names), int((width + 0.1) / each)))
    columns = ceil(len(names) / ceil(len(names) / columns))
    figure.set_size_inches(width, height + 0.05 + 0.125 * ceil(len(names) / columns))
    figure.legend(
        [handles[name] for name in names], names, loc="outside lower center", ncols=columns
    )


def by_length(axes: "Axes", lengths: Iterable[int], what: str = "tokens") -> None:
    """A logarithmic axis of lengths, a label at each, or at as many as keep apart."""
    from matplotlib.ticker import NullFormatter, NullLocator

    every = sorted(set(lengths))
    axes.set_xscale("log", base=2)
    inches = axes.bbox.width / axes.figure.dpi
    doublings = log2(every[-1] / every[0]) or 1.0
    least = doublings * 0.3 / max(inches, 0.3)
    shown = every[-1:]
    for length in reversed(every[:-1]):
        if log2(shown[-1] / length) >= least:
            shown.append(length)
    shown.reverse()
    axes.set_xticks(shown, [label(n) for n in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    margin = 2 ** max(0.12, 0.06 * doublings) if len(every) > 1 else 1.5
    axes.set_xlim(every[0] / margin, every[-1] * margin)
    axes.set_xlabel(what)


def by_value(axes: "Axes", metric: str, values: Sequence[float]) -> None:
    """Percent for shares; a logarithm where values are far apart."""
    axes.set_ylabel(metric)
    axes.grid(axis="y")
    if is_share(metric):
        axes.set_ylim(-0.04, 1.04)
        axes.yaxis.set_major_formatter("{x:.0%}")
    elif min(values) > 0 and max(values) / min(values) > 3:
        logarithmic(axes)


def logarithmic(axes: "Axes") -> None:
    """The vertical axis, with labels at round numbers, as many as keep apart."""
    from matplotlib.ticker import NullFormatter, NullLocator

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    least = log10(high / low) * APART * axes.figure.dpi / axes.bbox.height
    shown = round_numbers(low, high, least)
    axes.set_yticks(shown, [_said(x, powers=high >= 1e5) for x in shown])
    axes.set_ylim(low, high)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())


def round_numbers(low: float, high: float, least: float) -> list[float]:
    """The most of them that are `least` powers of ten apart."""
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    choices = [[m * 10.0**p for p in powers for m in family] for family in FAMILIES]
    choices += [[10.0**p for p in powers if p % each == 0] for each in range(1, len(powers) + 1)]
    if high / low < 3:  # too narrow for those: equal steps
        steps = (m * 10.0**p for p in range(powers[0] - 2, powers[-1] + 1) for m in (1, 2, 5))
        equal = [[s * i for i in range(ceil(low / s), floor(high / s) + 1)] for s in steps]
        choices = equal + choices
    within = [[x for x in choice if low <= x <= high] for choice in choices]
    apart = [c for c in within if all(log10(b / a) >= least for a, b in pairwise(c))]
    return max(apart, key=len)


def _said(x: float, *, powers: bool) -> str:
    if powers and log10(x).is_integer():
        return "10" + str(round(log10(x))).translate(RAISED)
    return f"{x:,.0f}" if x >= 1000 else f"{x:.4g}"


def mark(axes: "Axes", at: float, text: str, *, vertical: bool = True) -> None:
    """A thin line with its name, outside of what is drawn."""
    line = {"color": FAINT, "linewidth": 0.7, "linestyle": (0, (4, 2)), "zorder": 0.5}
    (axes.axvline if vertical else axes.axhline)(at, **line)
    where = (
        {"xy": (at, 1.0), "xycoords": ("data", "axes fraction"), "xytext": (0, 1.5), "ha": "center"}
        if vertical
        else {
            "xy": (0.0, at), "xycoords": ("axes fraction", "data"), "xytext": (3, 1), "ha": "left"
        }
    )  # fmt: skip
    axes.annotate(
        text, **where, textcoords="offset points", va="bottom", fontsize=SMALL, color=FAINT
    )


def folded(title: str, width: int) -> str:
    from textwrap import fill

    return "\n".join(fill(line, width) for line in title.split("\n"))


def _natural(row: str) -> tuple[Any, ...]:
    """So that a factor of 8 comes before one of 16."""
    import re

    return tuple((int(p), "") if p.isdigit() else (0, p) for p in re.split(r"(\d+)", row))
