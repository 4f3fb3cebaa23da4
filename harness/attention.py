"""Methods that bend attention: which keys a query sees, and where both are taken to stand.

A method says so in parts, as `Part`s: for keys this near positions are as they are, for those
further back they are grouped, held or dropped. Keys come unturned and each part turns them its way,
so that scores of several rotations meet in one softmax; no matrix of them exists. What else a
method does to queries, keys and values is a `Bend`, put on the attention layers with `bent`.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from harness.engine.bend import Attend, Bend, View, widened
from harness.engine.biased import Biased as Biased
from harness.engine.biased import slopes as slopes
from harness.families import apart, attention_layers, family_of, farthest
from harness.method import Keys, Method
from harness.rope import Encoding, Rope
from harness.rotation import standing, turned, unturned

INTERFACE = "context-harness-bent"
Place = Callable[[Tensor], Tensor]
"""Positions -> positions, (n,) each: int64 to count keys by, float64 to turn by."""


def here(position: Tensor) -> Tensor:
    """Where it is."""
    return position


def begin(i: Tensor) -> Tensor:
    """The first key of all."""
    return 0 * i


def end(i: Tensor) -> Tensor:
    """Behind the query's own key."""
    return i + 1


@dataclass(frozen=True)
class Part:
    """The keys j of a query i with first(i) <= j < stop(i), and where the two are taken to stand.

    From one query to the next, `first` and `stop` stay or move on. Keys that are not there yet, or
    not any more where a layer has a window, need not be left out.
    """

    first: Place = begin
    stop: Place = end
    query: Place = here
    key: Place = here


@dataclass(frozen=True, kw_only=True)
class InParts(Method):
    """Give `parts`; the rest is here."""

    goes_over: ClassVar[bool] = True
    bends: ClassVar[bool] = True
    least: ClassVar[Mapping[str, int]] = {"window": 1}
    """The lowest value of parameters that count tokens."""

    def __post_init__(self) -> None:
        for name, least in self.least.items():
            value = getattr(self, name, None)
            if value is not None and value < least:
                raise ValueError(f"{name} must be {least} or more, not {value}.")

    @abstractmethod
    def parts(self, rope: Rope, length: int) -> tuple[Part, ...]:
        """All that a query sees, its own key at least, each key in one part.

        Raises:
            LookupError: the parameters do not fit this model; says why.
        """

    @contextmanager
    def applied_to(self, model: nn.Module, length: int) -> Iterator[None]:
        if reason := self.unfit(model, length):
            raise LookupError(reason)
        encoding, others = standing(model, length)
        parts = self.parts(Rope.of(model), length)
        turning, still = Turned(parts, encoding), Turned(parts, None)

        def bend(layer: nn.Module) -> Bend:
            if hasattr(layer, "bend"):
                raise LookupError("Attention is bent already, and cannot be in parts too.")
            return turning if getattr(layer, "use_rope", True) else still

        with unturned(model, others), bent(model, bend, bendable(model)):
            yield

    def unfit(self, model: nn.Module, length: int) -> str | None:
        try:
            self.parts(Rope.of(model), length)
            Encoding.of(model, length)
        except LookupError as error:
            return str(error)
        return straight(model)

    def keys(self, model: nn.Module, length: int) -> Keys:
        return Keys(places=len({part.key for part in self.parts(Rope.of(model), length)}))

    def notice(self, model: nn.Module, length: int) -> str | None:
        widest = farthest(model.config.get_text_config())
        if widest is None or widest >= length:
            return None
        last = torch.tensor([length - 1])
        for part in self.parts(Rope.of(model), length):
            seen = torch.cat([part.first(last).clamp(min=length - widest), part.stop(last) - 1])
            stays = part.query(last) == last and torch.equal(part.key(seen), seen)
            if seen[0] <= seen[1] and not stays:
                return None
        return (
            f"This model's layers look back no further than {widest:,} tokens, where the method "
            "leaves all as it is."
        )

    def provenance(self, model: nn.Module, length: int) -> dict[str, Any]:
        own = Encoding.of(model, length)
        return {
            "factor": getattr(self, "factor", None),
            "attention_factor": own.attention_factor,
            "frequencies": own.frequencies.tolist(),
            "attention": Turned(self.parts(Rope.of(model), length), own).described(length),
        }


