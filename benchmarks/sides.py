"""Both sides of a comparison, each in a fresh process: same model, dtype, tokens and threads.

A script gives its sides as functions from the command line's arguments to facts. They run one
after another, each alone, so that peak memory is its own; the facts become rows against a bar.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from argparse import SUPPRESS, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from harness import machine
from harness.doctor import FAST
from harness.lengths import lengths

if TYPE_CHECKING:
    import numpy as np

    from harness.model import Live
    from harness.task import Document, Request

DTYPE = "bfloat16" if {"avx512_bf16", "amx_bf16"} & machine.cpu_flags() else "float32"
"""Of both sides: without such instructions bfloat16 takes a hundred times as long."""
NO_LM_EVAL = "lm-eval is not installed: pip install lm-eval accelerate"
MISTAKE = 2
WIDTH = 150
"""Columns of a table that goes to a file."""
Facts = dict[str, Any]
Side = Callable[[Namespace], Facts]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One thing that is measured, on both sides, and the bar it is held to."""

    what: str
    ours: str
    peer: str = ""
    ratio: str = ""
    bar: str = ""
    reached: bool | None = None
    """None: no bar, or a side is missing."""


@dataclass(frozen=True)
class OneDocument:
    """As much of a `harness.task.Reader` as perplexity needs: tokens that were read before."""

    bos: int
    tokens: "np.ndarray"

    def documents(self, corpus: str, *, reach: int, first: int) -> "list[Document]":
        from harness.task import Document

        return [Document(name="document", tokens=self.tokens)]


def parser(doc: str, **defaults: str) -> ArgumentParser:
    """The flags all scripts know; of `text`, `lengths` and `model` those that have a default."""
    made = ArgumentParser(description=doc, formatter_class=RawDescriptionHelpFormatter)
    if "model" in defaults:
        made.add_argument("--model", default=defaults["model"], help="toy, smollm2-135m, a folder")
    if "text" in defaults:
        text = "a corpus as `harness list corpora` has them, or a .txt or .parquet file"
        made.add_argument("--text", type=_corpus, default=defaults["text"], help=text)
    if "lengths" in defaults:
        made.add_argument("--lengths", type=lengths, default=defaults["lengths"], help="2k-16k:2k")
    made.add_argument("--json", type=Path, metavar="FILE", help="keep the figures there")
    made.add_argument("--side", help=SUPPRESS)
    made.add_argument("--folder", type=Path, help=SUPPRESS)
    return made


def main(
    parser: ArgumentParser,
    sides: dict[str, Side],
    rows: Callable[[Namespace, dict[str, Facts]], list[Row]],
    more: Callable[[dict[str, Facts]], Table] | None = None,
) -> None:
    """Run every side, print the rows, keep the figures; or, in a side's process, be that side."""
    given = parser.parse_args()
    if given.side:
        _be(sides[given.side], given)
        return
    script = Path(sys.argv[0]).stem
    found = _run_all(sides)
    held = rows(given, found)
    screen = Console() if Console().is_terminal else Console(width=WIDTH)
    if more:
        screen.print(more(found))
    screen.print(_table(script, held))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        kept = _figures(script, given, found, held)
        given.json.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")


def measured(work: Callable[[], Any]) -> tuple[Any, Facts]:
    """What the work returns, its seconds, and the process's peak memory while it ran."""
    machine.forget_peak("cpu")
    started = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - started
    return result, {"seconds": seconds, "peak_memory": machine.peak_memory("cpu")}


def model(given: Namespace) -> "Live":
    """The model of the comparison, as every side has it."""
    from harness.model import load

    return load(given.model, device="cpu", dtype=DTYPE)


def read_text(given: Namespace) -> Facts:
    """A side that only tokenises one document, so that all others find the same tokens."""
    import numpy as np

    from harness.corpora import label
    from harness.model import describe, tokenizer
    from harness.reader import TokenReader

    reader = TokenReader(tokenizer(describe(given.model)), machine.cache_folder())
    reach = max(given.lengths)
    document = reader.documents(given.text, reach=reach, first=1)[0]
    tokens = document.tokens[:reach]
    np.save(given.folder / "tokens.npy", tokens)
    (given.folder / "bos").write_text(str(reader.bos))
    return {"corpus": label(given.text), "document": document.name, "tokens": digest([tokens])}


