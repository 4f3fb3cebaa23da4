"""What a person sees while a model learns: how far it is, its loss, and what it takes."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.report.live import duration, size

BARS = "▁▂▃▄▅▆▇█"


class Ahead(Protocol):
    """As much of a course as a display needs."""

    model: str
    method: str
    recipe: str

    @property
    def updates(self) -> int: ...


class Learning:
    """A training's `Watch` for a terminal."""

    def __init__(self, to: Console) -> None:
        self._losses: list[float] = []
        self._entry: Mapping[str, float] = {}
        self._course: Ahead | None = None
        self._first = self._safe = 0
        self._started = time.monotonic()
        self._live = Live(self, console=to, refresh_per_second=2, transient=True)
        self._to = to

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def begun(self, course: Ahead, done: int) -> None:
        self._course, self._first, self._safe = course, done, done
        self._started = time.monotonic()

    def updated(self, entry: Mapping[str, float]) -> None:
        self._entry = entry
        self._losses.append(entry["loss"])

    def saved(self, step: int) -> None:
        self._safe = step

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self._course:
            yield Text("getting ready")
            return
        whole, step = self._course.updates, int(self._entry.get("step", self._first))
        elapsed = time.monotonic() - self._started
        made = step - self._first
        left = f" · about {duration(elapsed / made * (whole - step))} left" if made else ""
        yield Text.assemble(
            (f"{step} of {whole} updates", "bold"),
            f" · {duration(elapsed)}{left} · {self._course.method}, recipe {self._course.recipe}",
        )
        row = Table.grid(padding=(0, 1))
        row.add_row(ProgressBar(total=whole, completed=step, width=30), Text(facts(self._entry)))
        yield row
        yield Text(f"loss  {drawn(self._losses, options.max_width - 8)}", "cyan")
        yield Text(f"safe up to update {self._safe}", "dim")


class Updates:
    """The same for a log: a line for each update, on standard error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def begun(self, course: Ahead, done: int) -> None:
        self._whole = course.updates
        if done:
            print(f"going on after update {done}", file=sys.stderr, flush=True)

    def updated(self, entry: Mapping[str, float]) -> None:
        print(f"{entry['step']}/{self._whole}  {facts(entry)}", file=sys.stderr, flush=True)

    def saved(self, step: int) -> None: ...


def facts(entry: Mapping[str, float]) -> str:
    """An update in a line: `loss 3.211 · rate 1e-04 · 120 tokens/s · 2.1 GB`."""
    if not entry:
        return "the first update"
    return (
        f"loss {entry['loss']:.4f} · rate {entry['learning_rate']:.2g} · "
        f"{entry['tokens_per_second']:,.0f} tokens/s · {size(entry['peak_memory'])}"
    )


def drawn(values: list[float], width: int) -> str:
    """A curve in a line of blocks, lowest to highest; as many of the last values as fit."""
    shown = values[-max(1, width) :]
    low, high = min(shown, default=0.0), max(shown, default=0.0)
    steps = len(BARS) - 1
    return "".join(
        BARS[round((v - low) / (high - low) * steps) if high > low else 0] for v in shown
    )
