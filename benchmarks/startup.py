"""Seconds until a command line answers: its help, and the list of methods; median of 7."""

import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from importlib.util import find_spec
from statistics import median

from sides import NO_LM_EVAL, Facts, Row, main, parser, seconds, times

MOST = 0.5


def help_(given: Namespace) -> Facts:
    return _start(given, "harness", "--help")


def list_methods(given: Namespace) -> Facts:
    return _start(given, "harness", "list", "methods")


def lm_eval(given: Namespace) -> Facts:
    if find_spec("lm_eval") is None:
        return {"missing": NO_LM_EVAL}
    return _start(given, "lm_eval", "--help")


def rows(given: Namespace, found: dict[str, Facts]) -> list[Row]:
    peer = found["lm_eval --help"]
    return [_row(name, found[name], peer) for name in ("harness --help", "harness list methods")]


def flags() -> ArgumentParser:
    made = parser(__doc__)
    made.add_argument("--repeats", type=int, default=7, help="starts of each; the median counts")
    return made


def _start(given: Namespace, *words: str) -> Facts:
    """Median over starts, after one that warms the file cache."""
    command, took = [sys.executable, "-P", "-m", *words], []
    for _ in range(1 + given.repeats):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        took.append(time.perf_counter() - started)
    return {"seconds": median(took[1:]), "all": took}


def _row(name: str, mine: Facts, peer: Facts) -> Row:
    ratio = times(peer, mine)
    return Row(
        what=f"{name}, against lm_eval --help",
        ours=seconds(mine),
        peer=seconds(peer),
        ratio="" if ratio is None else f"{ratio:.1f}x",
        bar=f"≤ {MOST} s",
        reached=mine["seconds"] <= MOST,
    )


if __name__ == "__main__":
    main(
        flags(),
        {"harness --help": help_, "harness list methods": list_methods, "lm_eval --help": lm_eval},
        rows,
    )
