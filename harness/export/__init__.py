"""Export: an extended model as a Hugging Face checkpoint, and the proof that it is the same model.

The folder is written beside its place and renamed into it: it is there whole, its parity card in
it, or not at all.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import getpid
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from harness import catalog, machine
from harness.learned import as_trained
from harness.plugins import named

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.export.carry import Carried
    from harness.export.parity import Parity
    from harness.model import Card
    from harness.rotary import Reencoding

DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class Order:
    """What is to be written, settled before any weight is read."""

    card: "Card"
    spec: str
    method: "Reencoding"
    length: int
    """Tokens that the checkpoint is to read."""
    dtype: str
    """Of its weights."""
    trust_remote_code: bool = False

    @property
    def name(self) -> str:
        """The method's, without its parameters."""
        return catalog.split(self.spec)[0]


@dataclass(frozen=True)
class Exported:
    """What was written, and whether it can be trusted."""

    folder: Path
    parity: "Parity"
    facts: dict[str, Any]
    """All of `parity.json`."""


def export(
    source: str,
    to: Path,
    *,
    method: str | None = None,
    length: int | None = None,
    dtype: str | None = None,
    check_length: int | None = None,
    corpus: str = "stdlib",
    trust_remote_code: bool = False,
) -> Exported:
    """Write a model, extended, to a folder that plain transformers reads.

    Args:
        source: a known name, a folder, a hub name.
        to: a folder that is not there yet, or is empty.
        method: a spec; None: the one that the checkpoint was trained with.
        length: tokens that it is to read; None: as the method's factor or the training says.
        dtype: of the weights; None: as they are.
        check_length: tokens to compare; None: as many as take some seconds.
        corpus: the text of the comparison.
        trust_remote_code: run code that comes with the source.

    Raises:
        ValueError: the folder is taken, a wish is impossible, or memory does not hold the weights.
        LookupError: an unknown name, or a method that no checkpoint can carry.
    """
    from harness.model import describe

    card = describe(source, trust_remote_code=trust_remote_code)
    spec = _spec(method, card)
    bends = _reencoding(spec)
    reach = _reach(card, bends, spec, length)
    if check_length and check_length > reach:
        raise ValueError(
            f"--check-length {check_length:,} is beyond the {reach:,} tokens it is to read."
        )
    order = Order(card, spec, bends, reach, _dtype(dtype, card), trust_remote_code)
    _see_that_it_fits(card)
    with _place(to) as folder:
        found, facts = _write(order, folder, check_length, corpus)
    return Exported(to, found, facts)


def _see_that_it_fits(card: "Card") -> None:
    """One model at a time is in memory, and compared in float32.

    Raises:
        ValueError: memory does not hold it; says by how much.
    """
    from harness import machine
    from harness.cost import OVERHEAD, shape_of

    needs, free = OVERHEAD + 4 * shape_of(card).weights, machine.free_memory("cpu")
    if needs > free:
        raise ValueError(
            f"Export compares in float32, for which {card.name} needs {needs / 2**30:.1f} GiB, "
            f"and {free / 2**30:.1f} are free."
        )


def _write(
    order: Order, folder: Path, check_length: int | None, corpus: str
) -> "tuple[Parity, dict[str, Any]]":
    """The checkpoint, and its parity card; checked as it lies there."""
    from harness.corpora import label
    from harness.export.card import write
    from harness.export.parity import by_transformers, parity

    ours, tokens, facts = _put(order, folder, check_length, corpus)
    machine.let_go()  # before it is read again
    theirs = by_transformers(folder, tokens, code=facts["code"] is not None)
    found = parity(ours, theirs)
    facts |= {"text": label(corpus), "parity": found.json()}
    write(folder, facts, found)
    return found, facts


def _put(
    order: Order, folder: Path, check_length: int | None, corpus: str
) -> "tuple[Tensor, Tensor, dict[str, Any]]":
    """Write the checkpoint: what the engine finds before it, of which tokens, and what it is."""
    from harness.export.card import facts_of
    from harness.export.carry import carried
    from harness.export.parity import affordable, by_engine
    from harness.model import load

    name, code = order.card.name, order.trust_remote_code
    live = load(name, device="cpu", dtype="float32", trust_remote_code=code)
    model, method = live.model, order.method
    if reason := method.unfit(model, order.length):
        raise ValueError(f"{order.spec} cannot extend {name} to {order.length:,} tokens: {reason}")
    carry = carried(model, method, order.name, order.length)
    n = check_length or affordable(order.card.shape, order.length)
    if unseen := carry.unseen(n):
        carry = replace(carry, notes=(*carry.notes, unseen))
    tokens = _text(live.tokenizer, corpus, n)
    _round(model, order.dtype)
    ours = by_engine(model.float(), method, carry.encodes(n), tokens)
    facts = facts_of(order, carry, live)
    _round(model, order.dtype)
    _save(model, live.tokenizer, carry, order.length, folder)
    return ours, tokens, facts


