"""The harness in a notebook: what the command line does, as a few functions of plain values.

`from harness import load` finds them here. See docs/python.md, whose examples are run by a test.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import exp
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import nn

    from harness.cell import Result


@dataclass(frozen=True, eq=False)
class Reading:
    """A text as a model read it."""

    tokens: "np.ndarray"
    """(n,), int64, the start token first."""
    losses: "np.ndarray"
    """(n - 1,), float64: nats by which each token but the first surprised the model."""

    @property
    def perplexity(self) -> float:
        """Of all tokens but the first."""
        return exp(float(self.losses.mean()))


def load(name: str = "toy", *, device: str = "auto", dtype: str = "auto") -> tuple[Any, Any]:
    """A model and its tokenizer, as transformers has them.

        model, tokenizer = load("toy")

    Args:
        name: as `harness run --model` takes it: a known name, a folder, a hub name.
        device: auto, cpu or cuda.
        dtype: auto, bfloat16 or float32.

    Raises:
        LookupError: there is no such model, its family is not supported, or the engine would not
            read it exactly.
    """
    from harness.model import load as found
    from harness.probe import checked

    live = checked(found(name, device=device, dtype=dtype))
    return live.model, live.tokenizer


@contextmanager
def extended(model: "nn.Module", method: str, length: int | str) -> "Iterator[nn.Module]":
    """A model of transformers with a method on, to read so many tokens; after it, as it was.

        with extended(model, "yarn,factor=8", "32k"):
            ...  # read with it, generate with it

    Args:
        model: a causal language model of a supported family.
        method: a spec such as `yarn,factor=8`, or a file such as `./mine.py`.
        length: tokens, or `32k`.

    Raises:
        ValueError: the method does not fit the model; says why.
        LookupError: there is no such method.
    """
    from harness import catalog, plugins
    from harness.probe import prove

    chosen, tokens = catalog.load("methods", plugins.named(method)), _length(length)
    if reason := chosen.unfit(model, tokens):
        raise ValueError(f"{method} cannot be put on this model: {reason.rstrip('.')}.")
    with chosen.applied_to(model, tokens):
        prove(model, chosen, tokens)
        yield model


def read(model: "nn.Module", tokenizer: Any, text: str, length: int | str | None = None) -> Reading:
    """Read a text once, and say how much each of its tokens surprised the model.

        read(model, tokenizer, "The grass is green.").perplexity

    The engine reads layer by layer, so that a long text takes the memory of one layer's keys and
    values; a method may be on, and then give the length that it was put on for.

    Args:
        model: a causal language model of a supported family.
        tokenizer: its own.
        text: what is read from its beginning.
        length: at most so many tokens, the start token included; None: all, however far a method
            was set to read.

    Raises:
        ValueError: the text has no token, or the tokenizer no token to start with.
    """
    import numpy as np

    from harness.engine.evaluate import evaluate
    from harness.reader import TokenReader
    from harness.rotation import read_at_once
    from harness.task import Losses, Request

    reader = TokenReader(tokenizer)
    tokens = np.array([reader.bos, *reader.tokens(text)], dtype=np.int64)
    tokens = tokens[: None if length is None else _length(length)]
    if len(tokens) < 2:
        raise ValueError("There is nothing to read: the text has no token.")
    asked = Request(id="text", tokens=tokens, ask=Losses(start=1, stop=len(tokens)))
    with read_at_once(model, len(tokens)):
        return Reading(tokens, evaluate(model, [asked])[0])


def measure(
    method: str,
    task: str,
    lengths: str,
    folder: str | Path = "results",
    *,
    retry: bool = False,
    **more: Any,
) -> "list[Result]":
    """Measure a grid, but for what the folder holds already; all its results.

        measure("none,yarn", "passkey", "4k-16k", factor=4, samples=1)

    Args:
        method: names as `harness run --method` takes them, files included.
        task: names as `harness run --task` takes them, files included.
        lengths: `4k-32k`, `4k,100k`.
        folder: where results are kept.
        retry: run cells again that failed or ran out of memory; else they are results without a
            value, and say why.
        more: further words of a grid file: model, factor, corpus, samples, seed, device, dtype ...

    Raises:
        ValueError, LookupError: what the command says in a sentence and exits with 2.
    """
    from harness.executors import local
    from harness.gridfile import options
    from harness.plan import missing, plan
    from harness.report.live import Lines
    from harness.store import Store

    asked = options({"method": method, "task": task, "lengths": lengths, **more})
    planned, store = plan(asked), Store(Path(folder).expanduser(), retry)
    if left := missing(planned, store):
        store.ready()
        store.sweep()
        with Lines(len(left)) as watch:
            for _ in local.execute(left, store, asked, watch):
                pass
    return [result for one in planned if (result := store.get(one.cell))]


def results(folder: str | Path = "results", where: str | None = None) -> "list[Result]":
    """What was measured before.

        results("results", where="task=passkey length>=8k")

    Args:
        folder: where results are kept.
        where: conditions as `harness results --where` takes them.

    Raises:
        ValueError: there are none in that folder, or a condition is none.
    """
    import warnings

    from harness import archive
    from harness.disk import existing
    from harness.store import Store

    found = archive.found(existing(Path(folder).expanduser()), where)
    for file in found.broken:
        warnings.warn(f"skipped {file}", stacklevel=2)
    store = Store(Path(folder).expanduser())
    return [one if one.provenance else store.get(one.cell) or one for one in found.results]


def frame(results: "Iterable[Result]") -> "pd.DataFrame":
    """Results as a table of pandas, a row each: the columns of `harness results --format json`.

    frame(results()).pivot_table(index="method", columns="length", values="value")
    """
    import pandas as pd

    from harness.where import KNOWN

    return pd.DataFrame([result.row() for result in results], columns=list(KNOWN))


def curve(results: "Iterable[Result]") -> "Figure":
    """Values by length, a line for each method with its interval: a figure of matplotlib.

        curve(results()).savefig("curve.png")

    Raises:
        ValueError: there is nothing to draw.
    """
    from harness.report.figures import length

    drawn = list(results)
    known = {r.cell.base: window for r in drawn if (window := r.provenance.get("original_length"))}
    return length.draw(drawn, known)


def _length(given: int | str) -> int:
    from harness.lengths import lengths

    if isinstance(given, Integral):
        if given < 1:
            raise ValueError(f"A length is at least 1 token, and {given} is none.")
        return int(given)
    found = lengths(given)
    if len(found) != 1:
        raise ValueError(f"A length is a number of tokens or such as 32k, and {given!r} is not.")
    return found[0]
