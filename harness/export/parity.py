"""Proof that an exported checkpoint is the model that was measured: the same logits.

The checkpoint is loaded by plain transformers, as anybody would, and reads a text in one pass; the
engine reads it with the method applied to the model it was made from. Both in float32.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.engine.cut import whole
from harness.engine.head import Head
from harness.engine.layers import Stack, engaged, sweep
from harness.engine.tree import Tree
from harness.method import Method
from harness.model import quiet

SUMS = 1e-4
"""Root mean square of the differences that float32 sums in another order make, as a share of the
logits' own."""
ANGLE = 2.0**-24
"""Radians a position: so far off are the angles of a float32 table, transformers' own."""
FIRST = 64
"""Tokens of the first stretch; each one after it is as long as all before."""
BLOCK = 2048
WORK = 1e12
"""Operations that take some seconds."""
SCORES = 2**27
"""Most logits compared: 512 MB on either side."""


@dataclass(frozen=True)
class Stretch:
    """Positions from `start` up to `stop`."""

    start: int
    stop: int
    rms: float
    """Root mean square of the logits' differences, as a share of the logits' own."""
    largest: float
    """The largest difference of two logits."""
    agreement: float
    """The share of positions where both find the same token most likely."""
    tolerance: float
    """The largest `rms` that rounding explains."""

    @property
    def passed(self) -> bool:
        return self.rms <= self.tolerance  # not if it is NaN


@dataclass(frozen=True)
class Parity:
    """How far the logits of two models differ, position by position."""

    whole: Stretch
    stretches: tuple[Stretch, ...]

    @property
    def passed(self) -> bool:
        return all(stretch.passed for stretch in self.stretches)

    def json(self) -> dict[str, Any]:
        """As JSON has it, where what is no finite number is null."""

        def finite(fields: list[tuple[str, Any]]) -> dict[str, Any]:
            return {k: None if isinstance(v, float) and not isfinite(v) else v for k, v in fields}

        return {"passed": self.passed, **asdict(self, dict_factory=finite)}


def parity(ours: Tensor, theirs: Tensor) -> Parity:
    """Compare logits, (n, vocabulary) both, float32."""
    n = len(ours)
    bounds = [0, *_doubling(n), n]
    stretches = tuple(_stretch(ours, theirs, start, stop) for start, stop in pairwise(bounds))
    return Parity(_stretch(ours, theirs, 0, n), stretches)


def _doubling(n: int) -> Iterator[int]:
    stop = FIRST
    while stop < n:
        yield stop
        stop *= 2


def _stretch(ours: Tensor, theirs: Tensor, start: int, stop: int) -> Stretch:
    squares = own = largest = agreed = 0.0
    for at in range(start, stop, FIRST):
        a, b = (logits[at : min(at + FIRST, stop)] for logits in (ours, theirs))
        difference = (a - b).double()
        squares += float(difference.square().sum())
        own += float(a.double().square().sum())
        largest = max(largest, float(difference.abs().nan_to_num(torch.inf).max()))
        agreed += float((a.argmax(1) == b.argmax(1)).sum())
    return Stretch(
        start=start,
        stop=stop,
        rms=(squares / own) ** 0.5,
        largest=largest,
        agreement=agreed / (stop - start),
        tolerance=SUMS + stop * ANGLE,
    )


def by_engine(model: nn.Module, method: Method, length: int, tokens: Tensor) -> Tensor:
    """Logits of each of n tokens, (n, vocabulary), with the method applied for `length`."""
    with method.applied_to(model, length), engaged(model):
        stack = Stack(model, len(tokens))
        hidden = stack.embed(tokens).clone()
        rows = torch.arange(len(tokens))
        tree = Tree.of([tokens.numpy()])
        sweep(stack, hidden, whole(tree, rows, BLOCK), lambda _: None)
        return Head(model, stack.norm).logits(hidden[0])


def by_transformers(folder: Path, tokens: Tensor, *, code: bool) -> Tensor:
    """The same, as anybody would ask a checkpoint; `code`: it brings its own."""
    from transformers import AutoModelForCausalLM

    with quiet():
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, trust_remote_code=code
        ).eval()
    with torch.inference_mode():
        return model(tokens[None].long(), use_cache=False).logits[0].float()


def affordable(shape: dict[str, int], length: int) -> int:
    """Tokens to compare, at most `length`: as many as take some seconds."""
    hidden, vocabulary = shape["hidden"], shape["vocabulary"]
    mlp = 3 * hidden * shape["intermediate"] * shape["experts"]
    weights = shape["layers"] * (4 * hidden**2 + mlp) + vocabulary * hidden
    wide = shape["layers"] * shape["heads"] * shape["head_dim"]
    n = length
    while n > FIRST and (n * (2 * weights + 2 * n * wide) > WORK or n * vocabulary > SCORES):
        n //= 2
    return n
