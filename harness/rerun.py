"""Whether stored numbers still hold: a sample of cells measured again, and compared.

By the same path as a run's, and in blocks that end where they did: with a cell come the shorter
lengths of its pass, which are beginnings of its inputs and cost nothing. Of the longer ones only
the encoding is made again, and compared.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import archive
from harness.again import Again, Places, again
from harness.cell import Cell, Result
from harness.packs import place
from harness.store import Store

if TYPE_CHECKING:
    from harness.model import Live
    from harness.plan import Planned

TOLERANCE = {"float32": 0.001, "bfloat16": 0.01, "float16": 0.01}
"""Share of a value by which another kernel, machine or number of threads may move it."""
SAME = ("kernel", "device", "dtype", "threads", "block")
WAYS = {"offload": False, "apart": False, "ranks": 1, "shards": None, "placed": None}
"""Where all of these are alike, and torch, a value is the same to the last bit; with what it means
that an older result says nothing."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of measuring a cell again."""

    stored: Result
    now: float | None
    holds: bool
    why: str

    def __str__(self) -> str:
        cell = self.stored.cell
        return f"{'holds' if self.holds else 'FAILS'}  {cell.path}: {self.why}"

    def row(self) -> dict[str, Any]:
        """Flat, for `--json`."""
        return {
            "cell": str(self.stored.cell.path),
            "holds": self.holds,
            "stored": self.stored.value,
            "now": self.now,
            "why": self.why,
        }


@dataclass(frozen=True)
class Chosen:
    """A stored cell, and the shorter lengths that the same pass read."""

    stored: Result
    shorter: tuple[int, ...] = ()


def chosen(folder: Path, *, sample: int, seed: int, where: str | None = None) -> list[Chosen]:
    """So many scored cells at random, the same for a seed; in a store's order.

    Raises:
        LookupError: there are none, or one cannot be read.
    """
    meant = archive.columns(folder, where, only=["cell", "status"]).to_pylist()
    scored = [row["cell"] for row in meant if row["status"] == "scored"]
    if not scored:
        raise LookupError(f"No scored cell in {str(folder)!r} matches; see harness results.")
    few = sorted(random.Random(seed).sample(scored, min(sample, len(scored))), key=place)
    rows: dict[str, list[str]] = {place(path)[0]: [] for path in few}
    for path in archive.columns(folder, only=["cell"])["cell"].to_pylist():
        rows.get(place(path)[0], []).append(path)
    store = Store(folder)
    found = []
    for path in few:
        one = store.get(Cell.at(path))
        if one is None:
            raise LookupError(f"{store.broken[0] if store.broken else f'{path} cannot be read'}.")
        found.append(Chosen(one, tuple(_shorter(store, one, rows[place(path)[0]]))))
    return found


def _shorter(store: Store, stored: Result, row: list[str]) -> Iterator[int]:
    whole = stored.provenance.get("pass_length")
    cells = (cell for cell in map(Cell.at, row) if cell.length < stored.cell.length)
    for cell in cells if whole else ():
        other = store.get(cell)
        if other is not None and other.provenance.get("pass_length") == whole:
            yield cell.length


def rerun(cells: list[Chosen], places: Places) -> Iterator[Verdict]:
    """Each measured again, and judged; a model is read once for all of its cells."""
    for _, of_model in groupby(cells, lambda one: one.stored.cell.model):
        live: Live | None = None
        for one in of_model:
            try:
                planned = _planned(one, again(one.stored.cell, places))
                live = live or _loaded(planned[-1])
                now, encoding = _measured(live, planned, one.stored)
            except (
                LookupError,
                ValueError,
                OSError,
                RuntimeError,
                MemoryError,
                ImportError,
            ) as error:
                why = " ".join(f"it cannot be measured here: {error}".split())
                yield Verdict(stored=one.stored, now=None, holds=False, why=why)
            else:
                yield judged(one.stored, now, encoding)


