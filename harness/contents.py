"""Small files that a method reads, by what is in them: `factors@1a2b3c4d`, wherever they lie.

A result that named a path would be another one on another machine, and the same one after the file
had changed. What is named so is kept beside the cache, and travels inside cell files.
"""

import hashlib
import re
from contextlib import suppress
from pathlib import Path

from harness import machine
from harness.disk import write_whole

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


def _place(stamped: str) -> Path:
    return machine.cache_folder() / "named" / stamped
