"""Text in: a corpus by its name.

    stdlib[:test|train|validation|tests]   the running Python's own library, split by file path
    text:PATH                              a file, or a folder of .txt
    parquet:PATH[:column]                  a file, or a folder of .parquet; the column is `text`
    jsonl:PATH[:column]                    a file, or a folder of .jsonl
    hf:NAME[:config[:split[:column]]]      a dataset of the hub, streamed; the split is `test`

Behind any but stdlib, `+join:author` joins the rows of one author into one document, and for text
`+join:folder` the files of one folder, so that short texts can reach a long length.
"""

import hashlib
import heapq
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from harness import nearest
from harness.library import SPLITS, library_files, split_of


class Kind(NamedTuple):
    """How a kind of corpus is written, and what it is."""

    written: str
    about: str


KINDS = {
    "stdlib": Kind("stdlib[:split]", "the running Python's own library; always there"),
    "text": Kind("text:PATH[+join:folder]", "a file, or all .txt files of a folder"),
    "parquet": Kind("parquet:PATH[:column][+join:column]", "a file, or all .parquet of a folder"),
    "jsonl": Kind("jsonl:PATH[:column][+join:column]", "a file, or all .jsonl of a folder"),
    "hf": Kind("hf:NAME[:config[:split[:column]]][+join:column]", "of the hub, streamed"),
}
TITLES = ("title", "name", "id")
"""Columns that name a document; the first there is."""
QUESTIONS = (".jsonl", ".json", ".zip", ".yaml")
"""What files of a benchmark's questions are called."""
JOINT = "\n\n"
"""Stands behind each part of a joined document."""


@dataclass(frozen=True)
class Text:
    """A document before it is tokenised: its parts one after another."""

    name: str
    parts: tuple[str, ...]

    @cached_property
    def bytes(self) -> int:
        """No tokenizer makes more tokens than this of it."""
        return sum(len(part.encode()) for part in self.parts)


@dataclass(frozen=True)
class Corpus(ABC):
    """Texts in an order that does not change."""

    name: str
    """As the person wrote it."""

    def check(self, first: int, reach: int) -> None:
        """See that so many documents of so many tokens can be there, where that costs nothing.

        Raises:
            LookupError: they cannot.
        """

    @abstractmethod
    def texts(self, first: int) -> Iterator[Text]:
        """Its documents, in order; `first` is how many will be asked for.

        Raises:
            LookupError: it is not there, or has no such column.
        """

    def every(self) -> Iterator[Text]:
        """All its documents one at a time, as training reads them.

        Raises:
            LookupError: it is not there, or has no such column.
        """
        return self.texts(sys.maxsize)

    @abstractmethod
    def label(self) -> str:
        """Its name in results: by content, without this machine's folders."""

    def hint(self, rate: float) -> str:
        """What to do when its documents are too short; `rate` is tokens a byte."""
        return "Take shorter lengths or fewer samples, or join short texts with +join:COLUMN."


def find(name: str) -> Corpus:
    """The corpus of this name.

    Raises:
        LookupError: there is no such kind of corpus; the message has the nearest.
        ValueError: the name is not written as its kind is.
    """
    if "," in name:
        raise ValueError(f"A corpus cannot have a comma in its name: rename or link {name!r}.")
    kind, _, rest = name.partition(":")
    rest, _, join = rest.partition("+join:")
    if kind not in KINDS:
        raise LookupError(
            f"No corpus named {name!r}.{nearest.hint(kind, KINDS)} "
            f"There are: {', '.join(kind.written for kind in KINDS.values())}."
        )
    if kind == "stdlib":
        if join:
            raise ValueError(f"The files of stdlib are joined already: leave +join:{join} out.")
        return StandardLibrary(name, _one_of(rest or "test", SPLITS, name))
    if not rest:
        raise ValueError(f"{name!r} does not say where it is: write {KINDS[kind].written}.")
    if kind == "hf":
        return _hub(name, rest, join)
    if kind == "text":
        return TextFiles(name, Path(rest).expanduser(), _one_of(join, ("", "folder"), name))
    path, column = _path_and_column(rest)
    return {"parquet": Parquet, "jsonl": JsonLines}[kind](name, path, column, join)


def label(name: str) -> str:
    """A corpus's name in results: `parquet:test.parquet:text@1a2b3c4d`, by its content.

    A task's `corpus` keeps what the person wrote, so that the text can be found; a cell's path has
    this, so that it is the same on another machine. One that is on the hub is named as it is.

    Raises:
        LookupError: it is not there.
        ValueError: the name is not written as its kind is.
    """
    return find(name).label()


def place_of(task: Any) -> str | None:
    """Which field of a task says where its text or its questions are; None: none does."""
    return next((name for name in ("corpus", "data") if hasattr(task, name)), None)


def reading(task: Any, where: str | None) -> Any:
    """The task, reading from where its text or its questions are on this machine."""
    field = place_of(task)
    return replace(task, **{field: where}) if field and where else task


