"""Many-shot classification: which label a text has must be learned from the examples before it.

Yen et al. 2024, https://arxiv.org/abs/2410.02694

That is HELMET. As many examples as the length holds, each label as often as any other; labels are
numbers that say nothing by themselves, and `labels=names` takes the words. All questions of a cell
stand behind the same examples, which are read once.

`categories` is made of this project's lists: an adjective and a noun, whose kind is the label, and
no noun that is asked for is in an example. `file` reads TREC or its like from a file: a .jsonl of
text and label, a .tsv of label and text, or TREC's own .label (`NUM:dist How far is it?`).
"""

import random
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from harness.task import Choice, Outcome, Reader, Request, Sample, Text, Verdict

from ._filled import Filled
from ._prompt import Question, fitted, spelled
from ._records import field, records
from ._words import DATA, kept, listed

INTRO = "Each text below has a label. Learn from the examples which texts have which label.\n\n"
SHOT = "Text: {text}\nLabel: {label}\n\n"
ASKED = "Text: {text}"
PREFIX = "\nLabel:"
HELD_BACK = 4
"""Of the texts of a label one in so many is asked for and never shown."""


@dataclass(frozen=True)
class Pool:
    """Texts of each label: those that are shown and those that are asked for."""

    shown: dict[str, list[str]]
    asked: dict[str, list[str]]


@dataclass(frozen=True, kw_only=True)
class ManyShot(Filled):
    """Examples in rounds, each label once a round; questions that the examples leave open."""

    metric = "accuracy"
    max_new_tokens = 10
    stop = ("\n",)
    counts = "the likeliest of all labels, or with answer=text the line that is written"

    samples: int = 20
    labels: Literal["numbers", "names"] = "numbers"
    """Numbers of equally many digits, dealt anew for each seed, or the labels as they are."""
    answer: Literal["choice", "text"] = "choice"
    """choice: the likeliest of all labels; text: what is written up to the end of the line."""

    @abstractmethod
    def pool(self) -> Pool:
        """All there is.

        Raises:
            LookupError: there is no such file, or too little in it.
        """

    def questions(self, reader: Reader, length: int) -> Iterator[Question]:
        pool = self.pool()
        names = self.named(sorted(pool.shown))
        shots = kept(shown(pool, names, self.draw(0, length, "shots")))
        for text, label in self.asked(pool, length):
            yield Question(
                text=self.text(shots, text),
                prefix=PREFIX,
                answers=(names[label],),
                least=len(names),
                about={"text": text, "labels": list(names.values())},
            )

    def text(self, shots: Callable[[int], list[str]], text: str) -> Callable[[int], str]:
        return lambda n: INTRO + "".join(shots(n)) + ASKED.format(text=text)

    def asked(self, pool: Pool, length: int) -> list[tuple[str, str]]:
        """Texts and labels, each label as often as any other, no text twice."""
        rng, found = self.draw(0, length, "questions"), []
        piles = {label: rng.sample(texts, len(texts)) for label, texts in pool.asked.items()}
        while len(found) < self.samples:
            left = [label for label, pile in piles.items() if pile]
            if not left:
                raise LookupError(
                    f"There are {len(found):,} texts to ask for, and {self.samples:,} samples were "
                    "asked for: take fewer."
                )
            rng.shuffle(left)
            found += [(piles[label].pop(), label) for label in left]
        return found[: self.samples]

    def named(self, labels: Sequence[str]) -> dict[str, str]:
        """What each label is called."""
        if self.labels == "names":
            return {label: label for label in labels}
        digits = len(str(len(labels) - 1))
        numbers = range(10 ** (digits - 1) if digits > 1 else 0, 10**digits)
        if len(numbers) < len(labels):
            numbers = range(10**digits, 10 ** (digits + 1))
        drawn = random.Random(f"{self.seed} labels").sample(numbers, len(labels))
        return {label: str(n) for label, n in zip(labels, drawn, strict=True)}

    def requests(self, reader: Reader, length: int) -> Iterator[Request]:
        """All behind the same examples: as many as fit before the longest question."""
        every = list(self.questions(reader, length))
        longest = max(every, key=lambda one: len(reader.tokens(one.about["text"])))
        _, n = fitted(reader, self.prompt, longest, length, self.max_new_tokens)
        prompts = self.prompts(reader, every, n)
        while max(map(len, prompts)) + self.max_new_tokens > length:
            n -= 1
            prompts = self.prompts(reader, every, n)
        for i, (question, tokens) in enumerate(zip(every, prompts, strict=True)):
            yield Request(
                id=f"sample-{i}",
                tokens=tokens,
                ask=self.ask(reader, question, n),
                about={"answers": list(question.answers), **question.about, "filler": n},
            )

    def prompts(self, reader: Reader, questions: Sequence[Question], n: int) -> list[np.ndarray]:
        every = (spelled(reader, self.prompt, one.text(n), one.prefix) for one in questions)
        return [np.array(tokens, dtype=np.int64) for tokens in every]

    def ask(self, reader: Reader, question: Question, filler: int) -> Text | Verdict | Choice:
        """A choice where the tokens of each label follow the prompt's; text where they do not."""
        prompt = spelled(reader, self.prompt, ASKED, question.prefix)
        options = []
        for label in question.about["labels"] if self.answer == "choice" else ():
            whole = spelled(reader, self.prompt, ASKED, f"{question.prefix} {label}")
            if whole[: len(prompt)] == prompt:
                options.append(tuple(whole[len(prompt) :]))
        if len(options) == len(question.about["labels"]):
            return Choice(options=tuple(options))
        return super().ask(reader, question, filler)

    def grade(self, request: Request, outcome: Outcome, reader: Reader) -> Sample:
        if not isinstance(request.ask, Choice):
            return super().grade(request, outcome, reader)
        (right,), labels = request.about["answers"], request.about["labels"]
        best = [label for label, x in zip(labels, outcome, strict=False) if x == max(outcome)]
        return Sample(
            id=request.id,
            score=float(best == [right]),
            about=request.about,
            expected=right,
            answer=" or ".join(best),
        )

    def matched(self, said: str, answers: Sequence[str], about: Mapping[str, Any]) -> float:
        """The first line is exactly the label."""
        return float(said.strip().split("\n")[0].strip() == answers[0])


