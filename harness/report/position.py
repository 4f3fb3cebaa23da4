"""How the loss runs along the input: a line for each method, a panel for each row and length."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.cell import Result
from harness.lengths import label
from harness.report.plot import COLOURS, empty_panels, folded, legend, methods_of, save
from harness.report.sheet import apart, named

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 32
"""Of positions, as wide as one another on a logarithmic scale, the first of 16 tokens."""
Losses = Mapping[str, np.ndarray]


def position(results: Sequence[tuple[Result, Losses]], path: Path) -> None:
    """Mean loss by position with the spread of documents around it.

    Args:
        results: each with its per-token losses in nats, by document.
        path: the picture.

    Raises:
        ValueError: no losses were kept, or the picture is of an unknown kind.
    """
    kept = [(r, long) for r, losses in results if (long := whole(losses, r.cell.length))]
    if not kept:
        raise ValueError(
            "No losses are kept beside the results here: they are not in git, and perplexity and "
            "longppl leave them where they are measured."
        )
    names = apart((r.cell.base, r.cell.task) for r, _ in kept)
    groups: dict[str, list[tuple[Result, list[np.ndarray]]]] = {}
    for r, long in kept:
        title = f"{r.cell.base} · {names[r.cell.base, r.cell.task]} · {label(r.cell.length)}"
        groups.setdefault(title, []).append((r, long))
    methods = methods_of([r for r, _ in kept])
    figure, panels = empty_panels(len(groups), 6.4, 3.9)
    for axes, (title, group) in zip(panels, groups.items(), strict=True):
        for result, long in group:
            index = methods.index(named(result.cell))
            _curve(axes, long, methods[index], COLOURS[index % len(COLOURS)])
        _dress(axes, title)
    legend(figure, panels, methods, columns=4)
    save(figure, path)


def whole(losses: Losses, length: int) -> list[np.ndarray]:
    """Of inputs that were scored from their first token on, to the length or close to it."""
    return [found for found in losses.values() if len(found) >= 0.9 * (length - 1)]


def binned(losses: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By bin of positions: where it ends, the mean over documents, and its standard error.

    Args:
        losses: of each document, from its first token on; each at least as long as the first bin.

    Returns:
        Three arrays, (bins,); the error is 0 for one document.
    """
    longest = min(map(len, losses))
    edges = np.unique(np.geomspace(min(16, longest), longest, BINS).astype(int))
    starts = np.r_[0, edges[:-1]]
    sums = np.array([np.add.reduceat(one[:longest].astype(np.float64), starts) for one in losses])
    means = sums / (edges - starts)
    spread = means.std(0, ddof=1) if len(losses) > 1 else np.zeros(len(edges))
    return edges, means.mean(0), spread / np.sqrt(len(losses))


def _curve(axes: "Axes", losses: Sequence[np.ndarray], name: str, colour: str) -> None:
    edges, mean, error = binned(losses)
    axes.plot(edges, mean, label=name, color=colour, linewidth=1.6)
    axes.fill_between(edges, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)


def _dress(axes: "Axes", title: str) -> None:
    axes.set_title(folded(title), fontsize=11)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda x, _: label(round(x)))
    axes.set_xlabel("position, tokens")
    axes.set_ylabel("loss, nats")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