@dataclass(frozen=True, kw_only=True)
class Stretched(InParts):
    """Positions as they are within a window, and beyond it so many times slower that all fit."""

    share: ClassVar[int]
    """The window, unless given, is the trained length over this."""
    factor: float | None = None
    """How many times further than trained it is to read, s; None: as far as the cell is long."""
    window: int | None = None
    """w: positions are as they are for keys nearer than this; None: a share of the trained
    length."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor is not None and not 1 <= self.factor <= 1e6:
            raise ValueError(f"A factor is a number from 1 up to 1,000,000, not {self.factor:g}.")

    @property
    def pace(self) -> tuple[str, float | None]:
        """The parameter that says how many times slower far positions go, and what it is."""
        return "slowness", None

    @property
    def settled(self) -> bool:
        return self.pace[1] is not None

    def made_for(self, model: nn.Module) -> float | None:
        if self.pace[1] is None:
            return self.factor
        rope = Rope.of(model)
        window, trained = self.near(rope), rope.original_length
        return (window + self.pace[1] * (trained - window)) / trained

    def trained_for(self, factor: float) -> dict[str, Any]:
        return {} if self.settled else {"factor": factor}

    def near(self, rope: Rope) -> int:
        """w, in tokens."""
        window = self.window or max(1, rope.original_length // self.share)
        if window >= rope.original_length:
            raise LookupError(
                f"A window of {window:,} leaves nothing of the {rope.original_length:,} positions "
                "it was trained on to what is further back: give a smaller one."
            )
        return window

    def slower(self, rope: Rope, length: int) -> float:
        """How many times slower, at least, for (n - w) / slower + w to be at most L0.

        Trained distances end one before it: a group that does not divide w may reach L0 itself.
        """
        window, trained = self.near(rope), rope.original_length
        reach = length if self.factor is None else self.factor * trained
        return max(1.0, (reach - window) / (trained - window))


class Turned(Bend):
    """Queries and keys of each part turned to where it has them stand, under one softmax."""

    def __init__(self, parts: Sequence[Part], encoding: Encoding | None) -> None:
        self.parts = tuple(parts)
        self.encoding = encoding
        """None: of a layer that has no positions, only what it sees counts."""
        self.places = list(dict.fromkeys(part.key if encoding else here for part in parts))
        """Keys are kept once for each."""

    def kept(self, k: Tensor, start: int) -> Tensor:
        at = torch.arange(start, start + k.shape[2], dtype=torch.float64, device=k.device)
        kept = [self._turned(k, place(at)) for place in self.places]
        return torch.cat(kept, 1) if len(kept) > 1 else kept[0]

    def __call__(
        self, attend: Attend, q: Tensor, k: Tensor, v: Tensor, *, scale: float, training: bool
    ) -> Tensor:
        own = torch.arange(k.shape[2] - q.shape[2], k.shape[2])
        keys = dict(zip(self.places, k.chunk(len(self.places), 1), strict=True))
        views = [
            View(
                self._turned(q, part.query(own.double()).to(q.device)),
                keys[part.key if self.encoding else here],
                part.first(own),
                part.stop(own),
            )
            for part in self.parts
        ]
        if [(part.first, part.stop) for part in self.parts] == [(begin, end)]:
            return attend(views[0].q, views[0].k, v, scale=scale)
        return attend.in_parts(views, v, scale=scale)

    def described(self, length: int) -> dict[str, Any]:
        own = torch.tensor([length - 1])
        found = []
        for part in self.parts:
            first, stop = part.first(own).clamp(min=0), part.stop(own).clamp(max=length)
            if first < stop:
                ends = torch.cat([first, stop - 1])
                query, keys = part.query(own.double()), part.key(ends.double())
                stands = {"query": query.item(), "keys": keys.tolist()}
                found.append({"sees": ends.tolist(), "as_if_at": stands})
        return {"parts": found}

    def turning(self) -> Encoding | None:
        return self.encoding

    def _turned(self, x: Tensor, positions: Tensor) -> Tensor:
        return x if self.encoding is None else turned(x, self.encoding, positions)


def straight(model: nn.Module) -> str | None:
    """Why this model's attention cannot be bent, in a sentence; None if it can."""
    try:
        family = family_of(model.config)
    except LookupError as error:
        return str(error)
    kind = model.config.model_type
    if family.calls_sdpa:
        return f"A {kind} calls torch's attention itself, where no method can bend it."
    if family.biased:
        return f"A {kind} has ALiBi in an attention of its own, where no other method can bend it."
    return None


