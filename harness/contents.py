"""Files that a method or a task reads, by what is in them: `factors@1a2b3c4d`, wherever they lie.

A result that named a path would be another one on another machine, and the same one after the file
had changed. What is named so is kept beside the cache. Small texts travel inside cell files; of
other files a cell file says where they are.
"""

import hashlib
import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from harness import machine
from harness.disk import sha256, write_bytes_whole, write_whole

NAME = r"[^/\\,@\x00]+"
STAMPED = re.compile(NAME + "@[0-9a-f]{8}")
"""The name of a file by its content."""


def keep(name: str, text: str) -> str:
    """Have this text at hand by its content from here on; what it is called.

    Args:
        name: what it is called without its content, such as a file's name without an ending.
        text: of the file.

    Raises:
        ValueError: the name is that of no file.
    """
    if not re.fullmatch(NAME, name):
        raise ValueError(f"{name!r} is no name of a file.")
    stamped = f"{name}@{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    if find(stamped) is None:
        place = _place(stamped)
        with suppress(OSError):  # a read-only cache: this process has it still
            place.parent.mkdir(parents=True, exist_ok=True)
            write_whole(place, text)
    _known[stamped] = text
    return stamped


def find(stamped: str) -> str | None:
    """The text of that name; None: it is of no file that was named on this machine."""
    if stamped not in _known and STAMPED.fullmatch(stamped):
        with suppress(OSError, UnicodeDecodeError):
            text = _place(stamped).read_bytes().decode()
            if stamped.endswith(hashlib.sha256(text.encode()).hexdigest()[:8]):
                _known[stamped] = text
    return _known.get(stamped)


_known: dict[str, str] = {}


def keep_file(file: Path) -> str:
    """Have this file at hand by its content, whatever is in it; what it is called.

    With it goes the result that lies beside it as `.json`, which says what it is.

    Raises:
        OSError: it cannot be read.
    """
    raw = file.read_bytes()
    name = re.sub(r"[,@\\\x00]", "-", file.stem)
    stamped = f"{name}@{hashlib.sha256(raw).hexdigest()[:8]}"
    _places[stamped] = file.absolute()
    if where(stamped) != _place(stamped):
        with suppress(OSError):  # a read-only cache: the file itself is there still
            _place(stamped).parent.mkdir(parents=True, exist_ok=True)
            write_bytes_whole(_place(stamped), raw)
    if (about := file.with_suffix(".json")).is_file():
        with suppress(OSError, UnicodeDecodeError):
            write_whole(beside(stamped), about.read_text("utf-8"))
    return stamped


def point(stamped: str, place: Path) -> None:
    """Say where a file of that name may be, if it is not at hand."""
    _places.setdefault(stamped, place)


def where(stamped: str) -> Path | None:
    """Where the file of that name is; None: it is of no file that was named on this machine."""
    if not STAMPED.fullmatch(stamped):
        return None
    for place in (_place(stamped), _places.get(stamped)):
        with suppress(OSError):
            if place and stamped.endswith(_digest(place, *_written(place))):
                return place
    return None


def _written(place: Path) -> tuple[int, int]:
    """What changes with a file's content: it is asked for each sample, and may be large."""
    found = place.stat()
    return found.st_mtime_ns, found.st_size


@lru_cache(16)
def _digest(place: Path, time: int, size: int) -> str:
    return sha256(place)[:8]


def beside(stamped: str) -> Path:
    """Where a result is that was kept with the file of that name."""
    return _place(f"{stamped}.json")


_places: dict[str, Path] = {}


def _place(stamped: str) -> Path:
    return machine.cache_folder() / "named" / stamped