def label_of(task: Any, where: str) -> str:
    """What a task reads, as it is named in results: by its content, without this machine's folders.

    Raises:
        LookupError: it is not there.
        ValueError: the name is not written as its kind is.
    """
    if place_of(task) == "corpus":
        return label(where)
    if where.startswith("hf:"):
        return where
    path = Path(where).expanduser()
    inside = [file for ending in QUESTIONS for file in path.rglob(f"*{ending}")]
    files = sorted((file.relative_to(path).as_posix(), file) for file in inside)
    if not files and not path.is_file():
        raise LookupError(f"There is no file or folder with questions at {path}.")
    return f"{path.resolve().name}@{_hash_of_files(files or [(path.name, path)])}"


def with_rows(corpus: "Table | Hub") -> Iterator[tuple[dict[str, Any], Text]]:
    """Each row that has a text, with all its columns, and the text; nothing is joined."""
    rows = (row for row in corpus.rows(whole=True) if row[corpus.column] is not None)
    return ((row, _as_text(row, i, corpus.column, corpus.name)) for i, row in enumerate(rows))


@dataclass(frozen=True)
class StandardLibrary(Corpus):
    """The library this Python came with: real text that is always there.

    A file's split is fixed by its path. The files are dealt, largest first, each to the document
    that is shortest so far: so a split makes as many documents as are asked for, about equally
    long, and they are the same at every length.
    """

    split: str

    def files(self) -> list[tuple[str, Path]]:
        """Path within the library and place of each, in the corpus's order.

        Raises:
            LookupError: there are none.
        """
        found = sorted(
            (_digest(inside.encode()), inside, path)
            for inside, path in library_files()
            if split_of(inside) == self.split
        )
        if not found:
            raise LookupError(f"This Python has no files for {self.name}; take another split.")
        return [(inside, path) for _, inside, path in found]

    def check(self, first: int, reach: int) -> None:
        files = self.files()
        if first > len(files):
            raise LookupError(
                f"{self.name} has {len(files):,} files, too few for {first:,} documents: take "
                "fewer samples or another split."
            )
        held = sum(path.stat().st_size for _, path in files)
        if first * reach > held:
            raise LookupError(
                f"{self.name} has {held:,} bytes, too few for {first:,} documents of {reach:,} "
                "tokens: take shorter lengths, fewer samples or another split."
            )

    def texts(self, first: int) -> Iterator[Text]:
        texts = [_read(path) for _, path in self.files()]
        piles: list[list[int]] = [[] for _ in range(first)]
        sizes = [(0, pile) for pile in range(first)]
        for i in sorted(range(len(texts)), key=lambda i: -len(texts[i])):
            size, pile = sizes[0]
            heapq.heapreplace(sizes, (size + len(texts[i]), pile))
            piles[pile].append(i)
        for n, pile in enumerate(piles, 1):
            name = f"stdlib:{self.split} {n} of {first}"
            yield Text(name, tuple(texts[i] for i in sorted(pile)))

    def every(self) -> Iterator[Text]:
        """Each file by itself."""
        return (Text(inside, (_read(path),)) for inside, path in self.files())

    def label(self) -> str:
        name = "stdlib" if self.split == "test" else f"stdlib:{self.split}"
        return f"{name}@{_hash_of_files(self.files())}"

    def hint(self, rate: float) -> str:
        sizes = dict.fromkeys(SPLITS, 0)
        for inside, path in library_files():
            sizes[split_of(inside)] += path.stat().st_size
        about = ", ".join(f"stdlib:{s} {round(n * rate, -3):,.0f}" for s, n in sizes.items())
        return f"Take shorter lengths, fewer samples or another split; they hold about {about}."


@dataclass(frozen=True)
class TextFiles(Corpus):
    """A file, or all .txt files below a folder in the order of their paths."""

    path: Path
    join: str

    def texts(self, first: int) -> Iterator[Text]:
        rows = ((inside, str(Path(inside).parent), _read(p)) for inside, p in self.files())
        return _joined(rows) if self.join else (Text(name, (text,)) for name, _, text in rows)

    def files(self) -> list[tuple[str, Path]]:
        return _files(self.path, ".txt")

    def label(self) -> str:
        return f"text:{self.path.resolve().name}{_suffix(self.join)}@{_hash_of_files(self.files())}"


@dataclass(frozen=True)
class Table(Corpus):
    """Rows with a column of text, and perhaps one that names them and one to join them by."""

    path: Path
    column: str
    join: str

    @abstractmethod
    def rows(self, whole: bool = False) -> Iterator[dict[str, Any]]:
        """Each with at least the columns it needs; with all of them where wanted whole."""

    @abstractmethod
    def files(self) -> list[tuple[str, Path]]: ...

    def texts(self, first: int) -> Iterator[Text]:
        return _texts_of_rows(self.rows(), self.column, self.join, self.name)

    def label(self) -> str:
        kind = self.name.partition(":")[0]
        content = _hash_of_files(self.files())
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
                _require([self.column, *([self.join] if self.join else [])], there, path)
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
            with path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    if not line.strip():
                        continue
                    try:
                        row = json.loads(line)
                    except ValueError as error:
                        raise ValueError(f"Line {number} of {path} is no JSON: {error}") from None
                    if not isinstance(row, dict):
                        raise ValueError(f"Line {number} of {path} is no JSON object.")
                    _require([self.column, *([self.join] if self.join else [])], row, path)
                    yield row