def biased(model: nn.Module) -> bool:
    """Whether it was trained with ALiBi, and has it in an attention of its own."""
    try:
        return family_of(model.config).biased
    except LookupError:
        return False


def bendable(model: nn.Module) -> list[nn.Module]:
    """Attention layers but for those of a type that keeps the checkpoint's own encoding."""
    kept = apart(model.config.get_text_config())
    layers = attention_layers(model.get_decoder())
    return [layer for layer in layers if layer.layer_idx not in kept]


@contextmanager
def bent(
    model: nn.Module, bend: Callable[[nn.Module], Bend], layers: Sequence[nn.Module] | None = None
) -> Iterator[None]:
    """Let layers attend by way of a bend for a while.

    Args:
        model: a transformers causal language model.
        bend: of a layer; the layer may have one already, as its `bend`, to go on with.
        layers: attention modules; None: all.

    Raises:
        LookupError: the model does not let it.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    if reason := straight(model):
        raise LookupError(reason)
    AttentionInterface.register(INTERFACE, _attention)
    AttentionMaskInterface.register(INTERFACE, _no_mask)
    config = model.get_decoder().config
    layers = attention_layers(model.get_decoder()) if layers is None else layers
    bends = [bend(layer) for layer in layers]
    before = [getattr(layer, "bend", None) for layer in layers]
    implementation, config._attn_implementation = config._attn_implementation, INTERFACE
    for layer, own in zip(layers, bends, strict=True):
        layer.bend = own
    try:
        yield
    finally:
        config._attn_implementation = implementation
        for layer, own in zip(layers, before, strict=True):
            if own is None:
                del layer.bend
            else:
                layer.bend = own


@dataclass(frozen=True)
class _Learning:
    """The attention to train through, as a layer's own forward calls it."""

    module: nn.Module
    ways: Mapping[str, Any]

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, more: Tensor | None = None
    ) -> Tensor:
        from harness.train.attention import of_a_layer

        if more is not None:
            k, v = widened(k, v, more)
        return of_a_layer(self.module, q, k, v, scaling=scale, **self.ways)[0].transpose(1, 2)

    def in_parts(self, views: Sequence[View], v: Tensor, *, scale: float) -> Tensor:
        from harness.train.attention import in_parts_of_a_layer

        return in_parts_of_a_layer(views, v, scaling=scale, **self.ways)


def _no_mask(*_: object, attention_mask: Tensor | None = None, **__: object) -> None:
    """What the model's own forward asks for a mask: none, as long as nothing is padded."""
    if attention_mask is not None and not attention_mask.all():
        raise ValueError(
            "A method that bends attention counts every token, and would count padding: give one "
            "input at a time, or several of one length."
        )


def _refuse_other_keys(positions: object, keys: int) -> None:
    """Raises ValueError: keys are not one for each position up to the last query's."""
    seen = int(positions.max()) + 1 if isinstance(positions, Tensor) else keys
    if seen > keys:
        raise ValueError(
            "A layer's cache has dropped keys beyond its window, and a method that bends attention "
            "counts positions from the first: read with harness, or give generate use_cache=False."
        )
    if seen < keys:
        raise ValueError(
            "This cache has room for keys that are still to come, and a method that bends "
            "attention would attend to them: leave cache_implementation and past_key_values to "
            "generate's default."
        )


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    **ways: object,
) -> tuple[Tensor, None]:
    """What the model's own forward calls: the attention to train through, bent."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    attend = _Learning(module, {"attention_mask": attention_mask, **ways})
    bend = getattr(module, "bend", None)
    if bend is None:
        return attend(query, key, value, scale=scale).transpose(1, 2), None
    if ways.get("sliding_window") or key.shape[2] != query.shape[2]:  # a pass may be over all keys
        _refuse_other_keys(ways.get("position_ids"), key.shape[2])
    key = bend.kept(key, 0)
    out = bend(attend, query, key, value, scale=scale, training=module.training)
    return out.transpose(1, 2), None
