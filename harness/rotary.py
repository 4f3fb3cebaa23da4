"""Methods that only bend the rotary embedding: most of them need one formula."""

from abc import abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from harness.families import unseen
from harness.method import Method
from harness.rope import (
    Encoding,
    Rope,
    original_said,
    parameters,
    yarn_attention_factor,
)
from harness.rotation import rotated


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

    def stages(self, model: nn.Module, length: int) -> tuple[int, ...]:
        """The longest inputs of each encoding that it has up to a length, the last that length.

        Of one that changes with every token, and where nothing is said, that one alone.
        """
        return (length,)

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
            rope = Rope.of(model)
            self.encoding(rope, length)
        except LookupError as error:
            return str(error)
        if rope.scaling == "linear" and original_said(model.config.get_text_config()) is None:
            return (
                "This checkpoint slows all positions by itself (linear), and does not say how far "
                "it read before: write original_max_position_embeddings into its rope_parameters."
            )
        return None

    def notice(self, model: nn.Module, length: int) -> str | None:
        said = self.remark(Rope.of(model), length), self.unseen(model, length)
        return " ".join(filter(None, said)) or None

    def unseen(self, model: nn.Module, length: int) -> str | None:
        """That no distance as long as the input is ever seen, where layers have a window."""
        return unseen(model.config.get_text_config(), length)

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
        by_length = "lengths" in parameters(model.config.get_text_config())
        if scaling not in ("dynamic", "longrope") and not by_length:
            return None
        return f"The checkpoint's {scaling} scaling is held at what it is for {length} tokens."

    def provenance(self, model: nn.Module, length: int) -> dict[str, Any]:
        own, rope = Encoding.of(model, length), Rope.of(model)
        reads = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 0
        further = reads / rope.original_length
        return {
            "factor": further if further > 1 else None,
            "attention_factor": own.attention_factor,
            "frequencies": own.frequencies.tolist(),
            "scaling": rope.scaling,
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

    def remark(self, rope: Rope, length: int) -> str | None:
        said = super().remark(rope, length)
        if said or self.depends_on_length or self.scale(rope, length) > 1:
            return said
        encoding = self.encoding(rope, length)  # a file's factors are what they are
        alike = torch.allclose(encoding.frequencies, rope.frequencies, rtol=1e-12, atol=0)
        if encoding.attention_factor != 1 or not alike:
            return None
        return "With a factor of 1 this is the model as it is: --factor says how far to extend it."

    def made_for(self, model: nn.Module) -> float | None:
        return self.factor

    def trained_for(self, factor: float) -> dict[str, Any]:
        return {} if self.depends_on_length else {"factor": factor}  # else each length has its own

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
