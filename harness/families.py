"""How the supported families name their parts. The modules are transformers' own.

Families differ in the names of a decoder's parts and of a layer's cache argument, in rotary
embeddings per layer type, and in whether attention goes through transformers' attention interface.
"""

from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True, kw_only=True)
class Family:
    """Where a decoder keeps what the engine calls."""

    embedding: str = "embed_tokens"
    embedding_norm: str | None = None
    """What embeddings pass before the first layer."""
    layers: str = "layers"
    norm: str = "norm"
    cache: str = "past_key_values"
    """The layer's argument that takes keys and values."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Arguments a layer insists on."""
    calls_sdpa: bool = False
    """Attention calls torch's function directly, not through transformers' interface."""
    biased: bool = False
    """No rotary embedding, but ALiBi, written out in attention's own forward."""


FAMILIES = {
    **dict.fromkeys(("llama", "mistral", "mixtral", "qwen2", "qwen3", "smollm3"), Family()),
    **dict.fromkeys(("phi3", "gemma", "gemma2", "gemma3_text"), Family()),
    "phi": Family(norm="final_layernorm"),
    "gpt_neox": Family(embedding="embed_in", norm="final_layer_norm", cache="layer_past"),
    "falcon": Family(
        embedding="word_embeddings",
        layers="h",
        norm="ln_f",
        cache="layer_past",
        extra={"alibi": None},
        calls_sdpa=True,
    ),
    "bloom": Family(
        embedding="word_embeddings",
        embedding_norm="word_embeddings_layernorm",
        layers="h",
        norm="ln_f",
        cache="layer_past",
        extra={"alibi": None},
        biased=True,
    ),
    "mpt": Family(
        embedding="wte",
        layers="blocks",
        norm="norm_f",
        cache="layer_past",
        extra={"position_bias": None},
        biased=True,
    ),
}


def windows(text: Any) -> tuple[int | None, ...]:
    """How many last keys a query sees, by layer; None: all."""
    window = getattr(text, "sliding_window", None)
    kinds = getattr(text, "layer_types", None) or ["sliding_attention"] * text.num_hidden_layers
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def apart(text: Any) -> set[int]:
    """Layers of a type that has an encoding of its own, by number: no method reaches them."""
    nested = (getattr(text, "rope_parameters", None) or {}).keys() - {"full_attention"}
    types = getattr(text, "layer_types", None) or []
    return {index for index, kind in enumerate(types) if kind in nested}


def farthest(text: Any) -> int | None:
    """How many tokens back the layers look that a method reaches; None: as many as there are."""
    others = apart(text)
    found = [window for i, window in enumerate(windows(text)) if i not in others]
    return max(found) if found and all(found) else None


def unseen(text: Any, length: int) -> str | None:
    """That no distance as long as the input is ever seen, in a sentence; None where one is."""
    window = farthest(text)
    if window is None or window >= length:
        return None
    return (
        f"This model's layers look back no further than {window:,} tokens: what a method does to "
        "longer distances is never seen."
    )


def family_of(config: Any) -> Family:
    """The family of a transformers configuration.

    Raises:
        LookupError: it is not supported; the message lists those that are.
    """
    config = config.get_text_config()
    kind = config.model_type
    if kind not in FAMILIES or getattr(config, "alibi", False):
        what = f"{kind} with ALiBi" if kind in FAMILIES else kind
        raise LookupError(
            f"The family {what!r} is not supported. Supported are: {', '.join(sorted(FAMILIES))}."
        )
    most = getattr(getattr(config, "attn_config", None), "alibi_bias_max", None) or 8
    if FAMILIES[kind].biased and most != 8:
        raise LookupError(
            f"This {kind} was trained with alibi_bias_max {most:g}, which transformers reads as 8: "
            "its numbers would be another model's."
        )
    if FAMILIES[kind].biased and (unread := _unread(config)):
        raise LookupError(
            f"This {kind} was trained with {unread}, which transformers does not read: its numbers "
            "would be another model's."
        )
    return FAMILIES[kind]


def _unread(config: Any) -> str | None:
    """What an MPT's configuration says and transformers' MPT leaves out; None: nothing."""
    own = getattr(config, "attn_config", None)
    if not getattr(own, "alibi", True):
        return "attn_config.alibi false"
    if getattr(own, "qk_ln", False):
        return "attn_config.qk_ln"
    return None if getattr(config, "logit_scale", None) is None else "logit_scale"


def layer_types(decoder: nn.Module) -> list[str | None]:
    """What each layer's rotary embedding is asked for: a layer type where it depends on that."""
    rotary = original(getattr(decoder, "rotary_emb", None))
    by_type = isinstance(getattr(rotary, "rope_type", None), dict)
    if by_type:
        return list(decoder.config.layer_types)
    return [None] * decoder.config.num_hidden_layers


def attention_layers(decoder: nn.Module) -> list[nn.Module]:
    """The modules that attend, in their layers' order."""
    named = (m for m in decoder.modules() if type(m).__name__.endswith("Attention"))
    return [module for module in named if hasattr(module, "layer_idx")]


def original(rotary: nn.Module | None) -> nn.Module | None:
    """The checkpoint's own rotary module, also while methods have put others in its place."""
    while (before := getattr(rotary, "before", None)) is not None:
        rotary = before
    return rotary
