"""A conversation with an extended model: each turn is answered as if it had been asked at once.

The whole conversation is spelled anew for each turn, by the chat template or as plain text, and
what it begins with as before is not read again. A method's scale is fixed for the conversation, at
the range that the method is set to read; one whose encoding follows the length of its input has it
fixed for each answer, and what was read is read again when that changes.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

import torch
from torch import Tensor

from harness import catalog, machine
from harness.cell import OWN, UNEXTENDED
from harness.engine.generate import end_tokens
from harness.engine.held import Held
from harness.engine.parallel import out_of_memory
from harness.lengths import LONGEST
from harness.method import Method
from harness.model import Live
from harness.plan import ENCODING, Options, settled, takes
from harness.plugins import blamed, named
from harness.probe import NotOn, prove

WORD = re.compile(r"[+-]?[\d.]+(e[+-]?\d+)?|[A-Za-z][\w-]*", re.ASCII)
"""A number or a word, and no place of a file."""
FURTHER = 4.0
"""How many times further than trained a method is set to read, where nothing says how far."""
Message = Mapping[str, str]
"""A `role`, user or assistant, and a `content`."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How an answer's tokens are chosen."""

    temperature: float = 0.0
    """0: always the likeliest."""
    top_p: float = 1.0
    """Only among the likeliest tokens that together are so likely."""
    seed: int = 0
    max_new_tokens: int = 512

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 100:
            raise ValueError(f"A temperature is a number from 0 to 100, not {self.temperature:g}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top-p is above 0 and at most 1, not {self.top_p:g}.")
        if self.max_new_tokens < 1:
            raise ValueError(f"max-new-tokens must be 1 or more, not {self.max_new_tokens}.")

    def chosen(self, logits: Tensor, generator: torch.Generator) -> int:
        """One token, of logits (vocabulary,)."""
        if self.temperature == 0:
            return int(logits.argmax())
        likely, order = (logits.cpu().double() / self.temperature).softmax(0).sort(descending=True)
        likely[likely.cumsum(0) - likely >= self.top_p] = 0
        return int(order[torch.multinomial(likely, 1, generator=generator)])


@dataclass(frozen=True)
class Turn:
    """A question as it will be put: the conversation up to it, spelled."""

    messages: tuple[Message, ...]
    tokens: list[int]
    length: int
    """Tokens with room for the answer."""
    notice: str | None
    """What a person should know before it is answered; None: nothing."""


@dataclass
class Stats:
    """What the last answer took."""

    read: int = 0
    """Tokens that were new."""
    reading: float = 0.0
    """Seconds."""
    written: int = 0
    writing: float = 0.0
    """Seconds."""


def check_factor(factor: float | None) -> None:
    """Raises ValueError: it is no number of times that a model can read further."""
    if factor is not None and not 1 <= factor < inf:
        raise ValueError(f"--factor is a number from 1 up, and {factor:g} is none.")


