"""Answer requests: one pass over the tree of their inputs, then the head where it was asked."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType

import numpy as np
import torch
from torch import nn

from harness.engine.generate import Spell, Tell, Written, continuations
from harness.engine.head import Head
from harness.engine.layers import Stack, engaged, sweep
from harness.engine.offload import ON_DEVICE, OnDevice
from harness.engine.parallel import ALONE, Alone
from harness.engine.tree import Tree
from harness.task import Choice, Likelihoods, Losses, Outcome, Request, Text, Verdict

BLOCK = 2048
ROWS = 2**17
"""Inputs that share nothing are read together up to so many tokens: more would only take room."""
BEGINNING = 64
"""Tokens by which inputs are known to share something worth keeping them together."""


def evaluate(
    model: nn.Module,
    requests: Sequence[Request],
    *,
    block: int = BLOCK,
    step: Callable[[float], None] = lambda tokens: None,
    text: Spell | None = None,
    ends: Collection[int] = (),
    marks: Collection[int] = (),
    written: Mapping[int, Written] = MappingProxyType({}),
    tell: Tell = lambda i, answer: None,
    memory: OnDevice = ON_DEVICE,
    ranks: Alone = ALONE,
) -> list[Outcome]:
    """What was asked, in the order of the requests.

    Args:
        model: a transformers causal language model of a supported family; a method may be on.
        requests: inputs and questions. Inputs that begin alike share the work.
        block: most tokens that pass a layer together.
        step: told how many tokens' worth of all layers was done since the last call.
        text: how tokens read, a reader's `text`; needed where a `Text` stops at words.
        ends: tokens that end an answer, beside those that the model says, a reader's `ends`.
        marks: tokens that are no text and are left out of answers, a reader's `marks`.
        written: answers that are known, by the place of their `Text` among the requests.
        tell: told of each other answer, and its place, as soon as it is written.
        memory: where hidden states and keys lie.
        ranks: who reads along: every rank is asked the same, and gets all that was answered.

    Raises:
        FloatingPointError: a logit is not finite; names its input and position.
        harness.engine.parallel.Elsewhere: another rank could not go on.
    """
    free = [i for i, r in enumerate(requests) if isinstance(r.ask, Text)]
    scored = together(requests)
    found: list[Outcome] = []
    with ranks.in_step(), engaged(model, memory):
        if free:
            found += continuations(
                model,
                [requests[i] for i in free],
                block=block,
                step=step,
                memory=memory,
                ranks=ranks,
                text=text,
                ends=ends,
                marks=marks,
                written={n: written[i] for n, i in enumerate(free) if i in written},
                tell=lambda n, answer: tell(free[n], answer),
            )
        for some in scored:
            found += _score(model, [requests[i] for i in some], block, step, memory, ranks)
    by_place = dict(zip([*free, *chain.from_iterable(scored)], found, strict=True))
    return [by_place[i] for i in range(len(requests))]


def together(requests: Sequence[Request]) -> list[list[int]]:
    """Which of those that need no text pass the layers together.

    Those that begin alike, for what they share is read once; and others while there is room, for
    the hidden states of all of them are alive at once.
    """
    alike: dict[bytes, list[int]] = {}
    for i, request in enumerate(requests):
        if not isinstance(request.ask, Text):
            alike.setdefault(request.tokens[:BEGINNING].tobytes(), []).append(i)
    groups: list[list[int]] = []
    room = 0
    for some in alike.values():
        rows = max(len(requests[i].tokens) for i in some)
        if rows > room:
            groups.append([])
            room = ROWS
        groups[-1] += some
        room -= rows
    return groups


def tree_of(requests: Sequence[Request]) -> Tree:
    """What must be read to answer these."""
    return Tree.of([span.input for request in requests for span in spans_of(request)])


@dataclass(frozen=True)
class _Span:
    """Tokens that are asked about, after all that stands before them."""

    before: np.ndarray
    asked: np.ndarray

    @property
    def input(self) -> np.ndarray:
        """What must be read: up to the last token but one."""
        return np.concatenate([self.before, self.asked[:-1]]).astype(np.int64)

    @property
    def first(self) -> int:
        """The position whose output tells the first of them."""
        return len(self.before) - 1


def spans_of(request: Request) -> list[_Span]:
    """One, or one for each option of a choice and each continuation that is weighed."""
    match request.ask:
        case Losses(start=start, stop=stop):
            return [_Span(request.tokens[:start], request.tokens[start:stop])]
        case Verdict(answer=answer):
            return [_Span(request.tokens, np.asarray(answer, np.int64))]
        case Choice(options=options):
            return [_Span(request.tokens, np.asarray(option, np.int64)) for option in options]
        case Likelihoods(pairs=pairs):
            return [_Span(before, np.asarray(asked, np.int64)) for before, asked in pairs]
        case Text():
            return [_Span(request.tokens, np.empty(0, np.int64))]
    raise TypeError(f"Nothing is known of the question {request.ask!r}.")


def _score(
    model: nn.Module,
    requests: list[Request],
    block: int,
    step: Callable[[float], None],
    memory: OnDevice,
    ranks: Alone,
) -> list[Outcome]:
    spans = [spans_of(request) for request in requests]
    flat = [span for group in spans for span in group]
    tree = Tree.of([span.input for span in flat])
    rows = [tree.rows(i, s.first, s.first + len(s.asked)) for i, s in enumerate(flat)]
    # A row may be asked by several inputs, of several lengths say: each pair is read once.
    pairs = np.stack([np.concatenate(rows), np.concatenate([span.asked for span in flat])])
    unique, back = np.unique(pairs, axis=1, return_inverse=True)
    row, target = (torch.from_numpy(x).to(model.device) for x in unique)

    stack = Stack(model, tree.depth, memory)
    cut = ranks.cut(tree, row.unique().cpu(), block, stack.row_cost)
    here = torch.from_numpy(tree.tokens)
    hidden = stack.embedded(here if cut.rows is None else here[cut.rows], block)
    layers = len(stack.layers)
    sweep(stack, hidden, cut, lambda n: step(n / layers), ranks)
    head = Head(model, stack.norm)
    told = any(isinstance(request.ask, Verdict | Likelihoods) for request in requests)
    losses, best = ranks.told(
        cut, row, target, lambda at, targets: head.read(hidden[0], at, targets, memory, block, told)
    )

    cuts = np.cumsum([len(r) for r in rows])[:-1]
    parts = iter(np.split(back.reshape(-1), cuts))
    return [
        _outcome(request, group, [torch.from_numpy(next(parts)) for _ in group], losses, best)
        for request, group in zip(requests, spans, strict=True)
    ]


def _outcome(
    request: Request,
    spans: list[_Span],
    parts: list[torch.Tensor],
    losses: torch.Tensor,
    best: torch.Tensor,
) -> Outcome:
    """Of all losses and argmaxes, those that stand at `parts` and were asked for."""
    for span, part in zip(spans, parts, strict=True):
        _check_finite(request, span.first, losses[part])
    match request.ask:
        case Verdict():
            return tuple(best[parts[0]].tolist())
        case Choice():
            return tuple(-float(losses[part].sum()) for part in parts)
        case Likelihoods():
            said = (np.array_equal(best[p], s.asked) for p, s in zip(parts, spans, strict=True))
            return tuple(
                (-float(losses[p].sum()), greedy) for p, greedy in zip(parts, said, strict=True)
            )
    return losses[parts[0]].numpy()


def _check_finite(request: Request, first: int, losses: torch.Tensor) -> None:
    if len(bad := (~losses.isfinite()).nonzero()):
        raise FloatingPointError(
            f"the logits of {request.id!r} at position {first + int(bad[0])} are not finite"
        )
