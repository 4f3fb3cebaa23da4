"""Methods that only bend the rotary embedding: most of them need one formula.

Su et al. 2021, https://arxiv.org/abs/2104.09864
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from math import ceil, floor, inf, log, pi
from typing import Any

import torch
from torch import Tensor, nn

from harness.method import Method


@dataclass(frozen=True, kw_only=True)
class Rope:
    """The rotary embedding a checkpoint was trained with, before any scaling it carries."""

    theta: float
    dim: int
    """Channels of a head that rotate; two make a pair."""
    original_length: int
    """Tokens of the window it was trained on."""
    scaling: str = "default"
    """The scaling the checkpoint already carries, as transformers calls it."""
    factors: tuple[float, ...] | None = None
    """LongRoPE's divisors, one for each pair, where the checkpoint comes with its own."""
    model: str = ""
    """The checkpoint's name, by which packaged factors are found."""

    def __post_init__(self) -> None:
        paired = self.dim >= 4 and self.dim % 2 == 0
        if not (1 < self.theta < inf and paired and self.original_length >= 2):
            raise ValueError(
                "A rotary embedding needs a base above 1, an even number of at least 4 channels "
                f"and a trained length of at least 2 tokens, not base {self.theta:g}, {self.dim} "
                f"channels, {self.original_length} tokens."
            )

    @property
    def frequencies(self) -> Tensor:
        """Radians per token, one for each pair of channels, fastest first; (dim/2,), float64."""
        return self.with_base(self.theta)

    def with_base(self, theta: float) -> Tensor:
        """The frequencies under another base; (dim/2,), float64."""
        return theta ** -(torch.arange(0, self.dim, 2, dtype=torch.float64) / self.dim)

    def interpolated(self, scale: float) -> Tensor:
        """Position Interpolation's frequencies: all slower alike; (dim/2,), float64."""
        return self.frequencies / scale

    def ntk_aware(self, scale: float) -> Tensor:
        """NTK-aware scaling's: the slowest `scale` times slower, the fastest as it is; (dim/2,)."""
        return self.with_base(self.ntk_base(scale))

    def ntk_base(self, scale: float) -> float:
        """The base of NTK-aware scaling: b s^(d/(d-2))."""
        return self.theta * scale ** (self.dim / (self.dim - 2))

    def by_parts(self, scale: float, fast: float = 32.0, slow: float = 1.0) -> Tensor:
        """YaRN's: slow pairs interpolated, fast ones kept, blended in between; (dim/2,)."""
        kept = self.kept(fast, slow)
        return (1 - kept) * self.interpolated(scale) + kept * self.frequencies

    def kept(self, fast: float, slow: float) -> Tensor:
        """How much of its own frequency each pair keeps in YaRN's blend; (dim/2,), 0 to 1.

        A pair that turns more often than `fast` within the trained window keeps all, one that
        turns less often than `slow` nothing. Linear in the pair's index, with the limits rounded
        outwards: so do the published checkpoints; the paper itself is linear in turns.
        """
        low = max(floor(self._pair(fast)), 0)
        high = min(ceil(self._pair(slow)), self.dim - 1)
        index = torch.arange(self.dim // 2, dtype=torch.float64)
        return 1 - ((index - low) / max(high - low, 1e-3)).clamp(0, 1)

    def _pair(self, turns: float) -> float:
        """The pair, as a real number, that turns so often within the trained window."""
        return self.dim * log(self.original_length / (turns * 2 * pi)) / (2 * log(self.theta))

    def divided(
        self, divisors: Tensor, attention_factor: float, scale: float, short: Tensor | None = None
    ) -> dict[str, Any]:
        """Each frequency over a number of its own, as transformers' LongRoPE writes it.

        Args:
            divisors: (dim/2,).
            attention_factor: what cos and sin are multiplied by, at every length.
            scale: how many times further than trained.
            short: divisors for inputs within the original length, if they differ.
        """
        short = divisors if short is None else short
        return {
            "rope_type": "longrope",
            "factor": scale,
            "short_factor": [float(f"{divisor:.12g}") for divisor in short.tolist()],
            "long_factor": [float(f"{divisor:.12g}") for divisor in divisors.tolist()],
            "attention_factor": attention_factor,
            "original_max_position_embeddings": self.original_length,
        }

    @classmethod
    def of(cls, model: nn.Module, layer_type: str = "full_attention") -> "Rope":
        """What the model's configuration says of its layers of one type.

        Raises:
            LookupError: the model has no rotary embedding.
        """
        config = _text(model)
        rope = parameters(config, layer_type)
        if not rope.get("rope_theta") or getattr(config, "alibi", False):
            raise LookupError(f"A {config.model_type} has no rotary embedding to bend.")
        whole = getattr(config, "head_dim", None)
        whole = whole or config.hidden_size // config.num_attention_heads
        factors = rope.get("long_factor")
        return cls(
            theta=float(rope["rope_theta"]),
            dim=int(whole * (rope.get("partial_rotary_factor") or 1.0)),
            original_length=original_length(config),
            scaling=rope.get("rope_type", "default"),
            factors=None if factors is None else tuple(map(float, factors)),
            model=str(getattr(config, "name_or_path", "")).rstrip("/").rpartition("/")[2].lower(),
        )


def _text(model: nn.Module) -> Any:
    """The configuration of the part that reads text."""
    return getattr(model.config, "text_config", model.config)


def parameters(config: Any, layer_type: str = "full_attention") -> Mapping[str, Any]:
    """A configuration's rope parameters; Gemma-3 nests them by type of layer."""
    rope = getattr(config, "rope_parameters", None) or {}
    return rope.get(layer_type, rope) or {}


def original_length(config: Any) -> int:
    """Tokens of the window a checkpoint was trained on, before any scaling it already carries."""
    own = parameters(config).get("original_max_position_embeddings")
    return int(own or config.max_position_embeddings)


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """What a method makes of the rotary embedding: all that a table of cos and sin needs."""

    frequencies: Tensor
    """Radians per token; (dim/2,), float64."""
    attention_factor: float = 1.0
    """What cos and sin are multiplied by: logits change by its square."""
    start_tokens: int = 0
    """So many first positions keep the original rotation (LongRoPE's n-hat)."""
    original: Tensor | None = None
    """The frequencies of those; (dim/2,), float64."""

    @classmethod
    def of(
        cls, model: nn.Module, length: int | None, layer_type: str = "full_attention"
    ) -> "Encoding":
        """The checkpoint's own, any scaling it carries included, as for inputs of `length` tokens.

        From the configuration, not from the live module: that one's buffer may have been cast to
        bfloat16, and `dynamic` changes it with what it has read.
        """
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        rope, config = Rope.of(model, layer_type), _text(model)
        if rope.scaling == "default":
            return cls(frequencies=rope.frequencies)
        if rope.scaling not in ROPE_INIT_FUNCTIONS:
            raise LookupError(
                f"No rule for this checkpoint's rope type {rope.scaling!r}. "
                f"Known: default, {', '.join(ROPE_INIT_FUNCTIONS)}."
            )
        nested = layer_type if layer_type in config.rope_parameters else None
        found, factor = ROPE_INIT_FUNCTIONS[rope.scaling](
            config, torch.device("cpu"), seq_len=length, layer_type=nested
        )
        return cls(frequencies=found.double(), attention_factor=float(factor))

    def table(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cos and sin, (..., dim/2), float64: float32 angles are off by 0.078 rad at 2M tokens."""
        positions = positions.double()[..., None]
        angles = positions * self.frequencies.to(positions.device)
        cos, sin = angles.cos() * self.attention_factor, angles.sin() * self.attention_factor
        if self.start_tokens and self.original is not None:
            first = positions < self.start_tokens
            plain = positions * self.original.to(positions.device)
            cos, sin = torch.where(first, plain.cos(), cos), torch.where(first, plain.sin(), sin)
        return cos, sin


@dataclass(frozen=True, kw_only=True)
class Reencoding(Method):
    """A method that is one `encoding`, put in place of the model's own."""

    @abstractmethod
    def encoding(self, rope: Rope, length: int) -> Encoding:
        """The whole encoding, fixed for inputs of `length` tokens."""

    def native(self, rope: Rope, length: int) -> dict[str, Any] | None:
        """What transformers calls this encoding: rope parameters, for a checkpoint to carry.

        They take the place of any scaling that is there; empty, that one stays. None: transformers
        has no rope type for it, and a checkpoint must bring code.

        Raises:
            LookupError: as it is set, neither can hold it.
        """
        return None

    def resolved(self, rope: Rope, length: int) -> dict[str, Any]:
        """The encoding in numbers, for results and for `harness show`."""
        encoding = self.encoding(rope, length)
        return {
            "factor": None,
            "attention_factor": encoding.attention_factor,
            "frequencies": encoding.frequencies.tolist(),
        }

    def remark(self, rope: Rope, length: int) -> str | None:
        """What a reader of the number must know of this encoding; None if nothing."""
        if rope.scaling == "default":
            return None
        return f"The checkpoint's own {rope.scaling} scaling is replaced by this method's."

    def applied_to(self, model: nn.Module, length: int) -> AbstractContextManager[None]:
        return rotated(model, self.encoding(Rope.of(model), length))

    def unfit(self, model: nn.Module, length: int) -> str | None:
        try:
            self.encoding(Rope.of(model), length)
        except LookupError as error:
            return str(error)
        return None

    def notice(self, model: nn.Module, length: int) -> str | None:
        return self.remark(Rope.of(model), length)

    def provenance(self, model: nn.Module, length: int) -> dict[str, Any]:
        return self.resolved(Rope.of(model), length)


@dataclass(frozen=True, kw_only=True)
class Unchanged(Reencoding):
    """The checkpoint's own encoding, any scaling it carries included.

    Its table, too, is computed in float64: what is compared is methods, not precision.
    """

    def encoding(self, rope: Rope, length: int) -> Encoding:
        return Encoding(frequencies=rope.frequencies)

    def applied_to(self, model: nn.Module, length: int) -> AbstractContextManager[None]:
        return rotated(model, Encoding.of(model, length))

    def native(self, rope: Rope, length: int) -> dict[str, Any]:
        return {}

    def unfit(self, model: nn.Module, length: int) -> str | None:
        try:
            Encoding.of(model, length)
        except LookupError as error:
            return str(error)
        return None

    def notice(self, model: nn.Module, length: int) -> str | None:
        scaling = Rope.of(model).scaling
        if scaling not in ("dynamic", "longrope"):
            return None
        return f"The checkpoint's {scaling} scaling is held at what it is for {length} tokens."

    def provenance(self, model: nn.Module, length: int) -> dict[str, Any]:
        own = Encoding.of(model, length)
        return {
            "factor": None,
            "attention_factor": own.attention_factor,
            "frequencies": own.frequencies.tolist(),
            "scaling": Rope.of(model).scaling,
        }


@dataclass(frozen=True, kw_only=True)
class RotaryMethod(Reencoding):
    """Give `frequencies`, and if need be `attention_factor`; the rest is here."""

    factor: float | None = None
    """How many times further than trained, s; None: as far as the cell is long."""

    def __post_init__(self) -> None:
        if self.factor is not None and not 1 <= self.factor <= 1e6:
            raise ValueError(f"A factor is a number from 1 up to 1,000,000, not {self.factor:g}.")

    @abstractmethod
    def frequencies(self, rope: Rope, scale: float) -> Tensor:
        """Radians per token to read `scale` times the trained window; (dim/2,), float64."""

    def attention_factor(self, rope: Rope, scale: float) -> float:
        """What cos and sin are multiplied by."""
        return 1.0

    def scale(self, rope: Rope, length: int) -> float:
        """s: the given factor, or how many times longer than trained the input is, at least 1."""
        if self.factor is not None:
            return float(self.factor)
        return max(1.0, length / rope.original_length)

    def encoding(self, rope: Rope, length: int) -> Encoding:
        scale = self.scale(rope, length)
        return Encoding(
            frequencies=self.frequencies(rope, scale),
            attention_factor=self.attention_factor(rope, scale),
        )

    def resolved(self, rope: Rope, length: int) -> dict[str, Any]:
        scale = self.scale(rope, length)
        factor = scale if self.factor is None else float(self.factor)
        return super().resolved(rope, length) | {"factor": factor, "scale": scale}


@dataclass(frozen=True, kw_only=True)
class ByParts(RotaryMethod):
    """Interpolate slow channels, leave fast ones, blend in between: YaRN and its kin."""

    beta_fast: float = 32.0
    """Channels that turn more often than this within the trained window keep their frequency."""
    beta_slow: float = 1.0
    """Channels that turn less often than this are interpolated, as by PI."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not inf > self.beta_fast > self.beta_slow > 0:
            raise ValueError(
                "beta_fast must be above beta_slow, and both above 0; "
                f"they are {self.beta_fast:g} and {self.beta_slow:g}."
            )

    def frequencies(self, rope: Rope, scale: float) -> Tensor:
        return rope.by_parts(scale, self.beta_fast, self.beta_slow)

    def native(self, rope: Rope, length: int) -> dict[str, Any]:
        scale = self.scale(rope, length)
        found = {
            "rope_type": "yarn",
            "factor": scale,
            "beta_fast": self.beta_fast,
            "beta_slow": self.beta_slow,
            "original_max_position_embeddings": rope.original_length,
        }
        factor = self.attention_factor(rope, scale)
        implied = factor == yarn_attention_factor(scale)
        return found if implied else found | {"attention_factor": factor}


def yarn_attention_factor(scale: float) -> float:
    """The square root of YaRN's 1 / t: 0.1 ln s + 1 (section 3.4)."""
    return 0.1 * log(scale) + 1.0


def rotated(model: nn.Module, encoding: Encoding) -> AbstractContextManager[None]:
    """Rotate by this encoding for a while; sliding-window layers keep the checkpoint's own."""
    before = model.get_decoder().rotary_emb
    return placed(model, Rotation(encoding, untouched(model), before=before))


def unturned(model: nn.Module) -> AbstractContextManager[None]:
    """Rotate nothing for a while, in no layer: a table of cos 1 and sin 0."""
    before, pairs = model.get_decoder().rotary_emb, Rope.of(model).dim // 2
    still = Encoding(frequencies=torch.zeros(pairs, dtype=torch.float64))
    return placed(model, Rotation(still, before=before))


def drawing(
    model: nn.Module, encoding: Encoding, draw: Callable[[int], Tensor]
) -> AbstractContextManager[None]:
    """The same, but in training mode n tokens stand at the positions of `draw(n)`."""
    before = model.get_decoder().rotary_emb
    return placed(model, Drawn(draw, encoding, untouched(model), before=before))


@contextmanager
def placed(model: nn.Module, rotary: nn.Module) -> Iterator[None]:
    """Put a rotary module in the place of the decoder's own for a while."""
    decoder = model.get_decoder()
    before = decoder.rotary_emb
    decoder.rotary_emb = rotary.train(decoder.training)
    try:
        yield
    finally:
        decoder.rotary_emb = before


def untouched(model: nn.Module) -> dict[str, Encoding]:
    """The checkpoint's own encodings of the layer types that no method bends: sliding windows."""
    config = _text(model)
    nested = (getattr(config, "rope_parameters", None) or {}).keys()
    others = set(getattr(config, "layer_types", None) or ()) & nested - {"full_attention"}
    return {t: Encoding.of(model, None, t) for t in others}


class Rotation(nn.Module):
    """A rotary module that reads its table from an `Encoding`.

    Not transformers' own: its forward is under no_grad, and nothing could learn through it. It
    keeps no buffers, which transformers 5 refills with garbage at load.
    """

    def __init__(
        self,
        encoding: Encoding,
        others: Mapping[str, Encoding] | None = None,
        *,
        before: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.encoding = encoding
        self.others = dict(others or {})
        """By layer type, of the layers that another encoding turns."""
        self._before = [before]  # in a list, so that it is no submodule: its buffers stay its own

    @property
    def before(self) -> nn.Module | None:
        """The module that this one stands in for."""
        return self._before[0]

    def forward(
        self, x: Tensor, position_ids: Tensor, layer_type: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cos and sin for these positions, (batch, n, dim), in the dtype of x."""
        encoding = self.others.get(layer_type or "", self.encoding)
        cos, sin = encoding.table(position_ids)
        return torch.cat([cos, cos], -1).to(x.dtype), torch.cat([sin, sin], -1).to(x.dtype)


class Drawn(Rotation):
    """A rotation that in training mode puts its tokens at positions drawn for each forward pass.

    Drawn in here, for the model's position_ids must stay contiguous: transformers takes gaps in
    them for the seams of packed sequences, and attends across none.
    """

    def __init__(
        self,
        draw: Callable[[int], Tensor],
        encoding: Encoding,
        others: Mapping[str, Encoding] | None = None,
        *,
        before: nn.Module | None = None,
    ) -> None:
        super().__init__(encoding, others, before=before)
        self.draw = draw
        """The number of tokens -> their positions, (n,), from torch's global generator."""

    def forward(
        self, x: Tensor, position_ids: Tensor, layer_type: str | None = None
    ) -> tuple[Tensor, Tensor]:
        if self.training and layer_type not in self.others:
            drawn = self.draw(position_ids.shape[-1])
            position_ids = drawn.to(position_ids.device).expand_as(position_ids)
        return super().forward(x, position_ids, layer_type)
