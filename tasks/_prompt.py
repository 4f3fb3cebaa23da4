"""Put a question in plain text or in a conversation, as long as the length allows.

What the answer begins with is part of the question: a base model reads it at the end of the text,
a chat model as the beginning of its own turn. The room for the answer is part of the length.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from harness.task import Reader, Verdict

Kind = Literal["auto", "base", "chat"]
"""Plain text, a conversation, or whichever the tokenizer has a template for."""
ENOUGH = 8
"""Steps by which a search should be over; then it halves what is left."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A prompt that can be made longer, and what is right."""

    text: Callable[[int], str]
    """With so many units of filler."""
    prefix: str = ""
    """What the answer begins with."""
    answers: tuple[str, ...]
    least: int = 0
    most: int | None = None
    """Units of filler; None: there is no end of it."""
    about: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""


def see_some(samples: int, who: str) -> None:
    """Raises ValueError: no question is asked for."""
    if samples < 1:
        raise ValueError(f"{who} needs at least 1 sample, and {samples} were asked for.")


def talks(reader: Reader, kind: Kind) -> bool:
    """Whether it is asked in a conversation."""
    return kind == "chat" or (kind == "auto" and reader.chats)


def spelled(reader: Reader, kind: Kind, text: str, prefix: str = "") -> list[int]:
    """The tokens of a prompt, the start token included.

    Raises:
        LookupError: a conversation is asked for and the tokenizer has no template.
    """
    if talks(reader, kind):
        return reader.chat([{"role": "user", "content": text}], opening=prefix.lstrip())
    return [reader.bos, *reader.tokens(text + prefix)]


def fitted(
    reader: Reader, kind: Kind, question: Question, length: int, room: int, near: int = 0
) -> tuple[np.ndarray, int]:
    """The longest prompt that leaves room for the answer, and its units of filler.

    The search begins near a number of units, as that of the question before.

    Raises:
        ValueError: the shortest is too long; says what length would do.
    """

    def build(n: int) -> list[int]:
        return spelled(reader, kind, question.text(n), question.prefix)

    shortest = build(question.least)
    if len(shortest) + room > length:
        enough = -(-21 * (len(shortest) + room) // 2000) * 100  # the next question may be longer
        raise ValueError(
            f"This tokenizer makes {len(shortest) + room:,} tokens of the shortest prompt and its "
            f"answer, and {length:,} were asked for: take lengths of at least {enough:,} tokens."
        )
    n, tokens = fullest(build, shortest, length - room, question.least, question.most, near)
    return np.array(tokens, dtype=np.int64), n


def fullest(
    build: Callable[[int], list[int]],
    shortest: list[int],
    most_tokens: int,
    least: int,
    most: int | None,
    near: int,
) -> tuple[int, list[int]]:
    """The n from least to most whose build is longest and fits, one more being too many.

    Where the next unit lies is read off the slope of the last two builds: prompts grow evenly.
    """
    low, best = least, shortest
    high = None if most is None else most + 1
    probe, slope, steps = max(near, least + 16), 0.0, 0
    while high is None or high - low > 1:
        n = max(low + 1, probe if high is None else min(probe, high - 1))
        tokens = build(n)
        slope = max((len(tokens) - len(shortest)) / (n - least), 0.25)
        if len(tokens) <= most_tokens:
            low, best = n, tokens
            probe = low + max(1, int((most_tokens - len(tokens)) / slope))
        else:
            high = n
            probe = high - max(1, int((len(tokens) - most_tokens) / slope))
        steps += 1
        if steps > ENOUGH and high is not None:
            probe = (low + high) // 2
    return low, best


def verdict(reader: Reader, kind: Kind, text: str, prefix: str, answer: str) -> Verdict | None:
    """Ask for exactly this answer; None where its tokens depend on more than themselves."""
    prompt = spelled(reader, kind, text, prefix)
    whole = spelled(reader, kind, text, prefix + answer)
    if not reader.spells_one_way or whole[: len(prompt)] != prompt:
        return None
    return Verdict(answer=tuple(whole[len(prompt) :]))
