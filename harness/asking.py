"""What lm-eval asks, as questions of our engine: no full logits, and shared beginnings read once.

Texts become tokens as lm-eval's model for transformers does it, but that the start token stands
once before every input, and stays where the left of an input is cut; lm-eval adds it where the
tokenizer does, and cuts it off. `Asking(start_token=False)` is lm-eval with a tokenizer that adds
none.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.task import Likelihoods, Outcome, Reader, Text

MAX_NEW_TOKENS = 256
"""Where a task does not say, as there."""
Pair = tuple[np.ndarray, tuple[int, ...]]


@dataclass(frozen=True)
class Question:
    """What is asked of one document, as our engine answers it."""

    tokens: np.ndarray
    """The longest input."""
    ask: Likelihoods | Text
    cut: int
    counts: tuple[int, ...] = (1,)
    """How many pairs belong to each instance."""


@dataclass(frozen=True)
class Asking:
    """How text becomes tokens: `length` is what lm-eval calls max_length."""

    reader: Reader
    length: int
    start_token: bool = True

    @property
    def start(self) -> list[int]:
        return [self.reader.bos] if self.start_token else []

    def question(self, group: list[Any]) -> Question:
        """Of all that lm-eval asks of one document.

        Raises:
            ValueError: it asks in a way that is not known here, or does not fit into the length.
        """
        kinds = {one.request_type for one in group}
        if kinds == {"generate_until"} and len(group) == 1:
            return self.text(*group[0].args)
        if not kinds <= {"loglikelihood", "loglikelihood_rolling"}:
            raise ValueError(
                f"{group[0].task_name} asks {', '.join(sorted(kinds))} of one document, which is "
                "not known here: take harness lm-eval."
            )
        asked = [self.pairs(one.request_type, one.args) for one in group]
        pairs = tuple(pair for found, _ in asked for pair in found)
        return Question(
            tokens=max(
                (before for before, _ in pairs), key=len, default=np.array([self.reader.bos])
            ),
            ask=Likelihoods(pairs=pairs),
            cut=max(cut for _, cut in asked),
            counts=tuple(len(found) for found, _ in asked),
        )

    def pairs(self, kind: str, args: tuple[Any, ...]) -> tuple[list[Pair], int]:
        """What must be weighed to answer one instance, and how many tokens were cut."""
        if kind == "loglikelihood_rolling":
            return self.windows(args[0]), 0
        pair, cut = self.pair(*args[:2])
        return [pair], cut

    def pair(self, context: str, continuation: str) -> tuple[Pair, int]:
        """Context and continuation, read in one piece; too long, the context loses its left."""
        kept = context.rstrip()
        before = [*self.start, *self.reader.tokens(kept)] if context else [self.reader.bos]
        whole = self.reader.tokens(context + continuation)
        asked = tuple(whole[len(self.reader.tokens(kept)) if context else 0 :])
        if not before:  # a context of spaces only, read without a start token
            before, asked = [asked[0]], asked[1:]
        room = self.length - len(asked) + 1
        if room < len(self.start) + 1:
            raise ValueError(
                f"This task needs at least {len(asked) + len(self.start):,} tokens, and "
                f"{self.length:,} were asked for: take longer lengths."
            )
        cut = max(0, len(before) - room)
        return (np.array(self._left_cut(before, cut), dtype=np.int64), asked), cut

    def _left_cut(self, tokens: list[int], cut: int) -> list[int]:
        """Without so many; the start token stays."""
        if not cut:
            return tokens
        return [*self.start, *tokens[len(self.start) + cut :]]

    def windows(self, text: str) -> list[Pair]:
        """Of a whole text, in windows that have only the length of each but the first to see."""
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        rolling = get_rolling_token_windows(
            token_list=self.reader.tokens(text),
            prefix_token=self.reader.bos,
            max_seq_len=self.length,
            context_len=1,
        )
        pairs = map(make_disjoint_window, rolling)
        return [(np.array(before, dtype=np.int64), tuple(asked)) for before, asked in pairs]

    def text(self, context: str, settings: dict[str, Any]) -> Question:
        """A greedy answer until one of its words; the prompt leaves room for all of it."""
        samples, temperature = settings.get("do_sample"), settings.get("temperature")
        if (temperature if samples is None else samples) and temperature != 0:
            raise ValueError("This task samples its answers, and here decoding is greedy.")
        names = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
        most = next((int(settings[n]) for n in names if n in settings), MAX_NEW_TOKENS)
        if self.length <= most + len(self.start):
            raise ValueError(
                f"This task needs at least {most + len(self.start) + 1:,} tokens, for it leaves "
                f"{most:,} to the answer; {self.length:,} were asked for: take longer lengths."
            )
        until = settings.get("until") or ()
        stop = (until,) if isinstance(until, str) else tuple(until)
        tokens = [*self.start, *self.reader.tokens(context)]
        cut = max(0, len(tokens) - (self.length - most))
        return Question(
            tokens=np.array(self._left_cut(tokens, cut), dtype=np.int64),
            ask=Text(max_new_tokens=most, stop=stop),
            cut=cut,
        )


def answered(
    group: list[Any],
    ask: Likelihoods | Text,
    counts: tuple[int, ...],
    outcome: Outcome,
    reader: Reader,
) -> list[Any]:
    """What lm-eval's model would have answered to each instance."""
    if isinstance(ask, Text):
        said = reader.text(outcome)
        for words in filter(None, ask.stop):
            said = said.partition(words)[0]
        return [said]
    pairs = iter(outcome)
    found = []
    for one, count in zip(group, counts, strict=True):
        weighed = [next(pairs) for _ in range(count)]
        total = sum(likelihood for likelihood, _ in weighed)
        rolling = one.request_type == "loglikelihood_rolling"
        found.append(total if rolling else (total, weighed[0][1]))
    return found
