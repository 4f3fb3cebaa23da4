"""How the loss runs along the input: a line for each method, a panel for each row and length."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.cell import Cell, Result
from harness.lengths import label
from harness.report.figures.style import (
    DOUBLE,
    SINGLE,
    Look,
    Picture,
    by_length,
    folded,
    groups,
    legend,
    looks,
    mark,
    panels,
    slug,
    styled,
)
from harness.report.sheet import named

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 32
"""Of positions, as wide as one another on a logarithmic scale, the first of 16 tokens."""
Losses = Mapping[str, np.ndarray]
Kept = tuple[Result, Losses]
"""A result with its per-token losses in nats, by document."""


def pictures(
    results: Sequence[Result], losses: Callable[[Cell], Losses], windows: Mapping[str, int]
) -> Iterator[Picture]:
    """One for each model and task, at the longest input whose losses are still there.

    Raises:
        ValueError: no losses are.
    """
    found = False
    for title, group in groups(r for r in results if r.value is not None).items():
        there = _longest(group, losses)
        if not there:
            continue
        found, longest = True, there[0][0].cell.length
        yield Picture(
            name=f"position-{slug(title)}",
            caption=(
                f"Mean loss by position in inputs of {label(longest)} tokens: {title}. "
                "Bands are 95 % intervals over documents."
            ),
            figure=draw(there, windows, width=SINGLE, titles=False),
        )
    if not found:
        raise ValueError("no losses lie beside the results; they stay where it was measured")


def _longest(group: list[Result], losses: Callable[[Cell], Losses]) -> list[Kept]:
    for length in sorted({r.cell.length for r in group}, reverse=True):
        kept = [(r, losses(r.cell)) for r in group if r.cell.length == length]
        if there := [(r, one) for r, one in kept if whole(one, length)]:
            return there
    return []


@styled
def draw(
    kept: Sequence[Kept],
    windows: Mapping[str, int] | None = None,
    *,
    width: float = DOUBLE,
    titles: bool = True,
) -> "Figure":
    """Mean loss by position, with its interval where several documents were read.

    Raises:
        ValueError: no losses were kept.
    """
    found = [(r, long) for r, losses in kept if (long := whole(losses, r.cell.length))]
    if not found:
        raise ValueError(
            "No losses are kept beside the results here: they are not in git, and perplexity and "
            "longppl leave them where they are measured."
        )
    held: dict[str, list[tuple[Result, list[np.ndarray]]]] = {}
    titled = {r.cell: title for title, group in groups(r for r, _ in found).items() for r in group}
    for r, long in found:
        held.setdefault(f"{titled[r.cell]} · {label(r.cell.length)}", []).append((r, long))
    every = looks(r.cell for r, _ in found)
    across = 1 if len(held) == 1 else 2
    figure, axes = panels(len(held), width, 2.3 if width > SINGLE else 2.1, most=across)
    for one, (title, group) in zip(axes, held.items(), strict=True):
        order = {row: place for place, row in enumerate(every)}
        for r, long in sorted(group, key=lambda pair: order[named(pair[0].cell)]):
            _curve(one, long, named(r.cell), every[named(r.cell)])
        _dress(one, group, windows or {})
        if titles:
            one.set_title(folded(title, int(width / across * 17)), pad=11)
    legend(figure, axes, every)
    return figure


def whole(losses: Losses, length: int) -> list[np.ndarray]:
    """Of inputs that were scored from their first token on, to the length or close to it."""
    return [found for found in losses.values() if len(found) >= 0.9 * (length - 1)]


def binned(losses: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By bin of positions: where it ends, the mean over documents, and its 95 % interval.

    Args:
        losses: of each document, from its first token on; each at least as long as the first bin.

    Returns:
        Three arrays, (bins,), the third half the width of Student's t interval; 0 of one document.
    """
    from scipy.special import stdtrit

    longest = min(map(len, losses))
    edges = np.unique(np.geomspace(min(16, longest), longest, BINS).astype(int))
    starts = np.r_[0, edges[:-1]]
    sums = np.array([np.add.reduceat(one[:longest].astype(np.float64), starts) for one in losses])
    means = sums / (edges - starts)
    if len(losses) == 1:
        return edges, means[0], np.zeros(len(edges))
    error = means.std(0, ddof=1) / np.sqrt(len(losses))
    return edges, means.mean(0), stdtrit(len(losses) - 1, 0.975) * error


def _curve(axes: "Axes", losses: Sequence[np.ndarray], name: str, look: Look) -> None:
    edges, mean, error = binned(losses)
    low = np.maximum(mean - error, 0)  # which no loss is below
    axes.fill_between(edges, low, mean + error, color=look.colour, alpha=0.07, linewidth=0)
    axes.plot(edges, mean, label=name, **look.words, markevery=(2, 6))


def _dress(
    axes: "Axes", group: list[tuple[Result, list[np.ndarray]]], windows: Mapping[str, int]
) -> None:
    longest = max(r.cell.length for r, _ in group)
    first = next(n for n in (16, longest) if n <= longest)
    doublings = [first << i for i in range(0, 32, 2) if first << i < longest / 2]
    by_length(axes, [*doublings, longest], "position, tokens")
    axes.set_ylabel("loss, nats")
    axes.grid(axis="y")
    if (window := windows.get(group[0][0].cell.base)) and window < longest:
        mark(axes, window, f"trained to {label(window)}")
