"""Named GPUs: how long a plan takes on them, what does not fit, and how many to take.

Data sheets say what a chip can do at most, and nobody reaches it. What is assumed is said with
each number; a time from here is good for choosing machines, to perhaps a third.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from harness import nearest
from harness.cost import LOGITS, PIECE, Blocks, Shape, Work, pairs, seen
from harness.method import Keys
from harness.plan import Planned

PRODUCTS = 0.6
"""Share of the peak that large matrix products reach: cuBLAS on an H100 gives 600 to 700 of 989."""
MEMORY = 0.8
"""Share of the bandwidth that a stream of reads reaches."""
CALL = 3e-4
"""Seconds that a layer takes at least, to be called from Python."""
RESERVED = 1.5e9
"""Bytes that the driver, its libraries and a fragmented allocator keep to themselves."""
SHARED = 0.9
"""Share of its speed that a GPU keeps where several share one pass."""
WITHIN = 1.05
"""A split is as cheap as the cheapest up to here: what is left is noise."""
BFLOAT16 = 2
BLOCK, LARGER = 2048, 4
"""Rows of a block, and how many times more they are where keys lie in host memory: as
`harness.executors.local` has it."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """As its data sheet has it: decimal units, dense products, per GPU."""

    name: str
    title: str
    memory: float
    """Bytes."""
    bf16: float
    """Operations a second, float32 sums."""
    fp32: float
    """The same without tensor cores, as the head is computed."""
    bandwidth: float
    """Bytes a second of its memory."""
    host: float
    """Bytes a second to the host's memory, one way, as streams reach it."""
    attention: float
    """Share of the peak that FlashAttention-2, which torch has, reaches at long inputs."""
    source: str


A100 = "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/"
FLASH_2 = "FlashAttention-2, https://arxiv.org/abs/2307.08691: 50 to 73 % of an A100's peak"
FLASH_3 = "FlashAttention-3, https://arxiv.org/abs/2407.08608: the second reaches 35 % of an H100's"
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu(
            name="a100-40",
            title="A100 SXM 40 GB",
            memory=40e9,
            bf16=312e12,
            fp32=19.5e12,
            bandwidth=1.555e12,
            host=25e9,
            attention=0.6,
            source=f"{A100}nvidia-a100-datasheet.pdf; {FLASH_2}",
        ),
        Gpu(
            name="a100-80",
            title="A100 SXM 80 GB",
            memory=80e9,
            bf16=312e12,
            fp32=19.5e12,
            bandwidth=2.039e12,
            host=25e9,
            attention=0.6,
            source=f"{A100}nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf; {FLASH_2}",
        ),
        Gpu(
            name="h100",
            title="H100 SXM 80 GB",
            memory=80e9,
            bf16=989e12,
            fp32=67e12,
            bandwidth=3.35e12,
            host=50e9,
            attention=0.35,
            source=f"https://www.nvidia.com/en-us/data-center/h100/; {FLASH_3}",
        ),
        Gpu(
            name="h200",
            title="H200 SXM 141 GB",
            memory=141e9,
            bf16=989e12,
            fp32=67e12,
            bandwidth=4.8e12,
            host=50e9,
            attention=0.35,
            source=f"https://www.nvidia.com/en-us/data-center/h200/; {FLASH_3}",
        ),
        Gpu(
            name="b200",
            title="B200 SXM 180 GB",
            memory=180e9,
            bf16=2250e12,
            fp32=75e12,
            bandwidth=7.7e12,
            host=50e9,
            attention=0.16,
            source="https://www.nvidia.com/en-us/data-center/hgx/; attention is assumed to run as "
            "fast as on an H100, for which torch's kernel was not written either",
        ),
        Gpu(
            name="4090",
            title="GeForce RTX 4090 24 GB",
            memory=24e9,
            bf16=165.2e12,
            fp32=82.6e12,
            bandwidth=1.008e12,
            host=25e9,
            attention=0.6,
            source="https://images.nvidia.com/aem-dam/Solutions/geforce/ada/"
            "nvidia-ada-gpu-architecture.pdf, table 2; its attention is assumed as an A100's",
        ),
    )
}


def named(name: str) -> Gpu:
    """The GPU of this name.

    Raises:
        LookupError: none has it.
    """
    if name.lower() not in GPUS:
        raise LookupError(
            f"No GPU named {name!r}.{nearest.hint(name, GPUS)} There are: {', '.join(GPUS)}."
        )
    return GPUS[name.lower()]


