"""What RULER's questions share: how a prompt is filled, and how an answer is graded."""

import random
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, ClassVar, Literal

from harness.metrics.ruler import cleaned, match_all
from harness.stats import wilson
from harness.task import Outcome, Reader, Request, Sample, Score, Task, Text, Verdict

from ._prompt import Question, fitted

Context = Callable[[int], str]
"""A text by its units of filler."""


@dataclass(frozen=True, kw_only=True)
class Ruler(Task):
    """What the thirteen share: how a prompt is filled, and how an answer is graded."""

    metric = "recall"
    source: ClassVar[str] = "generated"
    licence: ClassVar[str] = "Apache-2.0"
    size: ClassVar[str] = "any"
    offline: ClassVar[bool] = True
    max_new_tokens: ClassVar[int] = 128

    samples: int = 10
    """Published: 500."""
    seed: int = 42
    prompt: Literal["auto", "base", "chat"] = "auto"
    """auto: a conversation where the tokenizer has a template for one."""
    pair_lengths: bool = False
    """Ask the same at every length."""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"RULER needs at least 1 sample, and {self.samples} were asked for.")

    @abstractmethod
    def questions(self, reader: Reader, length: int) -> Iterator[Question]:
        """One for each sample."""

    def draw(self, index: int, length: int, what: str = "") -> random.Random:
        """Chance for one part of one sample; nothing that is drawn depends on the filler."""
        place = "" if self.pair_lengths else f" {length}"
        return random.Random(f"{self.seed} {index}{place} {what}")

    def requests(self, reader: Reader, length: int) -> Iterator[Request]:
        n = 0
        for i, question in enumerate(self.questions(reader, length)):
            tokens, n = fitted(reader, self.prompt, question, length, self.max_new_tokens, near=n)
            yield Request(
                id=question.name or f"sample-{i}",
                tokens=tokens,
                ask=self.ask(reader, question, n),
                about={"answers": list(question.answers), **question.about, "filler": n},
            )

    def ask(self, reader: Reader, question: Question, filler: int) -> Text | Verdict:
        return Text(max_new_tokens=self.max_new_tokens)

    def grade(self, request: Request, outcome: Outcome, reader: Reader) -> Sample:
        answers, said = request.about["answers"], reader.text(outcome)
        return Sample(
            id=request.id,
            score=self.matched(said, answers),
            about=request.about,
            expected=", ".join(answers),
            answer=cleaned(said),
        )

    def matched(self, said: str, answers: Sequence[str]) -> float:
        return match_all(said, answers)

    def judge(
        self, prediction: str, gold: Sequence[str], row: Mapping[str, Any]
    ) -> tuple[float, str | None]:
        """What anybody's model has said, by the same rule."""
        answers = [gold] if isinstance(gold, str) else list(gold)
        if not all(answers):
            raise ValueError(f"RULER's answers are texts, and {gold!r} is none.")
        return self.matched(prediction, answers), cleaned(prediction) or None

    def score(self, samples: Sequence[Sample]) -> Score:
        """A share of answers varies no more than hit or miss of the same mean: Wilson covers it."""
        value = fmean(s.score for s in samples)
        low, high = wilson(sum(s.score for s in samples), len(samples))
        return Score(value=value, low=low, high=high, n=len(samples))


def placed(units: Sequence[str], inserts: Sequence[str], depths: Sequence[float]) -> list[str]:
    """Units with others among them at depths, which are from 0 to below 1 and in order."""
    pieces: list[str] = []
    last = 0
    for insert, depth in zip(inserts, depths, strict=True):
        at = int(depth * (len(units) + 1))
        pieces += [*units[last:at], insert]
        last = at
    return [*pieces, *units[last:]]


def within(template: str, context: str) -> str:
    return template.replace("{context}", context)
