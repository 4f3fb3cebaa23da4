"""What a plan comes to, as tables: for a screen, and for a page."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from harness.lengths import label
from harness.report.live import duration, size

HEADS = {
    "length": "length",
    "cells": "cells",
    "tokens": "tokens",
    "flops": "operations",
    "gpu_hours": "GPU time",
    "memory": "memory",
    "host_memory": "host memory",
    "too_large": "do not fit",
    "gpus": "GPUs",
    "hours": "time",
    "cheapest": "",
    "gpu": "GPU",
    "largest": "largest pass",
    "hours_on_one": "time on one",
}


def said(row: dict[str, Any]) -> list[str]:
    """Each number as it is read."""
    return [_said(key, value) for key, value in row.items()]


def table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1), title=title, title_justify="left")
    for key in rows[0]:
        made.add_column(HEADS[key], justify="left" if key in ("gpu", "cheapest") else "right")
    for row in rows:
        made.add_row(*said(row))
    return made


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    heads = [HEADS[key] for key in rows[0]]
    lines = [heads, ["--:"] * len(heads), *map(said, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _said(key: str, value: Any) -> str:
    if key == "length":
        return label(value)
    if key in ("memory", "host_memory", "largest"):
        return size(value) if value else "-"
    if key in ("hours", "gpu_hours", "hours_on_one"):
        return time(value)
    if key == "tokens":
        return f"{value / 1e6:,.1f} M"
    if key == "flops":
        return f"{value:.2g}"
    if key == "cheapest":
        return "cheapest" if value else ""
    if key == "too_large":
        return f"{value:,}" if value else "-"
    return f"{value:,}" if isinstance(value, int) else str(value)


def time(hours: float) -> str:
    """`12.3 s`, `3 min 20 s`, `2 h 05 min`, beyond a day `31 h`: no forecast has more digits."""
    return f"{hours:,.0f} h" if hours >= 24 else duration(3600 * hours)
