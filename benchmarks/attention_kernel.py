"""What a (query, key) pair costs in torch's attention kernels and in ours, in processor time.

Run: python benchmarks/attention_kernel.py. One thread, the best of several turns taken in
alternation, so that other work on the machine changes little.
"""

import time
from functools import partial

import torch

from harness import machine
from harness.engine import native
from harness.engine.kernels import torch_cpu

TURNS = 7
SHAPES = {32: (8, 4), 64: (9, 3), 128: (4, 2)}
"""Heads and key heads at each head dimension."""
QUERIES, KEYS = 1024, 8192


def torch_backward(grad, q, k, v, out, lse, scale):
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, q, k, v, out, lse, 0.0, True, scale=scale
    )


def sides(direction, q, k, v):
    """Torch's work and ours."""
    causal, scale = direction != "forward", q.shape[-1] ** -0.5
    if direction != "backward, causal":
        return [partial(f, q, k, v, causal, scale) for f in (torch_cpu, native.attention)]
    given = (torch.randn_like(q), q, k, v, *native.attention(q, k, v, True, scale), scale)
    return [partial(f, *given) for f in (torch_backward, native.backward)]


def nanoseconds(work, pairs):
    started = time.process_time()
    work()
    return (time.process_time() - started) / pairs * 1e9


def main():
    if not (native.supported(torch.bfloat16, 64) and native.library()):
        raise SystemExit("This machine has no AVX-512 bfloat16 without AMX, or no C compiler.")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{machine.cpu_name()}, torch {torch.__version__}, ns a (query, key) pair, 1 thread\n")
    print("| head dim | heads / key heads | direction | queries x keys | torch | native | ratio |")
    print("|---:|---:|---|---:|---:|---:|---:|")
    for dim, (heads, key_heads) in SHAPES.items():
        for direction in ("forward", "forward, causal", "backward, causal"):
            keys = KEYS if direction == "forward" else QUERIES
            q = torch.randn(1, heads, QUERIES, dim).bfloat16()
            k, v = torch.randn(2, 1, key_heads, keys, dim).bfloat16()
            pairs = heads * QUERIES * (keys if direction == "forward" else (keys + 1) / 2)
            both = sides(direction, q, k, v)
            turns = [[nanoseconds(work, pairs) for work in both] for _ in range(TURNS)]
            theirs, ours = (min(costs) for costs in zip(*turns, strict=True))
            print(
                f"| {dim} | {heads} / {key_heads} | {direction} | {QUERIES} x {keys} "
                f"| {theirs:.2f} | {ours:.2f} | {theirs / ours:.2f} |"
            )


if __name__ == "__main__":
    main()
