"""Perplexity, its protocol in its name: published codes differ by 17 % on one model and one text.

whole          one window a document: the start token and the first N-1 tokens, all scored
sliding        windows of W tokens every S over a text that is the same at every length, each token
               scored once (Press et al. 2022, https://arxiv.org/abs/2108.12409, appendix B)
yarn           eval/perplexity.py of https://github.com/jquesnelle/yarn
longrope       evaluation/perplexity.py of https://github.com/microsoft/LongRoPE
lceg           eval_perplexity/ of https://github.com/Leooyii/LCEG, after LongLoRA's eval.py
clex-chunked   calculate_perplexity of https://github.com/DAMO-NLP-SG/CLEX
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import e
from statistics import fmean
from typing import ClassVar

import numpy as np

from harness.stats import mean_interval
from harness.task import Document, Losses, Outcome, Reader, Request, Sample, Score, Task

LAST = 2048
"""Predictions in the part `last-2k`: where a collapse shows first."""


@dataclass(frozen=True)
class Window:
    """Tokens [begin, end) of a document, the last `scored` of which count."""

    begin: int
    end: int
    scored: int


def sliding_windows(n: int, size: int, stride: int) -> Iterator[Window]:
    """Windows of `size` tokens every `stride` over n tokens, until the end; each token once."""
    end = 0
    for begin in range(0, n, stride):
        before, end = end, min(begin + size, n)
        yield Window(begin, end, end - before)
        if end == n:
            return


def stream_windows(n: int, size: int, stride: int = 256) -> list[Window]:
    """LCEG's: one every `stride`, without the last; each scores all but its first token."""
    starts = range(0, n - size, stride)[:-1]
    return [Window(begin, begin + size, size - 1) for begin in starts]


def chunked_mean(losses: np.ndarray, chunk: int) -> float:
    """CLEX's: each chunk's mean over all its tokens but the first, weighted by all its tokens.

    Losses are those of tokens 1..n-1 of a sequence; (n-1,), nats.
    """
    n = len(losses) + 1
    spans = [(begin, min(begin + chunk, n)) for begin in range(0, n, chunk)]
    spans = [(begin, end) for begin, end in spans if end - begin > 1]
    means = [float(losses[begin : end - 1].mean(dtype=np.float64)) for begin, end in spans]
    weights = [end - begin for begin, end in spans]
    return float(np.average(means, weights=weights))


