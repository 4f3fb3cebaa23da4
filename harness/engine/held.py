"""A text and the keys of all layers, held while it grows: what two texts share is read once.

Read a text, and only what stands behind its common beginning with the last one passes the layers.
A conversation is such a text: each turn repeats all that went before. Room for keys doubles as it
is needed, so a model that could read a million tokens takes no more than it has read.
"""

from collections.abc import Callable, Sequence
from itertools import takewhile

import torch
from torch import Tensor, nn

from harness.engine.cut import Block
from harness.engine.evaluate import BLOCK
from harness.engine.head import Head
from harness.engine.layers import Keys, Stack, engaged


class Held:
    """What a model has read, under the method that is on while this is made and used.

    An interrupt at any moment leaves the tokens that are held complete.
    """

    def __init__(self, model: nn.Module, *, block: int = BLOCK) -> None:
        self.model, self.block = model, block
        self.tokens: list[int] = []
        """Those whose keys are held."""
        self.forget()
        self._head = Head(model, self._stack.norm)

    def forget(self) -> None:
        """Let go of all that was read. It takes no memory: there may be none."""
        self.tokens.clear()
        self._room, self._stack = 0, Stack(self.model, 0)
        self._keys = [Keys(0) for _ in self._stack.layers]

    @property
    def bytes(self) -> int:
        """Of keys and values, room for what may come included."""
        return sum(x.nbytes for keys in self._keys for x in (keys.keys, keys.values))

    def shared(self, tokens: Sequence[int]) -> int:
        """How many tokens of this text need not be read; its last one always must."""
        pairs = zip(self.tokens, tokens[:-1], strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def read(
        self, tokens: Sequence[int], step: Callable[[int], None] = lambda tokens: None
    ) -> Tensor:
        """The logits of what may follow these tokens, (vocabulary,), float32.

        Args:
            tokens: a whole text, one or more.
            step: told how many tokens were read since the last call.
        """
        del self.tokens[self.shared(tokens) :]
        return self.more(tokens[len(self.tokens) :], step)

    def more(
        self, tokens: Sequence[int], step: Callable[[int], None] = lambda tokens: None
    ) -> Tensor:
        """As `read`, of what may follow what is held and these tokens behind it."""
        with engaged(self.model):
            self._make_room(len(self.tokens) + len(tokens))
            for start in range(0, len(tokens), self.block):
                piece = tokens[start : start + self.block]
                hidden = self._through(piece, wanted=start + len(piece) == len(tokens))
                self.tokens += piece
                step(len(piece))
            assert hidden is not None
            return self._head.logits(hidden[0, -1:])[0]

    def _through(self, tokens: Sequence[int], wanted: bool) -> Tensor | None:
        """The last layer's output behind what is held, (1, n, hidden), if it is wanted."""
        hidden = self._stack.embed(torch.tensor(tokens, device=self._stack.device))
        top = len(self._keys) - 1
        for index, keys in enumerate(self._keys):
            row = Block(0, len(self.tokens), len(tokens), wanted or index < top)
            hidden = self._stack.run(index, hidden, row, keys)
        return hidden

    def _make_room(self, tokens: int) -> None:
        if tokens <= self._room:
            return
        room = max(tokens, 2 * self._room, self.block)
        self._stack = Stack(self.model, room)
        for keys in self._keys:
            keys.capacity = room
            if keys.keys.numel():
                keys.keys, keys.values = (self._longer(x, room) for x in (keys.keys, keys.values))
        self._room = room

    def _longer(self, x: Tensor, room: int) -> Tensor:
        """What is held of keys or values, (1, heads, tokens, dim), with more room behind."""
        found, n = x.new_empty(1, x.shape[1], room, x.shape[3]), len(self.tokens)
        found[:, :, :n] = x[:, :, :n]
        return found
