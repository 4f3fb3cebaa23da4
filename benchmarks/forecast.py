"""What `harness plan` predicts for a cell, and what the cell then takes: seconds and peak memory.

Each cell runs alone in a fresh process, as `harness run` runs it. With --results nothing is run:
cells measured before stand in, of each task and length the quickest with as many threads.
"""

from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path

from sides import Facts, Row, main, model, parser, seconds, threads

from harness import machine
from harness.lengths import label

TIME, MEMORY = 0.25, 0.10
TASKS = ("passkey,depths=0.5", "perplexity.whole,samples=1")
METHOD = "none"


def predicted(given: Namespace) -> Facts:
    from harness.plan import Options, plan

    found = {}
    for task in _tasks(given):
        for length in given.lengths:
            options = Options(
                models=(given.model,),
                methods=(METHOD,),
                tasks=(task,),
                lengths=(length,),
                corpus=None if given.results else given.text,
                device="cpu",
            )
            (cell,) = plan(options)
            facts = {"seconds": cell.seconds, "peak_memory": cell.bytes, "tokens": cell.tokens}
            found[_name(task, length)] = facts
    return {"cells": found, "threads": threads()}


def measured(task: str, length: int, given: Namespace) -> Facts:
    if given.results:
        return _stored(task, length, given)
    from harness import catalog
    from harness.cell import Cell
    from harness.reader import TokenReader
    from harness.run import run

    live = model(given)
    reader = TokenReader(live.tokenizer, machine.cache_folder())
    spec = catalog.canonical("tasks", task)
    corpus = given.text if hasattr(catalog.load("tasks", spec), "corpus") else None
    cell = Cell(model="model", method=METHOD, task=spec, length=length)
    result = run(live, reader, [cell], corpus=corpus)[0].result
    return _facts(result)


def _stored(task: str, length: int, given: Namespace) -> Facts:
    from harness.store import Store

    every = [
        result
        for result in Store(given.results).results()
        if result.status == "scored"
        and result.cell.model == given.model
        and result.cell.length == length
        and result.cell.task.partition(",")[0].startswith(task.partition(",")[0])
        and result.provenance.get("threads") == threads()
        and result.provenance.get("pass_length") == length
    ]
    if not every:
        return {"missing": "not measured"}
    return _facts(min(every, key=lambda result: result.seconds))


def _facts(result) -> Facts:
    return {
        "seconds": result.seconds,
        "peak_memory": result.peak_memory,
        "tokens": result.tokens,
        "threads": threads(),
    }


def rows(given: Namespace, found: dict[str, Facts]) -> list[Row]:
    return [
        row
        for task in _tasks(given)
        for length in given.lengths
        for row in _held(_name(task, length), found)
    ]


def _held(name: str, found: dict[str, Facts]) -> list[Row]:
    said, real = found["predicted"]["cells"][name], found[name]
    if "missing" in real:
        return [Row(what=name, ours=seconds(said), peer=real["missing"])]
    made = []
    for key, most in (("seconds", TIME), ("peak_memory", MEMORY)):
        off = said[key] / real[key] - 1
        shown = [seconds(x) if key == "seconds" else f"{x[key] / 1e6:.0f} MB" for x in (said, real)]
        made.append(
            Row(
                what=f"{name}, {key.replace('_', ' ')}",
                ours=shown[0],
                peer=shown[1],
                ratio=f"{off:+.0%}",
                bar=f"within {most:.0%}",
                reached=abs(off) <= most,
            )
        )
    return made


def _tasks(given: Namespace) -> list[str]:
    """Where results stand in, the documents that they read cannot be known: tokens tell."""
    return [TASKS[0]] if given.results else list(TASKS)


def _name(task: str, length: int) -> str:
    return f"{task.partition(',')[0]} at {label(length)}"


def flags() -> ArgumentParser:
    made = parser(__doc__, model="smollm2-135m", text="stdlib", lengths="4k-32k")
    made.add_argument("--results", type=Path, metavar="FOLDER", help="compare with these instead")
    return made


if __name__ == "__main__":
    given = flags().parse_args()
    cells = {
        _name(task, length): partial(measured, task, length)
        for task in _tasks(given)
        for length in given.lengths
    }
    main(flags(), {"predicted": predicted, **cells}, rows)
