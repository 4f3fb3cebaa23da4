"""Proof, before the first number, that the engine is exact and that the method is really on.

A setting that silently did nothing is the field's commonest wrong number: since transformers 5,
changing a loaded model's rope configuration leaves its encoding as it was.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.attention import bendable
from harness.engine.bend import Bend
from harness.engine.cut import whole
from harness.engine.head import Head
from harness.engine.layers import Stack, attention, engaged, sweep
from harness.engine.tree import Tree
from harness.families import attention_layers, layer_types
from harness.method import Method
from harness.model import Live
from harness.rope import Encoding, Rope, original_length
from harness.rotation import rotated

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}
"""Largest root mean square difference of logits, as a share of their own."""


class NotOn(RuntimeError):
    """A method that was applied did not reach the model."""


@dataclass(frozen=True)
class Probe:
    """The encoding read back from a live model."""

    digest: str
    """sha256 of cos and sin, float32, at the positions that tell methods apart."""
    table: Tensor


def read_encoding(model: nn.Module, length: int) -> Probe:
    """What the model will rotate by: at powers of two, around the trained window, at the end.

    Where attention is bent, the digest is also of what its layers see and are taken to stand at,
    and of what they turn by.
    """
    trained = original_length(model.config.get_text_config())
    doubling = {2**i for i in range(length.bit_length())}
    at = sorted(doubling | {0, 3, trained - 1, trained, length // 2, length - 1})
    positions = torch.tensor(at, device=model.device)[None]
    table = torch.cat([torch.empty(0), *(part.flatten() for part in _tables(model, positions))])
    digest = hashlib.sha256(table.numpy().tobytes())
    for bend in _bends(model):
        for said in filter(None, (bend.described(position + 1) for position in at)):
            digest.update(json.dumps(said).encode())
        if encoding := bend.turning():
            for part in encoding.table(torch.tensor(at)):
                digest.update(part.float().numpy().tobytes())
    return Probe(digest.hexdigest(), table)


def prove(model: nn.Module, method: Method, length: int) -> str:
    """The digest of the live encoding, once it is sure that the method, applied, is really on.

    Raises:
        NotOn: it resolved to another encoding than the checkpoint's, and the model kept that one;
            or to another attention, and a layer attends without.
    """
    probe, facts = read_encoding(model, length), method.provenance(model, length)
    if "frequencies" in facts:
        own = Encoding.of(model, length)
        with rotated(model, own):
            unextended = read_encoding(model, length)
        same = torch.allclose(probe.table, unextended.table, atol=1e-3, rtol=0)
        if same and _another(facts, own):
            raise NotOn(
                "the method left the model's encoding as it was, so the number would not be its own"
            )
        if any(_another(facts, bend.turning()) for bend in _bends(model) if bend.turning()):
            raise NotOn("a layer turns by another encoding than the method has, which would lie")
    if "still" in facts and not _still(model, facts["still"]):
        raise NotOn("other layers rotate than the method says, so the number would lie")
    if "slopes" in facts and not _biased(model, facts["slopes"]):
        raise NotOn("the method's bias is not in the model's attention, so the number would lie")
    if not all(_attends(layer, facts.get("attention", {}), length) for layer in bendable(model)):
        raise NotOn("a layer attends otherwise than the method has it, so the number would lie")
    return probe.digest


def _bends(model: nn.Module) -> list[Bend]:
    """Those of all layers, each once."""
    bends = (getattr(layer, "bend", None) for layer in attention_layers(model.get_decoder()))
    return list(dict.fromkeys(bend for bend in bends if bend is not None))


def _attends(layer: nn.Module, facts: dict[str, Any], length: int) -> bool:
    """Whether a layer's attention is bent as the method says."""
    live = layer.bend.described(length) if getattr(layer, "bend", None) else {}
    return all(live.get(key) == said for key, said in facts.items())


def _still(model: nn.Module, layers: list[int]) -> bool:
    """Whether these layers turn nothing, and all others do that the checkpoint has turn."""
    bends = {layer.layer_idx: getattr(layer, "bend", None) for layer in bendable(model)}
    turn = {i for i, bend in bends.items() if bend is None or bend.turning()}
    return (
        not turn & {*layers}
        and {layer.layer_idx for layer in bendable(model) if getattr(layer, "use_rope", True)}
        - {*layers}
        <= turn
    )


