"""ALiBi: no rotary embedding; each head likes a token the less, the further back it is.

Press et al. 2022, https://arxiv.org/abs/2108.12409. BLOOM and MPT were trained with it, and have it
as they come; a model that learned to rotate has it swapped in.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import nn

from harness.attention import Biased, bent, biased, slopes, straight
from harness.method import Keys, Method, Recipe
from harness.recipes import COMPARISON_4K
from harness.rope import Rope
from harness.rotation import unturned

PAPER = replace(
    COMPARISON_4K,
    sources={
        **COMPARISON_4K.sources,
        "sequence_length": "CLEX's table 1, https://arxiv.org/abs/2310.16450: row ALiBi-4k",
    },
    disagreements=(
        *COMPARISON_4K.disagreements,
        "Press et al. train models with it from nothing; CLEX's row swaps it in for the rotary "
        "embedding of LLaMA-2.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class ALiBi(Method):
    """In the place of a rotary embedding, it reads nothing until the model is fine-tuned."""

    formula = "softmax(q_i k_j / sqrt(d) - m_h (i - j)), m_h = 2^(-8h/H), h = 1 .. H"
    paper = "Press et al. 2022, https://arxiv.org/abs/2108.12409"
    recipes: ClassVar[Mapping[str, Recipe]] = {"paper": PAPER}
    bends: ClassVar[bool] = True

    @property
    def boundless(self) -> bool:
        return True

    @contextmanager
    def applied_to(self, model: nn.Module, length: int) -> Iterator[None]:
        if biased(model):
            yield
            return
        bias = Biased(slopes(_heads(model)))
        with unturned(model), bent(model, lambda _: bias):
            yield

    def unfit(self, model: nn.Module, length: int) -> str | None:
        if biased(model):
            return None
        try:
            Rope.of(model)
        except LookupError as error:
            return str(error)
        config = model.config.get_text_config()
        if getattr(config, "attn_logit_softcapping", None):
            return f"A {config.model_type} caps its scores, and would cap the bias with them."
        return straight(model)

    def keys(self, model: nn.Module, length: int) -> Keys:
        return Keys(widened=Biased.WIDTH)

    def provenance(self, model: nn.Module, length: int) -> dict[str, Any]:
        facts = {"factor": None, "slopes": slopes(_heads(model))}
        if biased(model):
            return facts
        still = [0.0] * (Rope.of(model).dim // 2)
        return facts | {"attention_factor": 1.0, "frequencies": still}


def _heads(model: nn.Module) -> int:
    return int(model.config.get_text_config().num_attention_heads)


method = ALiBi()
