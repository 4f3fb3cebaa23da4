"""Results on disk: one JSON file a cell, whole or not there; a cell that has one is done.

Below a results folder, `runs/<model>/<task>/<method>/<length>.json`; beside it, outside git, the
per-token losses (`<length>.npz`) and the answers (`<length>.samples.jsonl`). Many cells may lie
together in a pack (`harness.packs`); where a cell has a file of its own too, that one counts.
"""

import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from heapq import merge
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pydantic import ValidationError

from harness import packs
from harness.cell import SCHEMA, Cell, Result
from harness.disk import arrays, held, parsed, probe, sweep, whole

if TYPE_CHECKING:
    import numpy as np

Filled = tuple[Path, Callable[[IO[bytes]], Any] | None]
"""A file and what writes it; None: there is to be none."""
RETRIED = ("failed", "out_of_memory")
"""What another try may cure."""


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A file among the results that is none."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path} is skipped: {self.reason}"


@dataclass(frozen=True)
class Store:
    """A folder of results."""

    root: Path
    retry: bool = False
    """Count cells as not done that failed, ran out of memory, or have a file that is no result."""
    broken: list[Broken] = field(default_factory=list)
    """What was found on the way and skipped."""

    @cached_property
    def runs(self) -> Path:
        return Path(self.root) / "runs"

    def path(self, cell: Cell) -> Path:
        """Where this cell's result lies, or will.

        Raises:
            ValueError: a link would lead out of the results folder.
        """
        path = self.runs / cell.path
        if not path.parent.resolve().is_relative_to(self.runs.resolve()):
            raise ValueError(f"{path} leads out of {self.runs}, and nothing is written there.")
        return path

    def has(self, cell: Cell) -> bool:
        """Whether it is done: its file exists, whatever it says, or it is packed; see `retry`."""
        if not self.retry and self.path(cell).exists():
            return True
        result = self.get(cell)
        return result is not None and not (self.retry and result.status in RETRIED)

    def get(self, cell: Cell) -> Result | None:
        """The cell's result; None if there is none, or none that can be read."""
        path = self.path(cell)
        if path.exists() and (result := self._read_or_skip(path)):
            return result
        for pack in self.opened():
            with self.skipping(pack.path):
                if result := pack.get(cell):
                    return result
        return None

    def files(self) -> set[str]:
        """Below `runs`, of all results with a file of their own: asked once for a large grid."""
        start = len(str(self.runs)) + 1
        return {
            f"{folder[start:]}/{name}"
            for folder, _, names in os.walk(self.runs)
            for name in names
            if name.endswith(".json")
        }

    def filed(self, file: str) -> Result | None:
        """One of `files`; None if it cannot be read."""
        return self._read_or_skip(self.runs / file)

    @property
    def packed(self) -> bool:
        """Whether a result may be there without a file of its own."""
        return bool(packs.paths(self.root))

    def ready(self) -> None:
        """Make the folder and see that it takes files, before hours are spent on filling it.

        What killed runs left half written goes.

        Raises:
            OSError: it does not; says why and what to do.
        """
        with self._said_clearly():
            self.runs.mkdir(parents=True, exist_ok=True)
            probe(self.runs)
            for folder in (self.runs, Path(self.root) / "packed"):
                sweep(folder)

    def write(
        self,
        result: Result,
        *,
        losses: "dict[str, np.ndarray] | None" = None,
        samples: Iterable[dict[str, Any]] | None = None,
    ) -> Path:
        """Put a result in its place; the losses and answers first, for the JSON says it is done.

        One that was scored never gives way to one that could not be: of two runs that meet at a
        cell, one waits for the other.

        Raises:
            OSError: the folder does not take it; says why and what to do. What was there stays.
        """
        path = self.path(result.cell)
        text = json.dumps(result.model_dump(), sort_keys=True, indent=2, allow_nan=False)
        lines = None if samples is None else [*samples]
        scored = result.status == "scored"
        said: Filled = (path, lambda file: file.write(f"{text}\n".encode()))
        beside: list[Filled] = [
            (path.with_suffix(".npz"), losses and (lambda file: _pack(file, losses))),
            (path.with_suffix(".samples.jsonl"), lines and (lambda file: _lines(file, lines))),
        ]
        with self._said_clearly():
            with held(path.parent, wait=True):
                if not scored and (was := self.get(result.cell)) and was.status == "scored":
                    return path  # another run has measured it meanwhile
                for place, fill in [*beside, said] if scored else [said, *beside]:
                    _place(place, fill)
            _sync(path.parent)
        self.broken[:] = [broken for broken in self.broken if broken.path != path]
        return path

    def read(self, path: Path) -> Result:
        """One result.

        Raises:
            ValueError: the file is none, or does not lie where its cell says.
            OSError: it cannot be read.
        """
        try:
            result = Result.model_validate_json(path.read_bytes())
        except ValueError as error:
            raise ValueError(_sentence(error)) from None
        if result.schema_version != SCHEMA:
            raise ValueError(
                f"it is of schema {result.schema_version}, and this harness reads {SCHEMA}"
            )
        if path.as_posix() != f"{self.runs.as_posix()}/{result.cell.file}":
            raise ValueError(f"its cell belongs at {self.runs / result.cell.path}")
        return result

    def results(self) -> Iterator[Result]:
        """All results, rows together, short lengths first; what is none goes to `broken`."""
        streams = [self._placed(self.single()), *map(self._unpacked, self.opened())]
        last = None
        for at, result in merge(*streams, key=lambda placed: placed[0]):
            if at != last:
                last = at
                yield result

    def single(self) -> Iterator[Result]:
        """Those that have a file of their own, in the same order."""
        for path in sorted(self._files(), key=self._place):
            if result := self._read_or_skip(path):
                yield result

    def opened(self) -> Iterator[packs.Pack]:
        """The packs, the one that counts first."""
        for path in packs.paths(self.root):
            with self.skipping(path):
                yield packs.Pack.open(path)

    def losses(self, cell: Cell) -> "dict[str, np.ndarray]":
        """Per-token losses by document; empty if none were kept whole."""
        path = self.path(cell).with_suffix(".npz")
        if path.exists():
            with self.skipping(path), path.open("rb") as file:
                return arrays(file)
        return {}

    def samples(self, cell: Cell) -> list[dict[str, Any]]:
        """The graded answers; empty if none were kept whole."""
        path = self.path(cell).with_suffix(".samples.jsonl")
        if path.exists():
            with self.skipping(path):
                return list(_answers(path))
        return []

    def _files(self) -> Iterator[Path]:
        for folder, below, names in os.walk(self.runs):
            below.sort()
            yield from (Path(folder, name) for name in names if name.endswith(".json"))

    def _place(self, path: Path) -> tuple[str, int]:
        return packs.place(path.relative_to(self.runs).as_posix())

    def _placed(self, results: Iterator[Result]) -> Iterator[tuple[tuple[str, int], Result]]:
        return ((packs.place(result.cell.path), result) for result in results)

    def _unpacked(self, pack: packs.Pack) -> Iterator[tuple[tuple[str, int], Result]]:
        with self.skipping(pack.path):
            for row in pack.rows():
                with self.skipping(pack.path, of=row["cell"]):
                    yield packs.place(row["cell"]), packs.result(row)

    def _read_or_skip(self, path: Path) -> Result | None:
        with self.skipping(path):
            return self.read(path)
        return None

    @contextmanager
    def skipping(self, path: Path, of: str = "") -> Iterator[None]:
        """Name a file that is none, or a row `of` it, and go on."""
        try:
            yield
        except (OSError, ValueError, RuntimeError, NotImplementedError) as error:
            self.skip(path, error, of)

    def skip(self, path: Path, error: Exception, of: str = "") -> None:
        """Name a file once that is none, or a row `of` it."""
        if path not in (b.path for b in self.broken):
            said = f"{of}: " if of else ""
            self.broken.append(Broken(path=path, reason=said + _sentence(error)))

    @contextmanager
    def _said_clearly(self) -> Iterator[None]:
        """Turn what the system says of the folder into what a person can act on."""
        try:
            yield
        except OSError as error:
            raise OSError(
                f"Results cannot be written to {str(self.root)!r}: {_sentence(error)}. Make room "
                "or rights there, or choose another folder with --results; nothing stored is lost."
            ) from error