@dataclass(frozen=True, kw_only=True)
class Perplexity(Task):
    """What the protocols share; each says which windows it reads, and what it averages."""

    metric = "perplexity"
    higher_is_better = False
    counts = "nothing is answered: each token's loss counts, as the protocol says"
    base: ClassVar[float] = e
    source: ClassVar[str] = "a corpus; unless named, Python's library"
    licence: ClassVar[str] = "PSF-2.0, or of the corpus"
    size: ClassVar[str] = "a few documents"
    offline: ClassVar[bool] = True

    corpus: str = "stdlib"
    samples: int = 3
    """Documents: the corpus's first that are long enough."""
    reach: int = 0
    """Tokens a document must have; at least the length. A grid sets its longest length here, so
    that all its lengths read the same documents."""

    def __post_init__(self) -> None:
        if self.samples < 1 or self.reach < 0:
            raise ValueError("Perplexity needs at least 1 document, and a reach of at least 0.")

    def windows(self, n: int, length: int) -> Iterator[Window]:
        """What is read of a document of n tokens, the start token not counted."""
        raise NotImplementedError

    def means(self, samples: Sequence[Sample]) -> tuple[list[float], list[str]]:
        """The losses whose mean is the result, and whose document each is. Here: a document's."""
        means = document_means(samples)
        return list(means.values()), list(means)

    def requests(self, reader: Reader, length: int) -> Iterator[Request]:
        at_least_two(length)
        for i, document in enumerate(self.documents(reader, length)):
            for window in self.windows(len(document.tokens), length):
                tokens = np.empty(1 + window.end - window.begin, dtype=np.int64)
                tokens[0] = reader.bos
                tokens[1:] = document.tokens[window.begin : window.end]
                yield Request(
                    id=f"document-{i}-token-{window.begin}",
                    tokens=tokens,
                    ask=Losses(start=len(tokens) - window.scored, stop=len(tokens)),
                    about={"document": document.name, "begin": window.begin},
                )

    def documents(self, reader: Reader, length: int) -> list[Document]:
        return reader.documents(self.corpus, reach=max(self.reach, length), first=self.samples)

    def grade(self, request: Request, outcome: Outcome, reader: Reader) -> Sample:
        losses = np.asarray(outcome, dtype=np.float64)
        return Sample(id=request.id, score=self.mean(losses), about=request.about, losses=losses)

    def mean(self, losses: np.ndarray) -> float:
        """Of one window, in nats."""
        return float(losses.mean())

    def score(self, samples: Sequence[Sample]) -> Score:
        values, documents = self.means(samples)
        low, high = None, None
        if len(set(documents)) > 1:
            # No loss is below zero, whatever an interval of few documents reaches to.
            low, high = (self.base ** max(x, 0) for x in mean_interval(values, documents))
        parts = {name: self.base**mean for name, mean in document_means(samples).items()}
        last = {
            s.about["document"]: s for s in sorted(samples, key=lambda s: s.about.get("begin", 0))
        }
        ends = [s.losses for s in last.values() if s.losses is not None and len(s.losses) > LAST]
        if len(ends) == len(last):
            parts["last-2k"] = self.base ** fmean(float(end[-LAST:].mean()) for end in ends)
        return Score(
            value=self.base ** fmean(values), low=low, high=high, n=len(values), parts=parts
        )

    def items(self, samples: Sequence[Sample]) -> dict[str, float]:
        """The mean loss of each document, in nats: its windows are no items of their own."""
        losses: dict[str, list[float]] = {}
        for value, document in zip(*self.means(samples), strict=True):
            losses.setdefault(document, []).append(value)
        return {document: fmean(values) for document, values in losses.items()}


class Whole(Perplexity):
    """The start token and the first N-1 tokens of each document, every prediction scored."""

    one_pass = True

    def windows(self, n: int, length: int) -> Iterator[Window]:
        yield Window(0, length - 1, length - 1)


@dataclass(frozen=True, kw_only=True)
class Sliding(Perplexity):
    """The first `reach` tokens of each document, each scored once, with up to a window before it.

    Within a document every token counts alike, and every document counts alike.
    """

    window: int = 0
    """Tokens, the start token included; 0: the cell's length."""
    stride: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        not_below(1, stride=self.stride)
        not_below(0, window=self.window)

    def windows(self, n: int, length: int) -> Iterator[Window]:
        size = (self.window or length) - 1
        if size + 1 > length:
            raise ValueError(f"A window of {self.window:,} tokens does not fit into {length:,}.")
        if not 0 < self.stride <= size:
            raise ValueError(
                f"A stride of {self.stride:,} over windows of {size + 1:,} tokens skips some: "
                f"take 1 to {size:,}."
            )
        yield from sliding_windows(max(self.reach, length) - 1, size, self.stride)


@dataclass(frozen=True, kw_only=True)
class EveryWindow(Perplexity):
    """A mean over windows, however many tokens each scores: one of 256 counts like one of 4095."""

    samples: int = 10
    stride: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        not_below(1, stride=self.stride)

    def means(self, samples: Sequence[Sample]) -> tuple[list[float], list[str]]:
        return [s.score for s in samples], [s.about["document"] for s in samples]


@dataclass(frozen=True, kw_only=True)
class Yarn(EveryWindow):
    """Windows of each document, up to its end.

    YaRN's eval.sh truncates for every Proof-pile figure of the paper, which leaves one window a
    document and makes the stride idle; GovReport slides.
    """

    truncate: bool = True
    """Cut each document to the length first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.truncate and self.stride != type(self).stride:
            raise ValueError("Documents that are truncated leave no stride: add truncate=false.")

    @property
    def one_pass(self) -> bool:
        return self.truncate

    def windows(self, n: int, length: int) -> Iterator[Window]:
        size = length - 1
        if self.truncate:
            return sliding_windows(min(n, size), size, size)
        if not 0 < self.stride <= size:
            raise ValueError(f"A stride of {self.stride:,} skips tokens: take 1 to {size:,}.")
        return sliding_windows(min(n, self.readable), size, self.stride)

    @property
    def readable(self) -> float:
        """Tokens of a document that are read at all when it is not truncated."""
        return float("inf")


class LongRope(Yarn):
    """YaRN's, but without truncation no more than 10 strides of a document are ever read."""

    @property
    def readable(self) -> int:
        return 10 * self.stride


