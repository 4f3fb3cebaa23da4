"""The rotary embedding a checkpoint was trained with, and what a method makes of it, in numbers.

Su et al. 2021, https://arxiv.org/abs/2104.09864
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, floor, inf, log, pi, sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Divisors(NamedTuple):
    """LongRoPE's, one for each pair, as a checkpoint comes with them."""

    long: tuple[float, ...]
    short: tuple[float, ...]
    """For inputs up to the original length."""
    scale: float
    """How many times further than trained they read."""
    attention_factor: float


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
    factors: Divisors | None = None
    """LongRoPE's, where the checkpoint comes with its own."""
    model: str = ""
    """The checkpoint's name, by which packaged factors are found."""
    family: str = ""
    """As transformers calls it."""
    window: int | None = None
    """Tokens that those of its layers look back that do not look back to the first."""

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
        kept, own = self.kept(fast, slow), self.frequencies
        return (1 - kept) * (own / scale) + kept * own

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

    def by_turns(self, scale: float, low: float, high: float) -> Tensor:
        """Llama 3.1's: by parts too, but blended linearly in turns within the window; (dim/2,)."""
        own = self.frequencies
        turns = self.original_length * own / (2 * pi)
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        return (1 - kept) * own / scale + kept * own

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
        config = model.config.get_text_config()
        rope = parameters(config, layer_type)
        if not rope.get("rope_theta") or getattr(config, "alibi", False):
            with_alibi = config.model_type in ("bloom", "mpt")
            raise LookupError(
                f"A {config.model_type} has no rotary embedding to bend"
                + (", but ALiBi: give --method alibi." if with_alibi else ".")
            )
        whole = getattr(config, "head_dim", None)
        whole = whole or config.hidden_size // config.num_attention_heads
        return cls(
            theta=float(rope["rope_theta"]),
            dim=int(whole * (rope.get("partial_rotary_factor") or 1.0)),
            original_length=original_length(config),
            scaling=rope.get("rope_type", "default"),
            factors=_divisors(config, rope),
            model=str(getattr(config, "name_or_path", "")).rstrip("/").rpartition("/")[2].lower(),
            family=config.model_type,
            window=getattr(config, "sliding_window", None),
        )


def _divisors(config: Any, rope: Mapping[str, Any]) -> Divisors | None:
    """As transformers reads them."""
    if rope.get("long_factor") is None:
        return None
    original = original_length(config)
    scale = float(rope.get("factor") or config.max_position_embeddings / original)
    factor = rope.get("attention_factor")
    if factor is None:
        factor = sqrt(1 + log(scale) / log(original)) if scale > 1 else 1.0
    long, short = (tuple(map(float, rope[f"{kind}_factor"])) for kind in ("long", "short"))
    return Divisors(long, short, scale, float(factor))


def parameters(config: Any, layer_type: str = "full_attention") -> Mapping[str, Any]:
    """A configuration's rope parameters; Gemma-3 nests them by type of layer."""
    rope = getattr(config, "rope_parameters", None) or {}
    return rope.get(layer_type, rope) or {}


def original_length(config: Any) -> int:
    """Tokens of the window a checkpoint was trained on, before any scaling it already carries."""
    own = original_said(config)
    named = ("max_position_embeddings", "seq_length", "max_seq_len")  # BLOOM's, MPT's
    said = own or next(filter(None, (getattr(config, name, None) for name in named)), None)
    if said is None:
        raise LookupError(
            f"The configuration of this {config.model_type} does not say how many tokens it was "
            "trained on: add max_position_embeddings to its config.json."
        )
    return int(said)


def original_said(config: Any) -> int | None:
    """The window before any scaling, where a configuration tells it from the one behind."""
    name, longest = "original_max_position_embeddings", "max_position_embeddings"
    above = getattr(config, name, None)  # its parameters: there, Phi-3's has a default of 4,096
    if above and above > getattr(config, longest, above):
        above = None
    said = parameters(config).get(name) or above
    return None if said is None else int(said)


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

    def __post_init__(self) -> None:
        if not isinstance(self.frequencies, Tensor) or self.frequencies.ndim != 1:
            raise ValueError(
                "A method's frequencies are a tensor, one number for each pair of channels, and "
                f"not a {type(self.frequencies).__name__}."
            )

    @classmethod
    def of(
        cls, model: nn.Module, length: int | None, layer_type: str = "full_attention"
    ) -> "Encoding":
        """The checkpoint's own, any scaling it carries included, as for inputs of `length` tokens.

        From the configuration, not from the live module: that one's buffer may have been cast to
        bfloat16, and `dynamic` changes it with what it has read. In float64 where the formula is
        known here; transformers' own frequencies are float32.
        """
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        rope, config = Rope.of(model, layer_type), model.config.get_text_config()
        said = parameters(config, layer_type)
        if rope.scaling == "default":
            return cls(frequencies=rope.frequencies)
        if "frequencies" in said:
            return cls(frequencies=_listed(said, length), attention_factor=said["attention_factor"])
        if rope.scaling not in ROPE_INIT_FUNCTIONS:
            raise LookupError(
                f"No rule for this checkpoint's rope type {rope.scaling!r}. "
                f"Known: default, {', '.join(ROPE_INIT_FUNCTIONS)}."
            )
        nested = layer_type if layer_type in config.rope_parameters else None
        found, factor = ROPE_INIT_FUNCTIONS[rope.scaling](
            config, torch.device("cpu"), seq_len=length, layer_type=nested
        )
        exact = _scaled(rope, config, said, length)
        return cls(
            frequencies=found.double() if exact is None else exact, attention_factor=float(factor)
        )

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


def _listed(said: Mapping[str, Any], length: int | None) -> Tensor:
    """As `harness export` lists them: at every length, or for each stage of lengths; (dim/2,)."""
    found = said["frequencies"]
    if "lengths" in said:
        found = found[sum((length or 0) > stage for stage in said["lengths"][:-1])]
    return torch.tensor(found, dtype=torch.float64)


def _scaled(rope: Rope, config: Any, said: Mapping[str, Any], length: int | None) -> Tensor | None:
    """A checkpoint's own frequencies by transformers' rules, (dim/2,); None: by another rule."""
    longest, factor = config.max_position_embeddings, said.get("factor")
    original = int(said.get("original_max_position_embeddings") or rope.original_length)
    rope = replace(rope, original_length=original)
    match rope.scaling:
        case "linear":
            return rope.interpolated(factor)
        case "dynamic":
            return rope.ntk_aware(factor * max(length or 0, longest) / longest - (factor - 1))
        case "yarn" if said.get("truncate", True):
            fast, slow = said.get("beta_fast") or 32, said.get("beta_slow") or 1
            return rope.by_parts(factor or longest / original, fast, slow)
        case "llama3":
            return rope.by_turns(factor, said["low_freq_factor"], said["high_freq_factor"])
        case "longrope":
            kind = "long" if (length or 0) > original else "short"
            return rope.frequencies / torch.tensor(said[f"{kind}_factor"], dtype=torch.float64)
    return None


def yarn_attention_factor(scale: float) -> float:
    """The square root of YaRN's 1 / t: 0.1 ln s + 1 (section 3.4)."""
    return 0.1 * log(scale) + 1.0
