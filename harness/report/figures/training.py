"""How a model learns: the loss of every update, smoothed, by tokens read.

`harness train` keeps a line for each update in log.jsonl, and what it trains in training.json.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from harness.disk import parsed, read_json
from harness.report.figures.style import (
    COLOURS,
    LINES,
    SINGLE,
    Picture,
    legend,
    panels,
    slug,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMOOTH = 0.9
"""Share of the mean so far that each update keeps."""
Curve = list[tuple[int, float]]
"""Tokens read and loss in nats, by update."""


def pictures(places: Sequence[Path]) -> Iterator[Picture]:
    """One for each base: losses of unlike models on unlike texts compare nothing.

    Raises:
        ValueError: none was given, or one has no log.
    """
    if not places:
        raise ValueError("no training was given: --training FOLDER")
    for base, those in groupby(sorted(places, key=lambda p: (base_of(p), p.name)), key=base_of):
        yield Picture(
            name="-".join(filter(None, ("training", slug(base)))),
            caption=(
                f"Training loss{base and f' of {base}'} by tokens read: each update (thin) and its "
                f"running mean, in which the past weighs {SMOOTH:g}."
            ),
            figure=draw({place.name: read(place) for place in those}),
        )


def base_of(place: Path) -> str:
    """The model that a training's folder began with, if it says."""
    try:
        return str(read_json(place / "training.json")["base"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def read(place: Path) -> Curve:
    """Of a training's folder, or its log.

    Raises:
        ValueError: there is no log, or it holds no update.
    """
    log = place / "log.jsonl" if place.is_dir() else place
    try:
        entries = [parsed(line, log) for line in log.read_text("utf-8").splitlines() if line]
        curve = [(int(entry["tokens"]), float(entry["loss"])) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(
            f"{place} has no log of a training: give a folder of harness train."
        ) from None
    if not curve:
        raise ValueError(f"{log} holds no update yet.")
    return curve


@styled
def draw(curves: dict[str, Curve]) -> "Figure":
    """A colour for each training."""
    figure, (axes,) = panels(1, SINGLE, 1.9)
    most = max(tokens for curve in curves.values() for tokens, _ in curve)
    unit, said = (1e6, "million ") if most >= 2e6 else (1e3, "thousand ")
    for i, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[i % len(COLOURS)]
        tokens = [at / unit for at, _ in curve]
        axes.plot(tokens, [loss for _, loss in curve], color=colour, linewidth=0.4, alpha=0.4)
        axes.plot(
            tokens, smoothed([loss for _, loss in curve]),
            color=colour, linestyle=LINES[i // len(COLOURS) % 4], label=name,
        )  # fmt: skip
    axes.set_xlabel(f"{said}tokens read")
    axes.set_ylabel("loss, nats")
    axes.grid(axis="y")
    legend(figure, [axes])
    return figure


def smoothed(losses: Sequence[float]) -> list[float]:
    """The running mean, without the bias towards its start (Kingma and Ba 2014, section 3)."""
    means, mean, weight = [], 0.0, 0.0
    for loss in losses:
        mean = SMOOTH * mean + (1 - SMOOTH) * loss
        weight = SMOOTH * weight + (1 - SMOOTH)
        means.append(mean / weight)
    return means
