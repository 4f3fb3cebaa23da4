"""What a plan comes to on named GPUs: by length, by kind of GPU, by how many there are."""

from collections.abc import Sequence
from typing import Any

from harness.gpus import GPUS, Gpu, Pass, cheapest, passes, splits
from harness.plan import Planned

HOUR = 3600


def by_length(found: Sequence[Pass]) -> list[dict[str, Any]]:
    """What each length takes; a row that is read in one pass is shared out as in the results."""
    rows: dict[int, dict[str, Any]] = {}
    flops: dict[int, float] = {}
    for one in found:
        whole = sum(planned.share for planned in one.cells)
        for planned in one.cells:
            work = planned.work
            assert work and planned.shape
            known = flops.get(id(work))
            if known is None:
                known = flops.setdefault(id(work), work.flops(planned.shape))
            row = rows.setdefault(planned.cell.length, _empty(planned.cell.length))
            row["cells"] += 1
            row["tokens"] += planned.tokens
            row["flops"] += known * planned.share
            row["gpu_hours"] += one.runs * one.seconds * planned.share / whole / HOUR
            row["memory"] = max(row["memory"], one.bytes)
            row["host_memory"] = max(row["host_memory"], one.host)
            row["too_large"] += not one.runs
    return [rows[length] for length in sorted(rows)]


def _empty(length: int) -> dict[str, Any]:
    zero = ("cells", "tokens", "flops", "gpu_hours", "memory", "host_memory", "too_large")
    return {"length": length, **dict.fromkeys(zero, 0)}


def by_count(found: Sequence[Pass], most: int, *, shared: int = 1) -> list[dict[str, Any]]:
    """How long so many GPUs take for what fits, and which number is the cheapest."""
    every = splits(found, most, shared=shared)
    best = cheapest(every)
    return [
        {"gpus": s.gpus, "hours": s.hours, "gpu_hours": s.gpu_hours, "cheapest": s is best}
        for s in every
    ]


def by_gpu(
    plan: Sequence[Planned], most: int, *, offload: bool = False, shared: int = 1
) -> list[dict[str, Any]]:
    """The same plan on each kind of GPU there is data for, at its cheapest number."""
    return [_on(gpu, plan, most, offload, shared) for gpu in GPUS.values()]


def _on(gpu: Gpu, plan: Sequence[Planned], most: int, offload: bool, shared: int) -> dict[str, Any]:
    found = passes(plan, gpu, offload=offload)
    best = cheapest(splits(found, most, shared=shared))
    return {
        "gpu": gpu.title,
        "memory": gpu.memory,
        "cells": len(plan),
        "too_large": sum(len(one.cells) for one in found if not one.runs),
        "largest": max(one.bytes for one in found),
        "hours_on_one": sum(one.seconds for one in found if one.runs) / HOUR,
        "gpus": best.gpus,
        "hours": best.hours,
        "gpu_hours": best.gpu_hours,
    }
