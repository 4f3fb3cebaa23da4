"""Seconds and memory of a perplexity curve: one document at 8 lengths, 2k to 16k tokens.

ours     one pass reads all lengths, which are beginnings of one another
loop     plain transformers, a forward with labels for each length, as eval/perplexity.py of
         https://github.com/jquesnelle/yarn does with --truncate
lm-eval  HFLM.loglikelihood_rolling with max_length = each length, one window
"""

import math
from argparse import Namespace
from importlib.metadata import version

from rich.table import Table
from sides import (
    NO_LM_EVAL,
    Facts,
    Row,
    at_least,
    document,
    gigabytes,
    main,
    measured,
    model,
    parser,
    read_text,
    threads,
    whole_perplexity,
)

from harness.lengths import label

FASTER, WITHIN, MEMORY = 6.5, 0.002, 1.2e9


def ours(given: Namespace) -> Facts:
    from harness.engine.evaluate import evaluate

    live = model(given)
    requests = whole_perplexity(document(given), given.lengths)
    losses, took = measured(lambda: evaluate(live.model, requests))
    return _facts(given, [float(of_length.mean()) for of_length in losses], took)


def loop(given: Namespace) -> Facts:
    import torch

    live = model(given)
    inputs = [torch.from_numpy(r.tokens)[None] for r in _inputs(given)]

    def read() -> list[float]:
        with torch.no_grad():
            return [float(live.model(tokens, labels=tokens).loss) for tokens in inputs]

    return _facts(given, *measured(read)) | {"attention": live.model.config._attn_implementation}


def lm_eval(given: Namespace) -> Facts:
    try:
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM
    except ImportError:
        return {"missing": NO_LM_EVAL}

    class OfTokens(HFLM):
        """Reads tokens as they are, so that all sides read the same."""

        def tok_encode(self, string: list[int], *_: object, **__: object) -> list[int]:
            return string

    live = model(given)
    inputs = [request.tokens.tolist() for request in _inputs(given)]

    def read() -> list[float]:
        means = []
        for bos, *tokens in inputs:
            reader = OfTokens(
                pretrained=live.model,
                tokenizer=live.tokenizer,
                max_length=len(tokens) + 1,
                prefix_token_id=bos,
                batch_size=1,
            )
            ask = Instance("loglikelihood_rolling", {}, (tokens,), 0)
            means.append(-reader.loglikelihood_rolling([ask], disable_tqdm=True)[0] / len(tokens))
        return means

    return _facts(given, *measured(read)) | {"version": version("lm-eval")}


def rows(given: Namespace, found: dict[str, Facts]) -> list[Row]:
    mine, looped, rolling = (found[name] for name in ("ours", "loop", "lm-eval"))
    curve = f"perplexity at {len(given.lengths)} lengths to {label(max(given.lengths))}"
    return [
        at_least(f"{curve}, against the loop", mine, looped, FASTER),
        at_least(f"{curve}, against lm-eval", mine, rolling, None),
        _agreement("largest difference from the loop", mine, looped, WITHIN),
        _agreement("largest difference from lm-eval", mine, rolling, None),
        _memory("peak memory, against the loop", mine, looped, MEMORY),
        _memory("peak memory, against lm-eval", mine, rolling, None),
    ]


def curves(found: dict[str, Facts]) -> Table:
    here = {name: facts for name, facts in found.items() if "perplexity" in facts}
    table = Table("tokens", *here, title=f"perplexity of {found['text']['document']}")
    for length in found["ours"]["perplexity"]:
        table.add_row(length, *(f"{facts['perplexity'][length]:.4f}" for facts in here.values()))
    return table


def _inputs(given: Namespace) -> list:
    return whole_perplexity(document(given), given.lengths)


def _facts(given: Namespace, means: list[float], took: Facts) -> Facts:
    values = {str(n): math.exp(mean) for n, mean in zip(given.lengths, means, strict=True)}
    return {"perplexity": values, "threads": threads(), **took}


def _agreement(what: str, mine: Facts, peer: Facts, bar: float | None) -> Row:
    if "missing" in peer:
        return Row(what=what, ours="", peer=peer["missing"])
    pairs = [(mine["perplexity"][n], peer["perplexity"][n]) for n in mine["perplexity"]]
    far = max(abs(a / b - 1) for a, b in pairs)
    limit, reached = (f"≤ {bar:.1%}", far <= bar) if bar else ("", None)
    return Row(what=what, ours=f"{far:.3%}", bar=limit, reached=reached)


def _memory(what: str, mine: Facts, peer: Facts, bar: float | None) -> Row:
    here = "missing" not in peer
    return Row(
        what=what,
        ours=gigabytes(mine["peak_memory"]),
        peer=gigabytes(peer["peak_memory"]) if here else peer["missing"],
        ratio=f"{peer['peak_memory'] / mine['peak_memory']:.1f}x" if here else "",
        bar=f"≤ {gigabytes(bar)}" if bar else "",
        reached=mine["peak_memory"] <= bar if bar else None,
    )


if __name__ == "__main__":
    main(
        parser(__doc__, model="smollm2-135m", text="stdlib", lengths="2k-16k:2k"),
        {"text": read_text, "ours": ours, "loop": loop, "lm-eval": lm_eval},
        rows,
        curves,
    )