def _biased(model: nn.Module, slopes: list[float]) -> bool:
    """Whether every layer, of two tokens all else alike, favours the later by each head's slope."""
    config = model.get_decoder().config
    heads = config.num_attention_heads
    alike = torch.zeros((1, heads, 2, 16), device=model.device)
    told_apart = torch.eye(2, 16, device=model.device).expand(1, heads, 2, 16)
    with engaged(model):
        for layer in attention_layers(model.get_decoder()):
            shares = attention(layer, alike, alike, told_apart, None)[0][0, 1].log().cpu()
            if not torch.allclose(shares[:, 1] - shares[:, 0], torch.tensor(slopes), atol=1e-4):
                return False
    return True


def _another(facts: dict[str, Any], own: Encoding) -> bool:
    resolved = torch.tensor(facts["frequencies"], dtype=torch.float64)
    return facts["attention_factor"] != own.attention_factor or not torch.allclose(
        resolved, own.frequencies.cpu(), rtol=1e-3, atol=0
    )


def _tables(model: nn.Module, positions: Tensor) -> list[Tensor]:
    """Cos and sin of each layer type at these positions, float32, asked of the live module."""
    decoder = model.get_decoder()
    if not hasattr(decoder, "rotary_emb"):
        return []
    like = torch.empty(0, dtype=torch.float32, device=model.device)
    kinds = sorted(set(layer_types(decoder)), key=str)
    with torch.no_grad():
        return [
            part.float().cpu()
            for kind in kinds
            for part in decoder.rotary_emb(like, positions, *(() if kind is None else (kind,)))
        ]


def reads_alike(model: nn.Module, method: Method, lengths: Sequence[int]) -> bool:
    """Whether the method encodes inputs of all these lengths in one way: one pass serves them."""
    found = set()
    for length in (min(lengths), max(lengths)):
        with method.applied_to(model, length):
            found.add(read_encoding(model, max(lengths)).digest)
    return len(found) == 1


def checked(live: Live) -> Live:
    """The model, once it is sure that the engine reads it exactly, and that methods reach it.

    Raises:
        LookupError: it is refused; says why.
    """
    check_engine(live.model)
    check_identity(live.model)
    return live


def check_engine(model: nn.Module) -> None:
    """Compare the engine, in blocks, with the model's plain forward on a short input.

    Raises:
        LookupError: they differ; says by how much.
    """
    window = min(48, original_length(model.config.get_text_config()))
    vocabulary = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(vocabulary, (1, window), generator=generator).to(model.device)
    with torch.inference_mode():
        plain = model(tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits[0]
    ours = _logits(model, tokens[0], block=window // 3 + 1)
    error = (ours - plain.float()).pow(2).mean().sqrt() / plain.float().pow(2).mean().sqrt()
    if not error <= TOLERANCE[model.dtype]:
        raise LookupError(
            f"The engine and the plain forward of {type(model).__name__} differ by {error:.2%} of "
            "their logits on a short input, so this model is refused: no number would be exact."
        )


def check_identity(model: nn.Module) -> None:
    """Swap our own table of the checkpoint's encoding in: within its window nothing may change.

    Raises:
        LookupError: the tables differ; says by how much.
    """
    if not hasattr(model.get_decoder(), "rotary_emb"):
        return
    trained = Rope.of(model).original_length
    positions = torch.arange(0, trained, max(1, trained // 1024), device=model.device)[None]
    stock = _tables(model, positions)
    with rotated(model, Encoding.of(model, trained)):
        ours = _tables(model, positions)
    off = max(float((a - b).abs().max()) for a, b in zip(stock, ours, strict=True))
    if not off <= 1e-4 + trained * 2.0**-23:  # the float32 angles of the stock table
        raise LookupError(
            f"Our table of {type(model).__name__}'s own rotary embedding is off by {off:.2g}, so "
            "this model is refused: no method could be told from it."
        )


def _logits(model: nn.Module, tokens: Tensor, block: int) -> Tensor:
    with engaged(model):
        stack = Stack(model, len(tokens))
        tree = Tree.of([tokens.cpu().numpy()])
        hidden = stack.embed(tokens).clone()
        rows = torch.arange(len(tokens), device=tokens.device)
        sweep(stack, hidden, whole(tree, rows, block), lambda _: None)
        return Head(model, stack.norm).logits(hidden[0])
