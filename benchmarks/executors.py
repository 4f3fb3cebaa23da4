"""A grid of equal cells: Ray with two one-core workers against one process on one core.

Seconds are from the plan to the last result on disk, Ray's start and the reading of models in
them. The overhead of a cell is what passes, at its worker, from the result before it to its own
beside the seconds that it took by itself; what passes before a worker's first is the start.
"""

import os
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from sides import Facts, Row, at_least, main, parser

from harness.lengths import label

if TYPE_CHECKING:
    from harness.executors import Executor

FASTER = 1.8
OVERHEAD = {"local": 0.1, "ray": 0.3}
"""Most seconds of a cell that are not its own."""


class Silent:
    """A watch that tells nobody."""

    def cell_started(self, cells, tokens): ...

    def progressed(self, tokens): ...

    def cell_finished(self, result): ...

    def note(self, message): ...


def local(given: Namespace) -> Facts:
    _take_cores(1)
    from harness.executors import chosen

    return _measured(given, chosen("local"), at_a_time=1)


def ray(given: Namespace) -> Facts:
    _take_cores(2)
    from harness.executors import chosen

    return _measured(given, chosen("ray", workers=2), at_a_time=2)


def rows(given: Namespace, found: dict[str, Facts]) -> list[Row]:
    one, two = found["local"], found["ray"]
    what = f"{given.cells} cells of {label(given.lengths[-1])}"
    same = one["values"] == two["values"]
    return [
        at_least(f"{what}, two workers against one process", two, one, FASTER),
        *(row for name in OVERHEAD for row in _overhead(name, found[name])),
        Row(
            what="the same values",
            ours=f"{len(two['values'])} cells",
            peer=f"{len(one['values'])} cells",
            bar="equal",
            reached=same,
        ),
    ]


def flags() -> ArgumentParser:
    made = parser(__doc__, model="toy", lengths="32k")
    made.add_argument("--cells", type=int, default=16, help="passkeys, which differ in their seed")
    made.add_argument("--samples", type=int, default=4, help="trials of a cell, at each depth")
    return made


def _take_cores(count: int) -> None:
    """Use so many cores, and no more, here and in all that is started from here."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    import torch

    torch.set_num_threads(1)


def _measured(given: Namespace, engine: "Executor", *, at_a_time: int) -> Facts:
    from harness.plan import Options, plan
    from harness.store import Store

    options = Options(
        models=(given.model,),
        methods=("none",),
        tasks=tuple(f"passkey,samples={given.samples},seed={i}" for i in range(given.cells)),
        lengths=(given.lengths[-1],),
        device="cpu",
    )
    grid = plan(options)
    began, came, results = time.perf_counter(), [], []
    for result in engine.execute(grid, Store(given.folder / "results"), options, Silent()):
        came.append(time.perf_counter())
        results.append(result)
    if bad := [result.reason for result in results if result.status != "scored"]:
        raise ValueError(f"A cell could not be measured: {bad[0]}.")
    own = [result.seconds for result in results]
    starts, gaps = _waits(came, own, began, at_a_time)
    results.sort(key=lambda result: result.cell.task)
    return {
        "seconds": came[-1] - began,
        "work": sum(own),
        "start": fmean(starts),
        "overhead": fmean(gaps),
        "values": [result.value for result in results],
        "threads": results[0].provenance["threads"],
    }


def _waits(
    came: Sequence[float], own: Sequence[float], began: float, workers: int
) -> tuple[list[float], list[float]]:
    """Seconds before each worker's first cell, and before each of its others.

    A cell is of the worker that had been free for the shortest time when it began.
    """
    free, starts, gaps = [began] * workers, [], []
    for at, seconds in zip(came, own, strict=True):
        ready = [since for since in free if since <= at - seconds] or [min(free)]
        free.remove(max(ready))
        free.append(at)
        (starts if max(ready) == began else gaps).append(at - seconds - max(ready))
    return starts, gaps


def _overhead(name: str, facts: Facts) -> list[Row]:
    return [
        Row(
            what=f"overhead of a cell, {name}",
            ours=f"{facts['overhead']:.3f} s",
            bar=f"≤ {OVERHEAD[name]:g} s",
            reached=facts["overhead"] <= OVERHEAD[name],
        ),
        Row(what=f"before a worker's first cell, {name}", ours=f"{facts['start']:.3g} s"),
    ]


if __name__ == "__main__":
    main(flags(), {"local": local, "ray": ray}, rows)
