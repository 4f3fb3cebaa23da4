"""Greedy decoding, for answers that argmaxes cannot tell; what prompts share is read once.

The tree of prompts is walked parents first, block by block, each block through all layers, so that
the keys of all of them stay for decoding. Keys of a run's ancestors are those last written below
its position, so that one buffer a layer, as long as the longest prompt and its answer, serves every
branch. Answers to prompts that differ only towards their ends are written side by side, each with
keys of its own; any other past the end of its prompt, where the next branch goes over it.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from harness.engine.answers import Answer, further, keep
from harness.engine.cut import Block
from harness.engine.head import Head
from harness.engine.layers import Keys, Stack
from harness.engine.offload import ON_DEVICE, OnDevice
from harness.engine.parallel import ALONE, Alone
from harness.engine.tree import Run, Tree
from harness.task import Request, Text

Spell = Callable[[Sequence[int]], str]
OWN = 256
"""So many of a prompt's last tokens may be taken for its own, though others share some of them:
then those that share less are answered with it."""
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
    writer = _Writer(model, room, block, text, end_tokens(model) | {*ends}, memory, ranks)
    ending: dict[int, list[int]] = {}
    asked = [i for i in range(len(requests)) if i not in written]
    for i in asked:
        ending.setdefault(tree.paths[i][-1].row, []).append(i)
    needed = {run.row for i in asked for run in tree.paths[i]}
    tokens = torch.from_numpy(tree.tokens).to(model.device)
    outcomes: list[Written] = [written.get(i, ()) for i in range(len(requests))]

    def done(found: Iterator[tuple[int, Written]]) -> None:
        for i, said in found:
            outcomes[i] = tuple(token for token in said if token not in marks)
            tell(i, outcomes[i])

    for run in tree.runs:
        if run.row not in needed:
            step(run.length)
            continue
        done(writer.due(run.position))
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
            done(writer.answer(i, requests[i], tree.paths[i], hidden[0, -1:]))
    done(writer.due(-1))
    return ranks.agreed(outcomes)


class _Writer:
    """A model and the keys of what it has read so far, of all layers."""

    def __init__(
        self,
        model: nn.Module,
        room: int,
        block: int,
        text: Spell | None,
        ends: set[int],
        memory: OnDevice,
        ranks: Alone,
    ) -> None:
        self.stack = Stack(model, room, memory)
        self.head = Head(model, self.stack.norm)
        self.keys = [Keys(room, memory, ranks) for _ in self.stack.layers]
        self.ends, self.text = ends, text
        self.most = block if ranks.size == 1 and self.stack.side_by_side else 0
        """Tokens of which answers that are written side by side may have keys of their own."""
        self.waiting: list[Answer] = []
        """Prompts that share all before the first one's `start`, and are not answered yet."""

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

    def answer(
        self, place: int, request: Request, path: Sequence[Run], hidden: Tensor
    ) -> Iterator[tuple[int, Written]]:
        """Have a prompt that was just read answered, now or with others; the answers that are done.

        Args:
            place: of the request among all.
            request: the prompt and what is asked.
            path: its runs.
            hidden: the last layer's output at the prompt's last token, (1, hidden).
        """
        end, room = len(request.tokens), _asked(request).max_new_tokens
        taken = sum(one.own[0][0].shape[2] for one in self.waiting)
        if self.waiting and taken + end + room - self.waiting[0].start > self.most:
            yield from self.due(-1)
        near = (run.position for run in path[1:] if end - run.position <= OWN)
        start = self.waiting[0].start if self.waiting else min(near, default=path[-1].position)
        if end + room - start > self.most:
            yield place, self.write(request, hidden)
            return
        own = keep(self.keys, start, end, room)
        self.waiting.append(Answer(place, request, start, hidden.clone(), own, end - start))

    def due(self, position: int) -> Iterator[tuple[int, Written]]:
        """Answers of those who wait, where what they share is about to be gone over from there."""
        if not self.waiting or position >= self.waiting[0].start:
            return
        going, hidden = self.waiting, torch.cat([one.hidden for one in self.waiting])
        self.waiting = []
        answers = list(going)
        while going:
            chosen = zip(going, self.head.logits(hidden), strict=True)
            going = [
                one for one, logits in chosen if self._goes_on(one.request, one.written, logits)
            ]
            hidden = further(self.stack, self.keys, going) if going else hidden
        yield from ((one.place, tuple(one.written)) for one in answers)

    def write(self, request: Request, hidden: Tensor | None) -> Written:
        """The continuation of a prompt that was read to its end, by itself.

        Args:
            request: the prompt and what is asked.
            hidden: the last layer's output at the prompt's last token, (1, hidden).
        """
        written = list[int]()
        while self._goes_on(request, written, self.head.logits(hidden)[0]):
            new = torch.tensor(written[-1:], device=self.stack.device)
            hidden = self.read(new, len(request.tokens) + len(written) - 1)[0]
        return tuple(written)

    def _goes_on(self, request: Request, written: list[int], logits: Tensor) -> bool:
        """Whether another token follows the one that these logits, (vocabulary,), are for."""
        if not logits.isfinite().all():
            raise FloatingPointError(
                f"the logits of {request.id!r} at position "
                f"{len(request.tokens) + len(written) - 1} are not finite"
            )
        token, ask = int(logits.argmax()), _asked(request)
        if token in self.ends:
            return False
        written.append(token)
        return len(written) < ask.max_new_tokens and not self._said_enough(ask, written)

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
    """Those that the model ends a text with, and that are no text; it may know none."""
    ends = model.generation_config.eos_token_id
    return set(ends if isinstance(ends, list) else [] if ends is None else [ends])
