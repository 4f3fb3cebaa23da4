"""What a method may do to a layer's attention: the contract that both attentions keep.

A bend is put on an attention module as `bend`. The engine finds it there, and so does the attention
that models are trained through; neither has a mask, so neither has a bend.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad


class View(NamedTuple):
    """Queries and keys turned one way, and which of the keys each query sees of it."""

    q: Tensor
    """Queries, (batch, heads, T, dim): the last T of S positions."""
    k: Tensor
    """Keys, (batch, key heads, S, dim); key heads divide heads."""
    first: Tensor
    """By query, the first key it sees; (T,), int64, on the CPU, never falling."""
    stop: Tensor
    """By query, the key after the last it sees; the same. No later than its own is ever seen."""
    more: Tensor | None = None
    """Channels that each key has behind its own, (S, c), where the queries are; values have zeros
    there. Queries have them already."""

    def seen(self, window: int | None) -> tuple[Tensor, Tensor]:
        """`first` and `stop` within the keys that there are, and within a layer's window."""
        queries, keys = self.q.shape[2], self.k.shape[2]
        own = torch.arange(keys - queries, keys)
        least = torch.zeros_like(own) if window is None else (own - window + 1).clamp(min=0)
        return torch.maximum(self.first, least), torch.minimum(self.stop, own + 1)

    def widened(self, k: Tensor, v: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """A stretch of keys and values from position `start` on, with all their channels."""
        if self.more is None:
            return k, v
        return widened(k, v, self.more[start : start + k.shape[2]])


def widened(k: Tensor, v: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
    """Keys with these channels behind their own, (n, c), and values with zeros there."""
    return torch.cat([k, more.expand(*k.shape[:3], -1)], -1), pad(v, (0, more.shape[1]))


class Attend(Protocol):
    """Causal attention as a layer does it, its sliding window included."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, more: Tensor | None = None
    ) -> Tensor:
        """The output of the last T of S positions, (batch, heads, T, dim).

        Args:
            q: queries, (batch, heads, T, dim).
            k: keys, (batch, key heads, S, dim); key heads divide heads.
            v: values, of the same shape.
            scale: what scores are multiplied by.
            more: further channels of each key, as a `View` has them.
        """
        ...

    def in_parts(self, views: Sequence[View], v: Tensor, *, scale: float) -> Tensor:
        """As by `__call__`, by one softmax over several views; no key is seen in two of them."""
        ...


class Bend(ABC):
    """Attention in a method's way, by way of the layer's own."""

    @abstractmethod
    def __call__(
        self, attend: Attend, q: Tensor, k: Tensor, v: Tensor, *, scale: float, training: bool
    ) -> Tensor:
        """The output, (batch, heads, T, dim), of arguments as `attend` takes them.

        Keys are as `kept` gave them.
        """

    def kept(self, k: Tensor, start: int) -> Tensor:
        """What a cache keeps of keys, (batch, key heads, n, dim), from position `start` on.

        It may have more heads: keys that are turned in two ways are kept twice, side by side.
        """
        return k

    def described(self, length: int) -> dict[str, Any]:
        """What tells it apart, for the last of `length` tokens: plain data."""
        return {}

    def turning(self) -> Any:
        """The encoding that it turns queries and keys by, a `harness.rope.Encoding`; None: none."""
        return None
