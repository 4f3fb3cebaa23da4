"""InfiniteBench's questions about books, scripts and repositories, which are read from its files.

Questions stand in the files' order, so that those on one book follow one another and begin alike.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from harness.metrics.text import SUMMARIES
from harness.task import Reader, Request

from ._by_text import named
from ._infinitebench import InfiniteBench
from ._infinitebench_prompts import BASE
from ._middle import see_room, within
from ._records import field, records, texts

LETTERS = "ABCD"


@dataclass(frozen=True, kw_only=True)
class FromFile(InfiniteBench):
    """Its first questions, each with its whole context or what is left of it on both sides."""

    version = 3
    source = "hf:xinrongzhang2022/InfiniteBench"
    offline = False
    max_new_tokens = 40

    data: str = "hf:xinrongzhang2022/InfiniteBench"
    """hf:NAME, or a folder with the official jsonl files, or one such file."""

    def fill(self, row: Mapping[str, Any]) -> dict[str, str]:
        """What stands in the prompt's template."""
        return {"context": row["context"]}

    def right(self, row: Mapping[str, Any], where: str) -> list[str]:
        """What is right, as the published predictions have it."""
        if isinstance(row.get("answer"), str):
            return [row["answer"]]
        return list(texts(row, "answer", where))

    def said(self, right: Any) -> str:
        return str(right[0])

    def rows(self) -> Iterator[tuple[dict[str, Any], list[str]]]:
        """Each question, and what is right.

        Raises:
            LookupError: they are not there; says how to point to files.
            ValueError: a line lacks a field, or is of another task; names file and line.
        """
        stem = Path(self.data).stem
        if stem in BASE and stem != self.name:
            raise ValueError(f"{self.data} has the questions of {stem}, and not of {self.name}.")
        for where, row in records(self.data, self.name, f"{self.name}.jsonl"):
            for name, kind in (("id", int), ("context", str), ("input", str)):
                field(row, name, kind, where)
            yield row, self.right(row, where)

    def answers(self) -> dict[int, tuple[list[str], dict[str, Any]]]:
        """What is right, by the question's id; and what else of it a judge looks at: nothing."""
        return {row["id"]: (right, {}) for row, right in self.rows()}

    def requests(self, reader: Reader, length: int) -> Iterator[Request]:
        every = list(islice(self.rows(), self.samples))
        if len(every) < self.samples:
            raise LookupError(
                f"{self.data} has {len(every):,} questions of {self.name}, and {self.samples:,} "
                "samples were asked for: take fewer."
            )
        before, after = self.form(reader).split("{context}")
        fills = [self.fill(row) for row, _ in every]
        ends = ((before.format(**fill), after.format(**fill)) for fill in fills)
        see_room(reader, self.prompt, ends, length, self.name)
        for i, (row, right) in enumerate(every):
            text = self.text(reader, self.fill(row))
            tokens, cut = within(reader, self.prompt, text, length)
            about = {"question": row["id"], "book": named(row["context"])}
            yield self.request(reader, i, tokens, right, about, cut)


@dataclass(frozen=True, kw_only=True)
class Asking(FromFile):
    """With a question, which can be asked without the context, as a control."""

    no_context: bool = False
    """Leave the context out: what is right then was known before, or guessed."""

    def fill(self, row: Mapping[str, Any]) -> dict[str, str]:
        return {"context": "" if self.no_context else row["context"], "question": row["input"]}


@dataclass(frozen=True, kw_only=True)
class MultipleChoice(Asking):
    """With four options, of which one is right."""

    def fill(self, row: Mapping[str, Any]) -> dict[str, str]:
        options = zip(LETTERS, row["options"], strict=True)
        return super().fill(row) | {f"OPTION_{letter}": text for letter, text in options}

    def right(self, row: Mapping[str, Any], where: str) -> list[str]:
        """The option's text, and its letter."""
        options, (answer, *_) = texts(row, "options", where), super().right(row, where)
        if len(options) != len(LETTERS) or answer not in options:
            raise ValueError(f"{where}: one of four options should be right, and is {answer!r}.")
        return [answer, LETTERS[options.index(answer)]]


class Choice(MultipleChoice):
    """A question about a novel whose names were changed."""

    name = "longbook_choice_eng"
    size = "229 of 184.4k tokens"

    def said(self, right: Any) -> str:
        return str(right[1])


class CodeDebug(MultipleChoice):
    """Which function of a repository has an error put into it."""

    name = "code_debug"
    max_new_tokens = 5
    chat_tokens = 1024
    """It is asked to repeat the functions and to inspect them first."""
    size = "394 of 114.7k tokens"

    def said(self, right: Any) -> str:
        return f"{right[1]}. {right[0]}"


class BookQA(Asking):
    """A question about a novel, in English with its names changed."""

    name = "longbook_qa_eng"
    size = "351 of 192.6k tokens"


class ChineseBookQA(Asking):
    """A question about a book in Chinese."""

    name = "longbook_qa_chn"
    size = "189 of 2068.6k tokens"


class Summary(FromFile):
    """Of a novel whose names were changed."""

    name = "longbook_sum_eng"
    packages = SUMMARIES
    max_new_tokens = 1200
    size = "103 of 171.5k tokens"


class Dialogue(FromFile):
    """Who speaks, in a script where one name is masked."""

    name = "longdialogue_qa_eng"
    size = "200 of 103.6k tokens"
