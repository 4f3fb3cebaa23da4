"""Run a pass: extend the model, ask the task, grade, and account for it.

A pass fills one cell, or a whole row where shorter inputs are beginnings of longer ones and the
method encodes them alike.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from math import isfinite
from typing import Any

import numpy as np
import torch

from harness import catalog, machine
from harness.cell import Cell, Result, Status
from harness.corpora import place_of, reading
from harness.engine.evaluate import BLOCK, evaluate, tree_of
from harness.engine.generate import end_tokens
from harness.engine.kernels import kernel_for
from harness.engine.offload import ON_DEVICE, OnDevice
from harness.engine.parallel import ALONE, Alone, Shards
from harness.learned import noticed
from harness.method import Method
from harness.model import Live
from harness.network import commit
from harness.parts import Parts
from harness.plugins import blamed
from harness.probe import NotOn, prove
from harness.task import Outcome, Request, Sample, Score, Task, Text

MOST_ITEMS = 1000
"""Of more, the scores lie only beside the result."""


@dataclass(frozen=True)
class Finished:
    """A result, and what is kept beside it."""

    result: Result
    losses: dict[str, np.ndarray] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    parts: Parts | None = None
    """What its pass has kept, with the last of its cells: to be dropped once all are stored."""


def run(
    live: Live,
    reader: Any,
    cells: Sequence[Cell],
    *,
    corpus: str | None = None,
    block: int = BLOCK,
    memory: OnDevice = ON_DEVICE,
    ranks: Alone = ALONE,
    apart: bool = False,
    keep: bool = True,
    step: Callable[[float], None] = lambda tokens: None,
) -> list[Finished]:
    """One pass for cells that differ in length only.

    Args:
        live: the model; comes back as it was.
        reader: how it reads, a `harness.task.Reader`.
        cells: of one model, method and task.
        corpus: where the cells' corpus is on this machine; None: as the cell names it.
        block: most tokens that pass a layer together.
        memory: where hidden states and keys lie.
        ranks: who reads along.
        apart: read inputs one by one, for want of memory: what they have in common again each time.
        keep: leave in the cache what was read, for a pass that is killed, and take it from there.
        step: told how many tokens were read since the last call.

    Raises:
        MemoryError, torch.OutOfMemoryError, RuntimeError: the pass did not fit.
        ValueError, LookupError: the task cannot be asked at a length, or of this corpus.
    """
    method: Method = catalog.load("methods", cells[0].method)
    task: Task = reading(catalog.load("tasks", cells[0].task), corpus)
    longest = max(cell.length for cell in cells)
    if reason := method.unfit(live.model, longest):
        return [refused(cell, "unfit", reason) for cell in cells]
    started = time.perf_counter()
    machine.forget_peak(live.device)
    with ranks.in_step():
        asked = [list(_fitting(task, reader, cell.length)) for cell in cells]
    try:
        with method.applied_to(live.model, longest):
            with ranks.in_step():
                encoding = prove(live.model, method, longest)
                facts = method.provenance(live.model, longest)
            ways = {"block": block, "memory": memory, "ranks": ranks}
            spells = {"text": reader.text, "ends": reader.ends, "marks": reader.marks}
            ask = partial(evaluate, live.model, **ways, step=step, **spells)
            provenance = (
                _provenance(live, reader, method, task, facts, longest)
                | catalog.brought(methods=cells[0].method, tasks=cells[0].task)
                | {"encoding": encoding, "block": block, "pass_length": longest}
                | {"offload": memory.offloads, "ranks": ranks.size}
                | _unusual(live.model, ranks, apart)
                | _told(live.model, reader, task, asked)
            )
            parts = Parts(provenance, keeps=keep and ranks.size == 1)
            in_parts = partial(parts.answers, ask, apart=apart, step=step)
            asked, outcomes = _answered(task, reader, cells, asked, in_parts)
    except NotOn as error:
        return [refused(cell, "failed", str(error)) for cell in cells]
    except FloatingPointError as error:
        if len(cells) == 1 or ranks.size > 1:
            return [refused(cell, "failed", str(error)) for cell in cells]
        ways = {"block": block, "memory": memory, "apart": apart, "keep": keep, "step": step}
        return [one for cell in cells for one in run(live, reader, [cell], corpus=corpus, **ways)]
    shared = {
        "factor": facts.get("factor"),
        "trained": live.card.history,
        "peak_memory": machine.peak_memory(live.device),
        "provenance": provenance | memory.account(),
    }
    seconds = time.perf_counter() - started + parts.spent
    each = seconds / sum(cell.length for cell in cells)
    answers = iter(outcomes)
    found = [
        _finished(
            cell,
            task,
            requests,
            answers,
            reader,
            shared | {"notice": noticed(cell.method, live, cell.length)},
            each * cell.length,
        )
        for cell, requests in zip(cells, asked, strict=True)
    ]
    return [*found[:-1], replace(found[-1], parts=parts)]


def _fitting(task: Task, reader: Any, length: int) -> Iterator[Request]:
    """What the task asks at a length.

    Raises:
        ValueError: it asks nothing, more than fits, or two things by one name.
    """
    seen: set[str] = set()
    for request in task.requests(reader, length):
        if len(request.tokens) > length:
            raise ValueError(
                f"its request {request.id!r} has {len(request.tokens):,} tokens, which is more "
                f"than {length:,}"
            )
        if request.id in seen:
            raise ValueError(f"two of its requests are called {request.id!r}")
        seen.add(request.id)
        yield request
    if not seen:
        raise ValueError(f"it asks nothing at {length:,} tokens")


def _answered(
    task: Task,
    reader: Any,
    cells: Sequence[Cell],
    asked: list[list[Request]],
    ask: Callable[[list[Request]], list[Outcome]],
) -> tuple[list[list[Request]], list[Outcome]]:
    """Of each the last question, by cell, and its answer: an answer may lead to a question."""
    lengths = [cell.length for cell, some in zip(cells, asked, strict=True) for _ in some]
    requests = [request for some in asked for request in some]
    outcomes = ask(requests)
    going = list(range(len(requests)))
    while going:
        following = {i: task.then(requests[i], outcomes[i], reader, lengths[i]) for i in going}
        further = {i: request for i, request in following.items() if request is not None}
        going = list(further)
        answers = ask(list(further.values())) if further else []
        for i, answer in zip(going, answers, strict=True):
            requests[i], outcomes[i] = further[i], answer
    every = iter(requests)
    return [list(islice(every, len(some))) for some in asked], outcomes


def refused(cell: Cell, status: Status, reason: str) -> Finished:
    """A cell that could not run says why."""
    return Finished(
        Result(
            cell=cell,
            status=status,
            reason=reason,
            provenance={"versions": machine.versions(), **machine.commit()},
            **_of_task(cell, catalog.load("tasks", cell.task)),
        )
    )


def _finished(
    cell: Cell,
    task: Task,
    requests: list[Request],
    answers: Iterator[Outcome],
    reader: Any,
    shared: dict[str, Any],
    seconds: float,
) -> Finished:
    samples = [_graded(task, request, next(answers), reader) for request in requests]
    for sample in samples:
        if not isfinite(sample.score):
            return refused(cell, "failed", f"the score of {sample.id!r} is no finite number")
    try:
        score = task.score(samples)
    except OverflowError:
        return refused(cell, "failed", "the losses are too large for a perplexity")
    except ValueError as error:  # of this length, and the others of the pass may have one
        return refused(cell, "failed", blamed(error) or str(error) or type(error).__name__)
    if not isinstance(score, Score):
        raise TypeError(f"its score is a {type(score).__name__}, and no Score")
    result = Result(
        cell=cell,
        status="scored",
        **asdict(score),
        items=task.items(samples) if len(samples) <= MOST_ITEMS else {},
        **_of_task(cell, task),
        seconds=round(seconds, 3),
        tokens=len(tree_of(requests).tokens),
        truncated=sum(s.cut > 0 for s in samples) / max(1, len(samples)),
        **shared,
    )
    losses = {s.id: s.losses.astype(np.float32) for s in samples if s.losses is not None}
    rows = [_row(sample) for sample in samples]
    try:
        json.dumps(rows, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:  # what a task of one's own tells of an answer
        return refused(cell, "failed", f"what its task tells of answers cannot be kept: {error}")
    try:
        json.dumps(result.model_dump(), allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:  # what a method of one's own tells of itself
        return refused(cell, "failed", f"what it is made of cannot be kept: {error}")
    return Finished(result, losses, rows)


def _unusual(model: Any, ranks: Alone, apart: bool) -> dict[str, Any]:
    """How the pass was read where that is not as always: older results do not say it."""
    placed = sorted({str(device) for device in getattr(model, "hf_device_map", {}).values()})
    ways = {
        "apart": apart,
        "shards": ranks.size if isinstance(ranks, Shards) else None,
        "placed": placed if len(placed) > 1 else None,
    }
    return {way: how for way, how in ways.items() if how}


def _told(
    model: Any, reader: Any, task: Task, asked: Sequence[Sequence[Request]]
) -> dict[str, Any]:
    """What not every task has to tell: how it was asked, what ended answers, who evaluated."""
    told: dict[str, Any] = {}
    if by := task.evaluated_by():
        told["evaluated_by"] = by
    if way := task.asked_as(reader):
        told["asked_as"] = way
        if "chat" in way and (thinking := reader.thinking):
            told["thinking"] = thinking
    if any(isinstance(request.ask, Text) for some in asked for request in some):
        told["end_tokens"] = sorted({*reader.ends, *end_tokens(model)})
    return told


def _graded(task: Task, request: Request, outcome: Outcome, reader: Any) -> Sample:
    sample = task.grade(request, outcome, reader)
    if not isinstance(sample, Sample):
        raise TypeError(f"its grade of {request.id!r} is a {type(sample).__name__}, and no Sample")
    return replace(sample, cut=max(sample.cut, request.cut))


def _row(sample: Sample) -> dict[str, Any]:
    kept = ("id", "score", "expected", "answer", "cut")
    return {name: getattr(sample, name) for name in kept} | sample.about


def _of_task(cell: Cell, task: Task) -> dict[str, Any]:
    name, parameters = catalog.split(cell.task)
    return {"metric": task.metric, "protocol": name, "corpus": parameters.get(place_of(task) or "")}


def _provenance(
    live: Live, reader: Any, method: Method, task: Task, facts: dict[str, Any], length: int
) -> dict[str, Any]:
    model = live.model
    config = model.config.get_text_config()
    kernel = kernel_for(
        live.device,
        model.dtype,
        live.card.shape["head_dim"] + method.keys(model, length).widened,
        getattr(config, "attn_logit_softcapping", None),
    )
    return {
        "weights": live.weights,
        "config": live.card.settings,
        "original_length": live.card.original_length,
        "remote_code": live.remote_code,
        "training": live.card.trained and live.card.trained.model_dump(mode="json"),
        "method": {**asdict(method), **facts},
        "task_version": task.version,
        "task": {k: v for k, v in asdict(task).items() if k != place_of(task)},
        "evaluator": task.evaluator_hash,
        "data_commit": commit(getattr(task, place_of(task) or "", "")),
        "tokenizer": reader.fingerprint,
        "start_token": reader.bos,
        "kernel": kernel.name,
        "device": machine.cpu_name() if live.device == "cpu" else torch.cuda.get_device_name(),
        "threads": torch.get_num_threads(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "versions": machine.versions(),
        **machine.commit(),
    }
