"""Files that are there whole or not at all, and disks that are full before they are."""

import errno
import hashlib
import json
import os
import re
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from zipfile import BadZipFile

if TYPE_CHECKING:
    import numpy as np

BESIDE = re.compile(r"\.[0-9a-f]{32}\.tmp")
"""The name of a file that is being written."""
OLD = 3600
"""Seconds since the last write to one, after which nobody writes it any more."""
TORN = ("PytorchStreamWriter", "inline_container")
"""Words of the errors that torch has for a file it could not end."""


def existing(folder: Path) -> Path:
    """The folder, if results are kept in it.

    Raises:
        ValueError: they are not; says what to do.
    """
    if not any((folder / kept).is_dir() for kept in ("runs", "packed")):
        raise ValueError(
            f"There are no results in {str(folder)!r}. Measure some with: harness run; or say "
            "where they are with --results."
        )
    return folder


@contextmanager
def whole(place: Path, *, durable: bool = False) -> Iterator[IO[bytes]]:
    """A file to fill, beside, and renamed into its place at the end; many processes may do so.

    Args:
        place: where it will be.
        durable: also after a power cut.

    Raises:
        OSError: the folder does not take it; what was there stays.
    """
    if place.exists() and not place.is_file():
        raise OSError(errno.EEXIST, "it is no file, and nothing takes its place", str(place))
    beside = _beside(place.parent)
    try:
        with beside.open("xb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(place)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        ours = isinstance(error, OSError) and error.filename in (None, str(beside), beside)
        if ours and error.errno:  # of a full disk it names no file
            raise OSError(error.errno, error.strerror, str(place)) from error
        raise


def write_whole(place: Path, text: str) -> None:
    """Beside, then renamed into place; many processes may do so at once.

    Raises:
        OSError: the folder does not take it; what was there stays.
    """
    write_bytes_whole(place, text.encode())


def write_bytes_whole(place: Path, raw: bytes) -> None:
    """As `write_whole`, of what is no text.

    Raises:
        OSError: the folder does not take it; what was there stays.
    """
    with whole(place) as file:
        file.write(raw)


def text_of(file: Path) -> str | None:
    """What it says; None: there is none."""
    return file.read_text("utf-8") if file.is_file() else None


def parsed(text: str | bytes, where: object) -> Any:
    """What JSON says.

    Raises:
        ValueError: it is none; says where.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is no JSON: {error}.") from None


def read_json(file: Path) -> Any:
    """What a file of JSON says.

    Raises:
        ValueError: it is none; names it.
        OSError: it cannot be read.
    """
    return parsed(file.read_bytes(), file)


def arrays(file: IO[bytes]) -> "dict[str, np.ndarray]":
    """What an `.npz` file holds, by name.

    Raises:
        ValueError: it is none, or torn.
    """
    import numpy as np

    try:
        with np.load(file, allow_pickle=False) as held:
            found = {name: held[name] for name in held.files}
    except (ValueError, TypeError, EOFError, RuntimeError, BadZipFile, zlib.error) as error:
        raise ValueError(f"it is no whole .npz file: {error}") from None
    if not all(isinstance(array, np.ndarray) for array in found.values()):
        raise ValueError("it is no .npz file: not all in it are arrays")
    return found


def sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@contextmanager
def held(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Whether nobody else on this machine holds the folder; while in here, we do.

    The system lets go for whoever dies, and no file is left; where it knows no such locks, all
    believe that they are alone.

    Args:
        folder: made where there is none.
        wait: until nobody else does.

    Raises:
        OSError: it cannot be made or opened.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield True
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        alone = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            alone = False
        except OSError:
            pass  # a disk without locks
        yield alone
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Take away what was being written below here by whoever was killed since."""
    for place, _, names in os.walk(folder):
        for left in (Path(place, name) for name in names if BESIDE.fullmatch(name)):
            with suppress(OSError):  # another has, or may
                if time.time() - left.stat().st_mtime > OLD:
                    left.unlink()


def probe(folder: Path) -> None:
    """See that a folder takes files.

    Raises:
        OSError: it does not; it is full, or nobody may write there.
    """
    tried = _beside(folder)
    try:
        tried.write_bytes(b"\0" * 4096)
    finally:
        tried.unlink(missing_ok=True)


def takes_files(place: Path) -> None:
    """See that this file can be written, before hours are spent on what goes into it.

    Raises:
        ValueError: it cannot; says why.
    """
    if place.is_dir():
        raise ValueError(f"{place} is a folder: give a file with --output.")
    if place.exists() and not place.is_file():
        raise ValueError(f"{place} is no file that can be replaced: give another --output.")
    if not place.parent.is_dir():
        raise ValueError(f"There is no folder {place.parent}: make it, or give another --output.")
    try:
        probe(place.parent)
    except OSError as error:
        raise ValueError(
            f"{place.parent} takes no files ({error.strerror}): give another --output."
        ) from None


@contextmanager
def saving(folder: Path, safe: str = "") -> Iterator[None]:
    """Say what fails in here as an OSError: torch and safetensors have none for a full disk.

    Args:
        folder: what is written.
        safe: what is not lost, in a sentence.

    Raises:
        OSError: it could not be written.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(word in str(error) for word in TORN):
            raise
        said = getattr(error, "strerror", None) or str(error)
        if isinstance(error, RuntimeError):
            said = "the disk took less than a save has, and may be full"
        raise OSError(f"{folder} could not be written: {said}. {safe}".rstrip()) from error


def let_others_read(folder: Path) -> None:
    """Give the weights in it the rights of any new file: safetensors writes for its owner alone."""
    mask = os.umask(0)  # there is no other way to ask for it
    os.umask(mask)
    for file in folder.glob("*.safetensors"):
        file.chmod(0o666 & ~mask)


def _beside(folder: Path) -> Path:
    return folder / f".{uuid.uuid4().hex}.tmp"
