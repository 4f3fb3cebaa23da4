"""Hay: text to hide things in, word by word, cut between sentences.

The published tests read Paul Graham's essays, which are not ours to ship: the hay is a corpus, by
default the running Python's own library, and its name is part of the result's.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence

from harness.task import Document, Reader

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
LONGEST_WORD = 40
"""Characters; what is longer, as of base64, is cut."""
LONGEST_SENTENCE = 40
"""Words; what is longer, as of code, is taken for several."""


class Hay:
    """Words without end: they begin again where they run out."""

    def __init__(self, text: str) -> None:
        self.words = re.findall(rf"\S{{1,{LONGEST_WORD}}}", text)
        self._starts = self._sentences(0)
        self._reached = len(self.words)

    @classmethod
    def of(cls, reader: Reader, corpus: str, length: int) -> "Hay":
        """A corpus's first document of at least so many tokens, twice as far if it goes so far.

        Where none is so long, its first documents one after another, as many as are together.

        Raises:
            LookupError: the corpus has none, or no words in it.
        """
        try:
            found = reader.documents(corpus, reach=length, first=1)
        except LookupError:
            found = together(reader, corpus, length)
        hay = cls("\n\n".join(reader.text(document.tokens[: 2 * length]) for document in found))
        if not hay.words:
            raise LookupError(f"{corpus} has no words to hide anything in: take another corpus.")
        return hay

    def between(self, n: int, depth: float) -> int:
        """The word before which the first n are best parted: where a sentence begins, or n."""
        while self._reached < n:
            self._starts += self._sentences(self._reached)
            self._reached += len(self.words)
        wanted = depth * n
        i = bisect_left(self._starts, wanted)
        near = [start for start in self._starts[max(0, i - 1) : i + 1] if start < n]
        return min([*near, n], key=lambda at: abs(at - wanted))

    def text(self, begin: int, end: int) -> str:
        """Words [begin, end)."""
        first, size = begin // len(self.words), len(self.words)
        bales = -(-end // size) - first
        words = self.words if bales <= 1 else self.words * bales
        return " ".join(words[begin - first * size : end - first * size])

    def with_needles(self, n: int, needles: Sequence[str], depths: Sequence[float]) -> str:
        """The first n words, each needle between sentences at its depth, in order, 0 to 1."""
        pieces, last = [], 0
        for needle, depth in zip(needles, depths, strict=True):
            at = self.between(n, depth)
            pieces += [self.text(last, at), needle]
            last = at
        return " ".join(piece for piece in [*pieces, self.text(last, n)] if piece)

    def _sentences(self, offset: int) -> list[int]:
        starts, since = [offset], 0
        for i, word in enumerate(self.words[:-1], 1):
            since += 1
            if since == LONGEST_SENTENCE or re.search(r"[.!?][\"')\]]*$", word):
                starts.append(offset + i)
                since = 0
        return starts


def together(reader: Reader, corpus: str, length: int) -> list[Document]:
    """The first documents that have at least so many tokens together; all, where they have fewer.

    Raises:
        LookupError: there are none.
    """
    found, more = reader.documents(corpus, reach=1, first=1), 1
    while more and tokens_of(found) < length:
        try:
            longer = reader.documents(corpus, reach=1, first=len(found) + more)
        except LookupError:  # there are not so many
            more //= 2
            continue
        if tokens_of(longer) <= tokens_of(found):  # the same text, dealt to more documents
            break
        found, more = longer, 2 * more
    return found


def tokens_of(documents: Sequence[Document]) -> int:
    return sum(len(document.tokens) for document in documents)
