"""Attention in AVX-512's bfloat16 dot products: native.c, compiled when first used.

Without AMX torch's kernel multiplies in float32, at under half the speed. Without a compiler there
is no kernel here, and torch's is used.
"""

import ctypes
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import machine

SOURCE = Path(__file__).with_name("native.c")
FEATURES = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16", "fma")
COMPILERS = ("cc", "gcc", "clang")
FLAGS = [
    *("-O3", "-std=gnu11", "-shared", "-fPIC", "-pthread", "-mfma"),
    *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512bf16"),
]


def supported(dtype: torch.dtype, head_dim: int) -> bool:
    """Whether the processor has what it takes and torch's kernel is slower: with AMX it is not."""
    flags = machine.cpu_flags()
    return (
        dtype == torch.bfloat16
        and head_dim % 16 == 0
        and 16 <= head_dim <= 256
        and flags.issuperset(FEATURES)
        and "amx_bf16" not in flags
    )


def fits(q: Tensor, k: Tensor, v: Tensor, scale: float) -> bool:
    """Whether these are inputs it takes; it has no gradient."""
    return (
        all(x.dtype == torch.bfloat16 and x.stride(-1) == 1 for x in (q, k, v))
        and q.shape[0] == 1
        and k.shape[2] > 0
        and scale > 0
        and not (torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)))
    )


def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp, as every `Kernel` gives them, of what `fits`.

    Args:
        q: (1, heads, queries, dim), bfloat16, any strides but the last.
        k: (1, key heads, keys, dim).
        v: (1, key heads, keys, dim).
        causal: as many queries as keys, and none sees a later key.
        scale: what scores are multiplied by.
    """
    attend = library()
    assert attend and (not causal or q.shape[2] == k.shape[2])
    _, heads, queries, dim = q.shape
    # As torch lays them out: a layer's next step joins a token's heads.
    out = q.new_empty(1, queries, heads, dim).transpose(1, 2)
    lse = q.new_empty(1, queries, heads, dtype=torch.float32).transpose(1, 2)
    strides = [s for x in (q, k, v, out, lse) for s in x.stride()[1:3]]
    failed = attend(
        *(x.data_ptr() for x in (q, k, v, out, lse)),
        (ctypes.c_int64 * 5)(heads, k.shape[1], queries, k.shape[2], dim),
        (ctypes.c_int64 * 10)(*strides),
        causal,
        scale,
        torch.get_num_threads(),
    )
    if failed:
        raise MemoryError("out of memory in the attention kernel")
    return out, lse


@cache
def library() -> Callable[..., int] | None:
    """The compiled function; None where it cannot be had."""
    pointer: Any = ctypes.c_void_p
    for compiler in filter(None, map(shutil.which, COMPILERS)):
        try:
            attend = ctypes.CDLL(str(_compiled(compiler))).attend
        except (OSError, AttributeError, subprocess.SubprocessError):
            continue
        attend.argtypes = [pointer] * 7 + [ctypes.c_int, ctypes.c_float, ctypes.c_int]
        attend.restype = ctypes.c_int
        return attend
    return None


def _compiled(compiler: str) -> Path:
    """The shared library, made once for a source, compiler and flags; there whole or not at all."""
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, check=True, timeout=60
    ).stdout
    made_of = SOURCE.read_bytes() + version + " ".join(FLAGS).encode()
    file = machine.cache_folder() / "native" / f"{hashlib.sha256(made_of).hexdigest()}.so"
    if file.exists():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        half = Path(folder) / file.name
        subprocess.run(
            [compiler, *FLAGS, str(SOURCE), "-o", str(half), "-lm"],
            capture_output=True,
            check=True,
            timeout=120,
        )
        half.replace(file)
    return file
