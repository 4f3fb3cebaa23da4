"""LongBench v2: 503 questions of four choices, on texts of up to two million words.

Bai et al. 2024, https://arxiv.org/abs/2412.15204; https://github.com/THUDM/LongBench

zero-shot    the answer is written, and found in what was written
cot          the model reasons first, in 1,024 tokens, and is then asked again without the text
likelihood   the most likely of the four choices: no protocol of the authors', and named apart

Prompts are the published ones, cut in the middle. The published scripts draw at temperature 0.1,
here decoding is greedy; they leave out questions that got no answer, here these are wrong; and a
text that has a placeholder such as $Q$ in it stays as it is. `compensated` gives a quarter to an
answer that names no choice, as the authors also report.
"""

import json
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from harness.judge import Judge
from harness.metrics.longbench_v2 import chosen
from harness.task import Choice, Outcome, Reader, Request, Sample, Score, Text

from ._by_text import OnTexts, named
from ._middle import see_room, within
from ._prompt import Kind, see_some, spelled
from ._records import field, records

LETTERS = "ABCD"
KINDS = ("difficulty", "length", "domain")
"""What the parts are told by: easy or hard; short, medium or long; and six domains."""
CHOICES = tuple(f"choice_{letter}" for letter in LETTERS)
FIELDS = ("question", *CHOICES, "answer", "context", "_id", *KINDS)
PLACES = {
    "$DOC$": "context",
    "$Q$": "question",
    "$COT$": "reasoning",
    **{f"$C_{letter}$": choice for letter, choice in zip(LETTERS, CHOICES, strict=True)},
}


@cache
def prompts() -> dict[str, str]:
    """From tasks/data/longbench_v2.json."""
    file = Path(__file__).with_name("data") / "longbench_v2.json"
    return json.loads(file.read_text("utf-8"))["prompts"]


