"""How a model reads: its tokenizer, and documents tokenised once and kept by content."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.conversation import BETWEEN, rendered, special, thinking, turn_end
from harness.corpora import Text, find
from harness.corpora.text import Short
from harness.disk import whole
from harness.task import Document

if TYPE_CHECKING:
    import numpy as np


def unused(text: str) -> str:
    """A character that stands nowhere in the text."""
    return next(chr(c) for c in range(0xE000, 0xF900) if chr(c) not in text)


class TokenReader:
    """How a model reads: a `harness.task.Reader` made from its tokenizer.

    Every input starts with the tokenizer's start token. One that has none, as Qwen's, starts with
    what stands between documents in training: `<|endoftext|>` if that is one of its special tokens,
    else its end token, which where it holds conversations may be what ends a turn.

    Raises:
        ValueError: the tokenizer has none of them.
    """

    def __init__(self, tokenizer: Any, cache: Path | None = None) -> None:
        self.tokenizer = tokenizer
        self.cache = cache
        self.bos = _start(tokenizer)

    @cached_property
    def marks(self) -> frozenset[int]:
        """Special tokens, which are no text: nobody is shown them in an answer."""
        added = self.tokenizer.added_tokens_decoder.items()
        return frozenset([i for i, t in added if t.special] + self.tokenizer.all_special_ids)

    @cached_property
    def ends(self) -> frozenset[int]:
        """What ends an answer: the tokenizer's end token, and the token that ends a turn.

        That is the special token which the template writes behind what an assistant has said. A
        model's own generation config may know neither.
        """
        known = [self.tokenizer.eos_token_id, turn_end(self.tokenizer) if self.chats else None]
        return frozenset(token for token in known if token is not None)

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
        return self._tokens(text, split_special_tokens=True)

    def _tokens(self, text: str, **how: bool) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, verbose=False, **how)["input_ids"]

    def text(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode([int(t) for t in tokens], clean_up_tokenization_spaces=False)

    @property
    def chats(self) -> bool:
        """The tokenizer has a chat template."""
        with suppress(ValueError):
            return bool(self.tokenizer.get_chat_template())
        return False

    @property
    def thinking(self) -> str | None:
        """What was done about a template that would have answers thought over; None: nothing."""
        return thinking(self.tokenizer) if self.chats else None

    def chat(self, messages: Sequence[Mapping[str, str]], *, opening: str = "") -> list[int]:
        """A conversation by the tokenizer's template, up to where the assistant speaks.

        The start token is there once, whether the template writes it or not; a tokenizer that has
        none of its own gets none, for its model never saw one before a conversation. What looks
        like a special token in a message is text.

        Args:
            messages: each a `role` and a `content`.
            opening: how the assistant's turn begins.

        Raises:
            LookupError: the tokenizer has no chat template.
            ValueError: its template refuses these messages; says why.
        """
        mark = unused("".join(message["content"] for message in messages) + opening)
        told = [self.marked(message, mark) for message in messages]
        whole = self._rendered(told) + self._plain(opening, mark)
        tokens: list[int] = []
        for piece, spells_one_out in self.pieces(whole, mark):
            tokens += self.tokens(piece) if spells_one_out else self._tokens(piece)
        return self.started_once(tokens)

    def marked(self, message: Mapping[str, str], mark: str) -> dict[str, str]:
        """The message with a mark in whatever looks like a special token, which `pieces` finds."""
        return {**message, "content": self._plain(message["content"], mark)}

    def _plain(self, content: str, mark: str) -> str:
        return self._special.sub(lambda it: f"{it[0][0]}{mark}{it[0][1:]}", content)

    def pieces(self, rendered: str, mark: str) -> Iterator[tuple[str, bool]]:
        """What a template made of marked messages, piece by piece and without the marks.

        With each piece, whether it spells out a special token that is text.
        """
        pieces = self._special.split(rendered)
        for spells_one_out, group in groupby(pieces, lambda piece: mark in piece):
            yield "".join(group).replace(mark, ""), spells_one_out

    def _rendered(self, messages: Sequence[Mapping[str, str]]) -> str:
        from jinja2 import TemplateError

        if not self.chats:
            raise LookupError(
                "The tokenizer has no chat template: ask in plain text, with --prompt base, or "
                "take a model that was trained on conversations."
            )
        try:
            return rendered(self.tokenizer, messages)
        except (TemplateError, TypeError) as error:
            why = str(error).rstrip(".")
            raise ValueError(
                f"The tokenizer's chat template refuses the conversation: {why}. Ask in plain "
                "text, with --prompt base."
            ) from None

    def started_once(self, tokens: list[int]) -> list[int]:
        """With the start token at the beginning, if the tokenizer has one, however many it had."""
        if self.tokenizer.bos_token_id is None:
            return tokens
        begins = next((i for i, token in enumerate(tokens) if token != self.bos), len(tokens))
        return [self.bos, *tokens[begins:]]

    @cached_property
    def _special(self) -> re.Pattern[str]:
        return special(self.tokenizer)

    def documents(self, corpus: str, *, reach: int, first: int) -> list[Document]:
        source = find(corpus)
        source.check(first, reach)
        found: list[Document] = []
        longest: Text | None = None
        there = 0
        for text in source.texts(first):
            there += 1
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
        short = Short(needed=first, there=there, long_enough=len(found), rate=rate)
        documents = "1 document" if len(found) == 1 else f"{len(found)} documents"
        raise LookupError(
            f"{corpus} has {documents} of at least {reach:,} tokens, and {first} "
            f"{'is' if first == 1 else 'are'} needed; its longest has {most:,}. "
            f"{source.hint(short)}"
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


def _start(tokenizer: Any) -> int:
    if tokenizer.bos_token_id is not None:
        return int(tokenizer.bos_token_id)
    added = tokenizer.added_tokens_decoder.items()
    between = (i for i, t in added if t.special and t.content == BETWEEN)
    token = next(between, tokenizer.eos_token_id)
    if token is None:
        raise ValueError("The tokenizer has neither a start nor an end token to start with.")
    return int(token)


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
    import numpy as np

    place.parent.mkdir(parents=True, exist_ok=True)
    with whole(place) as file:
        np.save(file, tokens)
