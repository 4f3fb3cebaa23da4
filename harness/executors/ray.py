"""Ray: one long-lived actor for each GPU or share of cores, so that its model stays read.

Which node an actor lives on is said outright, for Ray's own leasing put every task on one node when
tried; a worker of several GPUs is one actor that asks for them, as a group on one node would.
Workers share no disk: what they hand back, the driver writes, and only then is a cell done.
https://docs.ray.io/en/latest/ray-core/actors.html
"""

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness import machine
from harness.cell import Result
from harness.executors.holding import filling
from harness.executors.queue import Queue, Unit
from harness.executors.together import JointProgress
from harness.executors.work import CellFile, units
from harness.plan import Options, Planned, Watch
from harness.plugins import CODE
from harness.store import Store

if TYPE_CHECKING:
    import numpy as np

    Handed = tuple[str, dict[str, np.ndarray], list[dict[str, Any]]]
    """A result as JSON, its losses, its answers."""

TICK = 0.5
"""Seconds between two looks at how far the workers are."""
PATIENCE = 10
"""Seconds for a cluster's head to answer."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray's only switch for listening on 127.0.0.1 alone; it is that systems' default."""
FINEST = 10_000
"""Parts of a core that Ray tells apart."""
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


@dataclass(frozen=True, kw_only=True)
class Ray:
    """An executor."""

    address: str | None = None
    """A cluster's head, `host:port`; None: this machine alone, bound to loopback."""
    workers: int | None = None
    """None: one for each GPU, or where there are none one for each machine."""
    gpus: int = 1
    """Of a worker, where there are any: all of one machine, as a placement group of one bundle."""
    retries: int = 2
    """How often a pass is tried again whose worker died."""

    def execute(
        self, plan: Sequence[Planned], store: Store, options: Options, watch: Watch
    ) -> Iterator[Result]:
        """Run these cells on workers, and yield each result once it is stored here.

        Raises:
            ModuleNotFoundError: Ray is not installed.
            LookupError: no cluster is at the address.
            ValueError: there are fewer GPUs than workers.
        """
        with filling(store, watch), _connected(self.address) as ray:
            places = slots(ray.nodes(), self.workers, self.gpus, options.device)
            crew = Crew(ray, places, options)
            try:
                yield from self._run(crew, Queue(units(plan)), store, options, JointProgress(watch))
            finally:
                crew.dismiss()

    def _run(
        self, crew: "Crew", queue: Queue, store: Store, options: Options, watch: JointProgress
    ) -> Iterator[Result]:
        last = "none could be started"
        while True:
            for worker in crew.idle():
                while unit := queue.take(worker, crew.holds):
                    left = [one for one in unit.planned if not store.has(one.cell)]
                    if left:  # another run may have finished it meanwhile
                        crew.give(worker, unit, CellFile.of(left, options))
                        break
            if not crew.busy:
                break
            for worker, unit, came in crew.come(watch):
                if isinstance(came, str):
                    last = came
                    unit.tried.append(worker)
                    if len(unit.tried) <= self.retries:
                        queue.again(unit)
                        watch.ended(worker)
                        continue
                    came = _failed(unit, f"its worker died {len(unit.tried)} times: {came}")
                stored = [_stored(handed, unit, store) for handed in came]
                crew.stored(worker)
                watch.ended(worker, stored)
                yield from stored
        for unit in queue.left:
            stored = [_stored(h, unit, store) for h in _failed(unit, f"no worker is left: {last}")]
            watch.ended(None, stored)
            yield from stored


@dataclass(frozen=True)
class Slot:
    """A worker's place."""

    node: str
    number: int
    cores: float
    gpus: int = 0

    @property
    def threads(self) -> int:
        return max(1, int(self.cores))


