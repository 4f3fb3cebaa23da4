"""Answer requests: one pass over the tree of their inputs, then the head where it was asked."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from harness.engine.generate import continuation
from harness.engine.head import Head
from harness.engine.layers import Stack, engaged, sweep
from harness.engine.tree import Tree
from harness.task import Losses, Outcome, Request, Text, Verdict

BLOCK = 2048


def evaluate(
    model: nn.Module,
    requests: Sequence[Request],
    *,
    block: int = BLOCK,
    step: Callable[[float], None] = lambda tokens: None,
) -> list[Outcome]:
    """What was asked, in the order of the requests.

    Args:
        model: a transformers causal language model of a supported family; a method may be on.
        requests: inputs and questions. Inputs that begin alike share the work.
        block: most tokens that pass a layer together.
        step: told how many tokens' worth of all layers was done since the last call.

    Raises:
        FloatingPointError: a logit is not finite; names its input and position.
    """
    outcomes: list[Outcome] = [None] * len(requests)
    scored = [i for i, r in enumerate(requests) if not isinstance(r.ask, Text)]
    with engaged(model):
        for i, request in enumerate(requests):
            if isinstance(request.ask, Text):
                outcomes[i] = continuation(model, request, block=block, step=step)
        if scored:
            found = _score(model, [requests[i] for i in scored], block, step)
            for i, outcome in zip(scored, found, strict=True):
                outcomes[i] = outcome
    return outcomes


def tree_of(requests: Sequence[Request]) -> Tree:
    """What must be read to answer these."""
    return Tree.of([_input(request) for request in requests])


def _input(request: Request) -> np.ndarray:
    """The tokens that must be read: an answer is read up to its last token but one."""
    if isinstance(request.ask, Verdict):
        return np.concatenate([request.tokens, request.ask.answer[:-1]]).astype(np.int64)
    if isinstance(request.ask, Losses):
        return request.tokens[: request.ask.stop - 1]
    return request.tokens


def _asked(request: Request) -> tuple[int, int, np.ndarray]:
    """First and last position whose output is needed, and the tokens that follow them."""
    match request.ask:
        case Losses(start=start, stop=stop):
            return start - 1, stop - 1, request.tokens[start:stop]
        case Verdict(answer=answer):
            first = len(request.tokens) - 1
            return first, first + len(answer), np.asarray(answer, np.int64)
    raise TypeError(f"Nothing is known of the question {request.ask!r}.")


def _score(
    model: nn.Module, requests: list[Request], block: int, step: Callable[[float], None]
) -> list[Outcome]:
    tree = tree_of(requests)
    asked = [_asked(r) for r in requests]
    rows = [tree.rows(i, start, stop) for i, (start, stop, _) in enumerate(asked)]
    # A row may be asked by several inputs, of several lengths say: each pair is read once.
    pairs = np.stack([np.concatenate(rows), np.concatenate([t for *_, t in asked])])
    unique, back = np.unique(pairs, axis=1, return_inverse=True)
    row, target = (torch.from_numpy(x).to(model.device) for x in unique)

    stack = Stack(model, tree.depth)
    tokens = torch.from_numpy(tree.tokens).to(model.device)
    hidden = torch.empty(
        (1, len(tokens), stack.embedding.weight.shape[1]), dtype=stack.dtype, device=stack.device
    )
    for start in range(0, len(tokens), block):
        hidden[:, start : start + block] = stack.embed(tokens[start : start + block])
    layers = len(stack.layers)
    sweep(stack, hidden, tree.runs, row.unique(), block, lambda n: step(n / layers))
    losses, best = Head(model, stack.norm).read(hidden[0], row, target)

    back, cuts = back.reshape(-1), np.cumsum([len(r) for r in rows])[:-1]
    outcomes: list[Outcome] = []
    for request, first, part in zip(requests, asked, np.split(back, cuts), strict=True):
        _check_finite(request, first[0], losses[part])
        verdict = isinstance(request.ask, Verdict)
        outcomes.append(tuple(best[part].tolist()) if verdict else losses[part].numpy())
    return outcomes


def _check_finite(request: Request, first: int, losses: torch.Tensor) -> None:
    if len(bad := (~losses.isfinite()).nonzero()):
        raise FloatingPointError(
            f"the logits of {request.id!r} at position {first + int(bad[0])} are not finite"
        )
