"""Text in: a corpus by its name.

    stdlib[:test|train|validation|tests]   the running Python's own library, split by file path
    text:PATH                              a file, or a folder of .txt
    parquet:PATH[:column]                  a file, or a folder of .parquet; the column is `text`
    jsonl:PATH[:column]                    a file, or a folder of .jsonl
    hf:NAME[@REVISION][:config[:split[:column]]]   of the hub, streamed; the split is `test`

Behind any but stdlib, `+join:author` joins the rows of one author into one document, and for text
`+join:folder` the files of one folder, so that short texts can reach a long length.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from harness import nearest
from harness.corpora.files import JsonLines, Parquet, Table, TextFiles, hash_of_files
from harness.corpora.hub import Hub
from harness.corpora.stdlib import StandardLibrary
from harness.corpora.text import Corpus, Text, as_text
from harness.library import SPLITS


class Kind(NamedTuple):
    """How a kind of corpus is written, and what it is."""

    written: str
    about: str


KINDS = {
    "stdlib": Kind("stdlib[:split]", "the running Python's own library; always there"),
    "text": Kind("text:PATH[+join:folder]", "a file, or all .txt files of a folder"),
    "parquet": Kind("parquet:PATH[:column][+join:column]", "a file, or all .parquet of a folder"),
    "jsonl": Kind("jsonl:PATH[:column][+join:column]", "a file, or all .jsonl of a folder"),
    "hf": Kind("hf:NAME[@REVISION][:config[:split[:column]]][+join:column]", "streamed"),
}
ENDINGS = {".txt": "text", ".parquet": "parquet", ".jsonl": "jsonl"}
"""Kinds of corpora, by what their files' names end with."""
QUESTIONS = (".jsonl", ".json", ".zip", ".yaml")
"""What files of a benchmark's questions are called."""


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
            f"No corpus named {name!r}.{_as_files(name) or nearest.hint(kind, KINDS)} "
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


def _as_files(name: str) -> str:
    """` Write text:novels ...`, where a file or a folder that can be read is called so."""
    path = Path(name).expanduser()
    ending = next((e for e in ENDINGS if any(path.rglob(f"*{e}"))), path.suffix)
    if name and (path.is_file() or (path.is_dir() and ending in ENDINGS)):
        return f" Write {ENDINGS.get(ending, 'text')}:{name} for what lies there."
    return ""


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
    return label(where) if place_of(task) == "corpus" else label_of_questions(where)


def label_of_questions(where: str) -> str:
    """What a file or a folder of questions is called in results.

    Raises:
        LookupError: it is not there.
    """
    if where.startswith("hf:"):
        return where
    path = Path(where).expanduser()
    inside = [file for ending in QUESTIONS for file in path.rglob(f"*{ending}")]
    files = sorted((file.relative_to(path).as_posix(), file) for file in inside)
    if not files and not path.is_file():
        raise LookupError(f"There is no file or folder with questions at {path}.")
    return f"{path.resolve().name}@{hash_of_files(files or [(path.name, path)])}"


def with_rows(corpus: "Table | Hub") -> Iterator[tuple[dict[str, Any], Text]]:
    """Each row that has a text, with all its columns, and the text; nothing is joined."""
    rows = (row for row in corpus.rows(whole=True) if row[corpus.column] is not None)
    return ((row, as_text(row, i, corpus.column, corpus.name)) for i, row in enumerate(rows))


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