@dataclass(frozen=True, kw_only=True)
class Lceg(EveryWindow):
    """The documents as one stream, a window of N tokens every 256, all N-1 predictions of each.

    A token is scored up to N/256 times, after 1 to N-1 others. No start token is put before a
    window; one stands before each document. Documents are taken as they come, however short: it
    is the stream that must reach. The published code writes e as 2.71828.
    """

    base = 2.71828
    limit: int = 0
    """Read only so many windows; 0: all, as published, which is N/256 times the corpus."""

    def __post_init__(self) -> None:
        super().__post_init__()
        not_below(0, limit=self.limit)

    def requests(self, reader: Reader, length: int) -> Iterator[Request]:
        at_least_two(length)
        documents = reader.documents(self.corpus, reach=1, first=self.samples)
        starts = np.cumsum([0, *(1 + len(d.tokens) for d in documents)])
        stream = np.concatenate([np.r_[reader.bos, d.tokens] for d in documents]).astype(np.int64)
        windows = stream_windows(len(stream), length, self.stride)
        if not windows or len(stream) < self.reach:
            raise LookupError(
                f"The first {self.samples} documents of {self.corpus} have {len(stream):,} tokens, "
                f"and {max(self.reach, length + self.stride + 1):,} are needed: take more samples."
            )
        for window in windows[: self.limit or None]:
            document = documents[int(np.searchsorted(starts, window.begin, "right")) - 1]
            yield Request(
                id=f"token-{window.begin}",
                tokens=stream[window.begin : window.end],
                ask=Losses(start=1, stop=length),
                about={"document": document.name, "begin": window.begin},
            )

    def grade(self, request: Request, outcome: Outcome, reader: Reader) -> Sample:
        """Keeps no losses: each token's would be there N/256 times."""
        mean = float(np.mean(outcome, dtype=np.float64))
        return Sample(id=request.id, score=mean, about=request.about)


@dataclass(frozen=True, kw_only=True)
class ClexChunked(Whole):
    """Chunks of 4096 tokens after one another; the first token of each is never predicted.

    The published code moves the scale with each chunk (chunk k is read at t = k, so that its 64k
    is a mean over t = 1..16); here a method's scale is fixed for the cell, and all chunks are read
    with that of the whole length. Blocks are the beginnings of documents, not cuts of a packed
    stream.
    """

    chunk: int = 4096

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chunk < 2:
            raise ValueError(f"A chunk of {self.chunk} predicts nothing: take at least 2 tokens.")

    def mean(self, losses: np.ndarray) -> float:
        return chunked_mean(losses, self.chunk)


def document_means(samples: Sequence[Sample]) -> dict[str, float]:
    """Mean loss of each document; within it every scored token counts alike."""
    windows: dict[str, list[Sample]] = {}
    for sample in samples:
        windows.setdefault(sample.about["document"], []).append(sample)
    return {
        name: float(
            np.average(
                [s.score for s in group],
                weights=[1 if s.losses is None else len(s.losses) for s in group],
            )
        )
        for name, group in windows.items()
    }


def not_below(least: int, **given: int) -> None:
    for name, value in given.items():
        if value < least:
            raise ValueError(f"Perplexity takes a {name} of {least} or more, and {value} is less.")


def at_least_two(length: int) -> None:
    if length < 2:
        raise ValueError(f"Perplexity needs at least 2 tokens, and {length} was asked for.")


variants = {
    "whole": Whole(),
    "sliding": Sliding(),
    "yarn": Yarn(),
    "longrope": LongRope(),
    "lceg": Lceg(),
    "clex-chunked": ClexChunked(),
}
