"""One pass after the other, each read by several processes together.

The first rank is the command itself: it plans, shows and writes. The others are told what to read
along, a cell file for each pass, and keep nothing. They are started from here, on this machine and
heard by nobody else, or they are torchrun's: `torchrun ... -m harness run ...`.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import IO

import torch
import torch.distributed as dist

from harness import machine
from harness.cell import Cell, Result
from harness.engine.parallel import Elsewhere, Ranks, Shards
from harness.executors import local
from harness.executors.work import CellFile, units
from harness.plan import Options, Planned, Watch
from harness.run import Finished, refused
from harness.store import Store

LOOPBACK = "127.0.0.1"
TRUST = "--trust-remote-code"
PATIENCE = 300
"""Seconds for the others to start."""


@dataclass(frozen=True)
class RankedExecutor:
    """Each pass is read by several processes."""

    ranks: int | None = None
    """None: as many as torchrun has started."""

    def execute(
        self, plan: Sequence[Planned], store: Store, options: Options, watch: Watch
    ) -> Iterator[Result]:
        """Run these cells, each on all ranks, and yield each result once it is stored here.

        Raises:
            ValueError: there are not so many GPUs.
            OSError: a rank did not start.
        """
        with self._begun(options) as ranks:
            first = First(options, watch, _sharing(ranks, options))
            yield from local.execute(plan, store, options, watch, first)
            with suppress(Elsewhere):  # who has died need not be told
                ranks.say()

    def _begun(self, options: Options) -> AbstractContextManager[Ranks]:
        if self.ranks is None:
            return _joined(machine.device(options.device))
        return _started(self.ranks, options)

    def dismiss(self, options: Options) -> None:
        """Let go those whom torchrun has started, where there is nothing to read."""
        if self.ranks is None:
            with _joined(machine.device(options.device)) as ranks:
                ranks.say()


class First(local.Host):
    """Measures, and says to the others what."""

    def measure(
        self, plan: Iterable[Planned], done: Callable[[Cell], bool] = lambda cell: False
    ) -> Iterator[Finished]:
        for unit in units(list(plan)):
            left = [planned for planned in unit if not done(planned.cell)]
            if not left:
                continue
            try:
                self.ranks.say(CellFile.of(left, self.options).model_dump_json())
            except Elsewhere as error:
                yield from (refused(planned.cell, "failed", str(error)) for planned in left)
            else:
                yield from super().measure(left)


class Nobody:
    """A watch."""

    def cell_started(self, cells: Sequence[Cell], tokens: int) -> None: ...

    def progressed(self, tokens: float) -> None: ...

    def cell_finished(self, result: Result) -> None: ...

    def note(self, message: str) -> None: ...


def follow(trust_remote_code: bool = False, device: str = "auto") -> None:
    """Read along whatever the first rank says, until it says nothing more."""
    with _joined(machine.device(device)) as ranks:
        host: local.Host | None = None
        while said := ranks.say():
            work = CellFile.said(said)
            options = work.options(trust_remote_code)
            host = host or local.Host(options, Nobody(), _sharing(ranks, options))
            for _ in host.measure(work.plan()):
                pass


def _sharing(ranks: Ranks, options: Options) -> Ranks:
    """What they share: a stretch of tokens, or each weight."""
    return Shards() if options.shards > 1 else ranks


@contextmanager
def _joined(on: str) -> Iterator[Ranks]:
    """As the environment says: torchrun's, or that of `_started`."""
    if on == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    store = None
    if not dist.is_torchelastic_launched():
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(address, port, int(os.environ["WORLD_SIZE"]), is_master=False)
        store.set(f"here {os.environ['RANK']}", "")
    with _group(on, store, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) as ranks:
        yield ranks


@contextmanager
def _started(count: int, options: Options) -> Iterator[Ranks]:
    """Start the others, and end them when done."""
    on = machine.device(options.device)
    if on == "cuda" and count > torch.cuda.device_count():  # each rank has its own
        there = torch.cuda.device_count()
        raise ValueError(f"--ranks {count} needs as many GPUs, and there are {there}.")
    store = _store(count)
    each, before = max(1, machine.cores() // count), torch.get_num_threads()
    shared = {
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": LOOPBACK,
        "MASTER_PORT": str(store.port),
        "OMP_NUM_THREADS": str(each),
    }
    command = [sys.executable, "-P", "-m", "harness.executors.ranks", on]
    command += [TRUST] if options.trust_remote_code else []
    others: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryFile() as said:
        try:
            for rank in range(1, count):
                own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                others.append(
                    subprocess.Popen(
                        command,
                        env=os.environ | shared | own,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=said,
                        start_new_session=True,  # an interrupt is the first rank's to hear
                    )
                )
            _wait(store, others, said)
            torch.set_num_threads(each)
            if on == "cuda":
                torch.cuda.set_device(0)
            with _group(on, store, 0, count) as ranks:
                yield ranks
            for other in others:
                with suppress(subprocess.TimeoutExpired):  # its end is not waited for
                    other.wait(10)
        finally:
            torch.set_num_threads(before)
            for other in others:
                other.kill()
                other.wait()


def _store(count: int) -> dist.TCPStore:
    """Where ranks meet: torch itself would listen to every network of this machine."""
    heard = socket.create_server((LOOPBACK, 0))
    port = heard.getsockname()[1]
    return dist.TCPStore(
        LOOPBACK,
        port,
        count,
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=heard.detach(),  # which is the store's to close
    )


def _wait(store: dist.TCPStore, others: list[subprocess.Popen[bytes]], said: IO[bytes]) -> None:
    """Until all are there.

    Raises:
        ChildProcessError: one has ended, or they take too long; with its last words.
    """
    until = time.monotonic() + PATIENCE
    while not store.check([f"here {rank}" for rank in range(1, len(others) + 1)]):
        ended = [other for other in others if other.poll() is not None]
        if ended or time.monotonic() > until:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            said_last = lines[-1] if lines else "it said nothing"
            raise ChildProcessError(f"A rank did not start: {said_last}")
        time.sleep(0.05)


@contextmanager
def _group(on: str, store: dist.Store | None, rank: int, size: int) -> Iterator[Ranks]:
    backend = "cpu:gloo,cuda:nccl" if on == "cuda" else "gloo"
    before = os.environ.get("GLOO_SOCKET_IFNAME")
    if store is not None:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    else:
        dist.init_process_group(backend)
    try:
        yield Ranks()
    finally:
        with suppress(RuntimeError):
            dist.destroy_process_group()
        if store is not None:
            os.environ.pop("GLOO_SOCKET_IFNAME")
            if before is not None:
                os.environ["GLOO_SOCKET_IFNAME"] = before


if __name__ == "__main__":
    follow(TRUST in sys.argv, sys.argv[1])
