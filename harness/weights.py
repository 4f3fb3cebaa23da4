"""A model's weight files on this machine: which they are, what is in them, and their hashes."""

import contextlib
import hashlib
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from harness import machine
from harness.disk import sha256, write_whole

DIGEST = re.compile("[0-9a-f]{64}")


def of(place: str) -> str:
    """sha256 of all of a model's.

    Args:
        place: a folder, a GGUF file, or a hub name whose files are in the cache.

    Raises:
        LookupError: there are none that are read.
    """
    held = files(place)
    if not held:
        raise LookupError(f"The model {place!r} has no safetensors file, and no other is read.")
    digests = [_digest(file) for file in held]
    whole = "".join(digests).encode()
    return digests[0] if len(digests) == 1 else hashlib.sha256(whole).hexdigest()


def with_adapter(base: str, adapter: Path) -> str:
    """sha256 of a base's, given as such, and of what is added to them."""
    return hashlib.sha256((base + of(str(adapter))).encode()).hexdigest()


def files(place: str) -> list[Path]:
    """The weights, on this machine."""
    path = Path(place)
    if not path.exists():
        from huggingface_hub import snapshot_download

        path = Path(snapshot_download(place, local_files_only=True))
    return [path] if path.is_file() else sorted(path.glob("*.safetensors"))


def tensors(place: str, names: Collection[str]) -> dict[str, Any]:
    """Those of these names, from safetensors files."""
    from safetensors import safe_open

    found = {}
    for file in files(place) if names else []:
        with safe_open(file, framework="pt") as opened:
            found |= {n: opened.get_tensor(n) for n in opened.keys() if n in names}  # noqa: SIM118
    return found


def _digest(file: Path) -> str:
    """A file's sha256; read once, and again when its time or size changes."""
    stat = file.stat()
    seen = f"{file.resolve()} {stat.st_mtime_ns} {stat.st_size}"
    note = machine.cache_folder() / "digests" / hashlib.sha256(seen.encode()).hexdigest()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if DIGEST.fullmatch(noted := note.read_text("utf-8")):
            return noted
    digest = sha256(file)
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        write_whole(note, digest)
    return digest
