"""How a search for factors goes: the best perplexity, and the worst parent's, by generation.

Ding et al. 2024, https://arxiv.org/abs/2402.13753, figure 6, draw the same. A search keeps its
state beside its factors, as NAME.search.json.
"""

import json
from collections.abc import Iterator, Sequence
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.lengths import label
from harness.report.figures.style import (
    COLOURS,
    LINES,
    MARKERS,
    SINGLE,
    Picture,
    legend,
    panels,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pictures(places: Sequence[Path]) -> Iterator[Picture]:
    """All searches in one.

    Raises:
        ValueError: none was given, or one has no history.
    """
    if not places:
        raise ValueError("no search was given: --search NAME.search.json")
    yield Picture(
        name="search",
        caption=(
            "Search for factors: perplexity of the best individual and of the last parent, by "
            "individuals looked at."
        ),
        figure=draw([read(place) for place in places]),
    )


def read(place: Path) -> dict[str, Any]:
    """A search's state: what was searched for, and a line for each generation.

    Raises:
        ValueError: the file holds none, or no generation with a finite loss yet.
    """
    try:
        kept = json.loads(place.read_text("utf-8"))
        lines = [
            (line["evaluations"], line["best"], line["worst_parent"]) for line in kept["history"]
        ]
        state = {"search": dict(kept["search"]), "history": lines}
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{place} is no search's state: give NAME.search.json.") from None
    if not any(best is not None for _, best, _ in lines):
        raise ValueError(f"{place} has no generation with a finite loss yet.")
    return state


@styled
def draw(searches: Sequence[dict[str, Any]]) -> "Figure":
    """Perplexity by individuals; a colour for each search, the last parent thin."""
    figure, (axes,) = panels(1, SINGLE, 1.9)
    for i, state in enumerate(searches):
        look = {"color": COLOURS[i % len(COLOURS)], "linestyle": LINES[i // len(COLOURS) % 4]}
        for column, name, more in (
            (1, _name(state["search"]), {"marker": MARKERS[i % len(MARKERS)]}),
            (2, f"{_name(state['search'])}, last parent", {"linewidth": 0.6, "alpha": 0.8}),
        ):
            points = [(line[0], exp(line[column])) for line in state["history"] if line[column]]
            if points:
                every = max(1, len(points) // 8)
                axes.plot(*zip(*points, strict=True), label=name, markevery=every, **look, **more)
    axes.set_xlabel("individuals looked at")
    axes.set_ylabel("perplexity")
    axes.grid(axis="y")
    legend(figure, [axes])
    return figure


def _name(search: dict[str, Any]) -> str:
    model, target = search.get("model", "a model"), search.get("target")
    return f"{model} to {label(target)}" if isinstance(target, int) else str(model)
