"""Bytes of peak memory that each further token takes, from 16k to 64k tokens of one document.

The least an exact engine can do with is the hidden state and one layer's keys and values; keeping
every layer's keys and all logits, as a plain forward does, is computed beside it. When the
head is read keys are gone, and more is there of what does not grow: the layers are held to the bar
by themselves too.
"""

from argparse import Namespace
from unittest.mock import patch

from sides import (
    DTYPE,
    Facts,
    Row,
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

MOST = 1.25
BYTES = {"bfloat16": 2, "float32": 4}[DTYPE]


def shorter(given: Namespace) -> Facts:
    return _peak(given, min(given.lengths))


def longer(given: Namespace) -> Facts:
    return _peak(given, max(given.lengths))


def rows(given: Namespace, found: dict[str, Facts]) -> list[Row]:
    low, high = found["shorter"], found["longer"]
    shape = high["shape"]
    keys = 2 * shape["key_heads"] * shape["head_dim"] * BYTES
    least = shape["hidden"] * BYTES + keys
    plain = shape["layers"] * keys + shape["vocabulary"] * BYTES
    growth = _growth(low, high, "peak_memory")
    return [
        _held("growth, against hidden state + one layer's keys and values", growth, least),
        _held(
            "growth while layers are read, against the same", _growth(low, high, "layers"), least
        ),
        Row(
            what="growth, against all layers' keys and all logits (computed)",
            ours=f"{growth:,.0f} B/token",
            peer=f"{plain:,} B/token",
            ratio=f"{plain / growth:.0f}x" if growth > 0 else "",
        ),
        *(
            Row(what=f"peak memory at {label(f['tokens'])}", ours=gigabytes(f["peak_memory"]))
            for f in (low, high)
        ),
    ]


def _growth(low: Facts, high: Facts, what: str) -> float:
    return (high[what] - low[what]) / (high["tokens"] - low["tokens"])


def _held(what: str, growth: float, least: int) -> Row:
    return Row(
        what=what,
        ours=f"{growth:,.0f} B/token",
        peer=f"{least:,} B/token",
        ratio=f"{growth / least:.2f}x",
        bar=f"≤ {MOST}x",
        reached=growth <= MOST * least,
    )


def _peak(given: Namespace, length: int) -> Facts:
    from harness import machine
    from harness.engine import evaluate as engine

    live = model(given)
    requests = whole_perplexity(document(given), [length])
    peaks, sweep = [], engine.sweep

    def swept(*args: object) -> None:
        peaks.append(machine.peak_memory("cpu"))
        machine.forget_peak("cpu")
        sweep(*args)
        peaks.append(machine.peak_memory("cpu"))

    with patch.object(engine, "sweep", swept):
        _, took = measured(lambda: engine.evaluate(live.model, requests))
    before, layers = peaks
    whole = max(before, took.pop("peak_memory"))  # since the layers began
    facts = {"tokens": length, "shape": live.card.shape, "threads": threads()}
    return facts | {"layers": layers, "peak_memory": whole} | took


if __name__ == "__main__":
    main(
        parser(__doc__, model="smollm2-135m", text="stdlib", lengths="16k,64k"),
        {"text": read_text, "shorter": shorter, "longer": longer},
        rows,
    )
