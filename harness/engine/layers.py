"""Layer by layer over the whole input: only one layer's keys and values are alive.

Run layer 1 over all tokens block by block, then layer 2, and so on. Memory holds the hidden state,
one layer's keys and values, and one block, whatever the depth. The layers are the model's own; they
call `attend` through transformers' attention interface and hand their keys to `Keys`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface

from harness.engine.attention import attend, attend_in_parts
from harness.engine.bend import Bend, View
from harness.engine.biased import standing_in
from harness.engine.tree import Run
from harness.families import Family, attention_layers, family_of, layer_types

INTERFACE = "context-harness"
TABLE_BLOCK = 65536


@dataclass(frozen=True)
class Block:
    """Rows of a tree that pass a layer together."""

    row: int
    position: int
    length: int
    wanted: bool = True
    """False: nobody asked for its output; its keys and values are all that is needed."""


class KeysStored(Exception):  # no error: the layer is left once its keys are kept
    """Raised inside a layer to skip what follows the keys."""


class Keys:
    """One layer's keys and values, preallocated; the argument layers know as their cache."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.start, self.only = capacity, 0, False
        self.bend: Bend | None = None
        """The layer's, which may keep keys otherwise than they come."""
        self.keys = self.values = torch.empty(0)

    def update(self, keys: Tensor, values: Tensor, *_: object, **__: object) -> tuple[Tensor, ...]:
        """Keep a block's keys and values, (1, heads, T, dim); return all up to its end."""
        if self.bend is not None:
            keys = self.bend.kept(keys, self.start)
        if self.keys.shape[1::2] != keys.shape[1::2] or self.keys.dtype != keys.dtype:
            self.keys, self.values = (
                x.new_empty(1, x.shape[1], self.capacity, x.shape[3]) for x in (keys, values)
            )
        stop = self.start + keys.shape[2]
        self.keys[:, :, self.start : stop] = keys
        self.values[:, :, self.start : stop] = values
        if self.only:
            raise KeysStored
        return self.keys[:, :, :stop], self.values[:, :, :stop]


class Stack:
    """A decoder's layers, ready to be run one at a time over blocks."""

    def __init__(self, model: nn.Module, length: int) -> None:
        decoder = model.get_decoder()
        self.family: Family = family_of(model.config)
        self.embedding = getattr(decoder, self.family.embedding)
        norm = self.family.embedding_norm
        self.embedding_norm = nn.Identity() if norm is None else getattr(decoder, norm)
        self.layers = getattr(decoder, self.family.layers)[: decoder.config.num_hidden_layers]
        self.norm = getattr(decoder, self.family.norm)
        self.types = layer_types(decoder)
        bends = {x.layer_idx: getattr(x, "bend", None) for x in attention_layers(decoder)}
        self.bends = [bends.get(index) for index in range(len(self.layers))]
        self.device, self.dtype = model.device, self.embedding.weight.dtype
        rotary = getattr(decoder, "rotary_emb", None)
        self.tables = {t: self._table(rotary, t, length) for t in set(self.types) if rotary}

    def embed(self, tokens: Tensor) -> Tensor:
        """(n,) -> (1, n, hidden)."""
        return self.embedding_norm(self.embedding(tokens[None]))

    def run(self, index: int, hidden: Tensor, block: Block, keys: Keys) -> Tensor | None:
        """One layer's output for a block of its input, (1, T, hidden); None if not wanted."""
        rows = slice(block.row, block.row + block.length)
        positions = slice(block.position, block.position + block.length)
        keys.start, keys.only, keys.bend = block.position, not block.wanted, self.bends[index]
        table = self.tables.get(self.types[index], ())
        try:
            out = self.layers[index](
                hidden[:, rows],
                attention_mask=None,
                position_ids=torch.arange(positions.start, positions.stop, device=self.device)[
                    None
                ],
                position_embeddings=tuple(part[:, positions] for part in table),
                use_cache=True,
                **{self.family.cache: keys},
                **self.family.extra,
            )
        except KeysStored:
            return None
        return out[0] if isinstance(out, tuple) else out

    def _table(self, rotary: nn.Module, layer_type: str | None, length: int) -> tuple[Tensor, ...]:
        """Cos and sin of every position, each (1, length, dim), asked of the live module."""
        extra = () if layer_type is None else (layer_type,)
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        parts = [
            rotary(
                like,
                torch.arange(start, min(start + TABLE_BLOCK, length)).to(like.device)[None],
                *extra,
            )
            for start in range(0, length, TABLE_BLOCK)
        ]
        return tuple(torch.cat(part, 1) for part in zip(*parts, strict=True))