def document(given: Namespace) -> OneDocument:
    """What `read_text` left."""
    import numpy as np

    tokens = np.load(given.folder / "tokens.npy")
    return OneDocument(int((given.folder / "bos").read_text()), tokens)


def whole_perplexity(reader: OneDocument, sizes: Sequence[int]) -> "list[Request]":
    """Perplexity of the document's beginnings, one request a length."""
    from harness import catalog

    task = catalog.load("tasks", "perplexity.whole,samples=1")
    return [request for n in sizes for request in task.requests(reader, n)]


def threads() -> int:
    import torch

    return torch.get_num_threads()


def digest(arrays: "Sequence[np.ndarray]") -> str:
    """Of token sequences: sides with the same digest read the same."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(f"{len(array)} ".encode() + array.astype("<i8").tobytes())
    return sha.hexdigest()[:16]


def times(peer: Facts, ours: Facts, key: str = "seconds") -> float | None:
    """How many times more the peer takes; None if it is not here."""
    return None if "missing" in peer else peer[key] / ours[key]


def seconds(facts: Facts, key: str = "seconds") -> str:
    return facts["missing"] if "missing" in facts else f"{facts[key]:.3g} s"


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB"


def at_least(what: str, ours: Facts, peer: Facts, bar: float | None, key: str = "seconds") -> Row:
    """A row that holds how many times faster this side is to a bar."""
    ratio = times(peer, ours, key)
    return Row(
        what=what,
        ours=seconds(ours, key),
        peer=seconds(peer, key),
        ratio="" if ratio is None else f"{ratio:.1f}x",
        bar=f"≥ {bar:g}x" if bar else "",
        reached=None if ratio is None or bar is None else ratio >= bar,
    )


def _run_all(sides: dict[str, Side]) -> dict[str, Facts]:
    with TemporaryDirectory() as folder:
        return {name: _run(name, Path(folder)) for name in sides}


def _run(name: str, folder: Path) -> Facts:
    """One side, in a process of its own."""
    started = time.perf_counter()
    command = [sys.executable, *sys.argv, "--side", name, "--folder", str(folder)]
    code = subprocess.run(command, check=False).returncode
    if code:
        sys.exit(MISTAKE if code == MISTAKE else f"The side {name!r} failed with exit code {code}.")
    print(f"{name}: done in {time.perf_counter() - started:.1f} s", file=sys.stderr)
    return json.loads((folder / f"{name}.json").read_text())


def _be(side: Side, given: Namespace) -> None:
    try:
        facts = side(given)
    except (ValueError, LookupError) as error:
        if isinstance(error, KeyError | IndexError):
            raise
        print(f"{Path(sys.argv[0]).stem}: {error}", file=sys.stderr)
        sys.exit(MISTAKE)
    (given.folder / f"{given.side}.json").write_text(json.dumps(facts, allow_nan=False))


def _table(script: str, rows: list[Row]) -> Table:
    table = Table("", "ours", "peer", "ratio", "bar", "reached", title=script)
    said = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}
    for row in rows:
        table.add_row(row.what, row.ours, row.peer, row.ratio, row.bar, said[row.reached])
    return table


def _figures(script: str, given: Namespace, found: dict[str, Facts], rows: list[Row]) -> Facts:
    hidden = ("json", "side", "folder", "text", "results")
    settings = {k: v for k, v in vars(given).items() if k not in hidden}
    if "model" in settings:
        settings["model"] = Path(given.model).name  # never this machine's folders
    return {
        "script": script,
        "date": date.today().isoformat(),
        "machine": machine.cpu_name(),
        "features": [flag for flag in FAST if flag in machine.cpu_flags()],
        "cores": machine.cores(),
        "dtype": DTYPE,
        "threads": os.environ.get("OMP_NUM_THREADS", "as many as cores"),
        "settings": settings,
        "sides": found,
        "rows": [asdict(row) for row in rows],
        "versions": machine.versions(),
        **machine.commit(),
    }


def _corpus(text: str) -> str:
    """`novels.parquet` is `parquet:novels.parquet`."""
    path = Path(text)
    kind = {".txt": "text", ".parquet": "parquet", ".jsonl": "jsonl"}.get(path.suffix)
    return f"{kind}:{text}" if kind and path.exists() else text
