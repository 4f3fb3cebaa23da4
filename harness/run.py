"""Run a pass: extend the model, ask the task, grade, and account for it.

A pass fills one cell, or a whole row where shorter inputs are beginnings of longer ones and the
method encodes them alike.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from harness import catalog, machine
from harness.cell import Cell, Result, Status
from harness.engine.evaluate import BLOCK, evaluate, tree_of
from harness.engine.kernels import chosen
from harness.method import Method
from harness.model import Live
from harness.probe import differs, read_encoding
from harness.rotary import Encoding
from harness.task import Request, Sample, Task


@dataclass(frozen=True)
class Finished:
    """A result, and what is kept beside it."""

    result: Result
    losses: dict[str, np.ndarray] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)


def run(
    live: Live,
    reader: Any,
    cells: Sequence[Cell],
    *,
    corpus: str | None = None,
    block: int = BLOCK,
    step: Callable[[float], None] = lambda tokens: None,
) -> list[Finished]:
    """One pass for cells that differ in length only.

    Args:
        live: the model; comes back as it was.
        reader: how it reads, a `harness.task.Reader`.
        cells: of one model, method and task.
        corpus: where the cells' corpus is on this machine; None: as the cell names it.
        block: most tokens that pass a layer together.
        step: told how many tokens were read since the last call.

    Raises:
        MemoryError, torch.OutOfMemoryError, RuntimeError: the pass did not fit.
        ValueError, LookupError: the task cannot be asked at a length, or of this corpus.
    """
    method: Method = catalog.load("methods", cells[0].method)
    task: Task = catalog.load("tasks", cells[0].task)
    if corpus:
        task = replace(task, corpus=corpus)
    longest = max(cell.length for cell in cells)
    if reason := method.unfit(live.model, longest):
        return [refused(cell, "unfit", reason) for cell in cells]
    started = time.perf_counter()
    machine.forget_peak(live.device)
    asked = [list(task.requests(reader, cell.length)) for cell in cells]
    everything = [request for requests in asked for request in requests]
    unextended = read_encoding(live.model, longest)
    with method.applied_to(live.model, longest):
        probe = read_encoding(live.model, longest)
        facts = method.provenance(live.model, longest)
        if not differs(probe, unextended) and _should_differ(live.model, facts):
            return [refused(cell, "failed", _NO_OP.format(cells[0].method)) for cell in cells]
        try:
            outcomes = evaluate(live.model, everything, block=block, step=step)
        except FloatingPointError as error:
            return [refused(cell, "failed", str(error)) for cell in cells]
    shared = {
        "factor": facts.get("factor"),
        "notice": method.notice(live.model, longest),
        "peak_memory": machine.peak_memory(live.device),
        "provenance": _provenance(live, reader, method, task, facts, probe.digest, block),
    }
    seconds, total = time.perf_counter() - started, sum(cell.length for cell in cells)
    finished, rest = [], iter(outcomes)
    for cell, requests in zip(cells, asked, strict=True):
        samples = [task.grade(request, next(rest), reader) for request in requests]
        share = seconds * cell.length / total
        try:
            finished.append(_finished(cell, task, requests, samples, shared, share))
        except OverflowError:
            finished.append(refused(cell, "failed", "the losses are too large for a perplexity"))
    return finished


_NO_OP = "{} left the model's encoding as it was, so the number would not be this method's"


def refused(cell: Cell, status: Status, reason: str) -> Finished:
    """A cell that could not run says why."""
    return Finished(Result(cell=cell, status=status, reason=reason, protocol=_protocol(cell.task)))


def _should_differ(model: torch.nn.Module, facts: dict[str, Any]) -> bool:
    """Whether the method resolved to another encoding than the checkpoint's own."""
    own = Encoding.of(model, None)
    wanted = torch.tensor(facts["frequencies"], dtype=torch.float64)
    return facts["attention_factor"] != own.attention_factor or not torch.allclose(
        wanted, own.frequencies.cpu(), rtol=1e-3, atol=0
    )


def _finished(
    cell: Cell,
    task: Task,
    requests: list[Request],
    samples: list[Sample],
    shared: dict[str, Any],
    seconds: float,
) -> Finished:
    score = task.score(samples)
    result = Result(
        cell=cell,
        status="scored",
        **asdict(score),
        metric=task.metric,
        protocol=_protocol(cell.task),
        corpus=catalog.split(cell.task)[1].get("corpus"),
        seconds=round(seconds, 3),
        tokens=len(tree_of(requests).tokens),
        **shared,
    )
    losses = {s.id: s.losses.astype(np.float32) for s in samples if s.losses is not None}
    rows = [
        {"id": s.id, "score": s.score, "expected": s.expected, "answer": s.answer, **s.about}
        for s in samples
    ]
    return Finished(result, losses, rows)


def _protocol(task: str) -> str:
    """The metric's full name: `perplexity.whole`."""
    return catalog.split(task)[0]


def _provenance(
    live: Live,
    reader: Any,
    method: Method,
    task: Task,
    facts: dict[str, Any],
    probe: str,
    block: int,
) -> dict[str, Any]:
    model = live.model
    kernel = chosen(live.device, model.dtype, live.card.shape["head_dim"])
    return {
        "weights": live.weights,
        "remote_code": live.remote_code,
        "method": {**asdict(method), **facts},
        "encoding": probe,
        "task_version": task.version,
        "task": {k: v for k, v in asdict(task).items() if k != "corpus"},
        "start_token": reader.bos,
        "kernel": kernel.name,
        "block": block,
        "device": machine.cpu_name() if live.device == "cpu" else torch.cuda.get_device_name(),
        "threads": torch.get_num_threads(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "versions": machine.versions(),
        **machine.commit(),
    }
