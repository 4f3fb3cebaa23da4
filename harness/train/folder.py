"""A folder of sequences on disk: memory-mappable arrays and a card, there whole or not at all.

sequences-00000.npy ...   (some, length) tokens, uint16 or uint32
boundaries.npy            (documents,) int64: where each begins, counted over all sequences
parts.npy                 (sequences,) uint8: which part of the mixture each is of
mixture.json              what it is, and the sha256 of each file
"""

import hashlib
import json
import shutil
from array import array
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from harness.disk import sha256
from harness.train.packing import BOUNDARIES, CARD, SCHEMA, SHARD, Packed

PARTS = "parts.npy"
SHARD_TOKENS = 2**28
"""Tokens of a file, about."""


class Writer:
    """Writes beside, in a folder that ends in .part, and renames it when all is there.

    Raises:
        ValueError: the folder is there, or one that a stopped build left.
    """

    def __init__(
        self, output: Path, length: int, dtype: type, shard_tokens: int = SHARD_TOKENS
    ) -> None:
        self.output = output
        self.beside = output.with_name(f"{output.name}.part")
        self.length, self.dtype = length, np.dtype(dtype)
        self.sequences = 0
        self._most = max(1, shard_tokens // length)
        self._rows = 0
        self._shard: IO[bytes] | None = None
        self._files: list[str] = []
        self._begins = array("q")
        self._parts = bytearray()

    def __enter__(self) -> Self:
        if self.output.exists() and (not self.output.is_dir() or any(self.output.iterdir())):
            raise ValueError(f"{self.output} is there already: name another or delete it.")
        if self.beside.exists():
            raise ValueError(
                f"{self.beside} is what a build left that was stopped, or that still runs: "
                "delete it to build again."
            )
        self.beside.mkdir(parents=True)
        return self

    def write(self, packed: Packed, part: int) -> None:
        """One more sequence, of the part of this number."""
        if self._shard is None or self._rows == self._most:
            self._next_shard()
        assert self._shard is not None
        self._shard.write(packed.tokens.astype(self.dtype).tobytes())
        self._rows += 1
        self._begins.extend(self.sequences * self.length + at for at in packed.begins)
        self._parts.append(part)
        self.sequences += 1

    def finish(self, about: dict[str, Any]) -> dict[str, Any]:
        """The card, when it and all else has its place."""
        self._close_shard()
        self._save(BOUNDARIES, np.array(self._begins, dtype=np.int64))
        self._save(PARTS, np.frombuffer(self._parts, dtype=np.uint8))
        files = {name: sha256(self.beside / name) for name in self._files}
        content = hashlib.sha256(json.dumps([self.length, files]).encode()).hexdigest()
        card = {
            "schema": SCHEMA,
            "label": f"mixture:{about['name']}@{content[:8]}",
            "length": self.length,
            "sequences": self.sequences,
            "tokens": self.sequences * self.length,
            **about,
            "files": files,
        }
        text = json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False)
        (self.beside / CARD).write_text(text + "\n", "utf-8")
        self.beside.rename(self.output)
        return card

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shard is not None:
            self._shard.close()
        shutil.rmtree(self.beside, ignore_errors=True)

    def _next_shard(self) -> None:
        self._close_shard()
        name = SHARD.format(len(self._files))
        self._files.append(name)
        self._shard = (self.beside / name).open("w+b")
        self._rows = 0
        self._header()

    def _close_shard(self) -> None:
        """Only now is it known how many rows the file has."""
        if self._shard is None:
            return
        self._shard.seek(0)
        self._header()
        self._shard.close()
        self._shard = None

    def _header(self) -> None:
        """Of one size whatever the number of rows: numpy leaves room for its digits."""
        shape = (self._rows, self.length)
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
        assert self._shard is not None
        np.lib.format.write_array_header_1_0(self._shard, header)

    def _save(self, name: str, array: np.ndarray) -> None:
        np.save(self.beside / name, array)
        self._files.append(name)
