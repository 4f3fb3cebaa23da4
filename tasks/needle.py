"""Needles in a haystack by length and depth: one, one of many, many values, many questions.

Kamradt 2023, https://github.com/gkamradt/LLMTest_NeedleInAHaystack

His is also the rule that of several needles the first lies at the depth and the rest evenly behind
it; the words are those of RULER, https://arxiv.org/abs/2404.06654. The hay is a corpus, whose name
is part of the result's.
"""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from harness.task import Choice, Outcome, Reader, Request, Sample, Text, Verdict

from ._filled import AtDepths
from ._niah import InEssays, Needles, asked_of
from ._prompt import Question, verdict


@dataclass(frozen=True, kw_only=True)
class Grid(AtDepths, InEssays):
    """Depths x trials; needles that nobody asks for lie anywhere.

    All prompts of a cell begin alike up to the first needle. A single answer is asked for by its
    tokens where it has one spelling, so that mostly nothing need be written: only where the model
    first says something else than a number.
    """

    max_new_tokens = 64
    counts = "each value that stands somewhere in what is said; a single number as the first said"

    samples: int = 1
    """Trials a depth."""

    @property
    def version(self) -> int:  # type: ignore[override]
        """A single answer's first number counts, whatever is said before it, since the second."""
        return super().version + self._of_one_number

    @property
    def _of_one_number(self) -> bool:
        return self.values * self.queries == 1 and self.value == "numbers"

    @property
    def follows(self) -> int:  # type: ignore[override]
        return self.max_new_tokens if self._of_one_number else 0

    def questions(self, reader: Reader, length: int) -> Iterator[Question]:
        haystack = self.haystack(reader, length)
        for i, (depth, trial) in enumerate(product(self.depths, range(self.samples))):
            rng = self.draw(i, length)
            hidden, places = self.laid(self.drawn(rng), depth, rng)
            about = {"depth": depth, "trial": trial, "depths": places}
            question = asked_of(hidden, haystack(hidden, places, rng), about)
            yield replace(question, name=f"depth-{depth:g}-trial-{trial}")

    def laid(
        self, hidden: Needles, depth: float, rng: random.Random
    ) -> tuple[Needles, list[float]]:
        """The needles in the order in which they lie, and where."""
        wanted = [pair for pair in hidden.hidden if pair[0] in hidden.queries]
        others = [pair for pair in hidden.hidden if pair[0] not in hidden.queries]
        places = [depth + (1 - depth) * i / len(wanted) for i in range(len(wanted))]
        places += [rng.random() for _ in others]
        laid = sorted(zip((round(p, 4) for p in places), [*wanted, *others], strict=True))
        return replace(hidden, hidden=tuple(pair for _, pair in laid)), [at for at, _ in laid]

    def ask(self, reader: Reader, question: Question, filler: int) -> Text | Verdict | Choice:
        if self._of_one_number:
            answer = f" {question.answers[0]}."
            exactly = verdict(reader, self.prompt, question.text(filler), question.prefix, answer)
            if exactly:
                return exactly
        return super().ask(reader, question, filler)

    def then(
        self, request: Request, outcome: Outcome, reader: Reader, length: int
    ) -> Request | None:
        """Have it written, where it goes another way before any digit: the first number counts."""
        if not isinstance(request.ask, Verdict):
            return None
        meant = request.ask.answer[:-1]
        same = next((i for i, t in enumerate(meant) if outcome[i] != t), len(meant))
        if same == len(meant) or re.search(r"\d", reader.text((*meant[:same], outcome[same]))):
            return None
        return replace(request, ask=Text(max_new_tokens=self.max_new_tokens, stop=self.stop))

    def matched(self, said: str, answers: Sequence[str], about: Mapping[str, Any]) -> float:
        if self._of_one_number:
            number = re.search(r"\d+", said)
            return float(number is not None and number[0] == answers[0])
        return super().matched(said, answers, about)

    def grade(self, request: Request, outcome: Outcome, reader: Reader) -> Sample:
        """A verdict's last token is a full stop that need not be said; no digit may stand there."""
        sample = super().grade(request, outcome, reader)
        if not isinstance(request.ask, Verdict):
            return sample
        exactly = tuple(outcome[:-1]) == request.ask.answer[:-1]
        return replace(sample, score=sample.score * exactly)


variants = {
    "single": Grid(),
    "multikey": Grid(keys=4),
    "multivalue": Grid(values=4),
    "multiquery": Grid(keys=4, queries=4),
}
