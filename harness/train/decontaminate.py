"""Take out of a test what training has read: items whose n-grams are found there.

The similarity of an item to training is, for n = 2, 3 and 4, the share of its distinct n-grams of
words that occur anywhere in training, and of these three shares the mean. Words are runs of
letters and digits in lower case; of Chinese and Japanese, single characters.

This is the rule of LongCorpus-2.5B (https://github.com/DAMO-NLP-SG/CLEX#longcorpus-25b): "average
n-gram similarity (for n=2, 3, 4) with the training set is below 10%". The page does not define it,
and read so, no prose survives beside a large training text: twelve English novels had 21 to 42 % in
common with forty others, of which none was a copy. (The page kept its books, so its authors must
have compared otherwise, perhaps document with document; how, they do not say.) The same measure
with n = 13 was below 0.01 % for each of the twelve, and finds copies; GPT-3 chose that n
(https://arxiv.org/abs/2005.14165, appendix C).

The test is indexed, as 64-bit hashes, and training streams by: memory is that of the index, and
tests with more words than `WORDS` are taken in several passes over training. No hash is dropped or
sampled, so the shares are exact but for two n-grams in 2**64 that hash alike.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness import corpora, disk, nearest
from harness.reader import TokenReader
from harness.train.packing import open_sequences, read_card

PUBLISHED = (2, 3, 4)
WORDS = 2**25
"""Of test items that are indexed at a time: some 2 GB of memory with three orders."""
ONE_DOMAIN = "all"
_IDEOGRAMS = "\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_IDEOGRAMS}]|[^\W_{_IDEOGRAMS}]+")


class Item(NamedTuple):
    """Of a test."""

    row: dict[str, Any]
    """All its columns."""
    name: str
    text: str
    domain: str


@dataclass(frozen=True)
class Verdict:
    """How near an item is to training."""

    name: str
    domain: str
    shares: tuple[float, ...]
    """For each n it has n-grams of: the share found in training."""

    @property
    def similarity(self) -> float:
        """Their mean; 0 of an item that is shorter than every n-gram."""
        return sum(self.shares) / len(self.shares) if self.shares else 0.0


def words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def items(spec: str, domain_column: str | None = None) -> Iterator[Item]:
    """The items of a test: rows with all their columns, or documents.

    Raises:
        LookupError: there is no such corpus or column.
        ValueError: it has no columns and a domain is wanted.
    """
    corpus = corpora.find(spec)
    if isinstance(corpus, corpora.Table | corpora.Hub) and not corpus.join:
        return _rows(corpus, domain_column)
    if domain_column:
        raise ValueError(f"{spec} has no columns to take the domain from: leave it out.")
    texts = ((text.name, "".join(text.parts)) for text in corpus.every())
    return (Item({"title": n, "text": text}, n, text, ONE_DOMAIN) for n, text in texts)


def _rows(corpus: corpora.Table | corpora.Hub, domain_column: str | None) -> Iterator[Item]:
    for row, text in corpora.with_rows(corpus):
        if domain_column and domain_column not in row:
            raise LookupError(
                f"{corpus.name} has no column {domain_column!r}."
                f"{nearest.hint(domain_column, row)} It has: {', '.join(row)}."
            )
        domain = str(row[domain_column]) if domain_column else ONE_DOMAIN
        yield Item(row, text.name, text.parts[0], domain)


def training(spec: str, tokenizer: Callable[[str], Any]) -> Iterator[str]:
    """Texts of a corpus, or of a folder that `harness data build` made, decoded.

    In a folder a document ends with its sequence, so of each cut a few n-grams are not seen.
    `tokenizer` gives the one of a model's name.
    """
    if not Path(spec).is_dir():
        return ("".join(text.parts) for text in corpora.find(spec).every())
    card = read_card(Path(spec))
    return _decoded(spec, card["length"], tokenizer(card["tokenizer"]["model"]))


def _decoded(folder: str, length: int, tokenizer: Any) -> Iterator[str]:
    reader = TokenReader(tokenizer)
    for item in open_sequences(folder, tokenizer, length):
        tokens, starts = item["input_ids"].tolist(), item["document"].tolist()
        for begin, end in zip(starts, [*starts[1:], length], strict=True):
            piece = tokens[begin:end]
            yield reader.text(piece[1:] if piece[0] == reader.bos else piece)


@dataclass
class Index:
    """The n-grams of some test items, and which of them training has."""

    orders: Sequence[int] = PUBLISHED
    _places: dict[str, int] = field(default_factory=dict)
    """Of each word of the items; training's other words need none."""
    _items: list[np.ndarray] = field(default_factory=list)
    words: int = 0

    def add(self, text: str) -> None:
        places = self._places
        found = words(text)
        self._items.append(np.array([places.setdefault(w, len(places)) for w in found], np.int64))
        self.words += len(found)

    def verdicts(self, texts: Iterable[str], watch: Callable[[int], None]) -> list[list[float]]:
        """For each item, and each n it has n-grams of, the share that is found in the texts."""
        rng = np.random.default_rng(0)
        spelled = rng.integers(0, 2**64, size=len(self._places), dtype=np.uint64)
        turned = rng.integers(0, 2**64, size=max(self.orders), dtype=np.uint64) | np.uint64(1)
        mine = [[_grams(i, n, spelled, turned) for i in self._items] for n in self.orders]
        known = [np.unique(np.concatenate(grams)) for grams in mine]
        seen = [np.zeros(len(grams), dtype=bool) for grams in known]
        for text in texts:
            found = words(text)
            places = np.array([self._places.get(word, -1) for word in found], dtype=np.int64)
            for n, grams, hits in zip(self.orders, known, seen, strict=True):
                _mark(_grams(places, n, spelled, turned), grams, hits)
            watch(len(found))
        shares: list[list[float]] = [[] for _ in self._items]
        for by_item, grams, hits in zip(mine, known, seen, strict=True):
            for share, own in zip(shares, by_item, strict=True):
                if len(own):
                    share.append(float(hits[np.searchsorted(grams, own)].mean()))
        return shares


