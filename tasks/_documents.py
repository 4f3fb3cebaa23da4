"""RULER's questions over documents, some of which hold the answer: SQuAD 2.0 and HotpotQA."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.disk import parsed
from harness.metrics.ruler import match_any
from harness.task import Reader

from ._by_text import OnTexts, named
from ._filled import Context, within
from ._prompt import Question
from ._ruler import Ruler

TEMPLATE = (
    "Answer the question based on the given documents. Only give me the answer and do not output "
    "any other words.\n\nThe following are given documents.\n\n{context}\n\nAnswer the question "
    "based on the given documents. Only give me the answer and do not output any other words.\n\n"
    "Question: {query}"
)


@dataclass(frozen=True)
class Asked:
    """A question of a dataset, with the numbers of its documents."""

    query: str
    answers: tuple[str, ...]
    documents: tuple[int, ...]
    """Those that hold the answer."""
    near: tuple[int, ...] = ()
    """Of the same article; they stand in the prompt before any others do."""


@dataclass(frozen=True, kw_only=True)
class Documents(OnTexts, Ruler):
    """The documents with the answer among others, in a random order; any known answer will do.

    Where a length holds more than all of them they come again, as published.
    """

    version = 2
    metric = "substring match"
    max_new_tokens = 32
    counts = "any of the known answers, somewhere in what is said, whatever the case"
    offline = False

    data: str = ""
    """The dataset's json file on this machine."""
    no_context: bool = False
    """Leave the documents out: what a model knows without them."""

    @abstractmethod
    def read(self, content: Any) -> tuple[list[Asked], list[str]]:
        """Questions and documents of the file."""

    def matched(self, said: str, answers: Sequence[str], about: Mapping[str, Any]) -> float:
        return match_any(said, answers)

    def questions(self, reader: Reader, length: int) -> Iterator[Question]:
        every, documents = self.loaded()
        if len(every) < self.samples:
            raise LookupError(
                f"{self.data} has {len(every):,} questions, and {self.samples:,} samples were "
                "asked for: take fewer."
            )
        for i, asked in enumerate(every[: self.samples]):
            yield Question(
                text=self.text(asked, documents, i, length),
                prefix=" Answer:",
                answers=asked.answers,
                least=0 if self.no_context else len(asked.documents),
                most=0 if self.no_context else None,
                about={"query": asked.query, "text": named(self.held(asked, documents))},
            )

    def held(self, asked: Asked, documents: Sequence[str]) -> str:
        """The text that a question is on: all that holds its answer."""
        return "\n\n".join(documents[j] for j in asked.documents)

    def text(self, asked: Asked, documents: Sequence[str], i: int, length: int) -> Context:
        """By how many documents there are: those with the answer, those near, any, all again."""
        rng = self.draw(i, length)
        held = {*asked.documents, *asked.near}
        near = rng.sample(asked.near, len(asked.near))
        rest = [j for j in range(len(documents)) if j not in held]
        order = [*asked.documents, *near, *rng.sample(rest, len(rest))]

        def text(n: int) -> str:
            rounds, more = divmod(n, len(order))
            shown = order * rounds + order[:more]
            self.draw(i, length, "order").shuffle(shown)
            numbered = (f"Document {k}:\n{documents[j]}" for k, j in enumerate(shown, 1))
            return within(TEMPLATE.replace("{query}", asked.query), "\n\n".join(numbered))

        return text

    def loaded(self) -> tuple[list[Asked], list[str]]:
        """Questions and documents.

        Raises:
            LookupError: there is no file, or it is another.
        """
        if not self.data:
            raise LookupError(
                f"This task reads {self.source} from this machine: download it and name the file "
                "with data=FILE."
            )
        place = Path(self.data).expanduser()
        if not place.is_file():
            raise LookupError(f"There is no file {self.data}: data is {self.source}.")
        try:
            return self.read(parsed(place.read_bytes(), "it"))
        except (ValueError, KeyError, TypeError) as error:
            why = f"{type(error).__name__} {error}".rstrip(".")
            raise LookupError(f"{self.data} is not {self.source}: {why}.") from None


class Squad(Documents):
    """Questions of SQuAD 2.0 that have an answer, among paragraphs of the same article first."""

    source = "SQuAD 2.0's dev-v2.0.json (https://rajpurkar.github.io/SQuAD-explorer)"
    licence = "CC BY-SA 4.0"
    size = "5,928 questions, 4 MB"

    def read(self, content: Any) -> tuple[list[Asked], list[str]]:
        articles = [article["paragraphs"] for article in content["data"]]
        documents = sorted({p["context"] for paragraphs in articles for p in paragraphs})
        number = {text: i for i, text in enumerate(documents)}
        every = []
        for paragraphs in articles:
            article = [number[p["context"]] for p in paragraphs]
            for p in paragraphs:
                here = number[p["context"]]
                near = tuple(j for j in dict.fromkeys(article) if j != here)
                for qa in p["qas"]:
                    answers = tuple(answer["text"] for answer in qa["answers"])
                    if not qa["is_impossible"]:
                        every.append(Asked(qa["question"], answers, (here,), near))
        return every, documents


class Hotpot(Documents):
    """Questions of HotpotQA that need two documents, among those that come with them, then any."""

    source = "HotpotQA's hotpot_dev_distractor_v1.json (https://hotpotqa.github.io)"
    licence = "CC BY-SA 4.0"
    size = "7,405 questions, 46 MB"

    def read(self, content: Any) -> tuple[list[Asked], list[str]]:
        own = [[f"{title}\n{''.join(lines)}" for title, lines in row["context"]] for row in content]
        documents = sorted({text for texts in own for text in texts})
        number = {text: i for i, text in enumerate(documents)}
        every = [
            Asked(row["question"], (row["answer"],), tuple(number[t] for t in dict.fromkeys(texts)))
            for row, texts in zip(content, own, strict=True)
        ]
        return every, documents
