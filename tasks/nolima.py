"""NoLiMa: find who is meant where question and needle have no word in common.

Modarressi et al. 2025, https://arxiv.org/abs/2502.05167

What joins them is known of the world: who sees the Eiffel Tower from the kitchen has been to Paris
(one hop), and so to France (two). The published needles are licensed for research alone, so those
here are our own, and so are the prompts; `own_onehop` and `own_twohop` take others, `data=FILE`: a
.jsonl of needle (with {name} in it), onehop and twohop. The hay is a corpus, whose name is part of
the result's; of one's own needles it is the running Python's library.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

from harness.judge import Judge
from harness.metrics.ruler import cleaned, match_any
from harness.task import Reader

from ._filled import AtDepths, Context, Filled, always, within
from ._haystack import Hay
from ._prompt import Question
from ._records import field, records
from ._words import DATA, listed

TEMPLATE = (
    "Read the following text. I will ask you about somebody in it.\n\n<text>\n{context}\n</text>"
    "\n\nThe answer follows from one sentence of the text and from what is known of the world. "
    "Answer with the name alone.\n\nQuestion: {question}"
)


@dataclass(frozen=True, kw_only=True)
class NoLiMa(AtDepths, Filled, Judge):
    """Depths x trials; a hit says the name."""

    metric = "accuracy"
    max_new_tokens = 16
    counts = "the name, somewhere in what is said, whatever the case"
    hops: ClassVar[str]
    """Which of a needle's questions is asked."""

    samples: int = 2
    """Trials a depth."""
    no_context: bool = False
    """Leave the text out: what can be guessed without it."""

    def questions(self, reader: Reader, length: int) -> Iterator[Question]:
        hay = Hay.of(reader, self.hay, length)
        every = self.hints()
        dealt = self.draw(0, length, "deal")
        order = [hint for _ in self.depths for hint in dealt.sample(every, len(every))]
        for i, (depth, trial) in enumerate(product(self.depths, range(self.samples))):
            needle, question = order[i % len(order)]
            name = self.draw(i, length).choice(listed("names"))
            template = TEMPLATE.replace("{question}", question)
            found = told(template, hay, needle.replace("{name}", name), depth)
            yield Question(
                text=always(within(template, "")) if self.no_context else found,
                prefix="\nAnswer:",
                answers=(name,),
                most=0 if self.no_context else None,
                about={"depth": depth, "trial": trial, "question": question},
                name=f"depth-{depth:g}-trial-{trial}",
            )

    @property
    def hay(self) -> str:
        return "stdlib"

    @property
    def needles(self) -> str:
        """The file of them."""
        return str(DATA / "hints.jsonl")

    def hints(self) -> list[tuple[str, str]]:
        """Needles and questions.

        Raises:
            LookupError: there is no such file, or none are in it.
            ValueError: a row lacks a field, or a needle the place for a name.
        """
        found = []
        for where, row in records(self.needles, "nolima", "nolima.jsonl"):
            needle = field(row, "needle", str, where)
            if "{name}" not in needle:
                raise ValueError(f"{where}: the needle has no {{name}} in it.")
            found.append((needle, field(row, self.hops, str, where)))
        if not found:
            raise LookupError(f"{self.needles} has no needles.")
        return found

    def matched(self, said: str, answers: Sequence[str], about: Mapping[str, Any]) -> float:
        return match_any(said, answers)

    def judge(self, prediction: str, gold: Any, row: Mapping[str, Any]) -> tuple[float, str | None]:
        """What anybody's model has said, by the same rule."""
        if not isinstance(gold, str) or not gold:
            raise ValueError(f"The answer is a name, and {gold!r} is none.")
        return match_any(prediction, [gold]), cleaned(prediction) or None


def told(template: str, hay: Hay, needle: str, depth: float) -> Context:
    return lambda n: within(template, hay.with_needles(n, [needle], [depth]))


@dataclass(frozen=True, kw_only=True)
class Shipped(NoLiMa):
    """Needles of this project, in a corpus."""

    corpus: str = "stdlib"

    @property
    def hay(self) -> str:
        return self.corpus


@dataclass(frozen=True, kw_only=True)
class Own(NoLiMa):
    """Needles of anybody's."""

    source = "a .jsonl of needle, onehop and twohop"
    licence = "that of the file"
    offline = False

    data: str = ""

    @property
    def needles(self) -> str:
        if not self.data:
            raise LookupError(
                "This task reads needles from this machine: name a .jsonl of needle, onehop and "
                "twohop with data=FILE, or take nolima.onehop or nolima.twohop."
            )
        return self.data


class OneHop(Shipped):
    """The question is one step from the needle."""

    hops = "onehop"


class TwoHops(Shipped):
    """The question is two steps from the needle."""

    hops = "twohop"


class OwnOneHop(Own):
    """The same of one's own needles."""

    hops = "onehop"


class OwnTwoHops(Own):
    """The same of one's own needles."""

    hops = "twohop"


bare_name_means_all = ("onehop", "twohop")
variants = {
    "onehop": OneHop(),
    "twohop": TwoHops(),
    "own_onehop": OwnOneHop(),
    "own_twohop": OwnTwoHops(),
}
