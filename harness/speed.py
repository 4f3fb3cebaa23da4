"""How fast this machine is at one model: a layer of its shape, timed for some three seconds.

A layer is made as the model has it, with random weights, and run by the engine itself: products at
the model's own sizes, attention at its head dimension and grouping, norms and rotations, the
threads that are set, and what a call costs, all are in the time. What is timed grows with rows
(in steps: few rows only wait for the weights), with keys that are looked at and with pairs of a
query and a key; a pass is a sum of these.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.cost import LOGITS, Blocks, Work, one_layer, pairs, seen

if TYPE_CHECKING:
    import torch

    from harness.model import Card

BUDGET = 0.25
"""Seconds that one run of the largest block may take."""
FEW = (1, 16, 128)
PAST, QUERIES = 8192, 1024
"""Keys and queries that attention is timed on: of fewer, heads share out unevenly over threads."""
LARGEST_HEAD = 2**25
"""Weights of the head that is timed; of a larger vocabulary, the first tokens."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Seconds of one layer and of the head, on this machine."""

    rows: tuple[int, ...]
    whole: tuple[float, ...]
    """Of a block of so many rows, without attention."""
    keyed: tuple[float, ...]
    """The same up to its keys and values."""
    key: float
    """For each key before a block."""
    pair: float
    """For each query and key, all heads."""
    head_rows: int
    """That pass the head together."""
    head_few: float
    """Of one row."""
    head_many: float
    """Of `head_rows`."""
    once: float
    """To make ready the head."""

    def start(self, work: Work) -> float:
        return self.once

    def layer(self, blocks: Blocks, window: int | None) -> float:
        rows = _along(blocks[:, 0], self.rows, self.whole)
        attended = self.pair * pairs(blocks, window) + self.key * seen(blocks, window)
        return float((rows + attended).sum())

    def stored(self, blocks: Blocks) -> float:
        return float(_along(blocks[:, 0], self.rows, self.keyed).sum())

    def head(self, rows: int) -> float:
        pieces, rest = divmod(rows, self.head_rows)
        points = (1, max(2, self.head_rows)), (self.head_few, self.head_many)
        return pieces * self.head_many + (float(np.interp(rest, *points)) if rest else 0.0)


def measured(card: "Card", on: str, dtype: "torch.dtype") -> Measured:
    """Timed in about three seconds, once for a configuration."""
    import torch

    key = card.config.to_json_string(), on, dtype, torch.get_num_threads()
    return _known.get(key) or _known.setdefault(key, _measure(card, on, dtype))


_known: dict[tuple[Any, ...], Measured] = {}


def _measure(card: "Card", on: str, dtype: "torch.dtype") -> Measured:
    import torch

    from harness.engine.layers import engaged

    model = _layer(card, on, dtype)
    with engaged(model), torch.inference_mode():
        return Measured(**_layer_times(model, on), **_head_times(model, card, on))


def _layer(card: "Card", on: str, dtype: "torch.dtype") -> Any:
    """One layer of the model and a head, of random weights."""
    import torch
    from transformers import AutoModelForCausalLM

    config = one_layer(card.config)
    config.vocab_size = min(config.vocab_size, max(1024, LARGEST_HEAD // config.hidden_size))
    config.pad_token_id = None
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.to_empty(device=on).eval()
    decoder = model.get_decoder()
    if rotary := getattr(decoder, "rotary_emb", None):
        decoder.rotary_emb = type(rotary)(model.config).to(on)  # its buffers are in no checkpoint
    noise = torch.rand(2**20, device=on, dtype=dtype).sub_(0.5).mul_(0.05)
    for parameter in model.requires_grad_(False).parameters():
        flat = parameter.data.view(-1)
        for start in range(0, len(flat), len(noise)):
            flat[start : start + len(noise)] = noise[: len(flat) - start]
    return model


def _layer_times(model: Any, on: str) -> dict[str, Any]:
    import torch

    from harness.engine.cut import Block
    from harness.engine.evaluate import BLOCK
    from harness.engine.layers import Keys, Stack
    from harness.families import windows

    stack, keys = Stack(model, PAST + BLOCK), Keys(PAST + BLOCK)
    width = stack.embedding.weight.shape[1]
    hidden = torch.randn(1, BLOCK, width, device=on, dtype=stack.dtype)

    def taken(rows: int, past: int = 0, wanted: bool = True) -> float:
        block = Block(0, past, rows, wanted)
        return _timed(lambda: stack.run(0, hidden, block, keys), on)

    taken(1)
    keys.keys.normal_(), keys.values.normal_()
    each = taken(FEW[-1]) / FEW[-1]
    most = int(min(BLOCK, max(2 * FEW[-1], BUDGET / each)))
    rows = (*FEW, most)
    queries = min(QUERIES, most)
    alone = taken(queries)
    few = taken(1)
    window = windows(model.config)[0]  # who looks back less far reads less

    def count(of: Callable[..., np.ndarray], rows: int, past: int = 0) -> float:
        return float(of(np.array([[rows, past]]), window).sum())

    looked = count(pairs, queries, PAST) - count(pairs, queries)
    pair = max(0.0, taken(queries, PAST) - alone) / max(1.0, looked)
    keys_read = count(seen, 1, PAST) - count(seen, 1)
    key = max(0.0, (taken(1, PAST) - few) / max(1.0, keys_read) - pair)
    own = [pair * count(pairs, n) for n in rows]
    return {
        "rows": rows,
        "whole": tuple(max(0.0, taken(n) - o) for n, o in zip(rows, own, strict=True)),
        "keyed": tuple(taken(n, wanted=False) for n in rows),
        "key": key,
        "pair": pair,
    }


def _head_times(model: Any, card: "Card", on: str) -> dict[str, Any]:
    import torch

    from harness.engine.head import Head
    from harness.engine.layers import Stack

    norm = Stack(model, 1).norm
    part = card.shape["vocabulary"] / model.get_output_embeddings().weight.shape[0]
    head, rows = Head(model, norm), max(1, LOGITS // card.shape["vocabulary"])
    hidden = torch.randn(rows, card.shape["hidden"], device=on, dtype=model.dtype)

    def taken(count: int) -> float:
        row = torch.arange(count, device=on)
        return part * _timed(lambda: head.read(hidden, row, torch.zeros_like(row)), on)

    return {
        "head_rows": rows,
        "head_few": taken(1),
        "head_many": taken(rows),
        "once": part * _timed(lambda: Head(model, norm), on),
    }


def _timed(work: Callable[[], Any], on: str) -> float:
    """Seconds: the best of a few, the first of which only warms up.

    Of one thread its own seconds: while others keep the processor busy, it waits between them.
    """
    import torch

    alone = on == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter
    best, spent = float("inf"), 0.0
    for _ in range(4):
        started = clock()
        work()
        if on == "cuda":
            torch.cuda.synchronize()
        took = clock() - started
        best, spent = min(best, took), spent + took
        if spent > BUDGET:
            break
    return best


def _along(counts: np.ndarray, rows: tuple[int, ...], seconds: tuple[float, ...]) -> np.ndarray:
    """Between and beyond what was timed, along straight lines."""
    inside = np.interp(counts, rows, seconds)
    slope = max(0.0, seconds[-1] - seconds[-2]) / (rows[-1] - rows[-2])  # a busy machine's may fall
    return inside + slope * np.maximum(0, counts - rows[-1])
