"""Methods that bend attention: a word in what queries, keys and values are attended.

A method gives a `Bend` and puts it on every attention layer with `bent`. Both of this project's
attentions find it there: the engine's, and the one that models are trained through. Neither has a
mask, so neither has a bend.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from torch import Tensor, nn

from harness.families import attention_layers, family_of

INTERFACE = "context-harness-bent"


class Attend(Protocol):
    """Causal attention as a layer does it, its sliding window included."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
        """The output of the last T of S positions, (batch, heads, T, dim).

        Args:
            q: queries, (batch, heads, T, dim).
            k: keys, (batch, key heads, S, dim); key heads divide heads.
            v: values, of the same shape.
            scale: what scores are multiplied by.
        """
        ...


class Bend(Protocol):
    """Attention in a method's way, by way of the layer's own."""

    def __call__(
        self, attend: Attend, q: Tensor, k: Tensor, v: Tensor, *, scale: float, training: bool
    ) -> Tensor:
        """The output, (batch, heads, T, dim), of arguments as `attend` takes them."""
        ...


def straight(model: nn.Module) -> str | None:
    """Why this model's attention cannot be bent, in a sentence; None if it can."""
    try:
        family = family_of(model.config)
    except LookupError as error:
        return str(error)
    if family.calls_sdpa:
        kind = model.config.model_type
        return f"A {kind} calls torch's attention itself, where no method can bend it."
    return None


@contextmanager
def bent(model: nn.Module, bend: Bend) -> Iterator[None]:
    """Let every layer attend by way of `bend` for a while.

    Raises:
        LookupError: the model does not let it.
    """
    from transformers import AttentionInterface

    if reason := straight(model):
        raise LookupError(reason)
    AttentionInterface.register(INTERFACE, _attention)
    config, layers = model.get_decoder().config, attention_layers(model.get_decoder())
    before = config._attn_implementation
    config._attn_implementation = INTERFACE
    for layer in layers:
        layer.bend = bend
    try:
        yield
    finally:
        config._attn_implementation = before
        for layer in layers:
            del layer.bend


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
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    from harness.train.attention import INTERFACE as TRAINED

    def attend(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
        plain = ALL_ATTENTION_FUNCTIONS[TRAINED]
        return plain(module, q, k, v, attention_mask, scaling=scale, **ways)[0].transpose(1, 2)

    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = module.bend(attend, query, key, value, scale=scale, training=module.training)
    return out.transpose(1, 2), None
