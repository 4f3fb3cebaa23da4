"""Greedy decoding with all layers' keys kept: for answers that cannot be told from argmaxes."""

from collections.abc import Callable

import torch
from torch import nn

from harness.engine.head import Head
from harness.engine.layers import Block, Keys, Stack, blocks
from harness.engine.tree import Run
from harness.task import Request, Text


def continuation(
    model: nn.Module, request: Request, *, block: int, step: Callable[[float], None]
) -> tuple[int, ...]:
    """The greedy continuation of one input; it ends with an end token, or after so many.

    The prompt is read block by block, each block through all layers, so that the keys of all of
    them stay for decoding. Call it inside `engaged(model)`.
    """
    assert isinstance(request.ask, Text)
    limit = request.ask.max_new_tokens
    length = len(request.tokens)
    stack = Stack(model, length + limit)
    head = Head(model, stack.norm)
    keys = [Keys(length + limit) for _ in stack.layers]
    ends = _end_tokens(model)
    tokens = torch.as_tensor(request.tokens, device=model.device)
    for piece in blocks([Run(0, 0, length)], block):
        hidden = _through(stack, tokens[piece.row : piece.row + piece.length], piece.position, keys)
        step(piece.length)
    written: list[int] = []
    while True:
        logits = head.logits(hidden[0, -1:])
        if not logits.isfinite().all():
            last = length + len(written) - 1
            raise FloatingPointError(
                f"the logits of {request.id!r} at position {last} are not finite"
            )
        written.append(int(logits.argmax()))
        if written[-1] in ends or len(written) == limit:
            return tuple(written)
        new = torch.tensor(written[-1:], device=model.device)
        hidden = _through(stack, new, length + len(written) - 1, keys)


def _through(stack: Stack, tokens: torch.Tensor, position: int, keys: list[Keys]) -> torch.Tensor:
    hidden = stack.embed(tokens)
    for index in range(len(stack.layers)):
        hidden = stack.run(index, hidden, Block(0, position, len(tokens)), keys[index])
    return hidden


def _end_tokens(model: nn.Module) -> set[int]:
    ends = model.generation_config.eos_token_id
    return set(ends if isinstance(ends, list) else [ends])
