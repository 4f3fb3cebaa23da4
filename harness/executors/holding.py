"""Two runs on one results folder: harmless, and the second is told of the first."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Whether nobody else on this machine holds the folder; while in here, we do.

    The system lets go for whoever dies, and no file is left; where it knows no such locks, every
    run believes it is alone, as it may.
    """
    try:
        import fcntl
    except ImportError:
        yield True
        return
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        alone = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            alone = False
        except OSError:
            pass  # a disk without locks
        yield alone
    finally:
        os.close(handle)
