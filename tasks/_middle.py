"""Take out the middle of a prompt that is too long, as published benchmarks do.

Half of the length is kept of its beginning and half of its end. The published code reads the two
halves anew as text, which moves the length by some tokens; here the tokens are kept, but in a
conversation, where only the message is cut.
"""

from collections.abc import Iterable

import numpy as np

from harness.task import Reader

from ._prompt import Kind, spelled, talks


def within(
    reader: Reader, kind: Kind, text: str, length: int, prefix: str = ""
) -> tuple[np.ndarray, int]:
    """The prompt's tokens, no more than the length, and how many were taken out.

    The answer begins with `prefix`, which is never cut.

    Raises:
        LookupError: a conversation is asked for and the tokenizer has no template.
        ValueError: the length has no room for the beginning and the end of anything.
    """
    whole = tokens = spelled(reader, kind, text, prefix)
    if len(whole) > length and talks(reader, kind):
        tokens = _message_cut(reader, kind, text, length, prefix)
    elif len(whole) > length:
        half = length // 2
        tokens = [*whole[:half], *whole[len(whole) - half :]]
    return np.array(tokens, dtype=np.int64), len(whole) - len(tokens)


def enough(reader: Reader, kind: Kind, before: str, after: str, answer: int = 0) -> int:
    """The fewest tokens in which both ends of a prompt outlive a cut, and an answer has room."""
    ends = max(len(reader.tokens(before)), len(reader.tokens(after)))
    return len(spelled(reader, kind, "")) + 2 * ends + answer + 2


def see_room(
    reader: Reader,
    kind: Kind,
    ends: Iterable[tuple[str, str]],
    length: int,
    name: str,
    answer: int = 0,
) -> None:
    """Have no question cut through: of each prompt, what stands before its text and what behind it.

    Raises:
        ValueError: a cut would go through one; says what length would do.
    """
    needed = max(enough(reader, kind, before, after, answer) for before, after in ends)
    if length < needed:
        raise ValueError(
            f"{name} needs lengths of at least {-(-needed // 100) * 100:,} tokens with this "
            f"tokenizer, or a cut would go through its questions; {length:,} were asked for."
        )


def _message_cut(reader: Reader, kind: Kind, text: str, length: int, prefix: str = "") -> list[int]:
    ids = reader.tokens(text)
    half = (length - len(spelled(reader, kind, "", prefix))) // 2
    while half > 0:
        kept = reader.text(ids[:half]) + reader.text(ids[len(ids) - half :])
        tokens = spelled(reader, kind, kept, prefix)
        if len(tokens) <= length:
            return tokens
        half -= (len(tokens) - length + 1) // 2
    raise ValueError(
        f"This tokenizer's conversations leave no room for a question in {length:,} tokens: take "
        "longer lengths."
    )
