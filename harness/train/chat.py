"""Conversations to learn from: rendered by a chat template, and which tokens are to be learned.

After the two chat trainings of CLEX (https://github.com/DAMO-NLP-SG/CLEX): the later one renders
with the template of Zephyr, packs, and learns all tokens; the first learns what the assistant says
only, of whole conversations that are grouped up to a length and padded. Here they are packed, and
what the assistant says is learned, unless all is asked for.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from harness import corpora
from harness.conversation import dated
from harness.reader import TokenReader, unused
from harness.train.packing import Carried, Read

if TYPE_CHECKING:
    from torch import Tensor

On = Literal["assistant", "all"]
Message = dict[str, str]
COLUMN = "messages"
MASKED = -100
"""The label of a token that is not learned, as torch's cross-entropy has it."""
ZEPHYR = (
    "{{ bos_token }}{% if messages and messages[0]['role'] != 'system' %}"
    "{{ '<|system|>\\n' + eos_token + '\\n' }}{% endif %}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
"""For a tokenizer without a template of its own; with it an empty system message comes first."""


@dataclass(frozen=True, eq=False)
class Conversations:
    """Sequences of conversations: a map-style dataset, as torch calls it."""

    rows: np.ndarray = field(repr=False)
    """(sequences, length), int32: the tokens; of one that is not learned, its complement."""
    length: int
    label: str
    """What they are, by content: the same on another machine."""
    template: str | None
    """The chat template they are rendered with, where the tokenizer has none of its own."""
    left_over: int = 0
    """Tokens that were too few for one more."""
    skipped: int = 0
    """Sequences with nothing to learn, such as the middle of a long question."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, "Tensor"]:
        """`input_ids` and `labels`, (length,): not shifted; what is not learned has -100."""
        import torch

        i = range(len(self))[i]
        row = torch.from_numpy(self.rows[i].astype(np.int64))
        return {
            "input_ids": torch.where(row < 0, ~row, row),
            "labels": torch.where(row < 0, MASKED, row),
        }


def open_conversations(
    spec: str,
    tokenizer: Any,
    length: int,
    *,
    on: On = "assistant",
    first: int | None = None,
) -> Conversations:
    """The conversations of a corpus whose rows have `messages: [{role, content}]`.

    They are rendered with the tokenizer's chat template, or without one with that of Zephyr, and
    held in memory, 4 bytes a token; put one behind another and cut, so that nothing is lost.
    `first` is how many sequences are wanted, where not all are.

    Raises:
        LookupError: there is no such corpus or column.
        ValueError: it holds no conversations, they are shorter than one sequence, or the template
            does not let the assistant's tokens be told.
    """
    corpus = corpora.find(spec)
    if not isinstance(corpus, corpora.Table | corpora.Hub) or corpus.join:
        raise ValueError(f"{spec} has no rows of conversations: write jsonl:PATH or hf:NAME.")
    if corpus.column == "text":
        corpus = replace(corpus, column=COLUMN)
    rendering = Rendering.of(tokenizer)
    read = (
        Read(_signed(*rendering.tokens(messages, on, where)), 0)
        for where, messages in _conversations(corpus)
    )
    packer = Carried(length)
    rows: list[np.ndarray] = []
    skipped = 0
    for packed in packer.pack(read):
        if (packed.tokens[1:] < 0).all():  # the first token is predicted by nothing
            skipped += 1
            continue
        rows.append(packed.tokens)
        if len(rows) == first:
            break
    if not rows:
        raise ValueError(_nothing(spec, packer.left_over, length, skipped, on))
    left_over = 0 if len(rows) == first else packer.left_over
    return Conversations(
        np.stack(rows), length, corpus.label(), rendering.template, left_over, skipped
    )


def _nothing(spec: str, tokens: int, length: int, skipped: int, on: On) -> str:
    if skipped:
        return f"{spec} has nothing to learn: no message is the assistant's." + (
            " Shorter than a question, a sequence may miss every answer."
            if on == "assistant"
            else ""
        )
    return (
        f"{spec} has {tokens:,} tokens of conversations, and one sequence takes {length:,}: take "
        "a shorter length, or more conversations."
    )


def _signed(tokens: np.ndarray, learned: np.ndarray) -> np.ndarray:
    return np.where(learned, tokens, ~tokens).astype(np.int32)


def _conversations(
    corpus: "corpora.Table | corpora.Hub",
) -> Iterator[tuple[str, list[Message]]]:
    """Each with where it stands."""
    for number, row in enumerate(corpus.rows(), 1):
        where = f"Conversation {number} of {corpus.name}"
        messages = row[corpus.column]
        if not isinstance(messages, list) or not messages:
            raise ValueError(f"{where} is no list of messages with role and content.")
        for message in messages:
            if not isinstance(message, dict) or not all(
                isinstance(message.get(key), str) for key in ("role", "content")
            ):
                raise ValueError(f"{where} has a message without role and content.")
        yield where, [{key: m[key] for key in ("role", "content")} for m in messages]


@dataclass(frozen=True)
class Rendering:
    """How a tokenizer writes conversations: in training as where they are asked."""

    reader: TokenReader
    template: str | None
    """In place of its own, which it has not."""

    @classmethod
    def of(cls, tokenizer: Any) -> "Rendering":
        """Raises ValueError if the tokenizer cannot say where tokens stand in the text."""
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError(
                "Chat training needs a tokenizer that says where its tokens stand in the text, "
                "and this model's does not."
            )
        if tokenizer.eos_token_id is None:
            raise ValueError("Chat training needs an end token, and the tokenizer has none.")
        own = bool(tokenizer.chat_template)
        return cls(TokenReader(tokenizer), None if own else ZEPHYR)

    def tokens(self, messages: list[Message], on: On, where: str) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of a conversation and whether each is learned; (n,) and (n,).

        A token that is partly the assistant's is not: it could not follow what asks for a turn.

        Raises:
            ValueError: the template refuses the conversation, or renders its beginning otherwise
                when more follows; says which conversation, after `where`.
        """
        mark = unused("".join(message["content"] for message in messages))
        messages = [self.reader.marked(message, mark) for message in messages]
        text = self._render(messages, where)
        spans = [(0, len(text))] if on == "all" else [*self._answers(messages, text, where)]
        tokens, starts, ends = self._read(text, mark)
        learned = np.zeros(len(tokens), dtype=bool)
        for begin, end in spans:  # counted without the marks
            begin, end = begin - text.count(mark, 0, begin), end - text.count(mark, 0, end)
            learned |= (starts >= begin) & (ends <= end)
        started = self.reader.started_once(tokens.tolist())
        more = max(0, len(started) - len(tokens))
        learned = np.concatenate([np.full(more, on == "all"), learned])[-len(started) :]
        return np.array(started, dtype=np.int64), learned

    def _read(self, text: str, mark: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The tokens, and where each begins and ends in the text without marks; (n,) each."""
        tokens: list[int] = []
        places: list[tuple[int, int]] = []
        at = 0
        for piece, spells_one_out in self.reader.pieces(text, mark):
            read = self.reader.tokenizer(
                piece,
                add_special_tokens=False,
                split_special_tokens=spells_one_out,
                return_offsets_mapping=True,
                verbose=False,
            )
            tokens += read["input_ids"]
            places += [(at + begin, at + end) for begin, end in read["offset_mapping"]]
            at += len(piece)
        starts, ends = np.array(places, dtype=np.int64).reshape(-1, 2).T
        return np.array(tokens, dtype=np.int64), starts, ends

    def _answers(
        self, messages: list[Message], whole: str, where: str
    ) -> Iterator[tuple[int, int]]:
        """Where the assistant's turns stand: from behind what asks for one, up to its end.

        A message that nothing came before answers nothing, and is not learned.
        """
        for i, message in enumerate(messages):
            if message["role"] != "assistant" or i == 0:
                continue
            asked = self._render(messages[:i], where, asks=True)
            answered = self._render(messages[: i + 1], where)
            if not (answered.startswith(asked) and whole.startswith(answered)):
                raise ValueError(
                    f"{where} cannot be masked exactly: the tokenizer's chat template renders its "
                    f"message {i + 1} otherwise when more follows. Learn all tokens, or take a "
                    "model with another template."
                )
            yield len(asked), len(answered)

    def _render(self, messages: list[Message], where: str, asks: bool = False) -> str:
        from jinja2 import TemplateError

        render: Callable[..., str] = self.reader.tokenizer.apply_chat_template
        try:
            return render(
                messages,
                chat_template=self.template or dated(self.reader.tokenizer),
                tokenize=False,
                add_generation_prompt=asks,
            )
        except (TemplateError, TypeError) as error:
            raise ValueError(f"{where} is refused by the chat template: {error}") from None
