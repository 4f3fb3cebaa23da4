"""What InfiniteBench's tasks share, and those whose questions are generated."""

import json
import random
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, ClassVar, Literal

from harness.judge import Judge
from harness.metrics.infinitebench import MEASURES, judge
from harness.task import Outcome, Reader, Request, Sample, Score, Text

from . import _infinitebench_draws as draws
from ._by_text import OnTexts
from ._infinitebench_draws import Drawn
from ._infinitebench_prompts import BASE, CHAT
from ._middle import within
from ._prompt import Question, fitted, see_some, talks


@dataclass(frozen=True, kw_only=True)
class InfiniteBench(OnTexts, Judge):
    """How a question is put, and how an answer is graded."""

    version: ClassVar[int] = 2
    name: ClassVar[str]
    """The official one."""
    chat_tokens: ClassVar[int] = 128
    """At least, of a model that chats; a base model has YaRN-Mistral's `max_new_tokens`. GPT-4 was
    given no limit, and says a sentence around its answer."""
    truncation = "middle"
    what = "book"
    counts = (
        "what the task's official rule finds in the whole answer; scorer=fixed, the mended rule"
    )
    source: ClassVar[str] = "generated"
    licence: ClassVar[str] = "MIT"
    size: ClassVar[str]
    offline: ClassVar[bool] = True

    samples: int = 10
    prompt: Literal["auto", "base", "chat"] = "auto"
    """YaRN-Mistral's for a base model, GPT-4's for one that chats; auto: as the tokenizer does."""
    scorer: Literal["official", "fixed"] = "official"
    """official: as the published code scores, its slips included; fixed: without them."""

    def __post_init__(self) -> None:
        see_some(self.samples, "InfiniteBench")

    @property
    def metric(self) -> str:  # type: ignore[override]
        """What is measured, and by which scorer."""
        return f"{MEASURES[self.name]}-{self.scorer}"

    def text(self, reader: Reader, fill: Mapping[str, str]) -> str:
        """The prompt."""
        return self.form(reader).format(**fill)

    def form(self, reader: Reader) -> str:
        """The prompt's template, as published."""
        return (CHAT if self.talks(reader) else BASE)[self.name]

    def talks(self, reader: Reader) -> bool:
        """Whether it is asked as GPT-4 was."""
        return talks(reader, self.prompt)

    def request(
        self, reader: Reader, i: int, tokens: Any, right: Any, about: Mapping[str, Any], cut: int
    ) -> Request:
        room = self.room(right)
        return Request(
            id=f"sample-{i}",
            tokens=tokens,
            ask=Text(
                max_new_tokens=max(room, self.chat_tokens) if self.talks(reader) else room,
                stop=self.stop,
            ),
            cut=cut,
            about={"gold": self.said(right), "right": right, **about},
        )

    def room(self, right: Any) -> int:
        """Tokens that a base model generates."""
        return self.max_new_tokens

    def said(self, right: Any) -> str:
        """What is right, as an answer that scores full."""
        return str(right)

    def judge(self, prediction: str, gold: Any, row: Mapping[str, Any]) -> tuple[float, str | None]:
        """By InfiniteBench's rule; GPT-4's running values are read from the second on, as there."""
        drops = row.get("model") == "gpt4"
        return judge(self.name, self.scorer, prediction, gold, drops_first=drops)

    def grade(self, request: Request, outcome: Outcome, reader: Reader) -> Sample:
        said = reader.text(outcome)
        score, extracted = self.judge(said, request.about["right"], {})
        return Sample(
            id=request.id,
            score=score,
            about={**request.about, "extracted": extracted},
            expected=request.about["gold"],
            answer=said,
            cut=request.cut,
        )

    def score(self, samples: Sequence[Sample]) -> Score:
        by_part: dict[str, list[float]] = {}
        for sample in samples:
            if part := sample.about.get("part"):
                by_part.setdefault(part, []).append(sample.score)
        parts = {part: fmean(found) for part, found in by_part.items()}
        return replace(super().score(samples), parts=parts)


