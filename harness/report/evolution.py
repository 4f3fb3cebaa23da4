"""What a person sees while factors are searched: generation, best perplexity, and when it ends."""

import sys
import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.report.live import duration


class Standing(Protocol):
    """How far a search is."""

    generation: int
    generations: int
    evaluations: int
    of: int
    read: int
    left: int
    saved: int
    best: float | None


class Evolution:
    """A search's `Watch` for a terminal."""

    def __init__(self, to: Console) -> None:
        self._now: Standing | None = None
        self._started = time.monotonic()
        self._live = Live(self, console=to, refresh_per_second=2, transient=True)

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

    def stands(self, it: Standing) -> None:
        self._now = it

    def generation(self, it: Standing) -> None:
        self._now = it
        self._live.console.print(Text(_line(it), "dim"))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        it = self._now
        if it is None:
            yield Text("getting ready")
            return
        elapsed = time.monotonic() - self._started
        left = f" · at most {duration(elapsed / it.read * it.left)} left" if it.read else ""
        yield Text.assemble(
            (f"{it.evaluations:,} of {it.of:,} individuals", "bold"),
            f" · {duration(elapsed)}{left} · {it.saved:,} documents not needed",
        )
        row = Table.grid(padding=(0, 1))
        best = "" if it.best is None else f"perplexity {it.best:.4f} at best"
        width = max(10, min(30, options.max_width // 4))
        row.add_row(ProgressBar(total=it.of, completed=it.evaluations, width=width), Text(best))
        yield row


class Generations:
    """The same for a log: a line for each generation, on standard error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def stands(self, it: Standing) -> None: ...

    def generation(self, it: Standing) -> None:
        print(_line(it), file=sys.stderr, flush=True)


def _line(it: Standing) -> str:
    best = "no finite loss yet" if it.best is None else f"perplexity {it.best:.4f} at best"
    return (
        f"generation {it.generation}/{it.generations}  {best}  {it.evaluations:,} individuals  "
        f"{it.saved:,} documents not needed"
    )
