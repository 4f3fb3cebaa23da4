"""The running Python's own standard library: text that is real and always there."""

import hashlib
import os
import sysconfig
from functools import cache
from pathlib import Path

SPLITS = {
    "test": "5 % of its files; nothing of this project trains on them",
    "train": "90 % of its files; the toy model was trained on them",
    "validation": "the other 5 %",
    "tests": "its own test suite, in no other split; some distributions leave it out",
}


@cache
def library_files(root: Path | None = None) -> tuple[tuple[str, Path], ...]:
    """Every .py file of the standard library, by its path within it.

    Not what was installed beside it, nor the record of how this machine built it.

    Args:
        root: where it is; None: that of the running Python.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    found = []
    for folder, below, files in os.walk(root):
        below[:] = [b for b in below if b not in ("site-packages", "dist-packages", "__pycache__")]
        for file in files:
            path = Path(folder, file)
            if file.endswith(".py") and not file.startswith("_sysconfigdata") and path.is_file():
                found.append((path.relative_to(root).as_posix(), path))
    return tuple(found)


def split_of(inside: str) -> str:
    """Which split a file of the library is in; by its path, so it is the same everywhere."""
    if {"test", "tests", "idle_test"} & set(Path(inside).parts[:-1]):
        return "tests"
    bucket = int(hashlib.sha256(inside.encode()).hexdigest()[:8], 16) % 100
    return "train" if bucket < 90 else "validation" if bucket < 95 else "test"
