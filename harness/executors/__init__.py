"""Which process runs which cells, and where.

An executor is given what has no result yet and yields each result once it is on this machine's
disk. It keeps no account of its own: what is done, the results folder knows.
"""

import os
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

if TYPE_CHECKING:
    from harness.cell import Result
    from harness.plan import Options, Planned, Watch
    from harness.store import Store

Engine = Literal["local", "ray", "slurm"]


class Executor(Protocol):
    """Whoever can run cells; the module `harness.executors.local` is one."""

    def execute(
        self, plan: "Sequence[Planned]", store: "Store", options: "Options", watch: "Watch"
    ) -> "Iterator[Result]":
        """Run these cells, and yield each result once it is stored.

        Raises:
            OSError: the results folder takes no files.
            ModuleNotFoundError: the engine is not installed; says how to.
        """


def launched() -> int:
    """Processes that torchrun has started to read together; 1 where it has not.

    What other launchers, or an earlier shell, left in the environment says nothing.
    """
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def chosen(
    engine: Engine,
    *,
    workers: int | None = None,
    address: str | None = None,
    job: dict[str, Any] | None = None,
    ranks: int | None = None,
    gpus: int | None = None,
) -> Executor:
    """The executor of this name.

    Args:
        engine: in this process, on a Ray cluster, or in Slurm's queue.
        workers: cells at the same time; None: one for each GPU, else one for each machine.
        address: the cluster's head; None: this machine alone.
        job: what Slurm is asked for, in submitit's words.
        ranks: processes that read each input together; None: one, or as torchrun has started.
        gpus: of each of Ray's workers; None: one, where there are any.

    Raises:
        ValueError: the engine takes no such wish.
    """
    for flag, given, takes in (
        ("--workers", workers, ("ray", "slurm")),
        ("--address", address, ("ray",)),
        ("--job", job, ("slurm",)),
        ("--ranks", ranks, ("local",)),
        ("--gpus-per-worker", gpus, ("ray",)),
    ):
        if given is not None and engine not in takes:
            raise ValueError(f"{flag} is for --engine {' or '.join(takes)}, not for {engine}.")
    for flag, given in (("--workers", workers), ("--gpus-per-worker", gpus)):
        if given is not None and given < 1:
            raise ValueError(f"{flag} must be at least 1, and {given} is less.")
    if engine == "ray":
        from harness.executors.ray import Ray

        return Ray(address=address, workers=workers, gpus=gpus or 1)
    if engine == "slurm":
        from harness.executors.slurm import Slurm

        return Slurm(job=job or {}, workers=workers)
    if ranks is not None and ranks < 1:
        raise ValueError(f"--ranks must be at least 1, and {ranks} is less.")
    torchrun = engine == "local" and launched() > 1
    if torchrun or (ranks or 1) > 1:
        from harness.executors.ranks import RankedExecutor

        return RankedExecutor(None if torchrun else ranks)
    return cast(Executor, import_module("harness.executors.local"))
