"""LongPPL: perplexity over the tokens that only a long context can tell.

Fang et al. 2024, https://arxiv.org/abs/2410.23771; https://github.com/PKU-ML/LongPPL

A token is key if an evaluator's loss falls by more than `alpha` nats when it sees the whole text
instead of the last few thousand tokens (long-short difference), and is then below `beta` (the
paper's long-context likelihood above -beta). The value is exp of the mean loss over key tokens, all
documents' together, as published; thresholds and windows are the published code's.

by     the evaluator's losses are given: those stored beside a result of longppl.self, for one
       model as it was measured, and the same key tokens for every method. To compare with.
self   the evaluator is the model itself, with the method under test. It finds key tokens, and
       stores the losses that `by` reads: `<length>.npz`, copied to a name without commas; where
       `<length>.json` is copied beside it, results say whose losses they are. Its own
       value says little between methods: whatever a method breaks is not key to it, and the value
       is below e^beta by choice. Its `share of key tokens` says how much the long context told.

Two things differ: each short window begins with the start token, and tokens are matched by
position, so that the evaluator must read with the same tokenizer.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from hashlib import file_digest
from math import e
from os import fstat
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from harness import contents
from harness.disk import arrays, read_json
from harness.stats import mean_interval
from harness.task import Document, Losses, Reader, Request, Sample, Score

from .perplexity import Perplexity, Window, not_below


@dataclass(frozen=True, kw_only=True)
class LongPPL(Perplexity):
    """What both have in common: documents, windows, and what makes a token key."""

    one_pass = True
    metric = "LongPPL"
    counts = "nothing is answered: the loss of each key token counts"

    short: int = 4096
    """Tokens of the short context, at least."""
    stride: int = 1024
    """Tokens that have the beginning of their short context in common."""
    alpha: float = 2.0
    """Nats by which the long context must lower the loss."""
    beta: float = 2.0
    """Nats that the loss with the long context must be below."""

    def __post_init__(self) -> None:
        super().__post_init__()
        not_below(1, short=self.short, stride=self.stride)

    def requests(self, reader: Reader, length: int) -> Iterator[Request]:
        """The whole beginning of each document, and where they are wanted the short windows."""
        least = self.short + self.stride + 2
        if length < least:
            raise ValueError(
                f"LongPPL needs at least {least:,} tokens, for its short context has {self.short:,}"
                f" and more; {length:,} were asked for: take longer lengths."
            )
        for i, document in enumerate(self.documents(reader, length)):
            key = self.key(i, document)
            for window in self.windows(length - 1, length):
                yield request(key, document, window, reader.bos)

    def windows(self, n: int, length: int) -> Iterator[Window]:
        """Of a document's first n tokens: all of them, then from the second stride on the short.

        In the first stride's window the short context is the long one.
        """
        yield Window(0, n, n)

    def key(self, i: int, document: Document) -> str:
        """Names a document by number and content, whatever the length."""
        read = document.tokens[: self.short + self.stride].astype("<i4")
        return f"document-{i}-{zlib.crc32(read.tobytes()):08x}"

    def evaluator(self, of_samples: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The losses by which tokens are key, of long inputs and of short windows."""
        raise NotImplementedError

    def items(self, samples: Sequence[Sample]) -> dict[str, float]:
        """The mean loss of each document's key tokens, in nats."""
        picked = self.picked(samples)
        return {key: float(losses.mean()) for key, losses in picked.items() if len(losses)}

    def picked(self, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
        """The losses of each document's key tokens."""
        evaluator = self.evaluator({sample.id: kept(sample) for sample in samples})
        return {
            key: losses[self.keys(key, len(losses), evaluator)]
            for key, losses in whole(samples).items()
        }

    def score(self, samples: Sequence[Sample]) -> Score:
        picked = self.picked(samples)
        values = np.concatenate(list(picked.values()))
        if not len(values):
            raise ValueError(
                f"no token's loss falls by {self.alpha:g} nats to below {self.beta:g} when more "
                f"than {self.short:,} tokens before it are seen: there are no key tokens"
            )
        clusters = [key for key, found in picked.items() for _ in found]
        low, high = None, None
        if len(set(clusters)) > 1:
            low, high = (e ** max(x, 0) for x in mean_interval(values, clusters))
        long = whole(samples).values()
        every = np.concatenate(list(long))
        eligible = sum(max(0, len(losses) - self.short - self.stride) for losses in long)
        parts = {"perplexity": every.mean(), "perplexity of key tokens": values.mean()}
        names = {s.id: s.about["document"] for s in samples}
        parts |= {names[key]: found.mean() for key, found in picked.items() if len(found)}
        return Score(
            value=float(e ** values.mean()),
            low=low,
            high=high,
            n=len(values),
            parts={name: float(e**mean) for name, mean in parts.items()}
            | {"share of key tokens": len(values) / eligible},
        )

    def keys(self, key: str, n: int, evaluator: Mapping[str, np.ndarray]) -> np.ndarray:
        """Where the key tokens of a document's first n are; in ascending order."""
        long = evaluator.get(key)
        if long is None or len(long) < n:
            raise ValueError(
                f"the evaluator's losses hold {0 if long is None else len(long):,} tokens of {key},"
                f" and {n:,} are needed: measure longppl.self with this tokenizer, corpus and "
                "length or longer"
            )
        found = np.full(n, -np.inf)
        for begin in range(self.stride, n - self.short, self.stride):
            scored = np.asarray(evaluator[short_of(key, begin)])[: n - begin - self.short]
            start = begin + self.short
            found[start : start + len(scored)] = scored
        return np.flatnonzero((found - long[:n] > self.alpha) & (long[:n] < self.beta))


class Self(LongPPL):
    """The evaluator is the model itself, with the method under test."""

    def windows(self, n: int, length: int) -> Iterator[Window]:
        yield from super().windows(n, length)
        for begin in range(self.stride, n - self.short, self.stride):
            end = min(begin + self.short + self.stride, n)
            yield Window(begin, end, end - begin - self.short)

    def evaluator(self, of_samples: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return of_samples


@dataclass(frozen=True, kw_only=True)
class By(LongPPL):
    """The evaluator's losses are given."""

    offline: ClassVar[bool] = False
    source: ClassVar[str] = "an evaluator's losses, the .npz beside a result of longppl.self"

    losses: str = ""
    """The .npz beside a result of longppl.self, of the same documents and of this length or a
    longer one; its name stands in results, with what is in it: it should say whose they are."""

    @property
    def evaluator_hash(self) -> str:  # type: ignore[override]
        """sha256 of the losses: what was measured by others is not the same cell."""
        with opened(self.losses) as file:
            return file_digest(file, "sha256").hexdigest()

    def by_content(self) -> dict[str, str]:
        if not self.losses or contents.where(self.losses):
            return {}
        with opened(self.losses) as file:
            return {"losses": contents.keep_file(Path(file.name))}

    def evaluated_by(self) -> dict[str, Any] | None:
        """As the result says that lies beside the losses, if it does."""
        kept = contents.where(self.losses)
        given = Path(self.losses).expanduser().with_suffix(".json")
        place = contents.beside(self.losses) if kept else given
        with suppress(OSError, ValueError, KeyError, TypeError):
            cell = read_json(place)["cell"]
            return {name: cell[name] for name in ("model", "method", "task", "length")}
        return None

    def requests(self, reader: Reader, length: int) -> Iterator[Request]:
        stored(self.losses)
        yield from super().requests(reader, length)

    def evaluator(self, of_samples: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return stored(self.losses)


def stored(path: str) -> dict[str, np.ndarray]:
    """Losses beside a result, by input.

    Raises:
        LookupError: there is no such file.
        ValueError: it is no file of losses.
    """
    with opened(path) as file:
        stat = fstat(file.fileno())
    return _stored(path, stat.st_mtime_ns, stat.st_size)


def opened(path: str) -> BinaryIO:
    if not path:
        raise LookupError(
            "Say whose key tokens: longppl.by,losses=FILE, the .npz beside a result of longppl.self"
        )
    try:
        return (contents.where(path) or Path(path).expanduser()).open("rb")
    except FileNotFoundError:
        raise LookupError(f"There is no file {path} with an evaluator's losses.") from None


@lru_cache(1)
def _stored(path: str, time: int, size: int) -> dict[str, np.ndarray]:
    """Read again when its time or size changes."""
    with opened(path) as file:
        try:
            return arrays(file)
        except ValueError:
            raise ValueError(f"{path} is no .npz file of losses.") from None


def short_of(key: str, begin: int) -> str:
    return f"{key}-from-{begin}"


def whole(samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """Each document's losses, all of what is before them seen."""
    return {s.id: kept(s) for s in samples if s.about["begin"] == 0}


def kept(sample: Sample) -> np.ndarray:
    assert sample.losses is not None
    return sample.losses


def request(key: str, document: Document, window: Window, bos: int) -> Request:
    tokens = np.empty(1 + window.end - window.begin, dtype=np.int64)
    tokens[0] = bos
    tokens[1:] = document.tokens[window.begin : window.end]
    return Request(
        id=short_of(key, window.begin) if window.begin else key,
        tokens=tokens,
        ask=Losses(start=len(tokens) - window.scored, stop=len(tokens)),
        about={"document": document.name, "begin": window.begin},
    )


variants = {"self": Self(), "by": By()}
