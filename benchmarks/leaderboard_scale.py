"""A leaderboard from 1,000,000 packed results, one from 20,000 single files, and a look at some.

The results are made up, their fields are not: names, lengths, intervals, items and provenance are
of the kind and size that runs leave. Each verb is a process of its own.
"""

import json
import resource
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from sides import Facts, Row, gigabytes, main, parser, seconds

from harness import packs
from harness.cell import Cell

MODELS = [
    *("toy", "smollm2-135m", "org/model-7b", "org/model-7b-chat,dtype=float32"),
    *(f"lab-{i}/model-{size}b" for i, size in product(range(7), (1, 7, 13))),
]
METHODS = [
    *("none", "alibi", "cl-scaling", "dynamic-ntk", "dynamic-yarn", "longlm", "streaming-llm"),
    *(
        f"{name},factor={factor}"
        for name in ("clex", "llama3", "longrope", "ntk", "ntk-by-parts", "pi", "yarn", "yarn-v2")
        for factor in (2, 4, 8, 16)
    ),
    "base-change",
]
TASKS = [
    *(f"passkey.{kind},samples={n}" for kind in ("standard", "yarn") for n in (4, 10, 20)),
    *(f"perplexity.{kind},corpus=parquet:books-{i}.parquet:text@445c9e9{i},reach=262144"
      for kind in ("whole", "sliding", "last-2k") for i in range(8)),
    *(f"ruler.{name}" for name in ("niah_single_1", "niah_single_2", "niah_single_3", "vt", "cwe",
                                   "niah_multikey_1", "niah_multikey_2", "niah_multikey_3", "fwe",
                                   "niah_multivalue", "niah_multiquery", "qa_1", "qa_2")),
    *(f"babilong.qa{i}" for i in range(1, 21)),
    *(f"longbench.set_{i}" for i in range(21)),
    *(f"infinitebench.set_{i}" for i in range(12)),
    *(f"needle.standard,seed={i}" for i in range(4)),
]  # fmt: skip
LENGTHS = [4096 * 2**i for i in range(10)]
WHERE = "model=toy task=passkey method=yarn length>=16k"
SINGLE = 20_000
MOST = {"million": 15.0, "memory": 2e9, "single": 10.0, "page": 3e6, "where": 3.0}


def make(given: Namespace) -> Facts:
    """A side that only makes the results, so that all others find the same."""
    started = time.perf_counter()
    folder = given.folder / "million"
    packs.write_tables(folder, _tables(given.results_count))
    for at, row in enumerate(packs.Pack.open(next(iter(packs.paths(folder)))).rows()):
        if at >= given.single:
            break
        _single(given.folder / "single", row)
    beside = given.folder / "beside"
    newest = row | {"cell": f"{PurePosixPath(row['cell']).parent}/{2 * LENGTHS[-1]}.json"}
    _single(beside, newest | {"length": 2 * LENGTHS[-1]})
    (beside / "packed").symlink_to((given.folder / "million" / "packed").resolve())
    size = sum(path.stat().st_size for path in packs.paths(folder))
    return {"seconds": time.perf_counter() - started, "bytes": size}


def leaderboard(given: Namespace) -> Facts:
    return _board(given.folder / "million")


def leaderboard_of_single(given: Namespace) -> Facts:
    return _board(given.folder / "single")


def leaderboard_beside(given: Namespace) -> Facts:
    return _board(given.folder / "beside")


def results_where(given: Namespace) -> Facts:
    return _verb(given.folder / "million", "results", "--where", WHERE)


def rows(given: Namespace, found: dict[str, Facts]) -> list[Row]:
    packed, single, some = (found[side] for side in ("leaderboard", "single", "where"))
    beside = found["beside"]
    many, few = f"{given.results_count:,} packed results", f"{given.single:,} single files"
    return [
        _row(f"harness leaderboard, {many}", packed, "million"),
        _memory(f"its peak memory, {many}", packed),
        _row(f"the same, one single file beside them, {many}", beside, "million"),
        _memory(f"its peak memory, one single file beside them, {many}", beside),
        _row(f"harness leaderboard, {few}", single, "single"),
        _page(f"leaderboard.html, {many}", packed),
        _row(f"harness results --where, {many}", some, "where"),
    ]


def flags() -> ArgumentParser:
    made = parser(__doc__)
    made.add_argument("--results-count", type=int, default=1_000_000, help="packed results")
    made.add_argument("--single", type=int, default=SINGLE, help="single files")
    return made


