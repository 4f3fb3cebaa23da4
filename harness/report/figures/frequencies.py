"""What each method does to each pair of channels: how much slower it turns, and how long it takes.

A pair turns by its frequency each token; a wavelength, 2 pi over it, is one whole turn. Pairs that
turn less than once in the trained window meet angles that the model has never seen
(Peng et al. 2023, https://arxiv.org/abs/2309.00071, section 3.1), which is what methods prevent.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import nan, pi
from typing import TYPE_CHECKING

from harness.cell import UNEXTENDED, Result
from harness.lengths import label
from harness.report.figures.style import (
    DOUBLE,
    Picture,
    legend,
    logarithmic,
    looks,
    mark,
    panels,
    slug,
    styled,
)
from harness.report.sheet import named

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NONE = "no result says what its method makes of the rotary frequencies"


def pictures(results: Sequence[Result], windows: Mapping[str, int]) -> Iterator[Picture]:
    """One for each model, at the longest length that was measured.

    Raises:
        ValueError: no result says which frequencies it was measured with.
    """
    bases = dict.fromkeys(r.cell.base for r in results if _of(r))
    if not bases:
        raise ValueError(NONE)
    for base in bases:
        mine = [r for r in results if r.cell.base == base]
        longest = max(r.cell.length for r in mine if _of(r))
        yield Picture(
            name=f"frequencies-{slug(base)}",
            caption=(
                f"What each method makes of {base}'s rotary embedding to read {label(longest)} "
                "tokens: how many times slower each pair of channels turns (left) and the tokens "
                "of one whole turn (right)."
            ),
            figure=draw(mine, windows.get(base)),
        )


@styled
def draw(results: Sequence[Result], window: int | None = None) -> "Figure":
    """Two panels: how many times slower each pair turns, and its wavelength.

    Raises:
        ValueError: no result says which frequencies it was measured with.
    """
    found = _longest(results)
    if not found:
        raise ValueError(f"There is nothing to draw: {NONE}.")
    as_it_is = next(
        (_of(r) for r in found.values() if r.cell.method == UNEXTENDED),
        [max(pair) for pair in zip(*map(_of, found.values()), strict=True)],
    )
    longest = max(r.cell.length for r in found.values())
    figure, (slower, waves) = panels(2, DOUBLE, 2.1)
    for row, look in looks(r.cell for r in found.values()).items():
        mine, at = _of(found[row]), found[row].cell.length
        name = row if at == longest else f"{row}, at {label(at)}"
        words = {**look.words, "markevery": max(1, len(mine) // 8), "label": name}
        pairs = range(len(mine))
        how = [a / b if b else nan for a, b in zip(as_it_is, mine, strict=True)]
        slower.plot(pairs, how, **words)  # a pair that stands still is not drawn
        waves.plot(pairs, [2 * pi / f if f else nan for f in mine], **words)
    for axes, said in ((slower, "times slower"), (waves, "wavelength, tokens")):
        logarithmic(axes)
        axes.set_xlabel("pair of channels, fastest first")
        axes.set_ylabel(said)
        axes.grid(axis="y")
    if window:
        mark(waves, window, f"trained to {label(window)}", vertical=False)
    legend(figure, [slower])
    return figure


def _of(result: Result) -> list[float]:
    """Radians per token, of each pair; none where nothing turns."""
    found = result.provenance.get("method", {}).get("frequencies") or []
    return found if any(found) else []


def _longest(results: Sequence[Result]) -> dict[str, Result]:
    """By row, its result at the longest length; of those with as many pairs as the first."""
    found: dict[str, Result] = {}
    for r in results:
        row = named(r.cell)
        if _of(r) and (row not in found or r.cell.length > found[row].cell.length):
            found[row] = r
    counts = {row: len(_of(r)) for row, r in found.items()}
    most = max(counts.values(), default=0)
    return {row: r for row, r in found.items() if counts[row] == most}
