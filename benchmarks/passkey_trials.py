"""Seconds of a passkey cell, 5 depths x 4 trials at 8k tokens, against generation trial by trial.

ours      the whole cell: what prompts share is read once, answers are told from one pass
cached    generate() with a cache, 10 new tokens, as eval/passkey.py of
          https://github.com/jquesnelle/yarn
uncached  generate() without a cache, a whole forward for each new token, as evaluation/passkey.py
          of https://github.com/microsoft/LongRoPE; only --peer-trials of them

Generation compares logits that were rounded to bfloat16, and may find two alike that are not: a
trial where that settles an answer's token is counted as undecided.
"""

import re
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from sides import Facts, Row, at_least, digest, main, measured, model, parser, threads

from harness.lengths import label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from harness.model import Live
    from harness.task import Request

CACHED, UNCACHED, NEW_TOKENS = 1.7, 16, 10
ROUNDING = 2**-7
"""Of bfloat16: two neighbouring numbers, relative to the smaller, at most."""


def ours(given: Namespace) -> Facts:
    from harness import catalog
    from harness.engine.evaluate import evaluate
    from harness.reader import TokenReader

    live = model(given)
    reader = TokenReader(live.tokenizer)
    task = catalog.load("tasks", _spec(given))
    requests = _prompts(given, live)
    outcomes, took = measured(lambda: evaluate(live.model, requests))
    graded = [task.grade(r, o, reader) for r, o in zip(requests, outcomes, strict=True)]
    answers = {"answers": [sample.answer for sample in graded]}
    return _facts(requests, [bool(sample.score) for sample in graded], took) | answers


def cached(given: Namespace) -> Facts:
    live = model(given)
    return _generate(live, _prompts(given, live), use_cache=True)


def uncached(given: Namespace) -> Facts:
    live = model(given)
    return _generate(live, _some(given, _prompts(given, live)), use_cache=False)


def rows(given: Namespace, found: dict[str, Facts]) -> list[Row]:
    mine = found["ours"]
    at = f"a passkey trial at {label(given.lengths[-1])}, of {len(mine['verdicts'])}"
    return [
        at_least(f"{at}; cached", mine, found["cached"], CACHED, "trial_seconds"),
        at_least(f"{at}; uncached", mine, found["uncached"], UNCACHED, "trial_seconds"),
        _same("verdicts as cached generation's", mine, found["cached"]),
        _same("verdicts as uncached generation's", mine, found["uncached"]),
    ]


def flags() -> ArgumentParser:
    made = parser(__doc__, model="smollm2-135m", lengths="8k")
    made.add_argument("--trials", type=int, default=4, help="at each depth")
    made.add_argument("--peer-trials", type=int, default=2, help="without a cache; the rest is not")
    return made


def _spec(given: Namespace) -> str:
    return f"passkey,samples={given.trials}"


def _prompts(given: Namespace, live: "Live") -> "list[Request]":
    from harness import catalog
    from harness.reader import TokenReader

    task = catalog.load("tasks", _spec(given))
    return list(task.requests(TokenReader(live.tokenizer), given.lengths[-1]))


def _some(given: Namespace, requests: "list[Request]") -> "list[Request]":
    """As many as asked for, spread over the depths."""
    apart = max(1, len(requests) // max(1, given.peer_trials))
    return requests[::apart][: given.peer_trials]


def _generate(live: "Live", requests: "list[Request]", *, use_cache: bool) -> Facts:
    import torch

    def generated() -> list:
        found = []
        for request in requests:
            tokens = torch.from_numpy(request.tokens)[None]
            found.append(
                live.model.generate(
                    tokens,
                    attention_mask=torch.ones_like(tokens),
                    max_new_tokens=NEW_TOKENS,
                    do_sample=False,
                    use_cache=use_cache,
                    pad_token_id=live.tokenizer.eos_token_id,
                    return_dict_in_generate=True,
                    output_logits=True,
                )
            )
        return found

    outputs, took = measured(generated)
    pairs = list(zip(outputs, requests, strict=True))
    said = [live.tokenizer.decode(out.sequences[0, len(r.tokens) :]) for out, r in pairs]
    hits = [_hit(text, request) for text, request in zip(said, requests, strict=True)]
    undecided = [r.id for out, r in pairs if _undecided(out.logits[: _answer_tokens(r)])]
    return _facts(requests, hits, took) | {"answers": said, "undecided": undecided}


def _hit(said: str, request: "Request") -> bool:
    number = re.search(r"\d+", said)
    return number is not None and int(number[0]) == int(request.about["key"])


def _answer_tokens(request: "Request") -> int:
    return len(getattr(request.ask, "answer", range(NEW_TOKENS)))


def _undecided(logits: "Sequence[Tensor]") -> bool:
    """Whether at some token the two best logits are no further apart than their rounding."""
    best = [row[0].topk(2).values.tolist() for row in logits]
    return any(first - second <= abs(first) * ROUNDING for first, second in best)


def _facts(requests: "list[Request]", hits: list[bool], took: Facts) -> Facts:
    ids = [request.id for request in requests]
    return {
        "verdicts": dict(zip(ids, hits, strict=True)),
        "prompts": {request.id: digest([request.tokens]) for request in requests},
        "trial_seconds": took["seconds"] / len(requests),
        "threads": threads(),
        **took,
    }


def _same(what: str, mine: Facts, peer: Facts) -> Row:
    """Whether the same prompts got the same verdicts."""
    theirs = peer["verdicts"]
    alike = [t for t in theirs if mine["verdicts"][t] == theirs[t] and _one_prompt(t, mine, peer)]
    undecided = set(peer["undecided"]) - set(alike)
    note = f", {len(undecided)} undecided" if undecided else ""
    return Row(
        what=what,
        ours=f"{sum(mine['verdicts'][t] for t in theirs)} of {len(theirs)} found",
        peer=f"{sum(theirs.values())} of {len(theirs)} found",
        ratio=f"{len(alike)} of {len(theirs)} alike{note}",
        bar="all decided alike",
        reached=len(alike) + len(undecided) == len(theirs),
    )


def _one_prompt(trial: str, mine: Facts, peer: Facts) -> bool:
    return mine["prompts"][trial] == peer["prompts"][trial]


if __name__ == "__main__":
    main(flags(), {"ours": ours, "cached": cached, "uncached": uncached}, rows)
