"""Seconds and memory of 2048k tokens: one passkey trial and one perplexity document.

Goes through `harness run` and its results folder: a cell that is there is read, not run again.
"""

import json
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from sides import Facts, Row, gigabytes, main, parser

from harness.lengths import label

MINUTES, MEMORY = 60, 6e9


def passkey(given: Namespace) -> Facts:
    return _cell(given, "passkey", "--depths", "0.5", "--samples", "1")


def perplexity(given: Namespace) -> Facts:
    return _cell(given, "perplexity", "--corpus", given.text, "--samples", "1")


def rows(given: Namespace, found: dict[str, Facts]) -> list[Row]:
    return [row for name, facts in found.items() for row in _rows(name, facts)]


def flags() -> ArgumentParser:
    made = parser(__doc__, model="toy", text="stdlib:train", lengths="2048k")
    made.add_argument("--method", default="longrope")
    made.add_argument("--results", type=Path, default=Path("build/two-million"), metavar="DIR")
    return made


def _cell(given: Namespace, task: str, *more: str) -> Facts:
    command = [sys.executable, "-P", "-m", "harness", "run", "--json", "--task", task, *more]
    command += ["--model", given.model, "--method", given.method]
    command += ["--lengths", str(given.lengths[-1]), "--results", str(given.results)]
    ran = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if not ran.stdout:
        raise ValueError(f"harness run --task {task} came to nothing (exit code {ran.returncode}).")
    return json.loads(ran.stdout)[-1]


def _rows(name: str, cell: Facts) -> list[Row]:
    scored, what = cell["status"] == "scored", f"{name} at {label(cell['length'])}"
    value = f" ({cell['metric']} {cell['value']:.4g})" if scored else f" ({cell['reason']})"
    return [
        Row(
            what=what + value,
            ours=f"{cell['seconds'] / 60:.1f} min",
            bar=f"≤ {MINUTES} min",
            reached=scored and cell["seconds"] <= MINUTES * 60,
        ),
        Row(
            what=f"{what}, peak memory",
            ours=gigabytes(cell["peak_memory"]),
            bar=f"≤ {gigabytes(MEMORY)}",
            reached=scored and cell["peak_memory"] <= MEMORY,
        ),
    ]


if __name__ == "__main__":
    main(flags(), {"passkey": passkey, "perplexity": perplexity}, rows)
