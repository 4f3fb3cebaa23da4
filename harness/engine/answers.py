"""Answers that are written side by side: one reading of the weights gives each its next token.

What their prompts share stays where it was read, and all attend to it in one call of the kernel.
What is a prompt's own, and what is written after it, is kept apart; the two are merged by
log-sum-exp, as everywhere in this engine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from harness.engine.attention import merged
from harness.engine.kernels import kernel_for
from harness.engine.layers import Keys, Stack
from harness.task import Request

Pair = tuple[Tensor, Tensor]
"""Keys and values of a layer, (1, key heads, T, dim) each."""


@dataclass
class Answer:
    """A prompt that was read, and what is written after it."""

    place: int
    """Of its request among all."""
    request: Request
    start: int
    """Where what is its own begins: it shares what stands before."""
    hidden: Tensor
    """The last layer's output at its last token, (1, hidden)."""
    own: list[Pair]
    """By layer, from `start` on, with room for what will be written."""
    length: int
    """Tokens of its own that were read."""
    written: list[int] = field(default_factory=list)


def keep(layers: Sequence[Keys], start: int, stop: int, room: int) -> list[Pair]:
    """A copy of a stretch of all layers' keys and values, with so much room behind it."""

    def longer(x: Tensor) -> Tensor:
        found = x.new_empty(1, x.shape[1], stop - start + room, x.shape[3])
        found[:, :, : stop - start] = x[:, :, start:stop]
        return found

    return [(longer(keys.keys), longer(keys.values)) for keys in layers]


class Apart:
    """One layer's keys for a token of each answer; the argument layers know as their cache."""

    def __init__(self, shared: Pair, own: Sequence[Pair], lengths: Sequence[int]) -> None:
        self.shared, self.own, self.lengths = shared, own, lengths

    def update(self, keys: Tensor, values: Tensor, *_: object, **__: object) -> Pair:
        """Keep one key and one value of each, (1, key heads, answers, dim)."""
        for row, (mine, length) in enumerate(zip(self.own, self.lengths, strict=True)):
            for kept, new in zip(mine, (keys, values), strict=True):
                kept[:, :, length] = new[:, :, row]
        return keys, values

    def attend(
        self, q: Tensor, *, scale: float, window: int | None, softcap: float | None
    ) -> Tensor:
        """Each query over what all share and what is its own, (1, heads, answers, dim)."""
        kernel = kernel_for(q.device.type, q.dtype, q.shape[-1], softcap)
        start = self.shared[0].shape[2]
        ends = [start + length + 1 for length in self.lengths]
        first = [0 if window is None else max(0, end - window) for end in ends]
        all_see_all = start > 0 and not any(first)
        common = kernel.call(q, *self.shared, False, scale) if all_see_all else None
        outs = []
        for row, (own, low, end) in enumerate(zip(self.own, first, ends, strict=True)):
            one, mine = q[:, :, row : row + 1], slice(max(low - start, 0), end - start)
            found = kernel.call(one, *(x[:, :, mine] for x in own), False, scale)
            if common is not None:
                found = merged(tuple(x[:, :, row : row + 1] for x in common), found)
            elif low < start:
                seen = (x[:, :, low:] for x in self.shared)
                found = merged(kernel.call(one, *seen, False, scale), found)
            outs.append(found[0].to(q.dtype))
        return torch.cat(outs, 2)


def further(stack: Stack, keys: Sequence[Keys], answers: Sequence[Answer]) -> Tensor:
    """The last layer's output at the last token written of each, (answers, hidden).

    Args:
        stack: the decoder.
        keys: of all layers, which hold what the answers share.
        answers: with the same `start`.
    """
    device, start = stack.device, answers[0].start
    last = torch.tensor([answer.written[-1] for answer in answers], device=device)
    positions = torch.tensor([start + answer.length for answer in answers], device=device)
    lengths = [answer.length for answer in answers]
    hidden = stack.embed(last)
    for index, held in enumerate(keys):
        shared = held.keys[:, :, :start], held.values[:, :, :start]
        apart = Apart(shared, [answer.own[index] for answer in answers], lengths)
        hidden = stack.one_each(index, hidden, positions, apart)
    for answer in answers:
        answer.length += 1
    return hidden[0]