def blocks(runs: list[Run], size: int) -> list[Block]:
    """Cut runs into blocks of at most `size` rows."""
    return [
        Block(run.row + start, run.position + start, min(size, run.length - start))
        for run in runs
        for start in range(0, run.length, size)
    ]


def wanted_only(runs: list[Run], wanted: Tensor, size: int) -> list[Block]:
    """The same for the last layer: stretches without a wanted row only store their keys.

    Args:
        runs: of the tree.
        wanted: sorted rows whose output somebody asked for, (w,).
        size: most rows of a block.
    """
    found = []
    for run in runs:
        inside = wanted[(wanted >= run.row) & (wanted < run.row + run.length)] - run.row
        start, stop = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (run.length,) * 2
        for low, high, asked in ((0, start, False), (start, stop, True), (stop, run.length, False)):
            piece = Run(run.position + low, run.row + low, high - low)
            found += [Block(b.row, b.position, b.length, asked) for b in blocks([piece], size)]
    return found


@contextmanager
def engaged(model: nn.Module) -> Iterator[None]:
    """The model's layers attend through this engine for a while."""
    config = model.get_decoder().config
    before, family = config._attn_implementation, family_of(model.config)
    way: AbstractContextManager[Any] = nullcontext()
    if family.calls_sdpa:
        way = _ThroughEngine()
    elif family.biased:
        way = standing_in(model, attention)
    config._attn_implementation = "sdpa" if family.calls_sdpa else INTERFACE
    try:
        with torch.inference_mode(), way:
            yield
    finally:
        config._attn_implementation = before


def sweep(
    stack: Stack,
    hidden: Tensor,
    runs: list[Run],
    wanted: Tensor,
    size: int,
    step: Callable[[int], None],
) -> None:
    """All layers over all rows, each layer's output written over its input.

    Args:
        stack: the decoder.
        hidden: embeddings of the tree's rows, (1, rows, hidden); holds the last layer's output at
            the wanted rows when done.
        runs: of the tree, parents first.
        wanted: sorted rows whose output is asked for, (w,).
        size: most rows of a block.
        step: told the rows of every block done.
    """
    keys = Keys(max(run.position + run.length for run in runs))
    for index in range(len(stack.layers)):
        last = index == len(stack.layers) - 1
        for block in wanted_only(runs, wanted, size) if last else blocks(runs, size):
            out = stack.run(index, hidden, block, keys)
            if out is not None:
                hidden[:, block.row : block.row + block.length] = out
            step(block.length)


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
    **_: object,
) -> tuple[Tensor, None]:
    """What the layers call; one that a method has bent attends by way of that bend."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    plain = Plain(sliding_window, softcap)
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

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
        return attend(q, k, v, scale=scale, window=self.window, softcap=self.softcap)

    def in_parts(self, views: Sequence[View], v: Tensor, *, scale: float) -> Tensor:
        return attend_in_parts(views, v, scale=scale, window=self.window, softcap=self.softcap)


class _ThroughEngine(TorchFunctionMode):
    """Sends torch's own attention function to this engine, for a family that calls it directly."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is nn.functional.scaled_dot_product_attention:
            return attend(*args[:3], scale=args[0].shape[-1] ** -0.5)
        return func(*args, **(kwargs or {}))


AttentionInterface.register(INTERFACE, attention)