@dataclass(frozen=True, kw_only=True)
class LongBenchV2(OnTexts):
    """How a question is put, whatever is asked of it."""

    metric = "accuracy"
    source: ClassVar[str] = "https://huggingface.co/datasets/THUDM/LongBench-v2"
    licence: ClassVar[str] = "Apache-2.0"
    offline: ClassVar[bool] = False
    size: ClassVar[str] = "503 questions"
    form: ClassVar[str] = "zero-shot"
    ending: ClassVar[str] = ""
    """Of a published file's name, behind the model's."""
    prefix: ClassVar[str] = ""
    """What the answer begins with."""
    max_new_tokens = 128
    truncation = "middle"
    counts = 'the letter in the first "The correct answer is (A)" of its two published spellings'

    data: str = "hf:THUDM/LongBench-v2"
    """The published data.json or a .jsonl of its rows, its folder, or the hub's repository."""
    samples: int = 503
    """At most so many questions, the first."""
    prompt: Kind = "auto"
    """auto: a conversation where the tokenizer has a template for one, as published."""
    no_context: bool = False
    """Leave the text out: what a model knows without it."""

    def __post_init__(self) -> None:
        see_some(self.samples, "LongBench v2")

    def answers(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """What is right, by `_id`; and what the parts are told by."""
        return {r["_id"]: (r["answer"], {kind: r[kind] for kind in KINDS}) for r in self.rows()}

    def whose(self, file: Path, name: str) -> str | None:
        """The published scripts name a file after its model, and the form."""
        model = re.sub(r"(_cot|_no_context|_rag_\d+)$", "", file.stem)
        ending = "_no_context" if self.no_context else self.ending
        return model if file.stem == model + ending else None

    def parts(self, judged: Sequence[tuple[float, Mapping[str, Any]]]) -> dict[str, float]:
        """Means by difficulty, length and domain, of rows that say theirs."""
        groups: dict[str, list[float]] = {}
        for kind in KINDS:
            for score, about in judged:
                if isinstance(name := about.get(kind), str):
                    groups.setdefault(name, []).append(score)
        return {name: fmean(scores) for name, scores in groups.items()}

    def rows(self) -> Iterator[dict[str, str]]:
        """All of the file.

        Raises:
            LookupError: the file cannot be found.
            ValueError: a row lacks a field; names file, line and field.
        """
        for where, row in records(self.data, "data", "data.json"):
            for name in FIELDS:
                field(row, name, str, where)
            if row["answer"] not in tuple(LETTERS):
                raise ValueError(f"{where}: 'answer' is A, B, C or D, and not {row['answer']!r}.")
            yield row

    @abstractmethod
    def asks(self, reader: Reader) -> Text | Choice: ...

    def requests(self, reader: Reader, length: int) -> Iterator[Request]:
        form = prompts()["no-context" if self.no_context else self.form]
        room, every = self.max_new_tokens, list(islice(self.rows(), self.samples))
        before, _, after = form.partition("$DOC$")
        ends = ((filled(before, row), filled(after, row) + self.prefix) for row in every)
        see_room(reader, self.prompt, ends, length, "LongBench v2", room)
        for row in every:
            text = filled(form, row)
            tokens, cut = within(reader, self.prompt, text, length - room, self.prefix)
            about = {name: row[name] for name in ("_id", *KINDS)}
            about |= {"gold": row["answer"], "text": named(row["context"]), **self.keeps(row)}
            ask = self.asks(reader)
            yield Request(id=row["_id"], tokens=tokens, ask=ask, cut=cut, about=about)

    def keeps(self, row: Mapping[str, str]) -> dict[str, Any]:
        """What of a row is needed later."""
        return {}

    def sample(self, request: Request, said: str, choice: str | None) -> Sample:
        gold = request.about["gold"]
        about = request.about | {"chosen": choice}
        score = float(choice == gold)
        return Sample(
            id=request.id, score=score, about=about, expected=gold, answer=said, cut=request.cut
        )

    def score(self, samples: Sequence[Sample]) -> Score:
        hits = sum(s.score for s in samples)
        parts = self.parts([(sample.score, sample.about) for sample in samples])
        silent = sum(s.about["chosen"] is None for s in samples)
        parts["compensated"] = (hits + silent / len(LETTERS)) / len(samples)
        return replace(super().score(samples), parts=parts)


class ZeroShot(LongBenchV2, Judge):
    """The answer is written out, and a pattern finds it."""

    def asks(self, reader: Reader) -> Text | Choice:
        return Text(max_new_tokens=self.max_new_tokens)

    def grade(self, request: Request, outcome: Outcome, reader: Reader) -> Sample:
        said = reader.text(outcome)
        return self.sample(request, said, chosen(said))

    def judge(self, prediction: str, gold: Any, row: Mapping[str, Any]) -> tuple[float, str | None]:
        """Of what was written: `response` in the authors' files, whose `pred` is a letter.

        Where a file has nothing else, a letter alone is the choice.
        """
        if gold not in tuple(LETTERS):
            raise ValueError("the answer to a question of LongBench v2 is A, B, C or D")
        written, alone = row.get("response"), prediction.strip()
        if not written and alone in tuple(LETTERS):
            return float(alone == gold), alone
        choice = chosen(str(written or prediction))
        return float(choice == gold), choice


class ChainOfThought(ZeroShot):
    """The model reasons, and its reasoning is put to it again, without the text."""

    form = "cot"
    ending = "_cot"
    max_new_tokens = 1024
    counts = "the letter in the second answer, which is written after the reasoning"
    conclusion: ClassVar[int] = 128
    """Tokens of the second answer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.no_context:
            raise ValueError(
                "Without the text nothing is reasoned: ask longbench-v2.zero-shot for the control."
            )

    def keeps(self, row: Mapping[str, str]) -> dict[str, Any]:
        return {"asked": {name: row[name] for name in ("question", *CHOICES)}}

    def then(
        self, request: Request, outcome: Outcome, reader: Reader, length: int
    ) -> Request | None:
        """After the reasoning, the question again; after that, nothing."""
        if "reasoning" in request.about:
            return None
        about = {**request.about, "reasoning": reader.text(outcome).strip()}
        text = filled(prompts()["conclusion"], {**about["asked"], "reasoning": about["reasoning"]})
        tokens, cut = within(reader, self.prompt, text, length - self.conclusion)
        ask = Text(max_new_tokens=self.conclusion)
        return replace(request, tokens=tokens, ask=ask, cut=request.cut + cut, about=about)


class Likelihood(LongBenchV2):
    """The choice that the model would most likely go on with, all of them read in one pass."""

    metric = "accuracy (likelihood)"
    counts = "the likeliest of the four letters"
    prefix = "\n\nThe correct answer is"
    max_new_tokens = 8
    """Room for the longest choice."""

    def asks(self, reader: Reader) -> Choice:
        before = spelled(reader, self.prompt, "Which?", self.prefix)
        options = []
        for letter in LETTERS:
            after = spelled(reader, self.prompt, "Which?", f"{self.prefix} ({letter})")
            seamless = after[: len(before)] == before
            option = after[len(before) :] if seamless else reader.tokens(f" ({letter})")
            options.append(tuple(option))
        return Choice(options=tuple(options))

    def grade(self, request: Request, outcome: Outcome, reader: Reader) -> Sample:
        best = max(range(len(outcome)), key=lambda i: outcome[i], default=None)
        choice = None if best is None else LETTERS[best]
        return self.sample(request, choice or "", choice)


def filled(form: str, row: Mapping[str, str]) -> str:
    """A prompt with each placeholder replaced once, so that a text may have them too."""
    return re.sub(r"\$\w+\$", lambda found: row[PLACES[found[0]]].strip(), form)


variants = {"zero-shot": ZeroShot(), "cot": ChainOfThought(), "likelihood": Likelihood()}
