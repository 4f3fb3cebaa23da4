"""NoPE: no positions at all; what order there is, the causal mask tells.

Kazemnejad et al. 2023, https://arxiv.org/abs/2305.19466. With `every=4` it is so in each fourth
layer, as in SmolLM3 (Yang et al. 2025, https://arxiv.org/abs/2501.18795). A model that learned to
rotate reads nothing without, until it is trained; one that has such layers has them under any
method.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from harness.attention import Bend, Part, Turned, bendable, bent, straight
from harness.method import Method
from harness.rope import Encoding
from harness.rotation import standing, unturned


@dataclass(frozen=True, kw_only=True)
class NoPE(Method):
    formula = "softmax(q_i k_j / sqrt(d)) in layers l = 0 .. with (l + 1) mod every = 0"
    paper = "Kazemnejad et al. 2023, https://arxiv.org/abs/2305.19466"
    bends: ClassVar[bool] = True

    every: int = 1
    """In each so many-th layer nothing is rotated; 1: in none, and 4 is SmolLM3's."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every must be 1 or more, not {self.every}.")

    @contextmanager
    def applied_to(self, model: nn.Module, length: int) -> Iterator[None]:
        if reason := self.unfit(model, length):
            raise LookupError(reason)
        if self.every == 1:
            with unturned(model):
                yield
            return
        encoding, others = standing(model, length)
        turning, still = Turned([Part()], encoding), Turned([Part()], None)

        def bend(layer: nn.Module) -> Bend:
            rotates = getattr(layer, "use_rope", True) and (layer.layer_idx + 1) % self.every
            return turning if rotates else still

        with unturned(model, others), bent(model, bend, bendable(model)):
            yield

    def unfit(self, model: nn.Module, length: int) -> str | None:
        try:
            Encoding.of(model, length)
        except LookupError as error:
            return str(error)
        return straight(model) if self.every > 1 else None

    def provenance(self, model: nn.Module, length: int) -> dict[str, Any]:
        own = Encoding.of(model, length)
        kept = 1.0 if self.every > 1 else 0.0
        facts: dict[str, Any] = {
            "factor": None,
            "attention_factor": own.attention_factor if kept else 1.0,
            "frequencies": (kept * own.frequencies).tolist(),
        }
        if self.every > 1:
            layers = model.config.get_text_config().num_hidden_layers
            facts["still"] = [*range(self.every - 1, layers, self.every)]
        return facts


method = NoPE()
