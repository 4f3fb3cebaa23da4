"""What a person sees while a grid runs: the table as it fills, and how far the current cell is."""

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.cell import Cell, Result
from harness.lengths import label
from harness.plan import Planned
from harness.report.sheet import (
    Entry,
    Sheet,
    distinct,
    entry,
    named,
    readable,
    sheets,
    shown,
    told,
)
from harness.report.table import drawn


class Progress:
    """How much of a plan is done, and when the rest will be.

    The plan says what cells cost beside each other; what they really take is learned on the way.
    """

    def __init__(self, missing: Sequence[Planned]) -> None:
        self._cost = {planned.cell: max(planned.seconds, 1e-9) for planned in missing}
        self.started = time.monotonic()
        self.current: list[Cell] = []
        self.tokens = self.read = 0.0
        self.done = 0
        self.memory = 0
        self._spent = 0.0
        self._whole = sum(self._cost.values())

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    @property
    def remaining(self) -> float | None:
        """Seconds; None before anything is known."""
        spent = self._spent + self.share * sum(self._cost.get(c, 0.0) for c in self.current)
        return self.elapsed * (self._whole - spent) / spent if spent > 0 else None

    @property
    def share(self) -> float:
        """Of the current pass, 0 to 1."""
        return min(1.0, self.read / self.tokens) if self.tokens else 0.0

    def start(self, cells: Sequence[Cell], tokens: int) -> None:
        self.current, self.tokens, self.read = list(cells), float(tokens), 0.0

    def finish(self, result: Result) -> None:
        self.done += 1
        self.memory = max(self.memory, result.peak_memory)
        self._spent += self._cost.get(result.cell, 0.0)
        self.current = [cell for cell in self.current if cell != result.cell]


class Display:
    """A `Watch` for a terminal."""

    def __init__(self, plan: Sequence[Planned], done: Sequence[Result], to: Console) -> None:
        self._cells = [planned.cell for planned in plan]
        self._results = {result.cell: result for result in done}
        self._todo = [planned for planned in plan if planned.cell not in self._results]
        self._progress = Progress(self._todo)
        self._last = self._cells[0] if self._cells else None
        self._live = Live(self, console=to, refresh_per_second=4, transient=True)

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

    def cell_started(self, cells: Sequence[Cell], tokens: int) -> None:
        self._progress.start(cells, tokens)
        self._last = cells[0]

    def progressed(self, tokens: float) -> None:
        self._progress.read += tokens

    def cell_finished(self, result: Result) -> None:
        self._results[result.cell] = result
        self._progress.finish(result)
        self._last = result.cell

    def note(self, message: str) -> None:
        self._live.console.print(Text(f"note: {message}", "yellow"))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Group(self._headline(), self._bar(options.max_width), Text(""))
        if sheet := self._sheet():
            yield drawn(sheet, options.max_width)

    def _headline(self) -> Text:
        it = self._progress
        left = "" if it.remaining is None else f" · about {duration(it.remaining)} left"
        memory = f"{size(it.memory)} at most" if it.memory else f"{size(_resident())} now"
        return Text.assemble(
            (f"{it.done} of {len(self._todo)} cells", "bold"),
            f" · {duration(it.elapsed)}{left} · {memory}",
        )

    def _bar(self, width: int) -> Table:
        it = self._progress
        row = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=1.0, completed=it.share, width=max(10, min(30, width // 4)))
        row.add_row(bar, Text(_current(it), overflow="ellipsis", no_wrap=True))
        return row

    def _sheet(self) -> Sheet | None:
        """The table of the model and task at hand, running cells marked."""
        if not self._last:
            return None
        mine = [c for c in self._cells if (c.base, c.task) == (self._last.base, self._last.task)]
        done = [self._results[cell] for cell in mine if cell in self._results]
        (sheet,) = sheets(done, mine)
        called = distinct({cell.model for cell in mine})
        for cell in self._progress.current:
            row = named(shown(cell, called))
            for name in (row, row + "*"):
                if cell in mine and name in sheet.rows:
                    sheet.rows[name][sheet.lengths.index(cell.length)] = Entry(
                        kind="running", text="…"
                    )
        return Sheet(title=sheet.title, lengths=sheet.lengths, rows=sheet.rows, notes=[])


class Lines:
    """A `Watch` for a log: a line for each finished cell, on standard error."""

    def __init__(self, missing: int) -> None:
        self._missing, self._done = missing, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def cell_started(self, cells: Sequence[Cell], tokens: int) -> None: ...

    def progressed(self, tokens: float) -> None: ...

    def cell_finished(self, result: Result) -> None:
        self._done += 1
        cell, why = result.cell, result.reason and f": {told(result.reason, result.cell)}"
        self._say(
            f"{self._done}/{self._missing}  {cell.base}  {readable(cell.task)}  "
            f"{named(cell)}  {label(cell.length)}  {entry(result)}{why or ''}  "
            f"{duration(result.seconds)}"
        )

    def note(self, message: str) -> None:
        self._say(f"note: {message}")

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def _resident() -> int:
    """Bytes this process has in memory now."""
    import psutil

    return psutil.Process().memory_info().rss


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def size(count: float) -> str:
    """Bytes as people say them: `1.2 GB`, `640 MB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _current(progress: Progress) -> str:
    current = progress.current  # once: cells end while another thread draws
    if not current:
        return "getting ready"
    cell, count = current[-1], len(current)
    lengths = label(cell.length) if count == 1 else f"{count} lengths to {label(cell.length)}"
    return (
        f"{named(cell)} · {readable(cell.task)} · {lengths} · "
        f"{progress.read:,.0f} of {progress.tokens:,.0f} tokens"
    )
