"""Greedy decoding, for answers that argmaxes cannot tell; what prompts share is read once.

The tree of prompts is walked parents first, block by block, each block through all layers, so that
the keys of all of them stay for decoding. Keys of a run's ancestors are those last written below
its position, so that one buffer a layer, as long as the longest prompt and its answer, serves every
branch: an answer is written past the end of its prompt, where the next branch goes over it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from harness.engine.head import Head
from harness.engine.layers import Block, Keys, Stack
from harness.engine.offload import ON_DEVICE, OnDevice
from harness.engine.parallel import ALONE, Alone
from harness.engine.tree import Tree
from harness.task import Request, Text

Spell = Callable[[Sequence[int]], str]
Written = tuple[int, ...]
"""The tokens of an answer."""
Tell = Callable[[int, Written], None]
"""Told of an answer, and of which request it is, as soon as it is written."""


def continuations(
    model: nn.Module,
    requests: Sequence[Request],
    *,
    block: int,
    step: Callable[[float], None],
    text: Spell | None = None,
    ends: Collection[int] = (),
    marks: Collection[int] = (),
    written: Mapping[int, Written] = MappingProxyType({}),
    tell: Tell = lambda i, answer: None,
    memory: OnDevice = ON_DEVICE,
    ranks: Alone = ALONE,
) -> list[Written]:
    """The greedy continuation of each prompt.

    It ends before an end token, which is no text, with the token that completes one of its stop
    strings, or after so many. Call it inside `engaged(model)`.

    Args:
        model: a transformers causal language model; a method may be on.
        requests: of `Text` each.
        block: most tokens that pass a layer together.
        step: told how many tokens of prompts were read since the last call.
        text: how tokens read; needed where something stops at words.
        ends: end tokens, beside those of the model.
        marks: tokens that are no text either: they end nothing, and are left out of an answer.
        written: answers that are known, by the place of their request: nothing is read for them.
        tell: told of each other answer.
        memory: where keys lie.
        ranks: who reads the prompts along; each writes by itself.

    Raises:
        FloatingPointError: a logit is not finite; names its input and position.
    """
    tree = Tree.of([request.tokens for request in requests])
    room = max(len(r.tokens) + _asked(r).max_new_tokens for r in requests)
    writer = _Writer(model, room, text, end_tokens(model) | {*ends}, memory, ranks)
    ending: dict[int, list[int]] = {}
    asked = [i for i in range(len(requests)) if i not in written]
    for i in asked:
        ending.setdefault(tree.paths[i][-1].row, []).append(i)
    needed = {run.row for i in asked for run in tree.paths[i]}
    tokens = torch.from_numpy(tree.tokens).to(model.device)
    outcomes: list[Written] = [written.get(i, ()) for i in range(len(requests))]
    for run in tree.runs:
        if run.row not in needed:
            step(run.length)
            continue
        answered = ending.get(run.row, [])
        hidden, end = None, run.row + run.length
        wanted = torch.tensor([end - 1] if answered else [])
        for piece in ranks.stretches([run], wanted, block, writer.stack.row_cost):
            last = piece.row + piece.length == end and bool(answered)
            rows = tokens[piece.row : piece.row + piece.length]
            hidden = writer.read(rows, piece.position, wanted=last, shares=piece.shares)
            step(piece.read)
        for i in answered:
            assert hidden is not None
            said = writer.write(requests[i], hidden[0, -1:])
            outcomes[i] = tuple(token for token in said if token not in marks)
            tell(i, outcomes[i])
    return ranks.agreed(outcomes)


class _Writer:
    """A model and the keys of what it has read so far, of all layers."""

    def __init__(
        self,
        model: nn.Module,
        room: int,
        text: Spell | None,
        ends: set[int],
        memory: OnDevice,
        ranks: Alone,
    ) -> None:
        self.stack = Stack(model, room, memory)
        self.head = Head(model, self.stack.norm)
        self.keys = [Keys(room, memory, ranks) for _ in self.stack.layers]
        self.ends, self.text = ends, text

    def read(
        self,
        tokens: Tensor,
        position: int,
        *,
        wanted: bool = True,
        shares: tuple[int, ...] = (),
    ) -> Tensor | None:
        """The last layer's output, (1, n, hidden), of tokens from a position on; their keys stay.

        Where nobody wants it, the last layer only stores keys.
        """
        hidden = self.stack.embed(tokens)
        top = len(self.keys) - 1
        for index, keys in enumerate(self.keys):
            row = Block(0, position, len(tokens), wanted or index < top, shares)
            hidden = self.stack.run(index, hidden, row, keys)
        return hidden

    def write(self, request: Request, hidden: Tensor | None) -> Written:
        """The continuation of a prompt that was read to its end.

        Args:
            request: the prompt and what is asked.
            hidden: the last layer's output at the prompt's last token, (1, hidden).
        """
        ask, written = _asked(request), list[int]()
        while True:
            logits = self.head.logits(hidden)
            if not logits.isfinite().all():
                raise FloatingPointError(
                    f"the logits of {request.id!r} at position "
                    f"{len(request.tokens) + len(written) - 1} are not finite"
                )
            token = int(logits.argmax())
            if token in self.ends:
                return tuple(written)
            written.append(token)
            if len(written) == ask.max_new_tokens or self._said_enough(ask, written):
                return tuple(written)
            new = torch.tensor(written[-1:], device=logits.device)
            hidden = self.read(new, len(request.tokens) + len(written) - 1)[0]

    def _said_enough(self, ask: Text, written: list[int]) -> bool:
        """All of it is spelled anew: how a token reads may depend on those around it."""
        if not ask.stop:
            return False
        if self.text is None:
            raise TypeError("To stop at words, evaluate() must be told how tokens read: text=...")
        said = self.text(written)
        return any(words in said for words in ask.stop)


def _asked(request: Request) -> Text:
    assert isinstance(request.ask, Text)
    return request.ask


def end_tokens(model: nn.Module) -> set[int]:
    """Those that the model ends a text with, and that are no text."""
    ends = model.generation_config.eos_token_id
    return set(ends if isinstance(ends, list) else [ends])
