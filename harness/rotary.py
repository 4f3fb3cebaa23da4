"""Methods that only bend the rotary embedding: most of them need one formula.

Su et al. 2021, https://arxiv.org/abs/2104.09864
"""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.method import Method


@dataclass(frozen=True, kw_only=True)
class Rope:
    """The rotary embedding a checkpoint was trained with."""

    theta: float
    dim: int
    """Channels of a head that rotate; two make a pair."""
    original_length: int
    """Tokens of the window it was trained on."""

    @property
    def frequencies(self) -> Tensor:
        """Radians per token, one for each pair of channels, fastest first; (dim/2,), float64."""
        return self.with_base(self.theta)

    def with_base(self, theta: float) -> Tensor:
        """The frequencies under another base; (dim/2,), float64."""
        return theta ** -(torch.arange(0, self.dim, 2, dtype=torch.float64) / self.dim)

    @classmethod
    def of(cls, model: nn.Module) -> "Rope":
        """What the model's configuration says of its full-attention layers.

        Raises:
            LookupError: the model has no rotary embedding.
        """
        config = getattr(model.config, "text_config", model.config)
        rope = getattr(config, "rope_parameters", None) or {}
        rope = rope.get("full_attention", rope)
        if "rope_theta" not in rope or getattr(config, "alibi", False):
            raise LookupError(
                f"{type(model).__name__} has no rotary embedding, and this method bends one."
            )
        heads = config.hidden_size // config.num_attention_heads
        whole = getattr(config, "head_dim", None) or heads
        return cls(
            theta=float(rope["rope_theta"]),
            dim=int(whole * rope.get("partial_rotary_factor", 1.0)),
            original_length=original_length(config),
        )


def original_length(config: Any) -> int:
    """Tokens of the window a checkpoint was trained on, before any scaling it already carries."""
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    return int(rope.get("original_max_position_embeddings") or config.max_position_embeddings)


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
class RotaryMethod(Method):
    """Give `frequencies`, and if need be `attention_factor`; the rest is here."""

    factor: float | None = None
    """How many times further than trained, s; None: as far as the cell is long."""

    def __post_init__(self) -> None:
        if self.factor is not None and self.factor < 1:
            raise ValueError(f"A factor must be at least 1, and this one is {self.factor:g}.")

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
        """The whole encoding, fixed for inputs of `length` tokens."""
        scale = self.scale(rope, length)
        return Encoding(
            frequencies=self.frequencies(rope, scale),
            attention_factor=self.attention_factor(rope, scale),
        )

    def applied_to(self, model: nn.Module, length: int) -> AbstractContextManager[None]:
        return rotated(model, self.encoding(Rope.of(model), length))

    def unfit(self, model: nn.Module, length: int) -> str | None:
        try:
            Rope.of(model)
        except LookupError as error:
            return str(error)
        return None

    def provenance(self, model: nn.Module, length: int) -> dict[str, Any]:
        rope = Rope.of(model)
        encoding = self.encoding(rope, length)
        return {
            "factor": self.scale(rope, length),
            "attention_factor": encoding.attention_factor,
            "frequencies": encoding.frequencies.tolist(),
        }


@contextmanager
def rotated(model: nn.Module, encoding: Encoding) -> Iterator[None]:
    """Rotate by this encoding for a while; sliding-window layers keep their own."""
    decoder = model.get_decoder()
    before = decoder.rotary_emb
    decoder.rotary_emb = Rotation(encoding, before)
    try:
        yield
    finally:
        decoder.rotary_emb = before


class Rotation(nn.Module):
    """A rotary module that reads its table from an `Encoding`.

    Not transformers' own: its forward is under no_grad, and nothing could learn through it. It
    keeps no buffers, which transformers 5 refills with garbage at load.
    """

    def __init__(self, encoding: Encoding, before: nn.Module) -> None:
        super().__init__()
        self.encoding = encoding
        self._before = [before]  # in a list, so that it is no submodule: its buffers stay its own

    def forward(
        self, x: Tensor, position_ids: Tensor, layer_type: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cos and sin for these positions, (batch, n, dim), in the dtype of x."""
        if layer_type not in (None, "full_attention"):
            return self._before[0](x, position_ids, layer_type)
        cos, sin = self.encoding.table(position_ids)
        return torch.cat([cos, cos], -1).to(x.dtype), torch.cat([sin, sin], -1).to(x.dtype)