def _tables(count: int) -> Iterator[Any]:
    """Columns of so many results, a group at a time, in a store's order."""
    import pyarrow as pa

    cells = (
        Cell(model=m, task=t, method=k, length=1).path.parent
        for m, t, k in product(MODELS, TASKS, METHODS)
    )
    parents = sorted(map(str, cells))
    parents = parents[:: max(1, len(parents) * len(LENGTHS) // count)]
    random, pending, made = np.random.default_rng(0), [], 0
    for parent in parents:
        taken = LENGTHS[: count - made]
        pending += _row_of(parent, taken, random)
        made += len(taken)
        if len(pending) >= packs.ROWS or made >= count:
            yield pa.Table.from_pylist(pending, schema=packs.schema())
            pending = []
        if made >= count:
            return


def _row_of(parent: str, lengths: list[int], random: np.random.Generator) -> list[dict[str, Any]]:
    """One row's results: a method on a task over lengths, worse the longer, some not measured."""
    first = Cell.at(f"{parent}/1.json")
    from harness.catalog import split

    method, with_ = split(first.method)
    task, of = split(first.task)
    factor = float(with_.get("factor", 1))
    perplexity = task.startswith("perplexity")
    most = np.inf if perplexity else 1.0
    fixed = {
        "model": first.model, "base": first.base, "method": method, "factor": factor,
        "method_parameters": json.dumps(with_), "task": task.split(".")[0], "protocol": task,
        "task_parameters": json.dumps(of), "corpus": of.get("corpus"), "reason": None,
        "metric": "perplexity" if perplexity else "accuracy", "notice": None, "trained": None,
        "truncated": 0.0, "schema_version": "1",
    }  # fmt: skip
    holds = factor * 4096 * 2 ** random.normal(0.5, 0.5)
    provenance = _provenance(first.model, method, factor, random)
    found = []
    for length in lengths:
        beyond = max(0.0, float(np.log2(length / holds)))
        items = _items(perplexity, beyond, random)
        mean = float(np.mean(items))
        value = float(np.exp(mean)) if perplexity else mean
        spread = float(np.std(items)) / np.sqrt(len(items)) * 2 + 0.01
        row = {
            **fixed, "cell": f"{parent}/{length}.json", "length": length, "status": "scored",
            "value": value, "low": max(0.0, value - spread), "high": min(most, value + spread),
            "n": len(items), "seconds": round(length / 900, 3), "tokens": length * len(items),
            "peak_memory": 600_000_000 + 9000 * length, "provenance": provenance,
            "items": json.dumps({f"item-{i}": x for i, x in enumerate(items)}),
            "parts": json.dumps({f"depth {d:.2f}": mean for d in (0, 0.25, 0.5, 0.75, 1)}),
        }  # fmt: skip
        if random.random() < 0.03:
            empty = dict.fromkeys(("value", "low", "high"))
            row |= {**empty, "status": "out_of_memory", "n": 0, "items": "{}", "parts": "{}",
                    "reason": f"it needs {length / 1e4:.1f} GiB, and 14.2 are free"}  # fmt: skip
        found.append(row)
    return found


def _items(perplexity: bool, beyond: float, random: np.random.Generator) -> list[float]:
    if perplexity:
        return [round(x, 12) for x in (2.5 + beyond + random.normal(0, 0.2, 10)).tolist()]
    return (random.random(20) < 0.9 * 0.5**beyond).astype(float).tolist()


def _provenance(model: str, method: str, factor: float, random: np.random.Generator) -> str:
    frequencies = 10000.0 ** (-np.arange(32) / 32) / factor
    return json.dumps(
        {
            "block": 2048, "commit": "c4c69f51b32f8aba5260162f7e4777e7806bfc9b", "dirty": False,
            "device": "a processor", "dtype": "bfloat16", "kernel": "native-avx512-bf16",
            "encoding": random.bytes(32).hex(), "pass_length": LENGTHS[-1], "threads": 2,
            "method": {"attention_factor": 1.0, "factor": factor, "scale": factor,
                       "frequencies": frequencies.tolist()},
            "remote_code": False, "start_token": 0, "task_version": 1, "training": None,
            "versions": {"context-harness": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
            "weights": model.encode().hex().ljust(64, "0")[:64],
        },
        sort_keys=True,
    )  # fmt: skip


def _single(folder: Path, row: dict[str, Any]) -> None:
    path = folder / "runs" / row["cell"]
    path.parent.mkdir(parents=True, exist_ok=True)
    said = packs.result(row).model_dump()
    path.write_text(json.dumps(said, sort_keys=True, indent=2) + "\n", "utf-8")


def _board(folder: Path) -> Facts:
    done = _verb(folder, "leaderboard")
    return done | {"page": (folder / "leaderboard.html").stat().st_size}


def _verb(folder: Path, *words: str) -> Facts:
    """Seconds and peak memory of a verb of the command line."""
    command = [sys.executable, "-P", "-m", "harness", *words, "--results", str(folder)]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    took = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"seconds": took, "peak_memory": peak}


def _row(what: str, facts: Facts, bar: str) -> Row:
    most = MOST[bar]
    return Row(
        what=what, ours=seconds(facts), bar=f"≤ {most:g} s", reached=facts["seconds"] <= most
    )


def _memory(what: str, facts: Facts) -> Row:
    return Row(
        what=what,
        ours=gigabytes(facts["peak_memory"]),
        bar=f"≤ {gigabytes(MOST['memory'])}",
        reached=facts["peak_memory"] <= MOST["memory"],
    )


def _page(what: str, facts: Facts) -> Row:
    return Row(
        what=what,
        ours=f"{facts['page'] / 1e6:.2f} MB",
        bar=f"≤ {MOST['page'] / 1e6:g} MB",
        reached=facts["page"] <= MOST["page"],
    )


if __name__ == "__main__":
    main(
        flags(),
        {
            "make": make,
            "where": results_where,
            "single": leaderboard_of_single,
            "leaderboard": leaderboard,
            "beside": leaderboard_beside,
        },
        rows,
    )
