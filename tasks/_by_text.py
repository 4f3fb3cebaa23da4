"""Questions on one text are right and wrong together: what varies by itself is the text."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from statistics import fmean
from typing import ClassVar

from harness.stats import score_interval, wilson
from harness.task import Sample, Score, Task


@dataclass(frozen=True, kw_only=True)
class OnTexts(Task):
    """Several questions may be on one text: then they are no several items, and are drawn as one.

    A sample says in `about` which text it is on; one that says none stands for itself.
    """

    what: ClassVar[str] = "text"
    """What the texts are called there."""

    def items(self, samples: Sequence[Sample]) -> dict[str, float]:
        """Of questions on a text the mean."""
        found: dict[str, list[float]] = {}
        for sample in samples:
            text = sample.about.get(self.what)
            found.setdefault(f"{self.what}-{text}" if text else sample.id, []).append(sample.score)
        return {name: fmean(scores) for name, scores in found.items()}

    def score(self, samples: Sequence[Sample]) -> Score:
        """Hits and misses by Wilson; other scores, and several questions on a text, by texts.

        Of texts that are all hit or all missed, Wilson's too: that six were is not certainty.
        """
        scores, on = [sample.score for sample in samples], texts(samples, self.what)
        n = len(set(on))
        low, high = None, None
        if set(scores) <= {0, 1} and (n == len(on) or len(set(scores)) == 1):
            low, high = wilson(fmean(scores) * n, n)
        elif n > 1:
            low, high = score_interval(scores, on)
        return Score(value=fmean(scores), low=low, high=high, n=len(scores))


def named(text: str) -> str:
    """A text's name, of what is in it."""
    return sha256(text.encode()).hexdigest()[:8]


def texts(samples: Sequence[Sample], what: str = OnTexts.what) -> list[Hashable]:
    """What each sample is on."""
    return [sample.about.get(what, sample.id) for sample in samples]