@dataclass(frozen=True)
class Roofline:
    """A `harness.cost.Speed`: products or reads, whichever takes longer."""

    gpu: Gpu
    shape: Shape

    def start(self, work: Work) -> float:
        return 0.0

    def layer(self, blocks: Blocks, window: int | None) -> float:
        s = self.shape
        channels = s.heads * s.head_dim
        attended = 4 * channels * pairs(blocks, window) / (self.gpu.bf16 * self.gpu.attention)
        read = 2 * s.key_heads * s.head_dim * BFLOAT16 * seen(blocks, window)
        attended = np.maximum(attended, read / (self.gpu.bandwidth * MEMORY))
        return float(np.maximum(CALL, self._products(blocks, s.used) + attended).sum())

    def stored(self, blocks: Blocks) -> float:
        return float(np.maximum(CALL, self._products(blocks, self.shape.keyed)).sum())

    def head(self, rows: int) -> float:
        weights = self.shape.vocabulary * self.shape.hidden
        pieces = -(-rows // max(1, LOGITS // self.shape.vocabulary))
        read = pieces * weights * 4 / (self.gpu.bandwidth * MEMORY)
        return max(read, 2 * weights * rows / (self.gpu.fp32 * PRODUCTS))

    def _products(self, blocks: Blocks, weights: int) -> np.ndarray:
        read = weights * BFLOAT16 / (self.gpu.bandwidth * MEMORY)
        return np.maximum(read, 2 * weights * blocks[:, 0] / (self.gpu.bf16 * PRODUCTS))


@dataclass(frozen=True, kw_only=True)
class Pass:
    """Cells that are read together, on a GPU."""

    cells: tuple[Planned, ...]
    seconds: float
    """On one."""
    bytes: float
    """Of its memory."""
    host: float
    """Bytes of host memory; 0 where nothing is there."""
    runs: bool
    """It fits."""


def passes(plan: Sequence[Planned], gpu: Gpu, *, offload: bool = False) -> list[Pass]:
    """What a plan comes to on such GPUs, in bfloat16.

    Args:
        plan: with what its passes do.
        gpu: the kind.
        offload: what does not fit may lie in host memory: hidden states, and the keys of the layer
            in work.
    """
    from harness.executors.work import units

    known: dict[tuple[int, Shape, Keys], Pass] = {}
    found = []
    for unit in units([planned for planned in plan if not planned.unfit]):
        longest = max(unit, key=lambda planned: planned.work.tokens)
        key = id(longest.work), longest.shape, longest.keys
        whole = known.get(key) or known.setdefault(key, _pass(longest, gpu, offload))
        share = sum(planned.share for planned in unit)
        found.append(replace(whole, cells=tuple(unit), seconds=whole.seconds * share))
    return found


def _pass(planned: Planned, gpu: Gpu, offload: bool) -> Pass:
    work, shape, keys = planned.work, planned.shape, planned.keys
    seconds = work.seconds(shape, Roofline(gpu, shape))
    needs, host = work.bytes(shape, BFLOAT16, keys=keys, process=0), 0.0
    room = gpu.memory - RESERVED
    if offload and needs > room:
        kept, _ = work.keys(shape, BFLOAT16, keys.places)
        host = work.kept * shape.hidden * BFLOAT16 + kept
        needs += _on_its_way(shape) - host
        seconds = max(seconds, _keys_read(work, shape) / gpu.host)  # the one while the other
        seconds += 2 * shape.layers * work.scored * shape.hidden * BFLOAT16 / gpu.host
    return Pass(cells=(), seconds=seconds, bytes=needs, host=host, runs=needs <= room)


def _on_its_way(shape: Shape) -> float:
    """Bytes of what comes from there, and of larger blocks' further rows."""
    key = 2 * shape.key_heads * shape.head_dim * BFLOAT16
    rows = (LARGER - 1) * BLOCK
    return 3 * PIECE * key + rows * (3 * shape.intermediate + 6 * shape.hidden) * BFLOAT16


def _keys_read(work: Work, shape: Shape) -> float:
    """Bytes of keys and values that all blocks of all layers read of host memory."""
    key = 2 * shape.key_heads * shape.head_dim * BFLOAT16
    return sum(key * float(seen(work.inner, w).sum()) / LARGER for w in shape.windows)


@dataclass(frozen=True, kw_only=True)
class Split:
    """So many GPUs for so long."""

    gpus: int
    hours: float

    @property
    def gpu_hours(self) -> float:
        return self.gpus * self.hours


def split(found: Iterable[Pass], gpus: int, *, shared: int = 1) -> Split:
    """The longest passes first, each where there is room soonest.

    Args:
        found: passes; those that cannot run are left out.
        gpus: how many there are.
        shared: most GPUs that may share a pass which would else outlast all others.
    """
    run = [p.seconds for p in found if p.runs]
    even = sum(run) / gpus
    wanted = [(_ranks(seconds, even, min(gpus, shared)), seconds) for seconds in run]
    busy = np.zeros(gpus)
    for ranks, seconds in sorted(wanted, reverse=True):
        if ranks == 1:
            busy[int(busy.argmin())] += seconds
            continue
        free = np.argsort(busy, kind="stable")[:ranks]
        busy[free] = busy[free].max() + seconds / (ranks * SHARED)
    return Split(gpus=gpus, hours=float(busy.max()) / 3600)


def _ranks(seconds: float, even: float, most: int) -> int:
    """The fewest GPUs, a power of two, with which a pass takes no longer than an even share."""
    ranks = 1
    while ranks * 2 <= most and seconds / (ranks * (SHARED if ranks > 1 else 1)) > even * WITHIN:
        ranks *= 2
    return ranks


def splits(found: Sequence[Pass], most: int, *, shared: int = 1) -> list[Split]:
    """Of 1, 2, 4 ... and as many GPUs as there are."""
    counts = sorted({2**i for i in range(most.bit_length()) if 2**i <= most} | {most})
    return [split(found, count, shared=shared) for count in counts]


def cheapest(found: Sequence[Split]) -> Split:
    """The soonest of those that take hardly more GPU-hours than any."""
    least = min((s.gpu_hours for s in found), default=inf)
    return min((s for s in found if s.gpu_hours <= least * WITHIN), key=lambda s: s.hours)
