"""What a cell takes: peak memory and time by length, beside the peers of benchmarks/.

A pass that reads several lengths at once is one point, at its longest. Methods cost nearly alike,
so a line is the median over methods and its band their range; what was read by other means, on
another device or with another kernel, is another line.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from harness.catalog import split
from harness.cell import Result
from harness.disk import read_json
from harness.report.figures.style import (
    COLOURS,
    DOUBLE,
    FILLS,
    MARKERS,
    Picture,
    by_length,
    legend,
    logarithmic,
    panels,
    slug,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Point:
    """What one pass took."""

    of: str
    """Whose line it is on."""
    length: int
    memory: float
    """Bytes at most."""
    each: float
    """Seconds a token."""


Benchmark = tuple[str, list[Point]]
"""Its model in small letters, and each of its sides."""


def pictures(results: Sequence[Result], benchmarks: Sequence[Benchmark]) -> Iterator[Picture]:
    """One for each model, with the benchmarks of that model.

    Raises:
        ValueError: no result says what it took at two lengths.
    """
    found = False
    for base in dict.fromkeys(r.cell.base for r in results):
        mine = passes(r for r in results if r.cell.base == base)
        beside = [p for model, both in benchmarks if model == base.lower() for p in both]
        if len({p.length for p in mine}) > 1:
            found = True
            where = dict.fromkeys(_device(r) for r in results if r.cell.base == base)
            yield Picture(
                name=f"cost-{slug(base)}",
                caption=(
                    f"Peak memory and time of {base} by length, on {'; '.join(filter(None, where))}"
                    ": the median over methods and, as a band, their range"
                    + (". Hollow: both sides of this project's benchmarks." if beside else ".")
                ),
                figure=draw(mine, beside),
            )
    if not found:
        raise ValueError("no model's results say what passes of two lengths took")


def read(file: Path) -> Benchmark:
    """A benchmark's figures.

    Raises:
        ValueError: the file holds none.
        OSError: it cannot be read.
    """
    kept = read_json(file)
    try:
        return str(kept.get("settings", {}).get("model", "")).lower(), sides(kept)
    except (AttributeError, TypeError):
        raise ValueError(f"{file} holds no benchmark's figures.") from None


@styled
def draw(ours: Sequence[Point], peers: Sequence[Point] = ()) -> "Figure":
    """Two panels: memory and time a token."""
    figure, (memory, time) = panels(2, DOUBLE, 1.9)
    names = list(dict.fromkeys(p.of for p in [*ours, *peers]))
    for i, name in enumerate(names):
        look = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        beside = not any(p.of == name for p in ours)
        look |= {"fillstyle": FILLS[beside], "linestyle": "--" if beside else "-", "label": name}
        points = [p for p in [*ours, *peers] if p.of == name]
        _line(memory, [(p.length, p.memory / 1e9) for p in points], look)
        _line(time, [(p.length, 1e3 * p.each) for p in points], look)
    for axes, said in ((memory, "peak memory, GB"), (time, "milliseconds a token")):
        by_length(axes, [p.length for p in [*ours, *peers]])
        low, high = axes.dataLim.intervaly
        if high / low > 4:
            logarithmic(axes)
        else:
            axes.set_ylim(bottom=0)
        axes.set_ylabel(said)
        axes.grid(axis="y")
    legend(figure, [memory])
    return figure


def passes(results: Iterable[Result]) -> list[Point]:
    """One for each that was made: the cells that were read together, together.

    A line is called by its task and, where there are several, by its device and kernel.
    """
    together: dict[tuple[str, ...], list[Result]] = {}
    for r in results:
        if r.value is not None and r.seconds and r.peak_memory:
            length = str(r.provenance.get("pass_length", r.cell.length))
            key = r.cell.model, r.cell.task, r.cell.method, length, _device(r), _kernel(r), _by(r)
            together.setdefault(key, []).append(r)
    devices, kernels = ({key[i] for key in together} for i in (4, 5))
    found = []
    for (_, task, _, length, device, kernel, by), cells in together.items():
        said = [split(task)[0], device * (len(devices) > 1), kernel * (len(kernels) > 1), by]
        found.append(
            Point(
                of=", ".join(filter(None, said)),
                length=int(length),
                memory=max(r.peak_memory for r in cells),
                each=sum(r.seconds for r in cells) / max(r.tokens or r.cell.length for r in cells),
            )
        )
    return found


def sides(kept: dict[str, Any]) -> list[Point]:
    """Of one benchmark's figures: each side that says what it took.

    Sides of different lengths are one line; sides that read the same are one each.
    """
    lengths = [n for n in kept.get("settings", {}).get("lengths", []) if isinstance(n, int)]
    script, found = str(kept.get("script", "benchmark")).replace("_", " "), []
    for name, facts in kept.get("sides", {}).items():
        own = facts.get("length") or facts.get("tokens")
        own = own if isinstance(own, int) else None
        length, read = own or max(lengths, default=0), own or sum(lengths)
        if length and facts.get("seconds") and facts.get("peak_memory"):
            each = facts["seconds"] / read
            point = Point(
                of=f"{script}: {name}", length=length, memory=facts["peak_memory"], each=each
            )
            found.append(point)
    if len({p.length for p in found}) == len(found):
        return [replace(p, of=script) for p in found]
    return found


def _line(axes: "Axes", points: list[tuple[int, float]], look: dict[str, Any]) -> None:
    lengths = sorted({n for n, _ in points})
    at = [[y for n, y in points if n == length] for length in lengths]
    if len(lengths) > 1:
        axes.fill_between(
            lengths, [*map(min, at)], [*map(max, at)], color=look["color"], alpha=0.15, linewidth=0
        )
    alone = {"linestyle": "none"} if len(lengths) == 1 else {}
    axes.plot(lengths, [*map(median, at)], **{**look, **alone})


def _device(result: Result) -> str:
    """The machine that it was measured on."""
    return str(result.provenance.get("device", ""))


def _kernel(result: Result) -> str:
    return str(result.provenance.get("kernel", ""))


def _by(result: Result) -> str:
    """How many threads and ranks read it, and whether what is kept lay outside the GPU."""
    facts = result.provenance
    counts = ((facts.get("threads") or 0, 1, "thread"), (facts.get("ranks") or 0, 2, "rank"))
    said = [f"{n} {what}{'s' * (n > 1)}" for n, least, what in counts if n >= least]
    return ", ".join([*said, *(["offloaded"] if facts.get("offload") else [])])
