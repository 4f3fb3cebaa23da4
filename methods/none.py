"""No extension: the checkpoint as it was trained. Every table starts from this row.

Su et al. 2021, https://arxiv.org/abs/2104.09864
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import nn

from harness.rotary import Encoding, Reencoding, Rope, rotated


@dataclass(frozen=True, kw_only=True)
class Unextended(Reencoding):
    """Its table, too, is computed in float64: what is compared is methods, not precision."""

    formula = "theta_i = b^(-2i/d), and any scaling the checkpoint carries"
    paper = "Su et al. 2021, https://arxiv.org/abs/2104.09864"

    def encoding(self, rope: Rope, length: int) -> Encoding:
        return Encoding(frequencies=rope.frequencies)

    def applied_to(self, model: nn.Module, length: int) -> AbstractContextManager[None]:
        return rotated(model, Encoding.of(model, length))

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


method = Unextended()
