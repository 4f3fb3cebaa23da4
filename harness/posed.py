"""What a task asks of a model first, as the model reads it: prompts are to be looked at.

No weight is read for it: a configuration and a tokenizer say it all.
"""

from typing import Any

from harness import catalog
from harness.task import Choice, Likelihoods, Losses, Request, Text, Verdict

HEAD, TAIL = 400, 600
"""Letters that are shown of the beginning and of the end."""


def first_request(spec: str, model: str, length: int) -> dict[str, Any]:
    """The first thing that is asked at a length: how it begins and ends, and what it is about.

    Raises:
        LookupError: no such task or model, or its text or questions are not there.
        ValueError: the task cannot be asked at this length.
    """
    from harness.machine import cache_folder
    from harness.model import describe, tokenizer
    from harness.reader import TokenReader

    task = catalog.load("tasks", spec)
    card = describe(model)
    reader = TokenReader(tokenizer(card), cache_folder())
    request = next(iter(task.requests(reader, length)), None)
    if request is None:
        raise ValueError(f"{spec} asks nothing at {length:,} tokens.")
    text = reader.text(request.tokens)
    whole = len(text) <= HEAD + TAIL
    return {
        "name": spec,
        "kind": "request",
        "model": card.spec,
        "length": length,
        "request": request.id,
        "tokens": len(request.tokens),
        "cut": request.cut or None,
        "asked_as": task.asked_as(reader),
        "begins": text if whole else text[:HEAD],
        "ends": None if whole else text[-TAIL:],
        "asked": _asked(request, reader),
        "known_of_it": request.about,
    }


def _asked(request: Request, reader: Any) -> str:
    """In a phrase; what decides is written out where it is tokens."""
    match request.ask:
        case Losses(start=start, stop=stop):
            return f"the loss of each token from {start:,} up to {stop:,}"
        case Verdict(answer=answer):
            return f"whether it goes on with {reader.text(answer)!r}"
        case Text(max_new_tokens=most):
            return f"up to {most:,} tokens of text"
        case Choice(options=options):
            return f"which is likeliest of {_either(options, reader)}"
        case Likelihoods(pairs=pairs):
            return f"how likely are {_either((said for _, said in pairs), reader)}"


def _either(continuations: Any, reader: Any) -> str:
    return " | ".join(repr(reader.text(tokens)) for tokens in continuations)
