"""How a search for factors goes: the best perplexity, and the worst parent's, by generation.

Ding et al. 2024, https://arxiv.org/abs/2402.13753, figure 6, draw the same. A search keeps its
state beside its factors, as NAME.search.json.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.disk import read_json
from harness.lengths import label
from harness.report.figures.style import (
    COLOURS,
    LINES,
    MARKERS,
    SINGLE,
    Picture,
    legend,
    panels,
    slug,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pictures(places: Sequence[Path]) -> Iterator[Picture]:
    """One for each model, target and text: perplexities of unlike ones compare nothing.

    Raises:
        ValueError: none was given, or one has no history.
    """
    if not places:
        raise ValueError("no search was given: --search NAME.search.json")
    groups: dict[tuple[str, str], dict[Path, dict[str, Any]]] = {}
    for place in places:
        state = read(place)
        key = _name(state["search"]), _text(state["search"])
        groups.setdefault(key, {})[place] = state
    count = Counter(slug(name) for name, _ in groups)
    for (name, text), those in groups.items():
        apart = slug(text) if count[slug(name)] > 1 else ""
        yield Picture(
            name="-".join(filter(None, ("search", slug(name), apart))),
            caption=(
                f"Search for factors, {name}{text and f', on {text}'}: perplexity of the best "
                "individual and of the last parent, by individuals looked at."
            ),
            figure=draw(dict(zip(_called(name, [*those]), those.values(), strict=True))),
        )


def model_of(place: Path) -> str:
    """The model that was searched for, if its state says."""
    try:
        return str(read_json(place)["search"]["model"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def read(place: Path) -> dict[str, Any]:
    """A search's state: what was searched for, and a line for each generation.

    Raises:
        ValueError: the file holds none, or no generation with a finite loss yet.
    """
    try:
        kept = read_json(place)
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
def draw(searches: Mapping[str, dict[str, Any]]) -> "Figure":
    """Perplexity by individuals; a colour for each search, the last parent thin."""
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = panels(1, SINGLE, 1.9)
    for i, (name, state) in enumerate(searches.items()):
        look = {"color": COLOURS[i % len(COLOURS)], "linestyle": LINES[i // len(COLOURS) % 4]}
        for column, said, more in (
            (1, name, {"marker": MARKERS[i % len(MARKERS)]}),
            (2, f"{name}, last parent", {"linewidth": 0.6, "alpha": 0.8, "marker": "."}),
        ):
            points = [(line[0], exp(line[column])) for line in state["history"] if line[column]]
            if points:
                every = max(1, len(points) // 8)
                axes.plot(*zip(*points, strict=True), label=said, markevery=every, **look, **more)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("individuals looked at")
    axes.set_ylabel("perplexity")
    axes.grid(axis="y")
    legend(figure, [axes])
    return figure


def _name(search: dict[str, Any]) -> str:
    model, target = search.get("model", "a model"), search.get("target")
    return f"{model} to {label(target)}" if isinstance(target, int) else str(model)


def _text(search: dict[str, Any]) -> str:
    """What it reads, `stdlib:validation@b7713d67, 3 documents`, as far as it says."""
    corpus, samples = search.get("corpus"), search.get("samples")
    return ", ".join(filter(None, (corpus, f"{samples} documents" if samples else "")))


def _called(name: str, places: Sequence[Path]) -> list[str]:
    """What each search of a picture is called: alone by what it is of, else by its file."""
    if len(places) == 1:
        return [name]
    names = [place.name.removesuffix(".search.json") for place in places]
    if len({*names}) == len(names):
        return names
    return [place.as_posix().removesuffix(".search.json") for place in places]
