"""A method: how to make a pretrained transformer read further than it was trained to."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import nn


class Keys(NamedTuple):
    """How a method has a layer's keys lie; memory is planned by it."""

    places: int = 1
    """Where a key may be taken to stand: it is kept once for each."""
    widened: int = 0
    """Channels that keys and values get while a block attends to them, a piece at a time."""


PLAIN = Keys()


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The training that makes a method work: complete, and every number with its source."""

    sequence_length: int
    """Tokens of one training sequence, the start token included."""
    steps: int
    """Updates of the weights."""
    batch_tokens: int
    """Tokens of one update, over all sequences and devices."""
    learning_rate: float
    """At its highest."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """What the learning rate does after the warm-up: stays, or falls to 0."""
    warmup: float = 0.0
    """Updates until the learning rate is at its highest; below 1, a share of all updates."""
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's."""
    clip: float | None = 1.0
    """Largest norm of the gradient; None: as it is."""
    factor: float | None = None
    """How many times further than the original length it is trained to read; None: as the method
    says, or as far as the sequences are long."""
    trains: Literal["all", "encoding", "lora"] = "all"
    """Which weights move: all, only the method's own, or low-rank adapters of attention."""
    also: tuple[str, ...] = ()
    """Beside adapters, modules trained whole: LongLoRA's embeddings and norms."""
    rank: int = 8
    alpha: int = 16
    """LoRA's rank and scale."""
    data: str = ""
    """What the source trained on, in words."""
    seed: int = 42
    sources: Mapping[str, str] = field(default_factory=dict)
    """By field: where its number is from."""
    disagreements: tuple[str, ...] = ()
    """Where the published code and the paper say different things: both, in a sentence."""

    def quick(self) -> "Recipe":
        """The same kind of training in an hour or so of a small machine and a small model.

        Data, tokens, updates and optimiser are the same for every method, so that they can be
        compared; which weights move is the method's own.
        """
        small = {
            "sequence_length": 8192,
            "steps": 60,
            "batch_tokens": 8192,
            "learning_rate": 1e-4,
            "schedule": "linear",
            "warmup": 0.1,
            "weight_decay": 0.0,
            "betas": (0.9, 0.999),
            "clip": 1.0,
            "seed": 42,
            "data": "",
        }
        why = dict.fromkeys(small, "scaled to two cores and 135M weights, for all methods alike")
        return replace(self, **small, sources={**self.sources, **why}, disagreements=())


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A way to extend a model. Its fields are its hyperparameters, and go into every result."""

    formula: ClassVar[str]
    """The encoding in plain text, as the paper writes it."""
    paper: ClassVar[str]
    """Where it was published: authors, year, address."""
    recipes: ClassVar[Mapping[str, Recipe]] = {}
    """How to train it, by name: `paper` as published. `quick` follows from the first."""
    goes_over: ClassVar[bool] = False
    """It changes what attention does with an encoding, whichever that is: `yarn+log-n` is both."""
    bends: ClassVar[bool] = False
    """It says which keys a query sees or how it weighs them: no two such methods go together."""

    @property
    def depends_on_length(self) -> bool:
        """A shorter input would be encoded otherwise: each length needs a pass of its own."""
        return False

    @abstractmethod
    def applied_to(self, model: "nn.Module", length: int) -> AbstractContextManager[None]:
        """Extend the model to read `length` tokens, and put it back on the way out.

        The scale is fixed here, before the first token is read: whatever is read inside, whole or
        in pieces, is encoded alike. The model comes back bit for bit, also after an error.
        """

    def in_training(self, model: "nn.Module", length: int) -> AbstractContextManager[None]:
        """Extend the model to learn, from the sequences it is fed, to read `length` tokens.

        Most methods train as they are applied. One that draws positions or scales at random draws
        them anew at each forward pass in training mode, from torch's global generator, which a
        resumed run restores. Weights of the method's own are put into the decoder as a module, so
        that the optimiser finds them and a checkpoint holds them.
        """
        return self.applied_to(model, length)

    def follows(self, model: "nn.Module") -> bool:
        """Whether it encodes shorter inputs of this model otherwise: what it finds there may."""
        return self.depends_on_length

    def made_for(self, model: "nn.Module") -> float | None:
        """How many times further than trained it is set to read; None: nothing says."""
        return None

    def trained_for(self, factor: float) -> dict[str, Any]:
        """Its parameters that follow from how many times further it is trained to read."""
        return {}

    def files(self, model: "nn.Module") -> dict[str, str]:
        """What it reads from files, as JSON, by the parameter that names such a file.

        A checkpoint that is trained with it holds copies of them.
        """
        return {}

    def by_content(self) -> dict[str, str]:
        """Its parameters that name a file, each by what is in it: `harness.contents` has it."""
        return {}

    @property
    def boundless(self) -> bool:
        """Whether no distance that a query sees is longer than L0, however long the input."""
        return False

    @property
    def settled(self) -> bool:
        """Whether its own parameters say how far it reads, and a factor would say nothing."""
        return False

    def unfit(self, model: "nn.Module", length: int) -> str | None:
        """Why this method cannot run here, in a phrase; None if it can."""
        return None

    def keys(self, model: "nn.Module", length: int) -> Keys:
        """How they lie, under it."""
        return PLAIN

    def notice(self, model: "nn.Module", length: int) -> str | None:
        """What a reader of the number must know (an assumption, a default); None if nothing."""
        return None

    def provenance(self, model: "nn.Module", length: int) -> dict[str, Any]:
        """All that was resolved for this model and length, for the result."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Layered(Method):
    """Methods over one another, `yarn+log-n`: the first's encoding, attended as the others do."""

    layers: tuple[Method, ...]
    """The lowest first."""

    def __post_init__(self) -> None:
        if not all(layer.goes_over for layer in self.layers[1:]):
            raise LookupError(
                "Behind + stands a method that goes over any encoding, such as log-n in "
                "yarn+log-n: this one brings its own, so write it first or alone."
            )
        if len(set(map(type, self.layers))) < len(self.layers):
            raise LookupError("A method over itself would do twice what it is: write it once.")
        for lower, upper in pairwise(self.layers):
            if upper.bends and (lower.bends or lower.goes_over):
                raise LookupError(
                    "Only one method can say which keys a query sees and how it weighs them; "
                    "write that one first, or behind one that only rotates: yarn+dca+log-n."
                )

    @property
    def formula(self) -> str:  # type: ignore[override]
        return "; ".join(layer.formula for layer in self.layers)

    @property
    def paper(self) -> str:  # type: ignore[override]
        return "; ".join(layer.paper for layer in self.layers)

    @property
    def recipes(self) -> Mapping[str, Recipe]:  # type: ignore[override]
        return self.layers[0].recipes

    @property
    def depends_on_length(self) -> bool:
        return any(layer.depends_on_length for layer in self.layers)

    @property
    def boundless(self) -> bool:
        return any(layer.boundless for layer in self.layers)

    @property
    def settled(self) -> bool:
        scaled = [layer for layer in self.layers if hasattr(layer, "factor")]
        return bool(scaled) and all(layer.settled for layer in scaled)

    @contextmanager
    def applied_to(self, model: "nn.Module", length: int) -> Iterator[None]:
        with ExitStack() as stack:
            for layer in self.layers:
                stack.enter_context(layer.applied_to(model, length))
            yield

    @contextmanager
    def in_training(self, model: "nn.Module", length: int) -> Iterator[None]:
        with ExitStack() as stack:
            for layer in self.layers:
                stack.enter_context(layer.in_training(model, length))
            yield

    def follows(self, model: "nn.Module") -> bool:
        return any(layer.follows(model) for layer in self.layers)

    def made_for(self, model: "nn.Module") -> float | None:
        return next(filter(None, (layer.made_for(model) for layer in self.layers)), None)

    def trained_for(self, factor: float) -> dict[str, Any]:
        return {k: v for layer in self.layers for k, v in layer.trained_for(factor).items()}

    def files(self, model: "nn.Module") -> dict[str, str]:
        return {k: v for layer in self.layers for k, v in layer.files(model).items()}

    def by_content(self) -> dict[str, str]:
        return {k: v for layer in self.layers for k, v in layer.by_content().items()}

    def unfit(self, model: "nn.Module", length: int) -> str | None:
        return next(filter(None, (layer.unfit(model, length) for layer in self.layers)), None)

    def keys(self, model: "nn.Module", length: int) -> Keys:
        each = [layer.keys(model, length) for layer in self.layers]
        return Keys(*(max(column) for column in zip(*each, strict=True)))

    def notice(self, model: "nn.Module", length: int) -> str | None:
        said = (layer.notice(model, length) for layer in self.layers)
        return " ".join(filter(None, said)) or None

    def provenance(self, model: "nn.Module", length: int) -> dict[str, Any]:
        facts = [layer.provenance(model, length) for layer in self.layers]
        attention = {k: v for own in facts for k, v in own.get("attention", {}).items()}
        return facts[0] | {"attention": attention}