def judged(stored: Result, now: Result, encoding: str) -> Verdict:
    """Whether a result and another of the same cell say the same.

    Args:
        stored: what is kept.
        now: what was measured again.
        encoding: the probe of now, at the length of the pass that made the stored one.
    """
    if now.value is None or stored.value is None:
        why = f"{_said(stored)} then, {_said(now)} now"
        return Verdict(stored=stored, now=now.value, holds=False, why=why)
    then = stored.provenance.get("encoding")
    if then is not None and then != encoding:
        why = f"it is encoded otherwise than it was: {str(then)[:12]} then, {encoding[:12]} now"
        return Verdict(stored=stored, now=now.value, holds=False, why=why)
    apart = abs(now.value - stored.value)
    allowed, because = tolerance(stored, now)
    values = f"{stored.value:.10g} then, {now.value:.10g} now"
    if not apart:
        why = f"{now.value:.10g} again, to the last bit"
    else:
        why = f"{values}; {f'within {allowed:.4g}' if apart <= allowed else 'apart'}, {because}"
    return Verdict(stored=stored, now=now.value, holds=apart <= allowed, why=why)


def tolerance(stored: Result, now: Result) -> tuple[float, str]:
    """How far apart two values of a cell may be, and why."""
    then, here = stored.provenance, now.provenance
    other = [key for key in SAME if then.get(key) != here.get(key)]
    other += [way for way, usual in WAYS.items() if then.get(way, usual) != here.get(way, usual)]
    if _torch(then) != _torch(here):
        other.append("torch")
    if not other:
        return 0.0, "and nothing may move it: kernel, device, threads and torch are as they were"
    share = max(TOLERANCE.get(str(p.get("dtype")), 0.01) for p in (then, here))
    allowed = share * max(abs(stored.value or 0), abs(now.value or 0))
    because = f"where {share:.1%} is allowed for another {' and '.join(other)}"
    if stored.n and stored.items and _of_hits(stored):
        return max(allowed, 1 / stored.n), f"{because}, or one of {stored.n} trials"
    return allowed, because


def _of_hits(stored: Result) -> bool:
    """Whether it is a share of hits; items may be books, of which some questions are."""
    whole = (stored.value or 0.0) * stored.n
    share = "accuracy" in stored.metric and abs(whole - round(whole)) < 1e-6
    return share or set(stored.items.values()) <= {0.0, 1.0}


def _planned(one: Chosen, words: Again) -> "list[Planned]":
    """The cell of its own command, after the shorter ones of its pass.

    Raises:
        LookupError: something of it is not on this machine.
        ValueError: it is another cell now, or is made of other weights or by another task.
    """
    from harness.gridfile import options
    from harness.plan import plan

    if words.missing:
        raise LookupError(words.missing[0])
    lengths = ",".join(map(str, (*one.shorter, one.stored.cell.length)))
    planned = plan(options(words.words | {"lengths": lengths}))
    last, then = planned[-1], one.stored.provenance
    if last.cell != one.stored.cell:
        raise ValueError(f"its command now makes {last.cell.path}")
    for what in ("weights", "task_version"):
        now = last.made_of.get(what)
        if now is not None and then.get(what, now) != now:
            raise ValueError(f"there is another {what.replace('_', ' ')} now than it was made with")
    return planned


def _loaded(planned: "Planned") -> "Live":
    from harness.model import load
    from harness.probe import checked

    live = checked(load(planned.model, device="auto", dtype=planned.dtype))
    return live


def _measured(live: "Live", planned: "list[Planned]", stored: Result) -> tuple[Result, str]:
    """The cell anew, and its encoding at the length of the pass that made the stored one."""
    from harness import catalog, machine
    from harness.engine.evaluate import BLOCK
    from harness.engine.offload import memory
    from harness.probe import read_encoding
    from harness.reader import TokenReader
    from harness.run import run

    cells, corpus = [one.cell for one in planned], planned[-1].corpus
    reader = TokenReader(live.tokenizer, machine.cache_folder())
    then = stored.provenance
    ways = {"block": then.get("block", BLOCK), "apart": then.get("apart", False), "keep": False}
    lies = memory(live.model, offload=then.get("offload", False))
    finished = run(live, reader, cells, corpus=corpus, memory=lies, **ways)[-1]
    whole = stored.provenance.get("pass_length", stored.cell.length)
    method = catalog.load("methods", stored.cell.method)
    with method.applied_to(live.model, whole):
        return finished.result, read_encoding(live.model, whole).digest


def _said(result: Result) -> str:
    return f"{result.value:.10g}" if result.value is not None else f"{result.status}"


def _torch(provenance: dict[str, Any]) -> str | None:
    return provenance.get("versions", {}).get("torch")
