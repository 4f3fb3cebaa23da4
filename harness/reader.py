"""How a model reads: its tokenizer, and documents tokenised once and kept by content."""

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from harness.corpora import Text, find
from harness.task import Document

if TYPE_CHECKING:
    import numpy as np


class TokenReader:
    """How a model reads: a `harness.task.Reader` made from its tokenizer.

    Every input starts with the tokenizer's start token, or where it has none, as Qwen's, with its
    end token, which stands between documents in training.

    Raises:
        ValueError: the tokenizer has neither.
    """

    def __init__(self, tokenizer: Any, cache: Path | None = None) -> None:
        starts = [t for t in (tokenizer.bos_token_id, tokenizer.eos_token_id) if t is not None]
        if not starts:
            raise ValueError("The tokenizer has neither a start nor an end token to start with.")
        self.tokenizer = tokenizer
        self.cache = cache
        self.bos = int(starts[0])

    @cached_property
    def spells_one_way(self) -> bool:
        """Each digit is a token by itself, and no other could begin or go on a number."""
        if any(len(t) > 1 and re.match(r"[Ġ▁ ]*[0-9]", t) for t in self.tokenizer.get_vocab()):
            return False
        numbers = ("0", "12345", "90807", "11111", "66208")
        pieces = (self.tokenizer.convert_ids_to_tokens(self.tokens(f" {n}")) for n in numbers)
        return all(
            [p for p in piece if p in set("0123456789")] == list(n)
            for n, piece in zip(numbers, pieces, strict=True)
        )

    def tokens(self, text: str) -> list[int]:
        """Without special tokens, also where the text spells one out."""
        plain = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
        return self.tokenizer(text, **plain)["input_ids"]

    def text(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode([int(t) for t in tokens], clean_up_tokenization_spaces=False)

    def documents(self, corpus: str, *, reach: int, first: int) -> list[Document]:
        source = find(corpus)
        source.check(first, reach)
        found: list[Document] = []
        longest: Text | None = None
        for text in source.texts(first):
            if longest is None or text.bytes > longest.bytes:
                longest = text
            if text.bytes < reach:
                continue
            tokens = self.tokens_of(text)
            if len(tokens) >= reach:
                found.append(Document(name=_unlike(text.name, found), tokens=tokens))
            if len(found) == first:
                return found
        most = 0 if longest is None else len(self.tokens_of(longest))
        rate = most / longest.bytes if longest and longest.bytes else 0.0
        raise LookupError(
            f"{corpus} has {len(found)} documents of at least {reach:,} tokens and {first} are "
            f"needed; its longest has {most:,}. {source.hint(rate)}"
        )

    def tokens_of(self, text: Text) -> "np.ndarray":
        """Of all parts, each read by itself; (n,), int32. From the cache where it was read."""
        import numpy as np

        if self.cache is None:
            return self._read(text)
        place = self.cache / "tokens" / self.fingerprint[:16] / f"{_content(text)}.npy"
        with suppress(OSError, ValueError, EOFError):
            return np.load(place)
        tokens = self._read(text)
        with suppress(OSError):  # a full or read-only cache costs time, not the run
            _write_whole(place, tokens)
        return tokens

    def _read(self, text: Text) -> "np.ndarray":
        import numpy as np

        parts = [np.array(self.tokens(part), dtype=np.int32) for part in text.parts]
        return np.concatenate([np.empty(0, dtype=np.int32), *parts])

    @cached_property
    def fingerprint(self) -> str:
        """Of all that decides how text is split; 64 hexadecimal digits."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is not None:
            return _digest(backend.to_str().encode())
        parts = (type(self.tokenizer).__name__, sorted(self.tokenizer.get_vocab().items()))
        return _digest(repr(parts).encode())


def _unlike(name: str, found: list[Document]) -> str:
    """The name, numbered if a document has it already."""
    names = {document.name for document in found}
    n = 2
    unlike = name
    while unlike in names:
        unlike, n = f"{name} ({n})", n + 1
    return unlike


def _content(text: Text) -> str:
    sha = hashlib.sha256()
    for part in text.parts:
        raw = part.encode()
        sha.update(f"{len(raw)} ".encode() + raw)
    return sha.hexdigest()


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _write_whole(place: Path, tokens: "np.ndarray") -> None:
    """Beside, then renamed into place: there whole or not at all."""
    import numpy as np

    place.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=place.parent, suffix=".part", delete=False) as file:
        beside = Path(file.name)
        try:
            np.save(file, tokens)
            file.close()
            beside.replace(place)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
