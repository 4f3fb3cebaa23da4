"""What a plan counts with where the real thing is not on this machine.

Models are published shapes, text is bytes, and documents are as long as asked for: what a pass
reads follows from lengths, not from words.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.task import Document

if TYPE_CHECKING:
    from harness.model import Card

PUBLISHED: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-2-7b-hf": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32000,
        "max_position_embeddings": 4096,
    },
    "mistralai/Mistral-7B-v0.1": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
        "max_position_embeddings": 32768,
        "sliding_window": 4096,
        "model_type": "mistral",
    },
}
"""Configurations by their name on the hub, as each repository's config.json has them."""


def describe(name: str) -> "Card":
    """A model's configuration, of a known name or a folder; of its weights nothing is needed.

    Raises:
        LookupError: there is no such model, or its family is not supported.
    """
    from transformers import AutoConfig

    from harness import model

    if name not in PUBLISHED:
        known = model.describe(name)
        as_it_is = name in model.KNOWN or known.adapter
        return known if as_it_is else model.Card(name, _place(name), known.config)
    config = AutoConfig.for_model(**{"model_type": "llama", **PUBLISHED[name]})
    config.name_or_path = name
    return model.Card(name, name, config)


class Bytes:
    """A `harness.task.Reader` to whom each byte is a token."""

    bos = 256
    spells_one_way = True
    chats = False

    def tokens(self, text: str) -> list[int]:
        return list(text.encode())

    def text(self, tokens: Sequence[int]) -> str:
        return bytes(token % 256 for token in tokens).decode("latin-1")

    def chat(self, messages: Sequence[Mapping[str, str]], *, opening: str = "") -> list[int]:
        raise LookupError("A stand-in holds no conversation: plan with --prompt base.")

    def documents(self, corpus: str, *, reach: int, first: int) -> list[Document]:
        """No two begin alike."""
        import numpy as np

        found = []
        for i in range(first):
            tokens = np.zeros(reach, np.int32)
            tokens[:4] = [*i.to_bytes(4, "big")][:reach]
            found.append(Document(name=f"document {i}", tokens=tokens))
        return found


def _place(name: str) -> str:
    """Where no weights are, so that none are looked for."""
    return f"shape/{Path(name).resolve().name}"
