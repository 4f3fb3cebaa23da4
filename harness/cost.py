"""What a pass costs, counted as the engine works: blocks of each layer, pairs of query and key.

The last layer runs only where somebody asked, keys come for all. How fast a machine does this is
`harness.speed`'s and `harness.gpus`' to say; this file only counts.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from harness.method import PLAIN, Keys

if TYPE_CHECKING:
    from harness.engine.tree import Tree
    from harness.model import Card
    from harness.task import Request

OVERHEAD = 440 * 2**20
"""Bytes of a process before any model: Python, torch, transformers, a tokenizer."""
LOGITS = 2**22
"""Most logits alive at a time, as `harness.engine.head` has it."""
PIECE = 2**14
"""Keys that are read together where they are copied, as `harness.engine.offload` has it."""
Blocks = np.ndarray
"""(b, 2): the tokens of each block, and how many stand before it."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What of a model decides its cost."""

    layers: int
    hidden: int
    heads: int
    key_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    layer: int
    """Weights of a layer."""
    used: int
    """Those that a token is multiplied with: of experts, only the chosen."""
    keyed: int
    """Those that make queries, keys and values."""
    outside: int
    """Weights of the embedding and the head."""
    windows: tuple[int | None, ...]
    """How many last keys a query sees, by layer; None: all."""

    @property
    def weights(self) -> int:
        return self.layers * self.layer + self.outside

    def shared(self, shards: int) -> "Shape":
        """What is left of it to each of several processes that share its weights."""
        if shards == 1:
            return self
        shared = ("heads", "key_heads", "intermediate", "layer", "used", "keyed")
        return replace(self, **{name: -(-getattr(self, name) // shards) for name in shared})

    @classmethod
    def of(cls, card: "Card") -> "Shape":
        """Read from the configuration; the weights are counted, not read."""
        from harness.families import windows

        s, text = card.shape, card.config.get_text_config()
        layer = _parameters(text)
        experts = sum(n for name, n in layer.items() if "experts" in name)
        keyed = sum(n for name, n in layer.items() if any(k in name for k in KEYED))
        tied = getattr(text, "tie_word_embeddings", False)
        whole = sum(layer.values())
        names = ("layers", "hidden", "heads", "key_heads", "head_dim", "intermediate", "vocabulary")
        return cls(
            **{name: s[name] for name in names},
            layer=whole,
            used=whole - experts + experts * s["experts"] // s["all_experts"],
            keyed=keyed,
            outside=s["vocabulary"] * s["hidden"] * (1 if tied else 2),
            windows=windows(text),
        )


KEYED = ("q_proj", "k_proj", "v_proj", "qkv_proj", "query_key_value", "Wqkv")
"""What the supported families call the products before attention."""


def one_layer(config: Any) -> Any:
    """The configuration with a single layer, one that sees everything where there is such a one."""
    from copy import deepcopy

    from harness.rope import parameters

    one = deepcopy(config.get_text_config())
    one.num_hidden_layers = 1
    rope: Any = parameters(one)
    if "frequencies" in rope:  # whose rule is code that is not run here
        rope["rope_type"] = "default"
    if kinds := getattr(one, "layer_types", None):
        one.layer_types = ["full_attention" if "full_attention" in kinds else kinds[0]]
    return one


def _parameters(text: Any) -> dict[str, int]:
    """Of one layer, by name; nothing is allocated."""
    import torch
    from transformers import AutoModelForCausalLM

    from harness.families import family_of

    with torch.device("meta"):
        decoder = AutoModelForCausalLM.from_config(one_layer(text)).get_decoder()
    layer = getattr(decoder, family_of(text).layers)[0]
    return {name: parameter.numel() for name, parameter in layer.named_parameters()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """What a pass over some requests does."""

    tokens: int
    """Rows of its trees: what inputs share counts once."""
    inner: Blocks
    """Of every layer but the last."""
    last: Blocks
    """Of the last layer, from the first row somebody asked for to the last one."""
    stored: Blocks
    """Of the last layer, only their keys and values."""
    asked: int = 0
    """Rows of the head, at most."""
    steps: Blocks
    """Tokens that are written one by one, at most."""
    kept: int = 0
    """Rows whose hidden state is alive at once."""
    scored: int = 0
    """Rows of all inputs that are scored, whose hidden states pass all layers."""
    told: int = 0
    """Rows of the head whose losses are alive at once."""
    depth: int = 0
    """Tokens of the longest input that is scored: of one layer's keys."""
    room: int = 0
    """Of the longest prompt and its answer: the keys of all layers are kept for it."""
    beside: int = 0
    """Tokens of answers that are written side by side, with keys of their own in all layers."""

    @classmethod
    def of(cls, requests: "Sequence[Request]", block: int = 0, follows: int = 0) -> "Work":
        """What answers these, in blocks of so many tokens; 0: the engine's own.

        So many tokens may have to be written after an input, for a task's further question: they
        are counted in memory, and not in time.
        """
        from harness.engine.evaluate import BLOCK, spans_of, together
        from harness.engine.tree import Tree
        from harness.task import Text

        size = block or BLOCK
        inner, last, stored = ([_cut([])] for _ in range(3))
        tokens = asked = kept = told = depth = scored = 0
        for group in together(requests):
            spans = [span for i in group for span in spans_of(requests[i])]
            tree = Tree.of([span.input for span in spans])
            wanted = _wanted(tree, [(s.first, s.first + len(s.asked)) for s in spans])
            inner.append(_cut([(r.position, 0, r.length) for r in tree.runs], size))
            last.append(_cut(wanted.inside, size))
            stored.append(_cut(wanted.outside, size))
            tokens += len(tree.tokens)
            here = sum(len(span.asked) for span in spans)
            asked, told = asked + here, max(told, here)
            kept, depth = max(kept, len(tree.tokens)), max(depth, tree.depth)
            scored += len(tree.tokens)
        written = [r for r in requests if isinstance(r.ask, Text)]
        later = requests if follows else written
        if written:
            tree = Tree.of([r.tokens for r in written])
            ends = {path[-1].row for path in tree.paths}
            for run in tree.runs:
                every = _cut([(run.position, 0, run.length)], size)
                unasked = len(every) - (run.row in ends)
                inner.append(every)
                last.append(every[unasked:])
                stored.append(every[:unasked])
            tokens, asked = tokens + len(tree.tokens), asked + len(written)
        return cls(
            tokens=tokens,
            inner=np.concatenate(inner),
            last=np.concatenate(last),
            stored=np.concatenate(stored),
            asked=asked,
            steps=_steps(written),
            kept=kept,
            scored=scored,
            told=told,
            depth=depth,
            room=max((len(r.tokens) + _written(r, follows) for r in later), default=0),
            beside=min(size, sum(len(r.tokens) + _written(r, follows) for r in later)),
        )

    def flops(self, shape: Shape) -> float:
        """Floating-point operations: two for each weight of a row, four a channel for a pair."""
        whole, part = self.inner[:, 0].sum(), self.last[:, 0].sum()
        products = shape.used * ((shape.layers - 1) * whole + part)
        products += shape.keyed * self.stored[:, 0].sum()
        products += shape.layers * shape.used * len(self.steps)
        products += shape.vocabulary * shape.hidden * (self.asked + len(self.steps))
        attended = 0.0
        for window, count in Counter(shape.windows[:-1]).items():
            attended += count * pairs(self.inner, window).sum()
        attended += pairs(self.last, shape.windows[-1]).sum()
        attended += sum(pairs(self.steps, window).sum() for window in shape.windows)
        return float(2 * products + 4 * shape.heads * shape.head_dim * attended)

    def seconds(self, shape: Shape, speed: "Speed") -> float:
        """On a machine that is so fast."""
        taken = speed.start(self) + speed.head(self.asked) + len(self.steps) * speed.head(1)
        for window, count in Counter(shape.windows[:-1]).items():
            taken += count * speed.layer(self.inner, window)
        taken += speed.layer(self.last, shape.windows[-1]) + speed.stored(self.stored)
        return taken + sum(
            count * speed.layer(self.steps, window)
            for window, count in Counter(shape.windows).items()
            if len(self.steps)
        )

    def bytes(
        self, shape: Shape, number: int, *, keys: Keys = PLAIN, process: int = OVERHEAD
    ) -> int:
        """Peak memory: what lives at once.

        Args:
            shape: of the model.
            number: bytes of a weight.
            keys: how they lie under a method.
            process: what is there before the model.
        """
        held = sum(self.keys(shape, number, keys.places))
        if keys.widened:
            most = max(self.depth, self.room)
            copied = 2 * shape.key_heads * (shape.head_dim + keys.widened) * min(PIECE, most)
            held += (copied + keys.widened * 2 ** most.bit_length()) * number
        table = max(self.depth, self.room) * 2 * shape.head_dim * number
        rows = self.kept * shape.hidden * number + self.kept * 3 * 8
        asked = self.told * 6 * 8 + min(self.asked * shape.vocabulary, LOGITS) * 3 * 4
        head = shape.vocabulary * shape.hidden * 4 if number < 4 else 0  # it is read in float32
        rounded = head // 2 if number == 2 and process else 0  # a processor's library keeps a copy
        block = int(max((b[:, 0].max() for b in (self.inner, self.last) if len(b)), default=0))
        inside = block * (3 * shape.intermediate + 6 * shape.hidden) * number
        return (
            process + shape.weights * number + rows + held + table + asked + head + rounded + inside
        )

    def keys(self, shape: Shape, number: int, places: int) -> tuple[int, int]:
        """Bytes of keys and values: those that are kept, and those a block writes side by side."""
        each = (1 + places) * shape.key_heads * shape.head_dim * number
        kept = each * (self.depth + shape.layers * self.room)
        return kept, each * shape.layers * self.beside


class Speed(Protocol):
    """How fast a machine is at one model's layers."""

    def start(self, work: Work) -> float:
        """Seconds before the first layer: what is made once for a pass."""

    def layer(self, blocks: Blocks, window: int | None) -> float:
        """Seconds of one layer over these."""

    def stored(self, blocks: Blocks) -> float:
        """Seconds of one layer over these, left once their keys are kept."""

    def head(self, rows: int) -> float:
        """Seconds of the head over so many rows."""


def pairs(blocks: Blocks, window: int | None = None) -> np.ndarray:
    """Of a query and a key it sees, in each block; (b,)."""
    tokens, past = blocks[:, 0], blocks[:, 1]
    if window is None:
        return tokens * past + tokens * (tokens + 1) // 2
    growing = np.clip(window - past, 0, tokens)  # queries that still see everything
    return growing * past + growing * (growing + 1) // 2 + (tokens - growing) * window


def seen(blocks: Blocks, window: int | None = None) -> np.ndarray:
    """Keys before each block that its queries look at; (b,)."""
    return blocks[:, 1] if window is None else np.minimum(blocks[:, 1], window)


def _written(request: "Request", follows: int) -> int:
    """Most tokens that are written after an input."""
    return getattr(request.ask, "max_new_tokens", follows)


@dataclass(frozen=True)
class _Wanted:
    """Stretches of runs that are asked for and that are not: the run's position, start, stop."""

    inside: list[tuple[int, int, int]]
    outside: list[tuple[int, int, int]]


def _wanted(tree: "Tree", asked: Sequence[tuple[int, int]]) -> _Wanted:
    """Of each run, from the first wanted row to the last one; positions asked, by input."""
    ends: dict[int, tuple[int, int]] = {}
    for path, (first, stop) in zip(tree.paths, asked, strict=True):
        for run in path:
            low, high = max(first - run.position, 0), min(stop - run.position, run.length)
            if low < high:
                was = ends.get(run.row, (low, high))
                ends[run.row] = (min(low, was[0]), max(high, was[1]))
    found = _Wanted([], [])
    for run in tree.runs:
        low, high = ends.get(run.row, (run.length, run.length))
        found.inside.append((run.position, low, high))
        found.outside.extend([(run.position, 0, low), (run.position, high, run.length)])
    return found


def _cut(stretches: Sequence[tuple[int, int, int]], size: int = 1) -> Blocks:
    """Stretches of runs in blocks of at most `size` tokens."""
    found = []
    for position, start, stop in stretches:
        begins = np.arange(start, stop, size)
        found.append(np.stack([np.minimum(size, stop - begins), position + begins], axis=1))
    return np.concatenate(found) if found else np.empty((0, 2), np.int64)


def _steps(requests: "Sequence[Request]") -> Blocks:
    """Each token that is read again to write the next one; the last is not."""
    spans = (
        range(len(r.tokens), len(r.tokens) + getattr(r.ask, "max_new_tokens", 1) - 1)
        for r in requests
    )
    past = np.fromiter(chain.from_iterable(spans), np.int64)
    return np.stack([np.ones_like(past), past], axis=1)


def shape_of(card: "Card") -> Shape:
    """Counted once for a configuration."""
    key = card.config.to_json_string()
    return _shapes.get(key) or _shapes.setdefault(key, Shape.of(card))


_shapes: dict[str, Shape] = {}