def _round(model: "nn.Module", dtype: str) -> None:
    """The weights to this dtype; not the buffers, whose values would be lost."""
    import torch

    for weight in model.parameters():
        weight.data = weight.data.to(getattr(torch, dtype))


def _save(model: "nn.Module", tokenizer: Any, carry: "Carried", length: int, folder: Path) -> None:
    from harness.disk import let_others_read, saving
    from harness.model import quiet

    if tokenizer.model_max_length < length:
        tokenizer.model_max_length = length
    with saving(folder.parent), quiet():
        carry.save(model, folder)
        tokenizer.save_pretrained(folder)
        let_others_read(folder)


def _spec(given: str | None, card: "Card") -> str:
    """The method to export with, by its one name: the parameters it was trained with, as in a run.

    Raises:
        ValueError: none is known, or the model was trained to be read otherwise.
    """
    if given is None and card.trained is None:
        raise ValueError(
            "This model was not trained here, so say with --method what extends it, such as "
            "yarn,factor=4; none exports it as it is."
        )
    spec = card.trained.method if given is None and card.trained else named(given or "")
    return catalog.canonical("methods", as_trained(spec, card))


def _reencoding(spec: str) -> "Reencoding":
    from harness.rotary import Reencoding

    method = catalog.load("methods", spec)
    if not isinstance(method, Reencoding):
        raise LookupError(
            f"{catalog.split(spec)[0]} changes more than the rotary embedding, and no checkpoint "
            "of transformers can carry that."
        )
    return method


def _reach(card: "Card", method: "Reencoding", spec: str, length: int | None) -> int:
    """Tokens that the checkpoint is to read.

    Raises:
        ValueError: nothing says how many, or it is fewer than before.
    """
    from harness.rotary import Unchanged

    original = card.original_length
    if length is None:
        taught = card.trained.numbers.get("factor") if card.trained else None
        made_for = method.made_for(SimpleNamespace(config=card.config))
        length = round(original * float(made_for or taught or 1))
        length = max(length, card.trained.sequence_length if card.trained else 0)
        if length <= original and not isinstance(method, Unchanged):
            more = f", or a factor above 1 as in {catalog.split(spec)[0]},factor=4"
            if method.depends_on_length or "factor" not in catalog.settings(method):
                more = ""
            raise ValueError(f"Nothing says how far {spec} is to read: give --length{more}.")
    if length < original:
        raise ValueError(
            f"{length:,} tokens are fewer than the {original:,} it was trained to read: give a "
            "longer --length."
        )
    return length


def _dtype(wanted: str | None, card: "Card") -> str:
    if wanted is None:
        own = str(getattr(card.config, "dtype", None) or "float32").removeprefix("torch.")
        return own if own in DTYPES else "float32"
    if wanted not in DTYPES:
        raise ValueError(f"--dtype is one of {', '.join(DTYPES)}, and {wanted!r} is none of them.")
    return wanted


def _text(tokenizer: Any, corpus: str, n: int) -> Any:
    """The first n tokens of a corpus, the start token included; (n,), int64."""
    import torch

    from harness import machine
    from harness.reader import TokenReader

    reader = TokenReader(tokenizer, machine.cache_folder())
    document = reader.documents(corpus, reach=n, first=1)[0]
    read = torch.as_tensor(document.tokens[: n - 1].copy(), dtype=torch.int64)
    return torch.cat([torch.tensor([reader.bos]), read])


@contextmanager
def _place(to: Path) -> Iterator[Path]:
    """A new folder beside `to`, which takes its place at the end; gone after an error.

    Raises:
        ValueError: something is there.
        OSError: nothing can be written there.
    """
    if to.resolve() == Path.cwd():
        raise ValueError("The folder you are in cannot be replaced: name one below it with --to.")
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise ValueError(f"{str(to)!r} is there already: give another folder, or remove it first.")
    to.parent.mkdir(parents=True, exist_ok=True)
    beside = to.parent / f".{to.name}-{getpid()}-part"
    beside.mkdir()
    try:
        yield beside
        beside.replace(to)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