def _grams(places: np.ndarray, n: int, spelled: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """The distinct n-grams of words that all have a place, as sorted hashes."""
    many = len(places) - n + 1
    if many < 1 or not len(spelled):
        return np.empty(0, dtype=np.uint64)
    hashed = np.zeros(many, dtype=np.uint64)
    whole = np.ones(many, dtype=bool)
    for j in range(n):
        at = places[j : j + many]
        hashed += spelled[at] * turned[j]  # modulo 2**64; an absent word's is anything
        whole &= at >= 0
    return np.unique(hashed[whole])


def _mark(found: np.ndarray, known: np.ndarray, seen: np.ndarray) -> None:
    if not len(known):
        return
    at = np.minimum(np.searchsorted(known, found), len(known) - 1)
    seen[at[known[at] == found]] = True


def judged(
    test: Iterable[Item],
    train: Callable[[], Iterable[str]],
    orders: Sequence[int] = PUBLISHED,
    *,
    at_a_time: int = WORDS,
    watch: Callable[[int], None] = lambda words: None,
) -> Iterator[Verdict]:
    """How near each item of a test is to training, in order.

    `train` gives the training texts from the first on; it is called once for every so many words
    of the test. `watch` is told how many words of training were read.
    """
    index, waiting = Index(orders), list[tuple[str, str]]()
    for item in chain(test, [None]):
        if item is not None:
            index.add(item.text)
            waiting.append((item.name, item.domain))
        if waiting and (item is None or index.words >= at_a_time):
            for (name, domain), shares in zip(waiting, index.verdicts(train(), watch), strict=True):
                yield Verdict(name, domain, tuple(shares))
            index, waiting = Index(orders), []


def report(verdicts: Sequence[Verdict], threshold: float) -> dict[str, Any]:
    """What is dropped, by domain and by name."""
    domains = dict.fromkeys(verdict.domain for verdict in verdicts)
    dropped = [v for v in verdicts if v.similarity >= threshold]
    return {
        "items": len(verdicts),
        "dropped": len(dropped),
        "domains": {
            domain: _counted([v for v in verdicts if v.domain == domain], threshold)
            for domain in domains
        },
        "dropped_items": [
            {"name": v.name, "domain": v.domain, "similarity": v.similarity, "shares": v.shares}
            for v in dropped
        ],
    }


def _counted(verdicts: Sequence[Verdict], threshold: float) -> dict[str, Any]:
    near = sorted(v.similarity for v in verdicts)
    return {
        "items": len(near),
        "dropped": sum(similarity >= threshold for similarity in near),
        "median": float(np.median(near)),
        "highest": near[-1],
    }


def write(
    output: Path,
    test: Iterable[Item],
    verdicts: Sequence[Verdict],
    threshold: float,
    about: dict[str, Any],
) -> dict[str, Any]:
    """Write the rows that stay, a line of JSON each, and beside them what was dropped and why."""
    found = about | {"threshold": threshold} | report(verdicts, threshold)
    kept = (
        _line(item.row)
        for item, verdict in zip(test, verdicts, strict=True)
        if verdict.similarity < threshold
    )
    _write_whole(output, kept)
    _write_whole(report_of(output), [json.dumps(found, indent=1, ensure_ascii=False)])
    return found


def _line(row: Any) -> str:
    """As people read it, but for what was cut within a character."""
    text = json.dumps(row, ensure_ascii=False, default=str)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(row, default=str)
    return text


def report_of(output: Path) -> Path:
    name = output.name.removesuffix(".jsonl").removesuffix(".json").removesuffix(".parquet")
    return output.with_name(f"{name}.report.json")


def _write_whole(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk.whole(path) as file:
        file.writelines(f"{line}\n".encode() for line in lines)