def slots(
    nodes: Sequence[dict[str, Any]], workers: int | None, gpus: int, device: str
) -> list[Slot]:
    """Where workers live: dealt out to the nodes in turn; cores are shared evenly on each.

    Raises:
        ValueError: there are not so many GPUs.
        LookupError: no node has anything to run on.
    """
    alive = {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}
    room = {name: int(has.get("GPU", 0)) // gpus for name, has in alive.items()}
    if device == "cpu" or not any(room.values()):
        if device == "cuda" or (device != "cpu" and any(has.get("GPU") for has in alive.values())):
            raise LookupError(f"No machine of the cluster has {gpus} GPUs. Use --device cpu.")
        gpus = 0
        cores = {name: int(has.get("CPU", 0)) for name, has in alive.items()}
        room = {name: workers or 1 for name, count in cores.items() if count}
    if not room:
        raise LookupError("The cluster has no machine with cores or GPUs.")
    wanted = workers or sum(room.values())
    if gpus and wanted > sum(room.values()):
        raise ValueError(f"--workers {wanted}: the cluster has GPUs for {sum(room.values())}.")
    rounds = [name for turn in range(max(room.values())) for name in room if turn < room[name]]
    dealt = rounds[:wanted]
    return [
        Slot(name, i, _share(alive[name].get("CPU", 1.0), dealt.count(name)), gpus)
        for i, name in enumerate(dealt)
    ]


def _share(cores: float, workers: int) -> float:
    """Of each worker: no more together than there are when Ray has rounded them."""
    return int(cores / workers * FINEST) / FINEST


class Crew:
    """The workers: who is alive, who is at what."""

    def __init__(self, ray: Any, places: Sequence[Slot], options: Options) -> None:
        self._ray, self._options = ray, options
        self._actors = {slot: self._hired(slot) for slot in places}
        self.holds: dict[Slot, str | None] = dict.fromkeys(places)
        """The model that each living worker has read."""
        self.busy: dict[Any, tuple[Slot, Unit]] = {}
        self._asked: dict[Slot, Any] = {}

    def idle(self) -> list[Slot]:
        at_work = {slot for slot, _ in self.busy.values()}
        return [slot for slot in self.holds if slot not in at_work]

    def give(self, slot: Slot, unit: Unit, work: CellFile) -> None:
        """Set a worker to a pass."""
        self.holds[slot] = unit.model
        self.busy[self._actors[slot].measure.remote(work.model_dump_json())] = slot, unit

    def come(self, watch: JointProgress) -> Iterator[tuple[Slot, Unit, "list[Handed] | str"]]:
        """What came of passes that ended within a moment; or why the worker is no more."""
        ended, _ = self._ray.wait([*self.busy], num_returns=1, timeout=TICK)
        for slot, _ in self.busy.values():
            self._listen(slot, watch)
        for one in ended:
            slot, unit = self.busy.pop(one)
            try:
                came = self._ray.get(one)
            except self._ray.exceptions.RayError as error:
                came = _first_line(error)
                self._replace(slot)
            yield slot, unit, came

    def stored(self, slot: Slot) -> None:
        """Tell a worker that what it handed back is safe here."""
        if slot in self._actors:
            with suppress(self._ray.exceptions.RayError):
                self._ray.get(self._actors[slot].stored.remote(), timeout=PATIENCE)

    def dismiss(self) -> None:
        """End all workers."""
        for actor in self._actors.values():
            with suppress(Exception):
                self._ray.kill(actor)

    def _listen(self, slot: Slot, watch: JointProgress) -> None:
        """Pass on what the worker told since it was asked last, and ask again."""
        asked = self._asked.get(slot)
        if asked is not None:
            if not self._ray.wait([asked], timeout=0)[0]:
                return
            with suppress(self._ray.exceptions.RayError):
                for word, *what in self._ray.get(asked):
                    getattr(watch, word)(slot, *what)
        self._asked[slot] = self._actors[slot].told.remote()

    def _replace(self, slot: Slot) -> None:
        """A new worker where one died; none where the machine went with it."""
        with suppress(Exception):
            self._ray.kill(self._actors[slot])
        self._asked.pop(slot, None)
        if any(node["Alive"] and node["NodeID"] == slot.node for node in self._ray.nodes()):
            self._actors[slot], self.holds[slot] = self._hired(slot), None
        else:
            del self._actors[slot], self.holds[slot]

    def _hired(self, slot: Slot) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        hire = self._ray.remote(Worker).options(
            num_cpus=slot.threads if slot.cores >= 1 else slot.cores,
            num_gpus=slot.gpus,
            max_concurrency=2,  # it tells how far it is while it measures
            scheduling_strategy=NodeAffinitySchedulingStrategy(slot.node, soft=False),
        )
        offline = {name: os.environ[name] for name in (*OFFLINE, CODE) if name in os.environ}
        return hire.remote(slot.threads, self._options.trust_remote_code, offline)


class Worker:
    """What lives in an actor."""

    def __init__(self, threads: int, trust_remote_code: bool, environment: dict[str, str]) -> None:
        os.environ |= environment | {"OMP_NUM_THREADS": str(threads)}
        import torch

        torch.set_num_threads(threads)
        self._trust, self._told = trust_remote_code, []
        self._host, self._parts = None, []

    def measure(self, work: str) -> "list[Handed]":
        """What came of a pass."""
        from harness.executors.local import Host

        asked = CellFile.said(work)
        if self._host is None:
            self._host = Host(asked.options(self._trust), self)
        handed = []
        for found in self._host.measure(asked.plan()):
            handed.append((found.result.model_dump_json(), found.losses, found.samples))
            self._parts += [found.parts] if found.parts else []
        return handed

    def stored(self) -> None:
        """What was handed back is: what was kept of it for a worker that dies may go."""
        while self._parts:
            self._parts.pop().drop()

    def told(self) -> list[tuple[Any, ...]]:
        """What there was to tell since the last time."""
        said, self._told = self._told, []
        return said

    def cell_started(self, cells: Sequence[Any], tokens: int) -> None:
        self._told.append(("started", list(cells), tokens))

    def progressed(self, tokens: float) -> None:
        self._told.append(("progressed", tokens))

    def note(self, message: str) -> None:
        self._told.append(("note", message))


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    os.environ |= QUIET | ({} if address else LOOPBACK)
    try:
        import ray
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "--engine ray needs Ray: pip install 'context-harness[ray]'"
        ) from None
    mine = not ray.is_initialized()
    if mine:
        here = {"address": "local", "num_cpus": machine.cores(), "include_dashboard": False}
        if address:
            _check(address)
        where = {"address": address} if address else here
        ray.init(**where, log_to_driver=False, logging_level="error", namespace="harness")
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()


def _check(address: str) -> None:
    """Raises LookupError: nobody answers there, for whom Ray would wait ten minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdecimal():
        raise ValueError(f"--address is host:port, and {address!r} is not written so.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise LookupError(
            f"No Ray cluster is at {address} ({error}). Start one with: ray start --head"
        ) from None


def _stored(handed: "Handed", unit: Unit, store: Store) -> Result:
    """The result, once its file is on this machine's disk."""
    said, losses, samples = handed
    result = Result.model_validate_json(said)
    if result.cell not in {planned.cell for planned in unit.planned}:
        raise ValueError(f"A worker handed back {result.cell.path}, which it was not given.")
    store.write(result, losses=losses, samples=samples)
    return result


def _failed(unit: Unit, reason: str) -> "list[Handed]":
    from harness.run import refused

    status = "out_of_memory" if "low on memory" in reason else "failed"  # Ray's own words
    found = [refused(planned.cell, status, reason).result for planned in unit.planned]
    return [(result.model_dump_json(), {}, []) for result in found]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