@dataclass(frozen=True)
class Hub(Corpus):
    """A dataset of the Hugging Face hub, streamed: only as much is fetched as is asked for.

    Joined rows must follow one another.
    """

    dataset: str
    config: str | None
    split: str
    column: str
    join: str

    def texts(self, first: int) -> Iterator[Text]:
        return _texts_of_rows(self.rows(), self.column, self.join, self.name, grouped=True)

    def rows(self, whole: bool = True) -> Iterator[dict[str, Any]]:
        """With all their columns: the hub does not send fewer."""
        from datasets import load_dataset

        try:
            rows = load_dataset(self.dataset, self.config, split=self.split, streaming=True)
        except Exception as error:  # what it raises is not documented, and differs by cause
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise LookupError(f"{self.name} could not be opened: {why}") from error
        return (self._checked(row) for row in rows)

    def label(self) -> str:
        return self.name

    def _checked(self, row: dict[str, Any]) -> dict[str, Any]:
        _require([self.column, *([self.join] if self.join else [])], row, self.dataset)
        return row


def _hub(name: str, rest: str, join: str) -> Hub:
    parts = rest.split(":")
    if len(parts) > 4:
        raise ValueError(f"{name!r} has too many parts: write {KINDS['hf'].written}.")
    dataset, config, split, column = parts + [""] * (4 - len(parts))
    return Hub(name, dataset, config or None, split or "test", column or "text", join)


def _path_and_column(rest: str) -> tuple[Path, str]:
    """A path may have a colon in it, if the file is there."""
    whole = Path(rest).expanduser()
    if whole.exists() or ":" not in rest:
        return whole, "text"
    path, _, column = rest.rpartition(":")
    return Path(path).expanduser(), column or "text"


def _one_of(word: str, words: Iterable[str], name: str) -> str:
    words = list(words)
    if word not in words:
        raise LookupError(
            f"In {name!r}, {word!r} is none of: {', '.join(filter(None, words))}."
            f"{nearest.hint(word, words)}"
        )
    return word


def _texts_of_rows(
    rows: Iterator[dict[str, Any]], column: str, join: str, name: str, grouped: bool = False
) -> Iterator[Text]:
    rows = (row for row in rows if row[column] is not None)
    if join:
        texts = (("", str(row[join]), _text_of(row, column, name)) for row in rows)
        return _joined(texts, grouped)
    return (_as_text(row, i, column, name) for i, row in enumerate(rows))


def _as_text(row: dict[str, Any], i: int, column: str, name: str) -> Text:
    return Text(_title(row, i), (_text_of(row, column, name),))


def _text_of(row: dict[str, Any], column: str, name: str) -> str:
    if not isinstance(row[column], str):
        kind = type(row[column]).__name__
        raise ValueError(f"In {name}, the column {column!r} holds {kind}, not text.")
    return row[column]


def _joined(rows: Iterator[tuple[str, str, str]], grouped: bool = False) -> Iterator[Text]:
    """(name, group, text) to one text a group, in the order in which groups begin.

    Where rows are grouped already, no more of them are read than are asked for.
    """
    if grouped:
        for group, members in groupby(rows, key=lambda row: row[1]):
            yield Text(group, tuple(text + JOINT for _, _, text in members))
        return
    groups: dict[str, list[str]] = {}
    for _, group, text in rows:
        groups.setdefault(group, []).append(text + JOINT)
    for group, parts in groups.items():
        yield Text(group, tuple(parts))


def _title(row: dict[str, Any], i: int) -> str:
    return next((str(row[key]) for key in TITLES if row.get(key) not in (None, "")), f"row {i}")


def _require(columns: list[str], there: Iterable[str], where: object) -> None:
    there = list(there)
    for column in columns:
        if column not in there:
            raise LookupError(
                f"{where} has no column {column!r}.{nearest.hint(column, there)} "
                f"It has: {', '.join(there)}."
            )


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


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _hash_of_files(files: list[tuple[str, Path]]) -> str:
    """8 hexadecimal digits of names and contents; of a single file, of its content alone."""
    stamps = [(inside, path.stat().st_mtime_ns, str(path)) for inside, path in files]
    return _hash_of_stamped(tuple(stamps))


@cache
def _hash_of_stamped(files: tuple[tuple[str, int, str], ...]) -> str:
    digests = []
    for _, _, path in files:
        with Path(path).open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    if len(files) == 1:
        return digests[0][:8]
    names = (inside for inside, _, _ in files)
    return _digest("\n".join(f"{n} {d}" for n, d in zip(names, digests, strict=True)).encode())[:8]


def _suffix(join: str) -> str:
    return f"+join:{join}" if join else ""


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
