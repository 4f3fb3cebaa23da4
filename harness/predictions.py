"""Files of predictions: their lines, read as far as can be, and what they say by which names."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAID = ("prediction", "pred")
RIGHT = ("ground_truth", "label", "answers", "answer", "outputs")
NAMES = ("id", "_id")


@dataclass(frozen=True)
class Line:
    """A line of a file, and the object in it; None: there is none."""

    number: int
    row: Mapping[str, Any] | None
    repaired: str | None = None
    """What stood behind the object."""


def lines(file: Path) -> Iterator[Line]:
    """Those that are not empty, each read as far as can be.

    Raises:
        FileNotFoundError: there is no such file.
    """
    with file.open("rb") as raw:
        for number, line in enumerate(raw, 1):
            if line.strip():
                yield _line(number, line)


def _line(number: int, raw: bytes) -> Line:
    try:
        text = raw.decode("utf-8-sig").strip()
        row, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return Line(number, None)
    rest = text[end:].strip()
    if not isinstance(row, dict) or not re.fullmatch(r"[\w.,;]*", rest):
        return Line(number, None)
    return Line(number, row, f"{rest!r} behind the object" if rest else None)


def said(row: Mapping[str, Any], where: str) -> str:
    """What was predicted; nothing where it is null.

    Raises:
        ValueError: the row has no such field, or no text in it; says where.
    """
    key = next((key for key in SAID if key in row), None)
    if key is None:
        raise ValueError(f"{lacks(row, SAID, where)}.")
    if row[key] is None:
        return ""
    if not isinstance(row[key], str):
        raise ValueError(f"{where}: {key!r} holds {type(row[key]).__name__}, not text.")
    return row[key]


def right(row: Mapping[str, Any], where: str) -> Any:
    """What is right.

    Raises:
        ValueError: the row does not say it; says where.
    """
    key = next((key for key in RIGHT if key in row), None)
    if key is None:
        raise ValueError(
            f"{lacks(row, RIGHT, where)}. A task whose questions are in a file is matched by id: "
            "give it as --task NAME,data=PATH."
        )
    return row[key]


def names_of(found: Sequence[Line]) -> list[str]:
    """The ids of those that have one."""
    return [name for line in found if line.row is not None and (name := name_of(line.row))]


def name_of(row: Mapping[str, Any]) -> str | None:
    """Its id, as text."""
    return next((str(row[key]) for key in NAMES if row.get(key) is not None), None)


def lacks(row: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    """That a row has none of these fields, in words."""
    either = " or ".join((", ".join(map(repr, names[:-1])), repr(names[-1])))
    return f"{where}: there is no field {either}; it has {', '.join(map(repr, row)) or 'none'}"