def _place(path: Path, fill: Callable[[IO[bytes]], Any] | None) -> None:
    """Have a file there whole or not at all; None: take it away."""
    if not fill:
        path.unlink(missing_ok=True)
        return
    with whole(path, durable=True) as file:
        fill(file)


def _sync(folder: Path) -> None:
    """Make the renames last through a power cut, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _pack(file: IO[bytes], arrays: "dict[str, np.ndarray]") -> None:
    """As `numpy.savez_compressed`, which takes no array named `file`."""
    from numpy.lib import format

    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            if array.dtype.name not in ("float32", "float64"):
                raise ValueError(f"Losses are float32 or float64, and {name!r} is {array.dtype}.")
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                format.write_array(entry, array, allow_pickle=False)


def _lines(file: IO[bytes], samples: list[dict[str, Any]]) -> None:
    for sample in samples:
        line = json.dumps(sample, sort_keys=True, allow_nan=False, ensure_ascii=False)
        file.write(f"{line}\n".encode())


def _answers(path: Path) -> Iterator[dict[str, Any]]:
    """Raises ValueError: a line is none."""
    lines = path.read_text("utf-8").removesuffix("\n").split("\n")  # others are within answers
    for number, line in enumerate(lines, 1):
        answer = parsed(line, f"line {number}")
        if not isinstance(answer, dict):
            raise ValueError(f"line {number} is no answer")
        yield answer


def _sentence(error: Exception) -> str:
    """What the system says; of what pydantic has to say, the first."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"{where + ': ' if where else ''}{first['msg']}"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())
