"""How a dataset of LongBench is asked and scored; tasks/longbench.py says which there are."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from harness.judge import Judge
from harness.metrics import longbench as official
from harness.metrics.longbench import BINS, DATASETS, Backend
from harness.task import Outcome, Reader, Request, Sample, Score, Text

from ._by_text import OnTexts, named
from ._middle import see_room, within
from ._prompt import Kind, see_some, talks
from ._records import field, records, texts

STOPS = {"samsum": ("\nDialogue",)}
TEXTS = ("triviaqa", "samsum", "lsht", "repobench-p")
"""Their `input` is no question: it is a text itself, or code, and is cut as the context is."""


@dataclass(frozen=True)
class Form:
    """How a dataset is asked."""

    questions: int
    max_new_tokens: int
    conversation: bool
    """A chat model is asked it in a conversation."""
    prompt: str
    questions_e: int = 0
    """In LongBench-E."""


@cache
def forms() -> dict[str, Form]:
    """Of each dataset, from tasks/data/longbench.json."""
    published = json.loads(
        Path(__file__).with_name("data").joinpath("longbench.json").read_text("utf-8")
    )
    return {name: Form(**form) for name, form in published["datasets"].items()}


@dataclass(frozen=True, kw_only=True)
class LongBench(OnTexts, Judge):
    """One dataset."""

    dataset: ClassVar[str]
    extended: ClassVar[bool] = False
    source: ClassVar[str] = "https://huggingface.co/datasets/THUDM/LongBench"
    licence: ClassVar[str] = "MIT, and of each dataset its own"
    offline: ClassVar[bool] = False
    size: ClassVar[str]
    truncation = "middle"
    counts = "what the dataset's official rule compares: of most few-shot answers the first line"

    data: str = "hf:THUDM/LongBench"
    """A folder with the published .jsonl files, their data.zip, or the hub's repository."""
    samples: int = 500
    """At most so many questions, the first; no dataset has more."""
    prompt: Kind = "auto"
    """auto: a conversation where the tokenizer has a template for one, and the protocol too."""
    no_context: bool = False
    """Leave the context out: what a model knows without it."""

    def __post_init__(self) -> None:
        see_some(self.samples, "LongBench")

    @property
    def max_new_tokens(self) -> int:  # type: ignore[override]
        """As published, by dataset."""
        return forms()[self.dataset].max_new_tokens

    @property
    def stop(self) -> tuple[str, ...]:  # type: ignore[override]
        return STOPS.get(self.dataset, ())

    @property
    def packages(self) -> Mapping[str, str]:  # type: ignore[override]
        """For answers in Chinese jieba."""
        return official.packages(self.dataset)

    @property
    def name(self) -> str:  # type: ignore[override]
        """Of its file."""
        return f"{self.dataset}_e" if self.extended else self.dataset

    @property
    def kind(self) -> Kind:
        return self.prompt if forms()[self.dataset].conversation else "base"

    def asked_as(self, reader: Reader) -> str | None:
        """Few-shot examples and code are never a conversation, whatever `prompt` says."""
        return "chat" if talks(reader, self.kind) else "base"

    def answers(self) -> dict[str, tuple[list[str], dict[str, Any]]]:
        """By `_id`."""
        return {str(row["_id"]): (row["answers"], self.about(row)) for row in self.rows()}

    def about(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What a judge looks at beside what is right."""
        kept = {name: row.get(name) for name in ("length", "all_classes")}
        return {"dataset": self.dataset, **kept}

    def rows(self) -> Iterator[dict[str, Any]]:
        """All of its file.

        Raises:
            LookupError: the file cannot be found.
            ValueError: a row lacks a field; names file, line and field.
        """
        for where, row in records(self.data, self.name, "data.zip"):
            for name, kind in (("input", str), ("context", str), ("length", int), ("_id", str)):
                field(row, name, kind, where)
            texts(row, "answers", where)
            if row.get("dataset", self.name) not in (self.dataset, self.name):
                raise ValueError(f"{where}: this is of {row['dataset']}, and not of {self.name}.")
            if DATASETS[self.dataset].metric is official.classification:
                texts(row, "all_classes", where)
            yield row

    def requests(self, reader: Reader, length: int) -> Iterator[Request]:
        form, room = forms()[self.dataset].prompt, self.max_new_tokens
        every = list(islice(self.rows(), self.samples))
        ends = (self.ends(form, row) for row in every)
        see_room(reader, self.kind, ends, length, self.dataset, room)
        for i, row in enumerate(every):
            context = "" if self.no_context else row["context"]
            text = form.format(context=context, input=row["input"])
            tokens, cut = within(reader, self.kind, text, length - room)
            yield Request(
                id=f"{self.name}-{i}",
                tokens=tokens,
                ask=Text(max_new_tokens=self.max_new_tokens, stop=self.stop),
                cut=cut,
                about={
                    "_id": row["_id"],
                    "answers": list(row["answers"]),
                    "text": named(row["context"]),
                    **self.about(row),
                },
            )

    def ends(self, form: str, row: Mapping[str, Any]) -> tuple[str, str]:
        """What of a prompt no cut may go through, before its context and behind it."""
        asked = "" if self.dataset in TEXTS else row["input"]
        before, after = form.split("{context}")
        return before.format(input=asked), after.format(input=asked)

    def grade(self, request: Request, outcome: Outcome, reader: Reader) -> Sample:
        said, right = reader.text(outcome), request.about["answers"]
        value, _ = self.judge(said, right, request.about)
        return Sample(
            id=request.id,
            score=value,
            about=request.about,
            expected=" | ".join(right),
            answer=said,
            cut=request.cut,
        )

    def parts(self, judged: Sequence[tuple[float, Mapping[str, Any]]]) -> dict[str, float]:
        """By length, of LongBench-E: a judged row is a score, and what it is of."""
        told = all(isinstance(about.get("length"), int) for _, about in judged)
        return by_length(judged) if self.extended and told else {}

    def columns(self, scores: Mapping[str, float]) -> dict[str, float]:
        """The leaderboard's averages, of scores by dataset: those that nothing is missing of."""
        return official.averages(scores)

    def judge(self, prediction: str, gold: Any, row: Mapping[str, Any]) -> tuple[float, str | None]:
        """As the official eval.py: `gold` lists all true answers, `row` has `all_classes`.

        Those are of the row; the official script takes the last row's for the whole file.
        """
        right = [gold] if isinstance(gold, str) else gold
        if not isinstance(right, list) or not all(isinstance(text, str) for text in right):
            raise ValueError(f"the answers of {self.dataset} are a list of texts")
        classes = row.get("all_classes") or ()
        if DATASETS[self.dataset].metric is official.classification:
            if not classes:
                raise ValueError(f"without 'all_classes' no answer of {self.dataset} can be scored")
            if not isinstance(classes, list | tuple) or not all(
                isinstance(c, str) for c in classes
            ):
                raise ValueError(f"the 'all_classes' of {self.dataset} are a list of texts")
        value = official.row_score(
            self.dataset, prediction, right, classes, metric=self.rule(self.dataset)
        )
        return value, official.extracted(self.dataset, prediction, classes) or None

    def rule(self, dataset: str) -> official.Metric:
        return DATASETS[dataset].metric

    def score(self, samples: Sequence[Sample]) -> Score:
        parts = self.parts([(sample.score, sample.about) for sample in samples])
        return replace(super().score(samples), parts=parts)


@dataclass(frozen=True, kw_only=True)
class Code(LongBench):
    """The next line; its similarity depends on what the official scorer finds installed."""

    backend: Backend = "difflib"
    """What measures edit similarity: as the published fuzzywuzzy without its extra, or with it."""

    @property
    def metric(self) -> str:  # type: ignore[override]
        """Says which of the two."""
        return f"edit similarity ({self.backend})"

    def rule(self, dataset: str) -> official.Metric:
        return official.CODE_BACKENDS[self.backend]


@cache
def of(dataset: str, extended: bool = False) -> LongBench:
    """The task of one dataset."""
    facts, form = DATASETS[dataset], forms()[dataset]
    questions = form.questions_e if extended else form.questions
    about = {"dataset": dataset, "extended": extended, "size": f"{questions} questions"}
    if facts.group == "code":
        return type("Code", (Code,), about)()
    return type("LongBench", (LongBench,), about | {"metric": facts.called})()


def by_length(judged: Sequence[tuple[float, Mapping[str, Any]]]) -> dict[str, float]:
    """LongBench-E's bins, those with a question in them."""
    bins: dict[str, list[float]] = {bin: [] for bin in BINS}
    for score, about in judged:
        bins[official.bin_of(about["length"])].append(score)
    return {bin: fmean(scores) for bin, scores in bins.items() if scores}
