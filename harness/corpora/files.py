"""Corpora that are files, and what names files by their content."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from harness.corpora.text import TITLES, Corpus, Text, joined, require, texts_of_rows
from harness.disk import sha256

ENCODING = "utf-8-sig"
"""UTF-8, and a mark at the beginning that some editors write is none of the text."""


@dataclass(frozen=True)
class TextFiles(Corpus):
    """A file, or all .txt files below a folder in the order of their paths."""

    path: Path
    join: str

    @property
    def joins(self) -> str:
        return "" if self.join else "+join:folder"

    def texts(self, first: int) -> Iterator[Text]:
        rows = ((inside, str(Path(inside).parent), read(p)) for inside, p in self.files())
        return joined(rows) if self.join else (Text(name, (text,)) for name, _, text in rows)

    def files(self) -> list[tuple[str, Path]]:
        return _files(self.path, ".txt")

    def label(self) -> str:
        return f"text:{self.path.resolve().name}{_suffix(self.join)}@{hash_of_files(self.files())}"


@dataclass(frozen=True)
class Table(Corpus):
    """Rows with a column of text, and perhaps one that names them and one to join them by."""

    path: Path
    column: str
    join: str

    @property
    def joins(self) -> str:
        return "" if self.join else "+join:COLUMN"

    @abstractmethod
    def rows(self, whole: bool = False) -> Iterator[dict[str, Any]]:
        """Each with at least the columns it needs; with all of them where wanted whole."""

    @abstractmethod
    def files(self) -> list[tuple[str, Path]]: ...

    def texts(self, first: int) -> Iterator[Text]:
        return texts_of_rows(self.rows(), self.column, self.join, self.name)

    def label(self) -> str:
        kind = self.name.partition(":")[0]
        content = hash_of_files(self.files())
        return f"{kind}:{self.path.resolve().name}:{self.column}{_suffix(self.join)}@{content}"


class Parquet(Table):
    """Reads only the columns it needs, and only as many rows as are asked for."""

    def files(self) -> list[tuple[str, Path]]:
        return _files(self.path, ".parquet")

    def rows(self, whole: bool = False) -> Iterator[dict[str, Any]]:
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import ParquetFile

        for _, path in self.files():
            try:
                table = ParquetFile(path)
            except ArrowInvalid as error:
                raise ValueError(f"{path} is no Parquet file: {error}") from None
            with table:
                there = table.schema_arrow.names
                require([self.column, *([self.join] if self.join else [])], there, path)
                wanted = {self.column, self.join, *TITLES}
                columns = [column for column in there if whole or column in wanted]
                for batch in table.iter_batches(16, columns=columns):
                    yield from batch.to_pylist()


class JsonLines(Table):
    """One JSON object a line."""

    def files(self) -> list[tuple[str, Path]]:
        return _files(self.path, ".jsonl")

    def rows(self, whole: bool = False) -> Iterator[dict[str, Any]]:
        for _, path in self.files():
            with path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    try:
                        text = line.decode(ENCODING)
                        row = json.loads(text) if text.strip() else None
                    except UnicodeDecodeError as error:
                        raise ValueError(f"Line {number} of {_no_utf8(path, error)}") from None
                    except (ValueError, RecursionError) as error:
                        raise ValueError(f"Line {number} of {path} is no JSON: {error}") from None
                    if not text.strip():
                        continue
                    if not isinstance(row, dict):
                        raise ValueError(f"Line {number} of {path} is no JSON object.")
                    require([self.column, *([self.join] if self.join else [])], row, path)
                    yield row


def read(path: Path, errors: str = "strict") -> str:
    """A file's text.

    Raises:
        ValueError: it is not UTF-8.
    """
    try:
        return path.read_text(encoding=ENCODING, errors=errors)
    except UnicodeDecodeError as error:
        raise ValueError(_no_utf8(path, error)) from None


def _no_utf8(path: Path, error: UnicodeDecodeError) -> str:
    byte = f"byte 0x{error.object[error.start]:02x}"
    return f"{path} is no UTF-8 text ({byte}): save it as UTF-8, as with iconv -t utf-8."


def hash_of_files(files: list[tuple[str, Path]]) -> str:
    """8 hexadecimal digits of names and contents; of a single file, of its content alone."""
    stamps = [(inside, path.stat().st_mtime_ns, str(path)) for inside, path in files]
    return _hash_of_stamped(tuple(stamps))


def digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _files(path: Path, ending: str) -> list[tuple[str, Path]]:
    """Name within the folder and place of each file; a file is there by its own name."""
    if path.is_dir():
        found = sorted((p.relative_to(path).as_posix(), p) for p in path.rglob(f"*{ending}"))
        if not found:
            raise LookupError(f"The folder {path} has no {ending} files.")
        return found
    if not path.is_file():
        raise LookupError(f"There is no file or folder {path}.")
    return [(path.name, path)]


@cache
def _hash_of_stamped(files: tuple[tuple[str, int, str], ...]) -> str:
    digests = [sha256(Path(path)) for _, _, path in files]
    if len(files) == 1:
        return digests[0][:8]
    names = (inside for inside, _, _ in files)
    return digest("\n".join(f"{n} {d}" for n, d in zip(names, digests, strict=True)).encode())[:8]


def _suffix(join: str) -> str:
    return f"+join:{join}" if join else ""