def shown(pool: Pool, names: Mapping[str, str], rng: random.Random) -> Iterator[str]:
    """Examples without end, in rounds of one for each label; texts that run out come again."""
    piles: dict[str, list[str]] = {label: [] for label in pool.shown}
    while True:
        for label in rng.sample(list(piles), len(piles)):
            piles[label] = piles[label] or rng.sample(pool.shown[label], len(pool.shown[label]))
            yield SHOT.format(text=piles[label].pop(), label=names[label])


def parted(texts: Sequence[str], rng: random.Random) -> tuple[list[str], list[str]]:
    """Those that are shown and those that are asked for."""
    order = rng.sample(texts, len(texts))
    back = max(1, len(order) // HELD_BACK)
    return order[back:], order[:back]


class Categories(ManyShot):
    """Things by their kind: `wooden lute` is an instrument."""

    size = "any; 320 nouns of 10 kinds"

    def pool(self) -> Pool:
        lines = (DATA / "categories.txt").read_text("utf-8").splitlines()
        kinds = {kind: nouns.split() for kind, _, nouns in (line.partition(":") for line in lines)}
        found = Pool({}, {})
        for kind, nouns in kinds.items():
            shown, asked = parted(nouns, random.Random(f"{self.seed} {kind}"))
            found.shown[kind] = [f"{a} {noun}" for noun in shown for a in listed("adjectives")]
            found.asked[kind] = [f"{a} {noun}" for noun in asked for a in listed("adjectives")]
        return found


@dataclass(frozen=True, kw_only=True)
class FromFile(ManyShot):
    """Texts and labels of a file, as TREC's (https://cogcomp.seas.upenn.edu/Data/QA/QC)."""

    source = "a file, as TREC's train_5500.label"
    licence = "that of the file"
    size = "5,452 questions of 6 kinds in TREC"
    offline = False

    data: str = ""
    fine: bool = False
    """Take what stands behind a label's colon as well: 50 kinds instead of 6 in TREC."""

    def pool(self) -> Pool:
        texts: dict[str, str] = dict(self.rows())
        labels: dict[str, list[str]] = {}
        for text, label in texts.items():
            labels.setdefault(label if self.fine else label.partition(":")[0], []).append(text)
        labels = {label: texts for label, texts in labels.items() if len(texts) > 1}
        if len(labels) < 2:
            raise LookupError(
                f"{self.data} has {len(labels)} labels of at least two texts, and two are needed."
            )
        found = Pool({}, {})
        for label, texts_ in labels.items():
            chance = random.Random(f"{self.seed} {label}")
            found.shown[label], found.asked[label] = parted(texts_, chance)
        return found

    def rows(self) -> Iterator[tuple[str, str]]:
        """Text and label of each row."""
        if not self.data:
            raise LookupError(
                "This task reads texts and labels from this machine: name a .jsonl of text and "
                "label, a .tsv of label and text or TREC's .label with data=FILE, or take "
                "manyshot.categories."
            )
        place = Path(self.data).expanduser()
        if place.suffix not in (".tsv", ".label", ".txt"):
            for where, row in records(self.data, "manyshot", "manyshot.jsonl"):
                label = row.get("label")
                label = str(label) if isinstance(label, int) else field(row, "label", str, where)
                yield field(row, "text", str, where), label
            return
        if not place.is_file():
            raise LookupError(f"There is no file {self.data}.")
        for n, line in enumerate(place.read_text("utf-8-sig", errors="replace").splitlines(), 1):
            if not line.strip():
                continue
            label, _, text = line.partition("\t" if place.suffix == ".tsv" else " ")
            if not (label.strip() and text.strip()):
                raise ValueError(f"{self.data}, line {n}: this is no label and text.")
            yield text.strip(), label.strip()


variants = {"categories": Categories(), "file": FromFile()}
