"""Seconds to expand, cost and resume a grid of 100,000 cells, some of them done.

1,000 methods on 10 tasks at 10 lengths; that many of the first have a result, each a file as
`harness run` writes it. What is timed once for a model, a layer of it, is a row of its own.
"""

import json
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from sides import Facts, Row, main, measured, parser

MOST = 5.0
METHODS, TASKS, LENGTHS = 1000, 10, 10
SHORTEST = 256


def planned(given: Namespace) -> Facts:
    from harness import machine
    from harness.model import describe
    from harness.plan import missing, plan
    from harness.speed import measured as timed
    from harness.store import Store

    options = _grid(given)
    card = describe(given.model)
    began = time.perf_counter()
    timed(card, machine.device("cpu"), machine.dtype("auto", "cpu"))
    calibration = time.perf_counter() - began
    store = Store(given.folder / "results")
    cells, took = measured(lambda: plan(options))
    _fill(store, cells[: given.done])
    left, checked = measured(lambda: missing(cells, store))
    assert len(left) == len(cells) - given.done
    return {
        "cells": len(cells),
        "done": given.done,
        "calibration": calibration,
        "planning": took["seconds"],
        "resuming": checked["seconds"],
        "peak_memory": max(took["peak_memory"], checked["peak_memory"]),
    }


def rows(given: Namespace, found: dict[str, Facts]) -> list[Row]:
    facts = found["planned"]
    whole = facts["planning"] + facts["resuming"]
    return [
        Row(
            what=f"{facts['cells']:,} cells, {facts['done']:,} of them done: expand, cost, resume",
            ours=f"{whole:.2f} s",
            bar=f"≤ {MOST:g} s",
            reached=whole <= MOST,
        ),
        Row(what="of it, to expand and cost", ours=f"{facts['planning']:.2f} s"),
        Row(what="of it, to see what is done", ours=f"{facts['resuming']:.2f} s"),
        Row(what="beside it, to time a layer", ours=f"{facts['calibration']:.2f} s"),
    ]


def flags() -> ArgumentParser:
    made = parser(__doc__, model="toy")
    made.add_argument("--methods", type=int, default=METHODS, help="how many")
    made.add_argument("--done", type=int, default=10_000, help="cells that have a result")
    return made


def _grid(given: Namespace):
    from harness.plan import Options

    return Options(
        models=(given.model,),
        methods=tuple(f"yarn,factor={2 + i / 100:.12g}" for i in range(given.methods)),
        tasks=tuple(f"passkey,seed={seed}" for seed in range(TASKS)),
        lengths=tuple(SHORTEST * (i + 1) for i in range(LENGTHS)),
        device="cpu",
    )


def _fill(store, cells) -> None:
    """Results such as a run would have left, without its care for power cuts."""
    from harness.cell import Result
    from harness.plan import ENCODING

    for planned in cells:
        made = planned.made_of
        method = dict(zip(ENCODING, made["encoding"] or [], strict=False))
        result = Result(
            cell=planned.cell,
            status="scored",
            value=1.0,
            metric="accuracy",
            provenance={**made, "method": method},
        )
        path = Path(store.runs / planned.cell.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result.model_dump(), sort_keys=True, indent=2) + "\n")


if __name__ == "__main__":
    main(flags(), {"planned": planned}, rows)
