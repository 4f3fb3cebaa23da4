"""Layer by layer over the whole input: only one layer's keys and values are alive.

Run layer 1 over all tokens block by block, then layer 2, and so on. Memory holds the hidden state,
one layer's keys and values, and one block, whatever the depth. The layers are the model's own; they
call `attend` through transformers' attention interface and hand their keys to `Keys`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface

from harness import machine
from harness.engine.attention import attend, attend_in_parts
from harness.engine.bend import Bend, View
from harness.engine.biased import standing_in
from harness.engine.cut import Block, Cut
from harness.engine.offload import ON_DEVICE, OnDevice
from harness.engine.parallel import ALONE, Alone
from harness.families import Family, attention_layers, family_of, layer_types

INTERFACE = "context-harness"
TABLE_BLOCK = 4096


class KeysStored(Exception):  # no error: the layer is left once its keys are kept
    """Raised inside a layer to skip what follows the keys."""


class Keys:
    """One layer's keys and values, preallocated; the argument layers know as their cache."""

    def __init__(self, capacity: int, memory: OnDevice = ON_DEVICE, ranks: Alone = ALONE) -> None:
        self.capacity, self.memory, self.ranks = capacity, memory, ranks
        self.start, self.only, self.shares = 0, False, ()
        self.bend: Bend | None = None
        """The layer's, which may keep keys otherwise than they come."""
        self.keys = self.values = torch.empty(0)
        self._like: tuple[Any, ...] = ()
        """What there is room for; layers may lie on several devices."""

    def update(self, keys: Tensor, values: Tensor, *_: object, **__: object) -> tuple[Tensor, ...]:
        """Keep a block's keys and values, (1, heads, T, dim); return all up to its end."""
        if self.bend is not None:
            keys = self.bend.kept(keys, self.start)
        like = keys.shape[1::2], keys.dtype, keys.device
        if self._like != like:
            self._like, self.keys, self.values = (), torch.empty(0), torch.empty(0)
            self.keys, self.values = (
                self.memory.room_for_keys(self.capacity, x) for x in (keys, values)
            )
            self._like = like  # not before: there may be no room
        for start, *came in self.ranks.gathered(self.start, self.shares, keys, values):
            for kept, new in zip((self.keys, self.values), came, strict=True):
                self.memory.keep(kept[:, :, start : start + new.shape[2]], new)
        if self.bend is not None:
            self.memory.settle()  # it may do anything to them
        if self.only:
            raise KeysStored
        stop = self.start + keys.shape[2]
        return self.keys[:, :, :stop], self.values[:, :, :stop]


class Stack:
    """A decoder's layers, ready to be run one at a time over blocks."""

    def __init__(self, model: nn.Module, length: int, memory: OnDevice = ON_DEVICE) -> None:
        decoder = model.get_decoder()
        self.memory = memory
        self.family: Family = family_of(model.config)
        self.embedding = getattr(decoder, self.family.embedding)
        norm = self.family.embedding_norm
        self.embedding_norm = nn.Identity() if norm is None else getattr(decoder, norm)
        self.layers = getattr(decoder, self.family.layers)[: decoder.config.num_hidden_layers]
        self.norm = getattr(decoder, self.family.norm)
        self.types = layer_types(decoder)
        attending = {x.layer_idx: x for x in attention_layers(decoder)}
        self.attending = [attending.get(index) for index in range(len(self.layers))]
        self.bends = [getattr(x, "bend", None) for x in self.attending]
        self.device, self.dtype = model.device, self.embedding.weight.dtype
        rotary = getattr(decoder, "rotary_emb", None)
        self.tables = {t: self._table(rotary, t, length) for t in set(self.types) if rotary}

    def embed(self, tokens: Tensor) -> Tensor:
        """(n,) -> (1, n, hidden)."""
        return self.embedding_norm(self.embedding(tokens[None]))

    def embedded(self, tokens: Tensor, size: int) -> Tensor:
        """As `embed`, of many tokens, (n,) on the processor, `size` at a time, in memory's room."""
        found = None
        for start in range(0, len(tokens), size):
            some = self.embed(tokens[start : start + size].to(self.device))
            if found is None:
                found = self.memory.empty((1, len(tokens), some.shape[-1]), some)
            self.memory.keep(found[:, start : start + size], some)
        assert found is not None
        return found

    def run(self, index: int, hidden: Tensor, block: Block, keys: Keys) -> Tensor | None:
        """One layer's output for a block of its input, (1, T, hidden); None if not wanted."""
        rows = slice(block.row, block.row + block.length)
        stretch = slice(block.position, block.position + block.length)
        keys.start, keys.only, keys.bend = block.position, not block.wanted, self.bends[index]
        keys.shares = block.shares
        table = self.tables.get(self.types[index], ())
        turn = tuple(self.memory.here(part[:, stretch]) for part in table)
        at = torch.arange(stretch.start, stretch.stop, device=self.device)
        try:
            return self._through(index, self.memory.here(hidden[:, rows]), at, turn, keys)
        except KeysStored:
            return None

    def one_each(self, index: int, hidden: Tensor, positions: Tensor, keys: Any) -> Tensor:
        """As `run`, for a row of each of several inputs, at positions of their own, (1, n, hidden).

        Args:
            index: of the layer.
            hidden: its input, (1, n, hidden).
            positions: of the rows, (n,).
            keys: takes a key and a value of each, and attends in its own way, by `attend`.
        """
        table = self.tables.get(self.types[index], ())
        turn = tuple(part[:, positions] for part in table)
        self.attending[index].apart = keys
        try:
            return self._through(index, hidden, positions, turn, keys)
        finally:
            del self.attending[index].apart

    def _through(
        self, index: int, hidden: Tensor, at: Tensor, turn: tuple[Tensor, ...], keys: Any
    ) -> Tensor:
        out = self.layers[index](
            hidden,
            attention_mask=None,
            position_ids=at[None],
            position_embeddings=turn,
            use_cache=True,
            **{self.family.cache: keys},
            **self.family.extra,
        )
        return out[0] if isinstance(out, tuple) else out

    def _table(self, rotary: nn.Module, layer_type: str | None, length: int) -> tuple[Tensor, ...]:
        """Cos and sin of every position, each (1, length, dim), asked of the live module."""
        extra = () if layer_type is None else (layer_type,)
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        parts: tuple[Tensor, ...] = ()
        for start in range(0, length, TABLE_BLOCK):
            at = torch.arange(start, min(start + TABLE_BLOCK, length))
            found = rotary(like, at.to(like.device)[None], *extra)
            parts = parts or tuple(self.memory.empty((1, length, x.shape[-1]), x) for x in found)
            for part, some in zip(parts, found, strict=True):
                part[:, start : start + len(at)] = some
        return parts

    @property
    def side_by_side(self) -> bool:
        """Whether `one_each` can run: attention is reached, nothing bends it, keys are near."""
        reached = not (self.family.calls_sdpa or self.family.biased) and all(self.attending)
        return reached and not any(self.bends) and not self.memory.offloads

    @property
    def row_cost(self) -> float:
        """What a row takes beside attention, in keys that it could see instead."""
        weights = sum(parameter.numel() for parameter in self.layers[0].parameters())
        return weights / (2 * self.embedding.weight.shape[1])