class Chat:
    """A model, a method that is on, and what was said. Close it, and the model is as it was."""

    def __init__(
        self,
        live: Live,
        reader: Any,
        method: str = OWN,
        *,
        factor: float | None = None,
        document: str = "",
        prompt: Literal["auto", "base", "chat"] = "auto",
        sampling: Sampling = Sampling(),
    ) -> None:
        """Put the method on.

        Args:
            live: the model; not to be used otherwise until this is closed.
            reader: how it reads, a `harness.reader.TokenReader`.
            method: a spec; `auto` is the method the model was trained with, or none.
            factor: how many times further than trained it is to read; None: as far as the method or
                the checkpoint says, else 4 times.
            document: what stands before the first question.
            prompt: plain text, a conversation, or whichever the tokenizer has a template for.
            sampling: how tokens are chosen.

        Raises:
            ValueError, LookupError: there is no such method, or it cannot run here; says why.
        """
        self.live, self.reader, self.factor = live, reader, factor
        self.document, self.sampling = document, sampling
        self.chats: bool = prompt == "chat" or (prompt == "auto" and reader.chats)
        self.messages: list[Message] = []
        self.stats = Stats()
        self._ends = end_tokens(live.model) | reader.ends
        self._stack = ExitStack()
        self._facts: tuple[Any, ...] | None = None
        self._turn: Turn | None = None
        self._held: Held
        if factor is not None:
            self._see_that_it_counts(factor, named(method))
        self.use(method)

    def __enter__(self) -> "Chat":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """The model comes back as it was."""
        self._stack.close()

    def use(self, spec: str) -> None:
        """Switch to a method; what was said is read again by it with the next turn.

        Raises:
            ValueError, LookupError: there is no such method, or it cannot run here; the one that is
                on stays on.
        """
        spec, times = self._meant(named(spec))
        method: Method = catalog.load("methods", spec)
        model, trained = self.live.model, self.live.card.original_length
        reach: int | None = round(times * trained)
        if method.depends_on_length:
            furthest = _furthest(method, model)
            reach = furthest if self.factor is None else min(furthest or reach, reach)
        else:
            reach = None if method.boundless and self.factor is None else reach
            if reason := method.unfit(model, reach or trained):
                raise ValueError(reason)
        before = {name: vars(self).get(name) for name in ("spec", "method", "reach")}
        self.spec, self.method, self.reach, self.stats = spec, method, reach, Stats()
        try:
            if not method.depends_on_length:
                self._put_on(reach or trained)
        except BaseException:
            vars(self).update(before)
            raise

    def _see_that_it_counts(self, factor: float, spec: str) -> None:
        """Raises ValueError: a factor that cannot be, or that would change nothing."""
        check_factor(factor)
        learned = self.live.card.own_method if spec == OWN else None
        spec = (learned or UNEXTENDED) if spec == OWN else spec
        if catalog.split(spec)[0] == UNEXTENDED:
            raise ValueError(
                f"--factor {factor:g} is for a method, and {UNEXTENDED} is on: say which with "
                "--method, such as yarn."
            )
        method = catalog.load("methods", spec)
        says = {"factor", *method.trained_for(factor)} & catalog.split(spec)[1].keys()
        if says and method.made_for(self.live.model) is not None:
            remedy = "leave one out"
            if learned:
                remedy = f"leave --factor out, or give --method {catalog.split(spec)[0]}"
            raise ValueError(f"--factor and {spec} both say how far: {remedy}.")

    def clear(self) -> None:
        """Forget what was said; the document stays."""
        self.messages, self._turn = [], None

    def say(self, text: str) -> Turn:
        """The next turn of the conversation. It takes place when it is answered."""
        return self.turn([*self.messages, {"role": "user", "content": text}])

    def turn(self, messages: Sequence[Message]) -> Turn:
        """The turn that answers the last of these messages.

        Raises:
            ValueError: the chat template refuses them, or the method cannot read so far.
        """
        tokens = self._spelled(messages)
        length = len(tokens) + self.sampling.max_new_tokens
        if self.method.depends_on_length and (reason := self.method.unfit(self.live.model, length)):
            raise ValueError(
                f"{reason} With room for the answer this is {length:,}: start anew (/clear), or "
                "read by another method (/method)."
            )
        return Turn(tuple(messages), tokens, length, self._beyond(len(tokens), length))

    def reply(self, turn: Turn, step: Callable[[int], None] = lambda tokens: None) -> Iterator[str]:
        """The answer, piece by piece. Stop taking pieces, and what was said so far is the answer.

        Args:
            turn: from `say` or `turn`.
            step: told how many tokens were read since the last call.

        Raises:
            FloatingPointError: a logit is not finite.
            MemoryError: it does not fit; what was read is forgotten, and will be read again.
        """
        follows = self.method.follows(self.live.model)
        self._put_on(turn.length if follows else self.reach or self.live.card.original_length)
        self._turn, said = turn, ""
        try:
            for piece in self._pieces(turn, step):
                said += piece
                yield piece
        except Exception as error:
            if not out_of_memory(error):
                raise
            self._held.forget()
            raise MemoryError from error
        finally:
            if said and self._turn is turn:
                self.messages = [*turn.messages, {"role": "assistant", "content": said}]

    def _pieces(self, turn: Turn, step: Callable[[int], None]) -> Iterator[str]:
        generator = torch.Generator().manual_seed(self.sampling.seed)
        held, written, passed = self._held, list[int](), 0
        self.stats = stats = Stats(read=len(turn.tokens) - self.shared(turn))
        started = time.perf_counter()
        logits = self._finite(held.read(turn.tokens, step))
        stats.reading = time.perf_counter() - started
        while True:
            token = self.sampling.chosen(logits, generator)
            last = token in self._ends or len(written) + 1 == self.sampling.max_new_tokens
            written += [token] if token not in self._ends else []
            stats.written = len(written)
            stats.writing = time.perf_counter() - started - stats.reading
            text = self.reader.text([token for token in written if token not in self.reader.marks])
            if last or not text.endswith("\ufffd"):  # which may be half a letter
                yield text[passed:]
                passed = len(text)
            if last or self._turn is not turn:  # another has begun, and the keys are its own
                return
            logits = self._finite(held.more([token]))

    def _finite(self, logits: Tensor) -> Tensor:
        """These, once they are there: a GPU is asked, and not yet done."""
        if not logits.isfinite().all():
            read = len(self._held.tokens)
            raise FloatingPointError(f"the logits after {read} tokens are not finite")
        return logits

    def shared(self, turn: Turn) -> int:
        """How many of the turn's tokens are read already, and need not be again."""
        known = self._facts == self._told(turn.length)
        return self._held.shared(turn.tokens) if known else 0

    def about(self) -> dict[str, Any]:
        """What `/stats` says, in numbers: tokens, bytes, tokens a second."""
        stats = self.stats
        return {
            "method": self.spec,
            "tokens": len(self._held.tokens) if self._turn and self._facts else 0,
            "reach": self.reach,
            "keys": self._held.bytes if self._facts else 0,
            "memory": machine.taken_memory(self.live.device),
            "read": stats.read,
            "read_per_second": stats.read / stats.reading if stats.reading else 0.0,
            "written": stats.written,
            "written_per_second": stats.written / stats.writing if stats.writing else 0.0,
        }

    def _meant(self, spec: str) -> tuple[str, float]:
        """The method's spec with its scale settled, and how many times further it is to read."""
        card = self.live.card
        if spec == OWN:
            spec = card.own_method or UNEXTENDED
        trained = card.original_length
        if catalog.split(spec)[0] == UNEXTENDED:
            said = getattr(card.config.get_text_config(), "max_position_embeddings", None)
            return spec, max(1.0, (said or trained) / trained)
        method: Method = catalog.load("methods", spec)
        further = FURTHER if takes(method, "factor") else 1.0
        times = self.factor or method.made_for(self.live.model) or further
        reach = (round(times * trained),)
        asked = Options(methods=(spec,), tasks=(), lengths=reach, factor=self.factor)
        spec = settled(spec, asked, card)
        return spec, catalog.load("methods", spec).made_for(self.live.model) or times

    def _put_on(self, length: int) -> None:
        """Have the method on as for inputs of this length; what was read stays if it is alike."""
        model, facts = self.live.model, self._told(length)
        if facts == self._facts:
            return
        self._facts = None
        vars(self).pop("_held", None)  # its keys go before there are new ones
        self._stack.close()
        try:
            self._stack.enter_context(self.method.applied_to(model, length))
            prove(model, self.method, length)
        except BaseException:
            self._stack.close()
            raise
        self._held, self._facts = Held(model), facts

    def _told(self, length: int) -> tuple[Any, ...]:
        """What is the same where inputs of this length are encoded alike."""
        if not self.method.follows(self.live.model):
            return (self.spec,)
        told = self.method.provenance(self.live.model, length)
        return self.spec, *(told.get(key) for key in ENCODING)

    def _spelled(self, messages: Sequence[Message]) -> list[int]:
        if self.document:
            first, *rest = messages
            content = f"{self.document}\n\n{first['content']}"
            messages = [{**first, "content": content}, *rest]
        if self.chats:
            return self.reader.chat(messages)
        said = "".join(("\n" if m["role"] == "user" else "") + m["content"] for m in messages)
        return [self.reader.bos, *self.reader.tokens(said.removeprefix("\n"))]

    def _beyond(self, tokens: int, length: int) -> str | None:
        """What to know before an answer that would, as long as it may become, pass the range."""
        if self.reach is None or length <= self.reach:
            return None
        far = f"This is {tokens:,} tokens"
        if tokens <= self.reach:
            far += f", with room for the answer {length:,}"
        return (
            f"{far}, and {self.spec} is set to read {self.reach:,}: what is said beyond may be "
            "noise. Start anew (/clear), or read by a method set further (/method)."
        )


