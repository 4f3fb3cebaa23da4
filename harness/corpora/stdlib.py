"""The standard library as a corpus."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.corpora.files import digest, hash_of_files, read
from harness.corpora.text import Corpus, Short, Text
from harness.library import SPLITS, library_files, split_of


@dataclass(frozen=True)
class StandardLibrary(Corpus):
    """The library this Python came with: real text that is always there.

    A file's split is fixed by its path. The files are dealt, largest first, each to the document
    that is shortest so far: so a split makes as many documents as are asked for, about equally
    long, and they are the same at every length.
    """

    split: str

    def files(self) -> list[tuple[str, Path]]:
        """Path within the library and place of each, in the corpus's order.

        Raises:
            LookupError: there are none.
        """
        found = sorted(
            (digest(inside.encode()), inside, path)
            for inside, path in library_files()
            if split_of(inside) == self.split
        )
        if not found:
            raise LookupError(f"This Python has no files for {self.name}; take another split.")
        return [(inside, path) for _, inside, path in found]

    def check(self, first: int, reach: int) -> None:
        files = self.files()
        if first > len(files):
            raise LookupError(
                f"{self.name} has {len(files):,} files, too few for {first:,} documents: take "
                "fewer samples or another split."
            )
        held = sum(path.stat().st_size for _, path in files)
        if first * reach > held:
            raise LookupError(
                f"{self.name} has {held:,} bytes, too few for {first:,} documents of {reach:,} "
                "tokens: take shorter lengths, fewer samples or another split."
            )

    def texts(self, first: int) -> Iterator[Text]:
        texts = [read(path, "replace") for _, path in self.files()]
        piles: list[list[int]] = [[] for _ in range(first)]
        sizes = [(0, pile) for pile in range(first)]
        for i in sorted(range(len(texts)), key=lambda i: -len(texts[i])):
            size, pile = sizes[0]
            heapq.heapreplace(sizes, (size + len(texts[i]), pile))
            piles[pile].append(i)
        for n, pile in enumerate(piles, 1):
            name = f"stdlib:{self.split} {n} of {first}"
            yield Text(name, tuple(texts[i] for i in sorted(pile)))

    def every(self) -> Iterator[Text]:
        """Each file by itself."""
        return (Text(inside, (read(path, "replace"),)) for inside, path in self.files())

    def label(self) -> str:
        name = "stdlib" if self.split == "test" else f"stdlib:{self.split}"
        return f"{name}@{hash_of_files(self.files())}"

    def hint(self, short: Short) -> str:
        sizes = dict.fromkeys(SPLITS, 0)
        for inside, path in library_files():
            sizes[split_of(inside)] += path.stat().st_size
        about = ", ".join(f"stdlib:{s} {round(n * short.rate, -3):,.0f}" for s, n in sizes.items())
        return f"Take shorter lengths, fewer samples or another split; they hold about {about}."
