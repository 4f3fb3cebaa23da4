"""The running Python's own standard library: text that is real and always there."""

import hashlib
import sysconfig
from pathlib import Path, PurePath

LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


def library_root() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def library_files(split: str, root: Path | None = None) -> list[Path]:
    """The *.py files of one split, sorted by path; no tests, nothing that was installed."""
    root = root or library_root()
    found = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    kept = (name for name in found if LEFT_OUT.isdisjoint(PurePath(name).parts))
    return [root / name for name in kept if split_of(name) == split]


def split_of(name: str) -> str:
    """Where a file belongs, by the hash of its path: 90 % train, 5 % validation, 5 % test."""
    place = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % 100
    return "train" if place < 90 else "validation" if place < 95 else "test"
