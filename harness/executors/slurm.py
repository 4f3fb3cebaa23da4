"""Slurm: a job array over cell files, by submitit. The results folder must be on a shared disk.

https://github.com/facebookincubator/submitit
"""

import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

from harness.cell import Cell, Result
from harness.executors import work
from harness.executors.holding import filling
from harness.executors.together import JointProgress
from harness.plan import Options, Planned, Watch
from harness.store import Store

ARRAY = 1000
"""Most jobs of an array: one less than Slurm takes where nobody has said otherwise."""
TIMES, AT_LEAST = 4, 60
"""A job may take so many times what its pass was estimated at, and so many minutes in any case."""


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """An executor."""

    job: dict[str, Any] = field(default_factory=dict)
    """What a job is given, in submitit's words: gpus_per_node, timeout_min, slurm_partition."""
    workers: int | None = None
    """Jobs that run at the same time; None: as the queue has it."""
    retries: int = 2
    """How often a pass is submitted again whose job ended without its results."""
    cluster: str = "slurm"
    """Or submitit's `local` and `debug`."""
    tick: float = 2.0
    """Seconds between two looks at the results folder."""
    grace: float = 30.0
    """Seconds in which a result of an ended job may still come over a network's disk."""

    def execute(
        self, plan: Sequence[Planned], store: Store, options: Options, watch: Watch
    ) -> Iterator[Result]:
        """Submit these cells, and yield each result once it is seen here.

        Raises:
            ModuleNotFoundError: submitit is not installed.
            ValueError: no job can be submitted from here, or not with these words.
        """
        with filling(store, watch):
            yield from self._fill(plan, store, options, watch)

    def _fill(
        self, plan: Sequence[Planned], store: Store, options: Options, watch: Watch
    ) -> Iterator[Result]:
        folder = store.root.resolve() / "jobs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{_short()}"
        queue = self._queue(folder, plan)
        files = work.write(plan, options, folder)
        left = dict(zip(files, work.longest_first(work.units(plan)), strict=True))
        before = {p.cell: _stamp(store, p.cell) for p in plan}
        together = JointProgress(watch)
        watch.note(f"{len(left)} jobs are submitted; their logs are in {folder}.")
        for _ in range(1 + self.retries):
            jobs = self._submitted(queue, [*left], store, options)
            try:
                yield from self._awaited(jobs, left, before, store, together)
            finally:
                for job in jobs.values():
                    with suppress(Exception):
                        if not job.done():
                            job.cancel(check=False)
            if not left:
                return
        for file, unit in left.items():
            reason = f"its job ended {1 + self.retries} times without it: {_last_words(jobs[file])}"
            yield from _given_up(unit, reason, store, watch)

    def _queue(self, folder: Path, plan: Sequence[Planned]) -> Any:
        try:
            import submitit
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "--engine slurm needs submitit: pip install 'context-harness[slurm]'"
            ) from None
        longest = max(map(work.seconds, work.units(plan)))
        wish = {"timeout_min": max(AT_LEAST, ceil(TIMES * longest / 60)), "name": "harness"}
        if self.workers and self.cluster == "slurm":
            wish["slurm_array_parallelism"] = self.workers
        with _sentences():
            queue = submitit.AutoExecutor(folder=folder / "logs", cluster=self.cluster)
            queue.update_parameters(**wish | self.job)
        return queue

    def _submitted(
        self, queue: Any, files: Sequence[Path], store: Store, options: Options
    ) -> dict[Path, Any]:
        how = (store.root.resolve(), store.retry, options.trust_remote_code)
        jobs: list[Any] = []
        try:
            with _sentences():
                for start in range(0, len(files), ARRAY):
                    some = files[start : start + ARRAY]
                    jobs += queue.map_array(_perform, some, *([thing] * len(some) for thing in how))
        except ValueError:
            for job in jobs:
                job.cancel(check=False)
            raise
        return dict(zip(files, jobs, strict=True))

    def _awaited(
        self,
        jobs: dict[Path, Any],
        left: dict[Path, list[Planned]],
        before: dict[Cell, Any],
        store: Store,
        watch: JointProgress,
    ) -> Iterator[Result]:
        """Results as they come; passes of which all have come are taken out of `left`."""
        waiting, ended = dict(left), dict[Path, float]()
        while waiting:
            for file, unit in [*waiting.items()]:
                if jobs[file].done():
                    ended.setdefault(file, time.monotonic())
                here = [r for p in unit if (r := _arrived(store, p.cell, before))]
                watch.ended(file, here)
                yield from here
                came = {result.cell for result in here}
                waiting[file] = left[file] = [p for p in unit if p.cell not in came]
                if not left[file]:
                    del left[file], waiting[file]
                elif file in ended and time.monotonic() - ended[file] > self.grace:
                    del waiting[file]
            if waiting:
                time.sleep(self.tick)


@contextmanager
def _sentences() -> Iterator[None]:
    """What submitit or sbatch refuses, as one."""
    try:
        yield
    except (RuntimeError, NameError, TypeError, AssertionError) as error:
        raise ValueError(f"--engine slurm: {' '.join(str(error).split())}") from None


def _perform(file: Path, root: Path, retry: bool, trust_remote_code: bool) -> None:
    """What a job does."""
    from harness.executors.local import perform
    from harness.executors.work import read

    for _ in perform(read(file), Store(root, retry=retry), Log(), trust_remote_code):
        pass


class Log:
    """A `Watch` for a job's log."""

    def cell_started(self, cells: Sequence[Cell], tokens: int) -> None: ...

    def progressed(self, tokens: float) -> None: ...

    def cell_finished(self, result: Result) -> None:
        print(f"{result.cell.path}: {result.status}", file=sys.stderr, flush=True)

    def note(self, message: str) -> None:
        print(f"note: {message}", file=sys.stderr, flush=True)


def _stamp(store: Store, cell: Cell) -> tuple[int, int] | None:
    """Which file there is: a result is renamed into place, so that another is another."""
    with suppress(FileNotFoundError):
        stat = store.path(cell).stat()
        return stat.st_ino, stat.st_mtime_ns
    return None


def _arrived(store: Store, cell: Cell, before: dict[Cell, Any]) -> Result | None:
    stamp = _stamp(store, cell)
    if stamp is None or stamp == before[cell]:
        return None
    result = store.get(cell)
    if result:
        before[cell] = stamp
    return result


def _given_up(unit: Sequence[Planned], reason: str, store: Store, watch: Watch) -> Iterator[Result]:
    from harness.run import refused

    for planned in unit:
        result = refused(planned.cell, "failed", reason).result
        store.write(result)
        watch.cell_finished(result)
        yield result


def _last_words(job: Any) -> str:
    """The last line of a job's log, or its state in the queue; its pickled result is not read."""
    with suppress(Exception):
        if lines := [line for line in (job.stderr() or "").splitlines() if line.strip()]:
            return lines[-1].strip()
    with suppress(Exception):
        return str(job.state)
    return "it left no log"


def _short() -> str:
    return uuid.uuid4().hex[:8]