def check_named(method: str, started: str) -> None:
    """Who reaches a page names no file: one of Python would run, any other be read.

    Args:
        method: what was typed there.
        started: the method that the page was started with, whose file its owner named.

    Raises:
        ValueError: a part of it may name a file.
    """
    said, known = catalog.split(method), catalog.split(started)
    words = {*said[0].split("+"), *said[1].values()}
    if all(map(WORD.fullmatch, words - {*known[0].split("+"), *known[1].values()})):
        return
    raise ValueError(
        "In the browser a method is one of the list, with numbers and words behind it, such as "
        "yarn,factor=8. What lies in a file is named where the page is started, by --method."
    )


def trouble(error: Exception) -> str | None:
    """What a person in a conversation is told of it; None: it is a fault of this program."""
    if isinstance(error, MemoryError):
        return str(error) or "It does not fit into memory: start anew (/clear), or ask for less."
    known = isinstance(error, ValueError | LookupError | FloatingPointError | NotOn)
    ours = isinstance(error, KeyError | IndexError)  # LookupErrors, but of a program
    return blamed(error) or (str(error) if known and not ours else None)


def _furthest(method: Method, model: Any) -> int | None:
    """The longest input, in tokens, that a method can read; None: any."""
    if method.unfit(model, LONGEST) is None:
        return None
    fits, not_any_more = 1, LONGEST
    while not_any_more - fits > 1:
        middle = (fits + not_any_more) // 2
        if method.unfit(model, middle) is None:
            fits = middle
        else:
            not_any_more = middle
    if reason := method.unfit(model, fits):
        raise ValueError(reason)
    return fits
