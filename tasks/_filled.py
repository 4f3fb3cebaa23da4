"""A task whose prompts are filled up to the length: what such tasks share."""

import random
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, ClassVar, Literal

from harness.stats import wilson
from harness.task import Choice, Outcome, Reader, Request, Sample, Score, Task, Text, Verdict

from ._prompt import Question, fitted, see_some

Context = Callable[[int], str]
"""A text by its units of filler."""


@dataclass(frozen=True, kw_only=True)
class Filled(Task):
    """Questions with as much filler as leaves room for the answer; nothing is ever cut."""

    source: ClassVar[str] = "generated"
    licence: ClassVar[str] = "Apache-2.0"
    size: ClassVar[str] = "any"
    offline: ClassVar[bool] = True

    samples: int = 10
    seed: int = 42
    prompt: Literal["auto", "base", "chat"] = "auto"
    """auto: a conversation where the tokenizer has a template for one."""
    pair_lengths: bool = False
    """Ask the same at every length."""

    def __post_init__(self) -> None:
        see_some(self.samples, "A task")

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

    def ask(self, reader: Reader, question: Question, filler: int) -> Text | Verdict | Choice:
        return Text(max_new_tokens=self.max_new_tokens, stop=self.stop)

    def grade(self, request: Request, outcome: Outcome, reader: Reader) -> Sample:
        answers, said = request.about["answers"], reader.text(outcome)
        return Sample(
            id=request.id,
            score=self.matched(said, answers, request.about),
            about=request.about,
            expected=", ".join(answers),
            answer=said,
        )

    @abstractmethod
    def matched(self, said: str, answers: Sequence[str], about: Mapping[str, Any]) -> float:
        """The score of what was said, from 0 to 1."""

    def score(self, samples: Sequence[Sample]) -> Score:
        """A share varies no more than hit or miss of the same mean: Wilson's interval covers it."""
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


def always(text: str) -> Context:
    """However much filler is asked for: of a question whose text is given, or left out."""
    return lambda n: text


def within(template: str, context: str) -> str:
    return template.replace("{context}", context)


@dataclass(frozen=True, kw_only=True)
class AtDepths(Task):
    """Depths x trials: what is to be found lies at each of the depths, and each is told apart."""

    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """How much of the filler stands before the needle; 0 to 1, kept in order, to four decimals."""

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]
        object.__setattr__(self, "depths", ordered(self.depths))  # the same are the same cell

    def score(self, samples: Sequence[Sample]) -> Score:
        score = super().score(samples)  # type: ignore[safe-super]
        return replace(score, parts=by_depth(samples) | score.parts)


def by_depth(samples: Sequence[Sample]) -> dict[str, float]:
    """Parts of a score: the mean at each depth, which has at least two decimals."""
    found: dict[float, list[float]] = {}
    for sample in samples:
        found.setdefault(sample.about["depth"], []).append(sample.score)
    named = {d: max(f"{d:.2f}", f"{d:.4f}".rstrip("0"), key=len) for d in found}
    return {f"depth {named[d]}": fmean(found[d]) for d in sorted(found)}


def ordered(depths: Sequence[float]) -> tuple[float, ...]:
    """The same depths are the same cell: each once, in order, to four decimals.

    Raises:
        ValueError: there are none, or one is no share.
    """
    if not depths or not all(0 <= depth <= 1 for depth in depths):
        raise ValueError("Depths are shares of the filler before the needle, from 0 to 1.")
    return tuple(sorted({round(depth, 4) + 0.0 for depth in depths}))