@contextmanager
def engaged(model: nn.Module, memory: OnDevice = ON_DEVICE) -> Iterator[None]:
    """The model's layers attend through this engine for a while."""
    machine.hold_blocks()
    config = model.get_decoder().config
    before, family = config._attn_implementation, family_of(model.config)
    own = partial(attention, memory=memory)
    way: AbstractContextManager[Any] = nullcontext()
    if family.calls_sdpa:
        way = _ThroughEngine(memory)
    elif family.biased:
        way = standing_in(model, own)
    AttentionInterface.register(INTERFACE, own)
    config._attn_implementation = "sdpa" if family.calls_sdpa else INTERFACE
    try:
        with torch.inference_mode(), memory.counted(model), way:
            yield
    finally:
        config._attn_implementation = before


def sweep(
    stack: Stack,
    hidden: Tensor,
    cut: Cut,
    step: Callable[[int], None],
    ranks: Alone = ALONE,
) -> None:
    """All layers over all rows, each layer's output written over its input.

    Args:
        stack: the decoder.
        hidden: embeddings of the rows that lie here, (1, n, hidden); holds the last layer's output
            where it is wanted when done.
        cut: of the tree.
        step: told the rows of every block done, those of other ranks included.
        ranks: who reads along.
    """
    keys = Keys(cut.depth, stack.memory, ranks)
    for index in range(len(stack.layers)):
        last = index == len(stack.layers) - 1
        for block in cut.last if last else cut.inner:
            out = stack.run(index, hidden, block, keys)
            if out is not None:
                stack.memory.keep(hidden[:, block.row : block.row + block.length], out)
            step(block.read)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    memory: OnDevice = ON_DEVICE,
    **_: object,
) -> tuple[Tensor, None]:
    """What the layers call; one that a method has bent attends by way of that bend."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if (apart := getattr(module, "apart", None)) is not None:
        out = apart.attend(query, scale=scale, window=sliding_window, softcap=softcap)
        return out.transpose(1, 2), None
    plain = Plain(sliding_window, softcap, memory)
    bend = getattr(module, "bend", None)
    if bend is None:
        return plain(query, key, value, scale=scale).transpose(1, 2), None
    out = bend(plain, query, key, value, scale=scale, training=False)
    return out.transpose(1, 2), None


@dataclass(frozen=True)
class Plain:
    """A layer's own attention."""

    window: int | None
    softcap: float | None
    memory: OnDevice = ON_DEVICE

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, more: Tensor | None = None
    ) -> Tensor:
        return attend(q, k, v, scale=scale, more=more, **vars(self))

    def in_parts(self, views: Sequence[View], v: Tensor, *, scale: float) -> Tensor:
        return attend_in_parts(views, v, scale=scale, **vars(self))


class _ThroughEngine(TorchFunctionMode):
    """Sends torch's own attention function to this engine, for a family that calls it directly."""

    def __init__(self, memory: OnDevice) -> None:
        super().__init__()
        self.memory = memory

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is nn.functional.scaled_dot_product_attention:
            return attend(*args[:3], scale=args[0].shape[-1] ** -0.5, memory=self.memory)
        return func(*args, **(kwargs or {}))


AttentionInterface.register(INTERFACE, attention)
