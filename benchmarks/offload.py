"""A passkey trial with hidden states and keys in host memory, on half of what it takes without.

The device is a processor's: all that any operation makes is counted, and what is in host memory is
copied to it and back as to a GPU. The first side finds the peak, the second may use half of it.
At full size: `--lengths 2048k`.
"""

import json
from argparse import ArgumentParser, Namespace

from sides import Facts, Row, gigabytes, main, parser

from harness.lengths import label

MOST = 1.3
"""Times as long as without."""
PLENTY = 2**50
"""Bytes: counts, and forbids nothing."""


def whole(given: Namespace) -> Facts:
    return _measured(given, PLENTY)


def half(given: Namespace) -> Facts:
    peak = json.loads((given.folder / "whole.json").read_text())["peak"]
    return _measured(given, peak // 2)


def rows(given: Namespace, found: dict[str, Facts]) -> list[Row]:
    without, beside = found["whole"], found["half"]
    ratio = beside["seconds"] / without["seconds"]
    how = f"blocks of {beside['block']}, host memory: {'yes' if beside['offload'] else 'no'}"
    return [
        Row(
            what=f"passkey at {label(given.lengths[-1])}, half the memory ({how})",
            ours=f"{beside['seconds']:.3g} s",
            peer=f"{without['seconds']:.3g} s",
            ratio=f"{ratio:.2f}x",
            bar=f"≤ {MOST:g}x",
            reached=ratio <= MOST,
        ),
        Row(
            what="on the device at most",
            ours=gigabytes(beside["peak"]),
            peer=gigabytes(without["peak"]),
            ratio=f"{beside['peak'] / without['peak']:.2f}x",
            bar="≤ 0.5x",
            reached=beside["peak"] <= without["peak"] // 2,
        ),
        Row(
            what="the same verdict",
            ours=f"{beside['value']:g}",
            peer=f"{without['value']:g}",
            bar="equal",
            reached=beside["value"] == without["value"],
        ),
    ]


def flags() -> ArgumentParser:
    made = parser(__doc__, model="toy", lengths="256k")
    made.add_argument("--method", default="longrope")
    return made


def _measured(given: Namespace, room: int) -> Facts:
    """One cell, by the first step that fits; `all_steps` is with those that did not."""
    import time

    from harness.executors import local
    from harness.executors.ranks import Nobody
    from harness.plan import Options, plan
    from harness.store import Store

    wish = Options(
        models=(given.model,),
        methods=(given.method,),
        tasks=("passkey,samples=1,depths=0.5",),
        lengths=(given.lengths[-1],),
        device="cpu",
        memory=room,
    )
    cells = plan(wish)
    started = time.perf_counter()
    (result,) = local.execute(cells, Store(given.folder / given.side), wish, Nobody())
    if result.status != "scored":
        raise ValueError(f"The cell could not be measured: {result.reason}.")
    said = result.provenance
    return {
        "seconds": result.seconds,
        "all_steps": time.perf_counter() - started,
        "peak": said["device_memory"]["peak"],
        "block": said["block"],
        "offload": said["offload"],
        "value": result.value,
        "threads": said["threads"],
    }


if __name__ == "__main__":
    main(flags(), {"whole": whole, "half": half}, rows)