@dataclass(frozen=True, kw_only=True)
class Generated(InfiniteBench):
    """Made at any length: as many units as fit, none of them cut, or as many as are published."""

    published: ClassVar[int]
    """Units of the published questions, of which a long prompt loses the middle."""
    published_questions: ClassVar[int]
    """On the hub."""
    least: ClassVar[int] = 1

    seed: int = 0
    sized: Literal["length", "published"] = "length"
    """length: as the cell; published: as on the hub, in its order, and cut where that is longer."""
    pair_lengths: bool = False
    """Ask the same at every length."""

    @property
    def version(self) -> int:  # type: ignore[override]
        """One more where depths and kinds are the published ones, which they were not at first."""
        return InfiniteBench.version + (self.sized == "published")

    @abstractmethod
    def drawn(self, rng: random.Random, n: int, i: int) -> Drawn:
        """Sample i of n units."""

    def units(self, i: int) -> tuple[int, int]:
        """The fewest that make sample i, and how many are published."""
        return self.least, self.published

    def requests(self, reader: Reader, length: int) -> Iterator[Request]:
        n = 0
        for i in range(self.samples):
            at = "" if self.pair_lengths or self.sized == "published" else f" {length}"
            chance = f"{self.seed} {i}{at}"
            least, published = self.units(i)

            def draw(n: int, chance: str = chance, i: int = i) -> Drawn:
                return self.drawn(random.Random(chance), n, i)

            def text(n: int, draw: Any = draw) -> str:
                return self.text(reader, draw(n).fill)

            if self.sized == "published":
                n = published
                tokens, cut = within(reader, self.prompt, text(n), length)
            else:
                question = Question(text=text, answers=(), least=least)
                tokens, n = fitted(reader, self.prompt, question, length, room=0, near=n)
                cut = 0
            found = draw(n)
            yield self.request(reader, i, tokens, found.right, {**found.about, "units": n}, cut)

    def depth(self, i: int) -> float:
        """Of sample i, evenly from beginning to end; 0 to 1."""
        if self.sized == "published":
            return round(self.place(i), 4)
        return round(i / (self.samples - 1), 4) if self.samples > 1 else 0.5

    def place(self, i: int) -> float:
        """The published depth: of 59, ten questions at each."""
        return self.row(i) // 10 / 58

    def row(self, i: int) -> int:
        """The published question that sample i is; of fewer samples, evenly from all of them."""
        return i * self.published_questions // self.samples

    def turn(self, i: int, kinds: Sequence[Any]) -> Any:
        """Which kind sample i is of: in turn, or where they are published one after another."""
        if self.sized == "published":
            return kinds[self.row(i) * len(kinds) // self.published_questions]
        return kinds[i % len(kinds)]


class PassKey(Generated):
    """Five digits in lines of hay. A unit is a word."""

    name = "passkey"
    max_new_tokens = 6
    published = 5220 * draws.LINE
    published_questions = 590
    size = "590 of 122.4k tokens, or any"

    def drawn(self, rng: random.Random, n: int, i: int) -> Drawn:
        return draws.hidden(rng, n, self.depth(i), draws.KEY, "What is the pass key?")


class NumberString(Generated):
    """Ten digits, many of which follow themselves, in lines of hay. A unit is a word."""

    name = "number_string"
    max_new_tokens = 12
    published = 5220 * draws.LINE
    published_questions = 590
    size = "590 of 122.4k tokens, or any"

    def drawn(self, rng: random.Random, n: int, i: int) -> Drawn:
        question = "What is the sequence of digits?"
        return draws.hidden(rng, n, self.depth(i), draws.SEQUENCE, question)


class KeyValue(Generated):
    """A value by its key, both UUIDs. A unit is a pair."""

    name = "kv_retrieval"
    max_new_tokens = 50
    published = 2500
    published_questions = 500
    size = "500 of 89.9k tokens, or any"

    def place(self, i: int) -> float:
        """Of each fifth pair."""
        return 5 * self.row(i) / (self.published - 1)

    def drawn(self, rng: random.Random, n: int, i: int) -> Drawn:
        return draws.pairs(rng, n, self.depth(i))


class MathFind(Generated):
    """The largest, the smallest, those next to them or the median. A unit is two numbers."""

    name = "math_find"
    max_new_tokens = 3
    published = 15_000
    published_questions = 350
    least = 8
    size = "350 of 87.9k tokens, or any"

    def drawn(self, rng: random.Random, n: int, i: int) -> Drawn:
        return draws.listed(rng, 2 * n, self.turn(i, list(draws.WANTED)))


class MathCalc(Generated):
    """Each value on the way through additions and subtractions. A unit is a number.

    A model that chats is given the published words alone, without the turn of example that GPT-4
    had before them.
    """

    name = "math_calc"
    version = InfiniteBench.version
    max_new_tokens = 30_000
    published = 15_000
    published_questions = 50
    least = 2
    size = "50 of 43.9k tokens, or any"

    def room(self, right: Sequence[int]) -> int:
        """No more than a list of three times the characters could take, a character a token."""
        return min(self.max_new_tokens, 64 + 3 * len(json.dumps(right)))

    def drawn(self, rng: random.Random, n: int, i: int) -> Drawn:
        return draws.expression(rng, n)


class CodeRun(Generated):
    """What a function returns that calls others. A unit is a function."""

    name = "code_run"
    max_new_tokens = 5
    chat_tokens = 256
    published = 4400
    published_questions = 400
    size = "400 of 75.2k tokens, or any"

    def drawn(self, rng: random.Random, n: int, i: int) -> Drawn:
        return draws.functions(rng, n, self.deep(i))

    def deep(self, i: int) -> int:
        return int(self.turn(i, draws.DEEP))

    def units(self, i: int) -> tuple[int, int]:
        """Published layers are equal."""
        return self.deep(i), self.published - self.published % self.deep(i)
