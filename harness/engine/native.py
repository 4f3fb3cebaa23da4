"""Attention and its gradient in AVX-512's bfloat16 dot products: C, compiled when first used.

Without AMX torch's kernel multiplies in float32, at under half the speed. Without a compiler there
is no kernel here, and torch's is used.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import machine

SOURCES = tuple(map(Path(__file__).with_name, ("native.c", "native_backward.c")))
HEADER = Path(__file__).with_name("native.h")
FEATURES = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16", "fma")
PROCESS = os.getpid()
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
    """Whether these are inputs that `attention` takes; by itself it has no gradient."""
    return (
        all(x.dtype == torch.bfloat16 and x.stride(-1) == 1 for x in (q, k, v))
        and k.shape[2] > 0
        and scale > 0
        and not (torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)))
    )


def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp, as every `Kernel` gives them, of what `fits`.

    Args:
        q: (batch, heads, queries, dim), bfloat16, any strides but the last.
        k: (batch, key heads, keys, dim).
        v: (batch, key heads, keys, dim).
        causal: as many queries as keys, and none sees a later key.
        scale: what scores are multiplied by.
    """
    compiled = library()
    assert compiled and (not causal or q.shape[2] == k.shape[2])
    batch, heads, queries, dim = q.shape
    # As torch lays them out: a layer's next step joins a token's heads.
    out = _by_token(q)
    lse = q.new_empty(batch, queries, heads, dtype=torch.float32).transpose(1, 2)
    sizes = (ctypes.c_int64 * 5)(heads, k.shape[1], queries, k.shape[2], dim)
    tensors = (q, k, v, out, lse)
    for pointers in _pointers(tensors) if q.numel() else ():
        _run(compiled.attend, *pointers, sizes, _strides(tensors), causal, scale)
    return out, lse


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values of causal `attention`; the same for any threads.

    Args:
        grad: of the output, (batch, heads, tokens, dim), bfloat16, any strides but the last.
        q: (batch, heads, tokens, dim).
        k: (batch, key heads, tokens, dim).
        v: (batch, key heads, tokens, dim).
        out: what `attention` gave.
        lse: with it, natural logarithms, (batch, heads, tokens), float32.
        scale: what scores were multiplied by.
    """
    compiled = library()
    assert compiled and q.shape[2] == k.shape[2]
    sizes = (ctypes.c_int64 * 4)(q.shape[1], k.shape[1], q.shape[2], q.shape[3])
    given, grads = (q, k, v, out, grad), tuple(map(_by_token, (q, k, v)))
    strides = _strides((*given, lse, *grads))
    for *inputs, sums, dq, dk, dv in _pointers((*given, lse, *grads)) if q.numel() else ():
        inputs, outputs = (ctypes.c_void_p * 5)(*inputs), (ctypes.c_void_p * 3)(dq, dk, dv)
        _run(compiled.attend_backward, inputs, sums, outputs, sizes, strides, scale)
    return grads


def _run(function: Any, *arguments: Any) -> None:
    if function(*arguments, _team(), torch.get_num_threads()):
        raise MemoryError("out of memory in the attention kernel")


def _team() -> ctypes.c_void_p | None:
    """Torch's own threads; None in a forked process, which has not got those it is told of."""
    return _parallel() if os.getpid() == PROCESS else None


@cache
def _parallel() -> ctypes.c_void_p | None:
    """GOMP_parallel of torch's own OpenMP; None where it has another name."""
    found = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
    return found and ctypes.cast(found, ctypes.c_void_p)


def _by_token(x: Tensor) -> Tensor:
    """An empty tensor of the same shape in which a token's heads lie together."""
    return x.new_empty(x.transpose(1, 2).shape).transpose(1, 2)


def _pointers(tensors: tuple[Tensor, ...]) -> list[tuple[int, ...]]:
    """Of each member of a batch."""
    return [tuple(x.data_ptr() for x in member) for member in zip(*tensors, strict=True)]


def _strides(tensors: tuple[Tensor, ...]) -> ctypes.Array[ctypes.c_int64]:
    """Of heads and of tokens."""
    strides = [s for x in tensors for s in x.stride()[1:3]]
    return (ctypes.c_int64 * len(strides))(*strides)


@cache
def library() -> ctypes.CDLL | None:
    """The compiled functions; None where they cannot be had."""
    pointer: Any = ctypes.c_void_p
    for compiler in filter(None, map(shutil.which, COMPILERS)):
        try:
            compiled = ctypes.CDLL(str(_compiled(compiler)))
            attend, backward = compiled.attend, compiled.attend_backward
        except (OSError, AttributeError, subprocess.SubprocessError):
            continue
        last = [ctypes.c_float, pointer, ctypes.c_int]
        attend.argtypes = [*[pointer] * 7, ctypes.c_int, *last]
        backward.argtypes = [*[pointer] * 5, *last]
        return compiled
    return None


def _compiled(compiler: str) -> Path:
    """The shared library, made once for a source, compiler and flags; there whole or not at all."""
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, check=True, timeout=60
    ).stdout
    sources = b"".join(path.read_bytes() for path in (HEADER, *SOURCES))
    made_of = sources + version + " ".join(FLAGS).encode()
    file = machine.cache_folder() / "native" / f"{hashlib.sha256(made_of).hexdigest()}.so"
    if file.exists():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        half = Path(folder) / file.name
        subprocess.run(
            [compiler, *FLAGS, *map(str, SOURCES), "-o", str(half), "-lm"],
            capture_output=True,
            check=True,
            timeout=120,
        )
        half.replace(file)
    return file
