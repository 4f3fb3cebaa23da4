"""One input read by two processes, a core each, against one process on one core.

The engine alone, on one passkey prompt: both ranks have read the model and wait for each other
before the clock starts. `--lengths` takes another length.
"""

import multiprocessing
import os
import time
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from sides import Facts, Row, at_least, main, model, parser

from harness.lengths import label

if TYPE_CHECKING:
    from harness.engine.parallel import Alone

FASTER = 1.7


def one(given: Namespace) -> Facts:
    return _measured(given, 1)


def two(given: Namespace) -> Facts:
    return _measured(given, 2)


def rows(given: Namespace, found: dict[str, Facts]) -> list[Row]:
    what = f"{label(given.lengths[-1])} tokens, two ranks against one"
    furthest = max(abs(a - b) for a, b in zip(*(f["losses"] for f in found.values()), strict=True))
    return [
        at_least(what, found["two"], found["one"], FASTER),
        Row(what="furthest apart of their losses, in nats", ours=f"{furthest:.2g}"),
    ]


def flags() -> ArgumentParser:
    made = parser(__doc__, model="smollm2-135m", lengths="32k")
    made.add_argument("--repeats", type=int, default=1, help="turns; the best counts")
    return made


def _measured(given: Namespace, ranks: int) -> Facts:
    """What the first of so many ranks found, each in a process and on a core of its own."""
    context = multiprocessing.get_context("spawn")
    came, out = context.Pipe(duplex=False)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < ranks:
        raise ValueError(f"{ranks} ranks need {ranks} cores, and there are {len(cores)}.")
    place = str(given.folder / f"store-{ranks}")
    processes = [
        context.Process(target=_be, args=(given, place, rank, ranks, cores[rank], out))
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    out.close()
    try:
        return came.recv()
    except EOFError:
        raise ValueError(f"One of {ranks} ranks has died.") from None
    finally:
        for process in processes:
            process.join(10)
            process.kill()


def _be(given: Namespace, place: str, rank: int, ranks: int, core: int, out: Any) -> None:
    os.sched_setaffinity(0, [core])
    import torch
    import torch.distributed as dist

    from harness.engine.parallel import ALONE, Ranks

    torch.set_num_threads(1)
    if ranks > 1:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        store = dist.FileStore(place, ranks)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    facts = _timed(given, Ranks() if ranks > 1 else ALONE)
    if rank == 0:
        out.send({"threads": ranks, **facts})
    if ranks > 1:
        dist.destroy_process_group()


def _timed(given: Namespace, ranks: "Alone") -> Facts:
    import numpy as np

    from harness.engine.evaluate import evaluate
    from harness.task import Losses, Request

    live, length = model(given), given.lengths[-1]
    tokens = np.random.default_rng(0).integers(5, live.card.shape["vocabulary"], length)
    asked = [Request(id="", tokens=tokens, ask=Losses(start=length - 64, stop=length))]
    best = float("inf")
    for _ in range(given.repeats):
        with ranks.in_step():
            pass  # all begin together
        started = time.perf_counter()
        (losses,) = evaluate(live.model, asked, ranks=ranks)
        best = min(best, time.perf_counter() - started)
    return {"seconds": best, "losses": [float(x) for x in losses]}


if __name__ == "__main__":
    main(flags(), {"one": one, "two": two}, rows)
