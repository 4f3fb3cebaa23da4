"""What a grid will take, cell by cell, before it is run: `harness run --dry-run`."""

from collections.abc import Collection, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from harness.cell import Cell
from harness.lengths import label
from harness.plan import Planned
from harness.report.live import duration, size
from harness.report.sheet import apart, named


def objects(plan: Sequence[Planned], done: Collection[Cell]) -> list[dict[str, Any]]:
    """One flat object a cell."""
    return [
        {
            "model": p.cell.model,
            "method": p.cell.method,
            "task": p.cell.task,
            "length": p.cell.length,
            "state": "done" if p.cell in done else "missing",
            "tokens": p.tokens,
            "seconds": p.seconds,
            "peak_memory": p.bytes,
            "fits": p.fits,
            "reason": p.why,
        }
        for p in plan
    ]


def forecast(plan: Sequence[Planned], done: Collection[Cell]) -> Group:
    """A line for each cell, and what the missing ones come to."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    for name in ("model", "task", "method"):
        table.add_column(name, overflow="fold")
    for name in ("length", "tokens", "time", "memory"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    names = apart((p.cell.base, p.cell.task) for p in plan)
    for planned in plan:
        task = names[planned.cell.base, planned.cell.task]
        table.add_row(*_line(planned, task, planned.cell in done))
    return Group(table, Text(""), Text(_summary(plan, done), "bold"))


def _line(planned: Planned, task: str, done: bool) -> list[str | Text]:
    cell = planned.cell
    state = Text("done", "dim") if done else Text("missing")
    if not done and not planned.fits:
        state = Text(planned.why or "would not fit", "bold yellow")
    return [
        cell.base,
        task,
        named(cell),
        label(cell.length),
        f"{planned.tokens:,}",
        duration(planned.seconds),
        size(planned.bytes),
        state,
    ]


def _summary(plan: Sequence[Planned], done: Collection[Cell]) -> str:
    missing = [p for p in plan if p.cell not in done]
    unfit = [p for p in missing if not p.fits]
    said = f"{len(plan)} cells: {len(plan) - len(missing)} done, {len(missing)} to run"
    if missing:
        said += f", about {duration(sum(p.seconds for p in missing))}"
        said += f", {size(max(p.bytes for p in missing))} at most"
    return said + (f"; {len(unfit)} would not fit" if unfit else "")
