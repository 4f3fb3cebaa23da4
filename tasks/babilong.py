"""BABILong: the facts of a story, in their order, scattered over a long text that has none.

Kuratov et al. 2024, https://arxiv.org/abs/2406.10149; https://github.com/booydar/babilong

Answers are graded by the official rule. The stories of `qa1` to `qa5` are simulated here and the
prompts are ours, so numbers are BABILong's in kind and not in value; published is a haystack of
PG19, and `corpus=` takes any. `published_qa1` to `published_qa5` ask of BABILong's own rows, with
`data=FILE`: a .jsonl of input, question and target, at a length that holds them whole.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any, ClassVar

from harness.judge import Judge
from harness.metrics.babilong import ENDS, LABELS, compare_answers, extracted
from harness.task import Reader

from ._filled import Context, Filled, always, within
from ._haystack import Hay
from ._prompt import Question
from ._records import field, records
from ._stories import story

TEMPLATE = (
    "I will give you a text in which facts are hidden among sentences that have nothing to do with "
    "them, and a question. Answer it from the facts alone. {rule}\n\n{examples}\n\nAnswer with one "
    "word and nothing else.\n\n<context>\n{context}\n</context>\n\nQuestion: {question}"
)
EXAMPLE = "<example>\n{facts} {question}\nAnswer: {answer}\n</example>"


RULES = {
    "qa1": "Where somebody was in several places, the last one counts.",
    "qa2": "A thing goes where its holder goes, and stays where it was left.",
    "qa3": "A thing goes where its holder goes, and stays where it was left.",
    "qa4": "They say how rooms lie to each other.",
    "qa5": "They say who gave what to whom.",
}


@dataclass(frozen=True, kw_only=True)
class Babilong(Filled, Judge):
    """How a question is put, and how an answer is graded."""

    metric = "accuracy"
    max_new_tokens = 20
    stop = ENDS
    counts = "the right label, and no other label that the question does not name"
    kind: ClassVar[str]

    no_context: bool = False
    """Leave the text out: what can be guessed without it."""

    def question(self, asked: str, answer: str, context: Context, **more: Any) -> Question:
        if self.no_context:
            context, more = always(""), {"most": 0}
        filled = TEMPLATE.replace("{rule}", RULES[self.kind])
        filled = filled.replace("{examples}", shots(self.kind)).replace("{question}", asked)
        return Question(
            text=lambda n: within(filled, context(n)),
            prefix="\nAnswer:",
            answers=(answer,),
            about={"question": asked},
            **more,
        )

    def matched(self, said: str, answers: Sequence[str], about: Mapping[str, Any]) -> float:
        question = str(about.get("question", ""))
        return float(compare_answers(answers[0], said, question, LABELS[self.kind]))

    def judge(self, prediction: str, gold: Any, row: Mapping[str, Any]) -> tuple[float, str | None]:
        """What anybody's model has said, by the official rule."""
        if not isinstance(gold, str):
            raise ValueError(f"An answer of {self.kind} is one word, and {gold!r} is none.")
        named = extracted(prediction, str(row.get("question", "")), LABELS[self.kind])
        return self.matched(prediction, [gold], row), ", ".join(named) or None


@dataclass(frozen=True, kw_only=True)
class Simulated(Babilong):
    """Stories of our own, hidden in a corpus."""

    corpus: str = "stdlib"

    def questions(self, reader: Reader, length: int) -> Iterator[Question]:
        hay = Hay.of(reader, self.corpus, length)
        for i in range(self.samples):
            told, places = story(self.kind, self.draw(i, length)), self.draw(i, length, "places")
            depths = sorted(places.random() for _ in told.facts)
            yield self.question(told.question, told.answer, hidden(hay, told.facts, depths))


@dataclass(frozen=True, kw_only=True)
class Published(Babilong):
    """BABILong's own rows, whose facts are hidden already."""

    source = "https://huggingface.co/datasets/RMT-team/babilong"
    licence = "Apache-2.0, its stories BSD"
    size = "100 questions a length"
    offline = False

    data: str = ""
    """A .jsonl of input, question and target; or a folder with one named after the kind."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pair_lengths or self.seed != Babilong.seed:
            raise ValueError("Published rows are as they are: leave out seed and pair_lengths.")

    def questions(self, reader: Reader, length: int) -> Iterator[Question]:
        if not self.data:
            raise LookupError(
                f"This task reads rows of BABILong from this machine: get them from {self.source} "
                "as .jsonl and name the file with data=FILE, or take the simulated "
                f"babilong.{self.kind}."
            )
        rows = [*islice(records(self.data, self.kind, f"{self.kind}.jsonl"), self.samples)]
        if len(rows) < self.samples:
            raise LookupError(
                f"{self.data} has {len(rows)} rows, and {self.samples} samples are asked for: take "
                "fewer."
            )
        for where, row in rows:
            asked, answer = (field(row, name, str, where) for name in ("question", "target"))
            yield self.question(asked, answer, always(field(row, "input", str, where)), most=0)


def hidden(hay: Hay, facts: Sequence[str], depths: Sequence[float]) -> Context:
    return lambda n: hay.with_needles(n, facts, depths)


@cache
def shots(kind: str) -> str:
    """Examples: the shortest of many stories whose answers are unlike."""
    told = sorted(
        (story(kind, random.Random(f"example {i}")) for i in range(50)),
        key=lambda one: sum(map(len, one.facts)),
    )
    other = next(one for one in told if one.answer != told[0].answer)
    return "\n\n".join(
        EXAMPLE.format(facts=" ".join(one.facts), question=one.question, answer=one.answer)
        for one in (told[0], other)
    )


def of(kind: str, base: type[Babilong]) -> Babilong:
    return type(f"{base.__name__}_{kind}", (base,), {"kind": kind})()


bare_name_means_all = ("qa1", "qa2", "qa3", "qa4", "qa5")
variants = {
    "qa1": of("qa1", Simulated),
    "qa2": of("qa2", Simulated),
    "qa3": of("qa3", Simulated),
    "qa4": of("qa4", Simulated),
    "qa5": of("qa5", Simulated),
    "published_qa1": of("qa1", Published),
    "published_qa2": of("qa2", Published),
    "published_qa3": of("qa3", Published),
    "published_qa4": of("qa4", Published),
    "published_qa5": of("qa5", Published),
}
