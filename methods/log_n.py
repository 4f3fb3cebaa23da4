"""Log-n: the more keys a query sees, the sharper it looks, by the logarithm of how many.

Chiang and Cholak 2022, https://arxiv.org/abs/2202.12172, and Su 2021,
https://kexue.fm/archives/8823. It is of no encoding, so it goes over any: `yarn+log-n`,
`rerope+log-n`. Nothing changes within the trained length, as in Qwen and in the code of ReRoPE.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import log
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from harness.attention import Attend, Bend, bendable, bent, straight
from harness.method import Method
from harness.rope import Encoding, Rope
from harness.rotation import Rotation, rotated


@dataclass(frozen=True, kw_only=True)
class LogN(Method):
    formula = "softmax(max(1, ln(i + 1) / ln L0) q_i k_j / sqrt(d))"
    paper = "Chiang and Cholak 2022, https://arxiv.org/abs/2202.12172"
    goes_over: ClassVar[bool] = True

    log_train: int | None = None
    """L0, the tokens up to which nothing changes; None: the trained length."""

    def __post_init__(self) -> None:
        if self.log_train is not None and self.log_train < 2:
            raise ValueError(f"log_train must be 2 or more, not {self.log_train}.")

    @contextmanager
    def applied_to(self, model: nn.Module, length: int) -> Iterator[None]:
        if reason := self.unfit(model, length):
            raise LookupError(reason)
        under = isinstance(model.get_decoder().rotary_emb, Rotation)  # of a method that is on
        own, trained = Encoding.of(model, length), self._trained(model)

        def bend(layer: nn.Module) -> Bend:
            return Scaled(trained, getattr(layer, "bend", None))

        with nullcontext() if under else rotated(model, own), bent(model, bend, bendable(model)):
            yield

    def unfit(self, model: nn.Module, length: int) -> str | None:
        try:
            Encoding.of(model, length)
        except LookupError as error:
            return str(error)
        return straight(model)

    def provenance(self, model: nn.Module, length: int) -> dict[str, Any]:
        own = Encoding.of(model, length)
        return {
            "factor": None,
            "attention_factor": own.attention_factor,
            "frequencies": own.frequencies.tolist(),
            "attention": Scaled(self._trained(model)).described(length),
        }

    def _trained(self, model: nn.Module) -> int:
        return self.log_train or Rope.of(model).original_length


class Scaled(Bend):
    """Queries times a number of their position, then as the layer had it."""

    def __init__(self, trained: int, under: Bend | None = None) -> None:
        self.trained, self.under = trained, under

    def __call__(
        self, attend: Attend, q: Tensor, k: Tensor, v: Tensor, *, scale: float, training: bool
    ) -> Tensor:
        own = torch.arange(k.shape[2] - q.shape[2], k.shape[2], device=q.device)
        q = (q * self._sharper(own).float()[:, None]).to(q.dtype)
        if self.under is None:
            return attend(q, k, v, scale=scale)
        return self.under(attend, q, k, v, scale=scale, training=training)

    def kept(self, k: Tensor, start: int) -> Tensor:
        return k if self.under is None else self.under.kept(k, start)

    def described(self, length: int) -> dict[str, Any]:
        under = {} if self.under is None else self.under.described(length)
        return under | {"logits_times": self._sharper(torch.tensor(length - 1)).item()}

    def turning(self) -> Any:
        return None if self.under is None else self.under.turning()

    def _sharper(self, i: Tensor) -> Tensor:
        return ((i + 1).double().log() / log(self.trained)).clamp(min=1)


method = LogN()
