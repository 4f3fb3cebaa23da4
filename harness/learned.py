"""What a checkpoint learned to be read by, and what would read it otherwise."""

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from harness import catalog
from harness.cell import OWN, UNEXTENDED

if TYPE_CHECKING:
    from harness.model import Card, Live


def as_trained(spec: str, card: "Card", factor: float | None = None) -> str:
    """The spec with what the checkpoint was trained with, where the command says nothing else.

    Args:
        spec: a method's.
        card: the checkpoint.
        factor: how many times further than trained the command says, if it does.

    Raises:
        ValueError: it was trained with another method, and would be read otherwise than it learned.
        LookupError: its own method is asked for, and it has none.
    """
    name, given = catalog.split(spec)
    if card.own_method is None:
        if name == OWN:
            raise LookupError(
                f"{card.name} was trained with no method: name one, as --method yarn."
            )
        return spec
    learned, parameters = catalog.split(card.own_method)
    if name in (learned, OWN):
        asked = {} if factor is None else {"factor": catalog.written(factor)}
        return catalog.join(learned, parameters | (asked if "factor" in parameters else {}) | given)
    if why := strange(spec, card):
        raise ValueError(f"{why}. Give --method {learned}.")
    return spec


def strange(spec: str, card: "Card") -> str | None:
    """That another method than this was trained here, and reads otherwise than the model as it is.

    A checkpoint that another method left as it was, such as naive-ft, may go on with any.
    """
    name = catalog.split(spec)[0]
    if card.trained is None or name == catalog.split(card.trained.method)[0]:
        return None
    with_it = catalog.load("methods", card.trained.method)
    if _reads(with_it, card) == _reads(catalog.load("methods", UNEXTENDED), card):
        return None
    return (
        f"{card.name} was trained with {card.trained.method}, and {name} would read it otherwise "
        "than it learned"
    )


READING = ("frequencies", "attention_factor", "attention", "still", "slopes")
"""What a method resolves to."""


def noticed(spec: str, live: "Live", length: int) -> str | None:
    """What a reader of a number must know: of the method, and of one that the checkpoint learned.

    A published checkpoint may be read by any; this project's own refuse those that read otherwise.
    """
    method, own = catalog.load("methods", spec), live.card.own_method
    said = method.notice(live.model, length)
    if own is None or live.card.trained or catalog.split(own)[0] == catalog.split(spec)[0]:
        return said
    with_it = catalog.load("methods", own)
    far = with_it.unfit(live.model, length) is not None
    if not far and _resolved(with_it, live.model, length) == _resolved(method, live.model, length):
        return said
    otherwise = (
        f"{live.card.name} was trained with {own}, and is read otherwise here: --method auto reads "
        "it as it learned."
    )
    return f"{said} {otherwise}" if said else otherwise


def _reads(method: Any, card: "Card") -> list[Any]:
    """A method's encoding and attention at the length that was trained for."""
    told = card.trained
    factor = told.numbers.get("factor") if told else None
    length = max(round(card.original_length * (factor or 1)), told.sequence_length if told else 0)
    return _resolved(method, SimpleNamespace(config=card.config), length)


def _resolved(method: Any, model: Any, length: int) -> list[Any]:
    """All that a number depends on, plain data."""
    facts = method.provenance(model, length)
    return [facts.get(key) or None for key in READING]
