"""Proof, before the first number, that the engine is exact and that the method is really on.

A setting that silently did nothing is the field's commonest wrong number: since transformers 5,
changing a loaded model's rope configuration leaves its encoding as it was.
"""

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.engine.head import Head
from harness.engine.layers import Stack, engaged, sweep
from harness.engine.tree import Tree
from harness.families import layer_types
from harness.method import Method
from harness.rotary import Rope

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}
"""Largest root mean square difference of logits, as a share of their own."""


@dataclass(frozen=True)
class Probe:
    """The encoding read back from a live model."""

    digest: str
    """sha256 of cos and sin, float32, at the positions that tell methods apart."""
    table: Tensor


def read_encoding(model: nn.Module, length: int) -> Probe:
    """What the model will rotate by, at 0, 1, around the trained window, and at the end."""
    trained = Rope.of(model).original_length
    at = {0, 1, 2, trained - 1, trained, length // 2, max(length - 1, 0)}
    positions = torch.tensor(sorted(at), device=model.device)[None]
    decoder = model.get_decoder()
    like = torch.empty(0, dtype=torch.float32, device=model.device)
    with torch.no_grad():
        parts = [
            part
            for kind in sorted(set(layer_types(decoder)), key=str)
            for part in decoder.rotary_emb(like, positions, *(() if kind is None else (kind,)))
        ]
    table = torch.cat([part.float().flatten() for part in parts]).cpu()
    return Probe(hashlib.sha256(table.numpy().tobytes()).hexdigest(), table)


def differs(one: Probe, other: Probe) -> bool:
    """By more than float32 rounding of the angles."""
    return not torch.allclose(one.table, other.table, atol=1e-3, rtol=0)


def reads_alike(model: nn.Module, method: Method, lengths: Sequence[int]) -> bool:
    """Whether the method encodes inputs of all these lengths in one way: one pass serves them."""
    found = set()
    for length in (min(lengths), max(lengths)):
        with method.applied_to(model, length):
            found.add(read_encoding(model, max(lengths)).digest)
    return len(found) == 1


def check_engine(model: nn.Module, identity: AbstractContextManager[None] | None = None) -> None:
    """Compare the engine, in blocks, with the model's plain forward on a short input.

    Args:
        model: without any method on.
        identity: the encoding swapped for our own table of the same; must change nothing.

    Raises:
        LookupError: they differ; says by how much.
    """
    window = min(48, Rope.of(model).original_length)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(vocabulary, (1, window), generator=generator).to(model.device)
    with torch.inference_mode():
        plain = model(tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits[0]
    with identity or nullcontext():
        ours = _logits(model, tokens[0], block=window // 3 + 1)
    error = (ours - plain.float()).pow(2).mean().sqrt() / plain.float().pow(2).mean().sqrt()
    if not error <= TOLERANCE[model.dtype]:
        raise LookupError(
            f"The engine and the plain forward of {type(model).__name__} differ by {error:.2%} of "
            "their logits on a short input, so this model is refused: no number would be exact."
        )


def _logits(model: nn.Module, tokens: Tensor, block: int) -> Tensor:
    with engaged(model):
        stack = Stack(model, len(tokens))
        tree = Tree.of([tokens.cpu().numpy()])
        hidden = stack.embed(tokens).clone()
        rows = torch.arange(len(tokens), device=tokens.device)
        sweep(stack, hidden, tree.runs, rows, block, lambda _: None)
        return Head(model, stack.norm).logits(hidden[0])
