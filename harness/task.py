"""A task: what to ask of a model at a length, and how to grade what it says."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text of a corpus, tokenised without special tokens."""

    name: str
    tokens: "np.ndarray"
    """(n,), int32."""


class Reader(Protocol):
    """All a task may know of a model: how it reads."""

    bos: int
    """The token every input starts with."""
    spells_one_way: bool
    """A digit string has one spelling: greedy exact match may be decided by teacher forcing."""
    chats: bool
    """It has a chat template."""

    def tokens(self, text: str) -> list[int]:
        """Without special tokens."""

    def text(self, tokens: Sequence[int]) -> str: ...

    def chat(self, messages: Sequence[Mapping[str, str]], *, opening: str = "") -> list[int]:
        """A conversation by the tokenizer's template, up to where the assistant speaks.

        The start token is there once, as everywhere, whatever the template does. `opening` is how
        the assistant's turn begins.

        Raises:
            LookupError: the tokenizer has no chat template.
        """

    def documents(self, corpus: str, *, reach: int, first: int) -> list[Document]:
        """The `first` documents that have at least `reach` tokens, in the corpus's order.

        Raises:
            LookupError: there are fewer; says how many tokens there are and how many are needed.
        """


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Ask for the loss, in nats, of predicting each of tokens[start:stop] from all before it."""

    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Ask whether the greedy continuation begins with exactly these tokens.

    Needs no decoding: it does if and only if each is the argmax given the ones before.
    """

    answer: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Text:
    """Ask for the greedy continuation, as tokens; it stops before an end token or after so many."""

    max_new_tokens: int
    stop: tuple[str, ...] = ()
    """It also stops once its text has one of these."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Ask how likely each of these continuations is; they share the input, which is read once."""

    options: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Likelihoods:
    """Ask of each continuation how likely it is after an input of its own, and if decoding says it.

    Other than of a `Choice`, the inputs may differ; what they share is read once.
    """

    pairs: tuple[tuple["np.ndarray", tuple[int, ...]], ...]
    """Input and continuation, in tokens; no input is empty, and none is longer than the request's
    own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """One input and what is asked of it. The engine finds what inputs share."""

    id: str
    tokens: "np.ndarray"
    """(n,), int64, the start token included; never more than the cell's length."""
    ask: Losses | Verdict | Text | Choice | Likelihoods
    cut: int = 0
    """Tokens that were taken out of the input to make it fit."""
    about: dict[str, Any] = field(default_factory=dict)
    """What grading needs and the samples should say: depth, trial, key, document."""


Outcome = Any
"""Losses -> (stop - start,) float64; Verdict -> the argmax at each answer position, as a tuple of
tokens; Text -> the tokens of the continuation, as a tuple; Choice -> the log-likelihood of each
option in nats, as a tuple; Likelihoods -> of each pair the log-likelihood in nats, and whether the
greedy continuation begins with it, as a tuple of tuples."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One graded question."""

    id: str
    score: float
    about: dict[str, Any] = field(default_factory=dict)
    expected: str | None = None
    answer: str | None = None
    cut: int = 0
    """Tokens that were taken out of its input to make it fit."""
    losses: "np.ndarray | None" = None
    """Per-token losses in nats, kept beside the result; float64."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """The number on the leaderboard, its 95 % interval, and what it is made of."""

    value: float
    low: float | None
    high: float | None
    n: int
    parts: dict[str, float] = field(default_factory=dict)


Truncation = Literal["none", "left", "middle"]


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """Deterministic: the same length asks the same questions, today and next year.

    Its fields are its parameters, and are part of a cell's identity where they are not the default.
    """

    metric: ClassVar[str]
    """The field's name for the number: perplexity, accuracy."""
    version: ClassVar[int] = 1
    """Raised with any change that can move a score: data, prompt, seed, grading."""
    higher_is_better: ClassVar[bool] = True
    one_pass: ClassVar[bool] = False
    """Its shorter inputs are beginnings of its longer ones: one pass reads a whole row."""
    truncation: ClassVar[Truncation] = "none"
    """Where an input that is too long is cut; what was cut is in every sample."""
    follows: ClassVar[int] = 0
    """Tokens that may have to be written for a further question (`then`), after one's input."""
    max_new_tokens: ClassVar[int] = 0
    """Most tokens of an answer of a base model; 0: none is written."""
    stop: ClassVar[tuple[str, ...]] = ()
    """Words that end an answer, beside the end token."""
    counts: ClassVar[str] = ""
    """What counts as an answer, in a phrase."""
    packages: ClassVar[Mapping[str, str]] = {}
    """Modules that grading imports and that may not be there, with what to `pip install`."""
    evaluator_hash: ClassVar[str | None] = None
    """sha256 of another model's losses, where those decide what is scored."""

    def by_content(self) -> dict[str, str]:
        """Its parameters that name a file, each by what is in it: `harness.contents` has it."""
        return {}

    def evaluated_by(self) -> dict[str, Any] | None:
        """The cell whose losses decide what is scored, where that is known."""
        return None

    def asked_as(self, reader: Reader) -> str | None:
        """How its parameter `prompt` comes out, `base` or `chat`; None: it has none."""
        kind = getattr(self, "prompt", None)
        if kind == "auto":
            return "chat" if reader.chats else "base"
        return kind if kind in ("base", "chat") else None

    @abstractmethod
    def requests(self, reader: Reader, length: int) -> Iterator[Request]:
        """The questions, none longer than `length` tokens.

        Raises:
            ValueError: it cannot be asked at this length; says which lengths can.
            LookupError: the corpus has too few tokens; says how many it has and needs.
        """

    def then(
        self, request: Request, outcome: Outcome, reader: Reader, length: int
    ) -> Request | None:
        """What to ask next, now that this was answered; None: nothing, and the answer is graded."""
        return None

    @abstractmethod
    def grade(self, request: Request, outcome: Outcome, reader: Reader) -> Sample: ...

    @abstractmethod
    def score(self, samples: Sequence[Sample]) -> Score: ...

    def items(self, samples: Sequence[Sample]) -> dict[str, float]:
        """Each independent item's own score; two methods are compared item by item."""
        return {sample.id: sample.score for sample in samples}
