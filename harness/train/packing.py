"""Documents one behind another, cut into sequences of one length: what training reads.

A document begins with the token the tokenizer starts texts with, and runs over as many sequences
as it takes. The packer of CLEX (https://github.com/DAMO-NLP-SG/CLEX) drops what is left of each
buffer; this one carries it on, and says at the end what was too short for one more sequence.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from harness import corpora
from harness.corpora import Text
from harness.disk import read_json
from harness.lengths import label as written
from harness.reader import TokenReader

if TYPE_CHECKING:
    from torch import Tensor

CARD = "mixture.json"
SCHEMA = 1
CARRIED = {"schema", "label", "length", "tokens", "tokenizer", "files"}
"""What a card must say to be read."""
BOUNDARIES = "boundaries.npy"
SHARD = "sequences-{:05d}.npy"
CLEX_CHARACTERS = 3.4
"""Characters a token, by which the packer of CLEX judges its buffer full."""


class Read(NamedTuple):
    """A document as training reads it."""

    tokens: np.ndarray
    """(n,), int32; the first is the start token."""
    characters: int


class Packed(NamedTuple):
    """A sequence."""

    tokens: np.ndarray
    """(length,)"""
    begins: list[int]
    """Where in it documents begin; a document that goes on from before has no place here."""


def read(texts: Iterable[Text], reader: TokenReader) -> Iterator[Read]:
    """Each document that is not empty, behind a start token."""
    start = np.array([reader.bos], dtype=np.int32)
    for text in texts:
        tokens = reader.tokens_of(text)
        if len(tokens):
            yield Read(np.concatenate([start, tokens]), sum(map(len, text.parts)))


@dataclass
class Carried:
    """Packs without loss: what does not fill a sequence is carried to the next."""

    length: int
    left_over: int = 0
    """Tokens behind the last whole sequence."""

    def pack(self, documents: Iterable[Read]) -> Iterator[Packed]:
        pending: list[np.ndarray] = []
        begins: list[int] = []
        for document in documents:
            begins.append(self.left_over)
            pending.append(document.tokens)
            self.left_over += len(document.tokens)
            if self.left_over < self.length:
                continue
            stream = np.concatenate(pending)
            whole = len(stream) - len(stream) % self.length
            yield from cut(stream[:whole], begins, self.length)
            pending, self.left_over = [stream[whole:]], len(stream) - whole
            begins = [at - whole for at in begins if at >= whole]


@dataclass
class AsClex:
    """Packs as the published script of CLEX does, tails and all, to compare with it.

    Documents are gathered until they have `3.4 * length * sequences` characters, cut together,
    shuffled together, and what is left of them is dropped.
    """

    length: int
    sequences: int = 256
    """Of a buffer, about: 256 to train, 2 to evaluate."""
    rng: np.random.Generator | None = None
    left_over: int = 0
    """Tokens it dropped."""

    def pack(self, documents: Iterable[Read]) -> Iterator[Packed]:
        full = CLEX_CHARACTERS * self.length * self.sequences
        buffer: list[Read] = []
        characters = 0
        for document in documents:
            buffer.append(document)
            characters += document.characters
            if characters >= full:
                yield from self._emptied(buffer)
                buffer, characters = [], 0
        yield from self._emptied(buffer)

    def _emptied(self, buffer: list[Read]) -> Iterator[Packed]:
        if not buffer:
            return
        sizes = [len(read.tokens) for read in buffer]
        begins = [0, *accumulate(sizes)][:-1]
        stream = np.concatenate([read.tokens for read in buffer])
        tail = len(stream) % self.length
        self.left_over += tail
        found = [*cut(stream[: len(stream) - tail], begins, self.length)]
        order = self.rng.permutation(len(found)) if self.rng else range(len(found))
        yield from (found[i] for i in order)


def cut(stream: np.ndarray, begins: list[int], length: int) -> Iterator[Packed]:
    """Sequences of a stream that is a whole number of them; `begins` is sorted."""
    for at in range(0, len(stream), length):
        first, last = np.searchsorted(begins, [at, at + length])
        yield Packed(stream[at : at + length], [b - at for b in begins[first:last]])


def dtype(reader: TokenReader) -> type[np.unsignedinteger[Any]]:
    """The smallest that holds every token."""
    return np.uint16 if len(reader.tokenizer) <= 2**16 else np.uint32


@dataclass(frozen=True, eq=False)
class Sequences:
    """Sequences to learn from: a map-style dataset, as torch calls it."""

    rows: tuple[np.ndarray, ...] = field(repr=False)
    """(some, length) each, memory-mapped where they come from a folder."""
    begins: np.ndarray = field(repr=False)
    """(documents,): where each begins, counted over all rows; sorted."""
    length: int
    label: str
    """What they are, by content: the same on another machine."""
    left_over: int = 0
    """Tokens that were too few for one more."""
    most: int | None = None
    """The first so many only."""

    @cached_property
    def _ends(self) -> list[int]:
        return [*accumulate(map(len, self.rows))]

    def __len__(self) -> int:
        return self._ends[-1] if self.most is None else min(self.most, self._ends[-1])

    def __getitem__(self, i: int) -> dict[str, "Tensor"]:
        """`input_ids` (length,), and `document` (documents,): where each of its documents starts.

        The first start is 0, whether that document begins there or goes on from before.
        """
        import torch

        i = range(len(self))[i]
        shard = bisect_right(self._ends, i)
        row = self.rows[shard][i - self._ends[shard]]  # counted from the shard's end
        low, high = np.searchsorted(self.begins, [i * self.length, (i + 1) * self.length])
        starts = np.asarray(self.begins[low:high], dtype=np.int64) - i * self.length
        if not len(starts) or starts[0]:
            starts = np.concatenate([np.zeros(1, dtype=np.int64), starts])
        return {
            "input_ids": torch.from_numpy(row.astype(np.int64)),
            "document": torch.from_numpy(starts),
        }


def open_sequences(
    spec: str, tokenizer: Any, length: int, cache: Path | None = None, *, first: int | None = None
) -> Sequences:
    """Sequences of a folder that `harness data build` made, or straight from a corpus.

    A corpus is tokenised, by way of the cache, and held in memory: 2 or 4 bytes a token. What is
    larger than that is built first. `first` is how many sequences are wanted, where not all are.

    Raises:
        LookupError: there is no such corpus.
        ValueError: it is shorter than one sequence, or the folder is of another tokenizer or
            length.
    """
    reader = TokenReader(tokenizer, cache)
    if Path(spec).is_dir():
        return _of_folder(Path(spec), reader, length, first)
    return _of_corpus(spec, reader, length, first)


def _of_corpus(spec: str, reader: TokenReader, length: int, first: int | None) -> Sequences:
    kind = dtype(reader)
    pending: list[np.ndarray] = []
    begins: list[int] = []
    held = 0
    for document in read(corpora.find(spec).every(), reader):
        begins.append(held)
        pending.append(document.tokens.astype(kind))
        held += len(document.tokens)
        if first is not None and held >= first * length:
            break
    if held < length:
        raise ValueError(
            f"{spec} has {held:,} tokens, and one sequence takes {length:,}: take a shorter "
            "length or more text."
        )
    many = held // length
    rows = np.concatenate(pending)[: many * length].reshape(many, length)
    label = corpora.label(spec)
    return Sequences((rows,), np.array(begins), length, label, held % length, most=first)


def _of_folder(folder: Path, reader: TokenReader, length: int, first: int | None) -> Sequences:
    card = read_card(folder)
    if card["length"] % length:
        raise ValueError(
            f"{folder} has sequences of {written(card['length'])} tokens, and {written(length)} "
            "does not divide that: build it anew with this --length."
        )
    if card["tokenizer"]["fingerprint"] != reader.fingerprint:
        raise ValueError(
            f"{folder} was built for {card['tokenizer']['model']}, whose tokenizer is another "
            "than this model's: build it anew with this --model."
        )
    rows = [
        np.load(folder / name, mmap_mode="r").reshape(-1, length)
        for name in card["files"]
        if name.startswith(SHARD.partition("{")[0])
    ]
    if sum(row.size for row in rows) != card["tokens"]:
        raise ValueError(f"{folder} is not whole: its card says {card['tokens']:,} tokens.")
    begins = np.load(folder / BOUNDARIES, mmap_mode="r")
    return Sequences(tuple(rows), begins, length, card["label"], most=first)


def read_card(folder: Path) -> dict[str, Any]:
    """What `harness data build` wrote of a folder.

    Raises:
        ValueError: it has none.
    """
    try:
        card: dict[str, Any] = read_json(folder / CARD)
    except FileNotFoundError:
        raise ValueError(
            f"{folder} has no {CARD}: make such a folder with harness data build, or name its "
            f"texts: text:{folder}."
        ) from None
    if not isinstance(card, dict) or (lost := CARRIED - card.keys()):
        said = f"no {', '.join(sorted(lost))}" if isinstance(card, dict) else "no object"
        raise ValueError(f"{folder / CARD} holds {said}: build the folder anew.")
    if card["schema"] != SCHEMA:
        raise ValueError(
            f"{folder} was built by another version (schema {card['schema']}, and this is "
            f"{SCHEMA}): build it anew."
        )
    return card
