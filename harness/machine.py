"""What this machine is, and how much memory a stretch of work took."""

import ctypes
import gc
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LARGE = 20 * 2**20
"""Bytes above which memory is asked of the system and given back: more than a block of logits."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's names for them
_STATUS = Path("/proc/self/status")
_REFS = Path("/proc/self/clear_refs")

CONTROL = Path("/sys/fs/cgroup")
NEW, OLD = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")
"""What a control group calls its limit and what is taken, in the second version and the first."""


def device(wanted: str = "auto") -> str:
    """`cpu` or `cuda`.

    Raises:
        ValueError: a GPU is asked for and there is none, or the name is neither.
    """
    import torch

    if wanted not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--device is auto, cpu or cuda, and {wanted!r} is none of them.")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "--device cuda was asked for, and torch sees no GPU here. Use --device cpu, or auto "
            "where others run the cells."
        )
    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted


def dtype(wanted: str, on: str) -> Any:
    """The torch dtype: `auto` is bfloat16 where the hardware multiplies it, else float32.

    Raises:
        ValueError: another name.
    """
    import torch

    known = {"bfloat16": torch.bfloat16, "float32": torch.float32}
    if wanted in known:
        return known[wanted]
    if wanted != "auto":
        raise ValueError(f"--dtype is auto, bfloat16 or float32, and {wanted!r} is none of them.")
    fast = on == "cuda" or "avx512_bf16" in cpu_flags() or "amx_bf16" in cpu_flags()
    return torch.bfloat16 if fast else torch.float32


@cache
def cpu_flags() -> frozenset[str]:
    """What the processor can do, in the kernel's words; empty where nobody says."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return frozenset()
    lines = (line for line in info.read_text().splitlines() if line.startswith("flags"))
    return frozenset(next(lines, "").partition(":")[2].split())


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def free_memory(on: str) -> int:
    """Bytes that can still be taken."""
    if on == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0]
    import psutil

    left = (limit - taken for limit, taken in _granted())
    return max(0, min([psutil.virtual_memory().available, *left]))


def taken_memory(on: str) -> int:
    """Bytes that this process has now: its resident set, or what the GPUs' allocator gave out."""
    if on == "cuda":
        import torch

        return sum(map(torch.cuda.memory_allocated, range(torch.cuda.device_count())))
    import psutil

    return psutil.Process().memory_info().rss


def whole_memory(on: str) -> int:
    """Bytes there are, taken or not."""
    if on == "cuda":
        import torch

        return torch.cuda.mem_get_info()[1]
    import psutil

    return min([psutil.virtual_memory().total, *(limit for limit, _ in _granted())])


def _granted() -> Iterator[tuple[int, int]]:
    """What each control group around this process allows and has taken, in bytes.

    A container's or a job's; caches of files, which go when there is need, are not counted.
    """
    for line in _lines(Path("/proc/self/cgroup")):
        _, kinds, inside = line.split(":", 2)
        old = "memory" in kinds.split(",")
        if kinds and not old:
            continue
        root = CONTROL / "memory" if old else CONTROL
        limit, taken = OLD if old else NEW
        place = root / inside.lstrip("/")
        for group in (place, *place.parents):
            if not group.is_relative_to(root):
                break
            most, now = (next(iter(_lines(group / name)), "") for name in (limit, taken))
            if most.isdecimal() and now.isdecimal():
                stat = dict(line.split(" ", 1) for line in _lines(group / "memory.stat"))
                kept = ("total_" if old else "") + "{}active_file"
                idle = sum(int(stat.get(kept.format(way), 0)) for way in ("", "in"))
                yield int(most), max(0, int(now) - idle)


def _lines(file: Path) -> list[str]:
    """Those of a file; none where it is not there, or not for us."""
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


@cache
def hold_blocks() -> None:
    """Keep the memory of blocks for the next block; let that of whole inputs go when it is freed.

    glibc draws the line where it has seen sizes come and go, and moves it above a layer's keys: the
    holes that they leave are then held, and grow with the input. Other libraries stay as they are.
    """
    libc = ctypes.CDLL(None) if platform.system() == "Linux" else None
    if hasattr(libc, "mallopt"):
        libc.mallopt(_MMAP_THRESHOLD, LARGE)
        libc.mallopt(_TRIM_THRESHOLD, 2 * LARGE)


def forget_peak(on: str) -> None:
    """Start measuring peak memory anew, where the system lets us."""
    if on == "cuda":
        import torch

        for gpu in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(gpu)
    else:
        try:
            _REFS.write_text("5")
        except OSError:
            return  # the peak since the process began is then what is reported


def peak_memory(on: str) -> int:
    """Bytes at most since `forget_peak`: the process's resident set, or of all its GPUs together.

    Each GPU's own peak, which need not fall into one moment.
    """
    if on == "cuda":
        import torch

        return sum(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())))
    if _STATUS.exists():
        lines = _STATUS.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    import resource

    scale = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


@cache
def versions() -> dict[str, str]:
    """Of all that can move a number."""
    found = {"python": platform.python_version()}
    packages = ("context-harness", "torch", "transformers", "tokenizers", "numpy", "flash-attn")
    for name in (*packages, "lm_eval"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def commit() -> dict[str, Any]:
    """The checkout this package runs from: commit and whether it was changed since; or nothing."""
    here = Path(__file__).parents[1]
    code = ["harness", "methods", "tasks"]
    if not (here / ".git").exists():
        return {}
    try:
        said = [
            subprocess.run(
                ["git", "-C", str(here), *words], capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "--", *code],
            )
        ]
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": said[0], "dirty": bool(said[1])}


def cache_folder() -> Path:
    """Where this project keeps what it can make again."""
    if chosen := os.environ.get("CONTEXT_HARNESS_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "context-harness")


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def let_go() -> None:
    """Give back what nobody refers to any more: a model's, before the next one is read.

    Its layers refer to one another, which only a search for cycles finds, and a GPU's allocator
    keeps what it has been given.
    """
    gc.collect()
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@contextmanager
def no_cycles() -> Iterator[None]:
    """What is made within is in no cycle, and to look for some takes a quarter of the time."""
    looking = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if looking:
            gc.enable()
