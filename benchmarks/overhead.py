"""Share of a cell's time outside matrix products and attention kernels.

A first pass writes down every product and attention kernel the cell calls: shapes, strides, types
and precision. Those are then timed alone on fresh tensors and compared with the cell's own time.
"""

import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any, Literal
from unittest.mock import patch

import torch
from rich.table import Table
from sides import Facts, Row, main, model, parser, threads
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from harness import corpora, machine
from harness.lengths import label

if TYPE_CHECKING:
    from harness.run import Finished

MOST = 0.15
REPEATS = 8
"""Times a shape is timed at most; its median stands for every call."""
aten = torch.ops.aten
PRODUCTS = {aten.linear, aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.matmul}


@dataclass(frozen=True)
class Shape:
    """A tensor but for its numbers."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: str

    def fresh(self) -> Tensor:
        extent = 1 + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        flat = torch.randn(extent, dtype=self.dtype, device=self.device)
        return flat.as_strided(self.size, self.stride)


@dataclass(frozen=True)
class Call:
    """A kernel, what it is given, and the precision float32 products run in."""

    kind: Literal["products", "attention"]
    kernel: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]
    precision: str

    @classmethod
    def of(cls, kind: str, kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> "Call":
        named = tuple((key, _described(value)) for key, value in kwargs.items())
        precision = torch.backends.mkldnn.matmul.fp32_precision
        return cls(kind, kernel, tuple(map(_described, args)), named, precision)

    def seconds(self, count: int) -> float:
        """Of that many calls: one to warm up, then the median of a few."""
        args = [_fresh(x) for x in self.args]
        kwargs = {key: _fresh(x) for key, x in self.kwargs}
        matmul = torch.backends.mkldnn.matmul
        before, matmul.fp32_precision = matmul.fp32_precision, self.precision
        try:
            self.kernel(*args, **kwargs)
            took = [
                _timed(lambda: self.kernel(*args, **kwargs)) for _ in range(min(count, REPEATS))
            ]
        finally:
            matmul.fp32_precision = before
        return count * median(took)


class Recorder(TorchDispatchMode):
    """Counts the calls of products and of the engine's attention kernel while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[Call] = Counter()
        self.attending = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in PRODUCTS and not self.attending:
            self.calls[Call.of("products", func, args, kwargs or {})] += 1
        return func(*args, **(kwargs or {}))

    def attend(self, kernel: Callable[..., Any], *args: Any) -> Any:
        """The kernel's call, written down; what it calls in turn belongs to it."""
        self.calls[Call.of("attention", kernel, args, {})] += 1
        self.attending = True
        try:
            return kernel(*args)
        finally:
            self.attending = False


def recorded(run: "Callable[[], Finished]") -> "tuple[Finished, Counter[Call]]":
    """The run's result, and the kernels that it called."""
    from harness.engine import attention

    recorder, kernel_for = Recorder(), attention.kernel_for

    def watched(*where: Any) -> Any:
        kernel = kernel_for(*where)
        return replace(kernel, call=partial(recorder.attend, kernel.call))

    with patch.object(attention, "kernel_for", watched), recorder:
        return run(), recorder.calls


def cell(given: Namespace) -> Facts:
    run = _cell(given)
    finished, calls = recorded(run)
    if finished.result.status != "scored":
        raise ValueError(f"The cell could not be measured: {finished.result.reason}.")
    cells, alone = [], []
    for _ in range(given.repeats):
        cells.append(_timed(run))
        alone.append(_alone(calls))
    if given.profile:
        _profile(run)
    return {
        "task": finished.result.cell.task.partition(",")[0],
        "seconds": median(cells),
        "products": median(kinds["products"] for kinds in alone),
        "attention": median(kinds["attention"] for kinds in alone),
        "corpus": corpora.label(given.text),
        "kernel": finished.result.provenance["kernel"],
        "shapes": len(calls),
        "calls": calls.total(),
        "threads": threads(),
    }


def rows(given: Namespace, found: dict[str, Facts]) -> list[Row]:
    facts = found["cell"]
    kernels = facts["products"] + facts["attention"]
    outside = 1 - kernels / facts["seconds"]
    return [
        Row(
            what=f"{facts['task']} at {label(given.lengths[-1])}, outside its kernels",
            ours=f"{facts['seconds']:.3g} s",
            peer=f"{kernels:.3g} s in kernels alone",
            ratio=f"{outside:.1%}",
            bar=f"≤ {MOST:.0%}",
            reached=outside <= MOST,
        )
    ]


def parts(found: dict[str, Facts]) -> Table:
    facts = found["cell"]
    rest = facts["seconds"] - facts["products"] - facts["attention"]
    table = Table(
        "", "seconds", "share", title=f"{facts['calls']:,} calls, {facts['shapes']} shapes"
    )
    for name, took in (*((k, facts[k]) for k in ("products", "attention")), ("the rest", rest)):
        table.add_row(name, f"{took:.3f}", f"{took / facts['seconds']:.1%}")
    return table


def flags() -> ArgumentParser:
    made = parser(__doc__, model="smollm2-135m", text="stdlib", lengths="8k")
    made.add_argument("--task", default="perplexity.whole,samples=1", help="or passkey,samples=4")
    made.add_argument("--repeats", type=int, default=3, help="of the cell; the median counts")
    made.add_argument("--profile", action="store_true", help="also print where the time goes")
    return made


def _cell(given: Namespace) -> "Callable[[], Finished]":
    """The cell as `harness run` runs it, the model loaded."""
    from harness import catalog
    from harness.cell import Cell
    from harness.reader import TokenReader
    from harness.run import run

    live = model(given)
    reader = TokenReader(live.tokenizer, machine.cache_folder())
    task = catalog.canonical("tasks", given.task)
    asked = Cell(model="model", method="none", task=task, length=given.lengths[-1])
    corpus = given.text if hasattr(catalog.load("tasks", task), "corpus") else None
    return lambda: run(live, reader, [asked], corpus=corpus)[0]


def _alone(calls: Counter[Call]) -> dict[str, float]:
    kinds = {"products": 0.0, "attention": 0.0}
    with torch.inference_mode():
        for call, count in calls.items():
            kinds[call.kind] += call.seconds(count)
    return kinds


def _described(value: Any) -> Any:
    if isinstance(value, Tensor):
        return Shape(tuple(value.shape), value.stride(), value.dtype, value.device.type)
    return tuple(map(_described, value)) if isinstance(value, list | tuple) else value


def _fresh(value: Any) -> Any:
    return value.fresh() if isinstance(value, Shape) else value


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _profile(work: Callable[[], Any]) -> None:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as seen:
        work()
    print(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=20))


if __name__ == "__main__":
    main(flags(), {"cell": cell}, rows, parts)
