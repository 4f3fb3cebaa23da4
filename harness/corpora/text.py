"""A document before it is tokenised, and how rows become documents."""

import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

from harness import nearest

TITLES = ("title", "name", "id")
"""Columns that name a document; the first there is."""
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
class Short:
    """What a corpus has where it has too few documents of a length."""

    needed: int
    there: int
    """Documents of any length."""
    long_enough: int
    rate: float
    """Tokens a byte."""


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

    @property
    def joins(self) -> str:
        """What behind its name makes longer documents of short ones; empty where nothing does."""
        return ""

    def hint(self, short: Short) -> str:
        """What to do when too few of its documents are long enough."""
        if not short.there:
            return "Give another corpus."
        samples = short.long_enough or min(short.there, short.needed)
        ways = [f"--samples {samples}"] if short.long_enough else []
        if short.there >= short.needed:
            ways.insert(0, "shorter lengths")
        elif not short.long_enough:
            ways.append(f"shorter lengths and --samples {samples}")
        join = f", or join short texts with {self.joins}"
        return f"Take {' or '.join(ways)}{join if self.joins and short.there > 1 else ''}."


def texts_of_rows(
    rows: Iterator[dict[str, Any]], column: str, join: str, name: str, grouped: bool = False
) -> Iterator[Text]:
    """A text of each row that has one, or of all rows whose column `join` is alike.

    Args:
        rows: by column.
        column: that of the text.
        join: that by which rows are joined; empty: none is.
        name: of the corpus, for messages.
        grouped: rows to be joined stand together.

    Raises:
        ValueError: the column holds no text.
    """
    rows = (row for row in rows if row[column] is not None)
    if join:
        texts = (("", str(row[join]), _text_of(row, column, name)) for row in rows)
        return joined(texts, grouped)
    return (as_text(row, i, column, name) for i, row in enumerate(rows))


def as_text(row: dict[str, Any], i: int, column: str, name: str) -> Text:
    """The i-th row's, by its title; raises ValueError where the column holds no text."""
    return Text(_title(row, i), (_text_of(row, column, name),))


def joined(rows: Iterator[tuple[str, str, str]], grouped: bool = False) -> Iterator[Text]:
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


def require(columns: list[str], there: Iterable[str], where: object) -> None:
    """See that all columns are there; raises LookupError, which names the one that is not."""
    there = list(there)
    for column in columns:
        if column not in there:
            raise LookupError(
                f"{where} has no column {column!r}.{nearest.hint(column, there)} "
                f"It has: {', '.join(there)}."
            )


CUT = re.compile("[\ud800-\udfff]")
"""What no UTF-8 has."""


def _text_of(row: dict[str, Any], column: str, name: str) -> str:
    if not isinstance(row[column], str):
        kind = type(row[column]).__name__
        raise ValueError(f"In {name}, the column {column!r} holds {kind}, not text.")
    if found := CUT.search(row[column]):
        half = f"half a character ({found[0]!a})"
        raise ValueError(f"In {name}, the column {column!r} holds {half}: mend that text.")
    return row[column]


def _title(row: dict[str, Any], i: int) -> str:
    return next((str(row[key]) for key in TITLES if row.get(key) not in (None, "")), f"row {i}")
