"""What a (query, key) pair costs in torch's attention kernel and in ours, in processor time.

Run: python benchmarks/attention_kernel.py. One thread, the best of several turns taken in
alternation, so that other work on the machine changes little.
"""

import time

import torch

from harness import machine
from harness.engine import native
from harness.engine.kernels import torch_cpu

TURNS = 7
SHAPES = {32: (8, 4), 64: (9, 3), 128: (4, 2)}
"""Heads and key heads at each head dimension."""
QUERIES, KEYS = 1024, 8192


def nanoseconds(kernel, q, k, v, causal):
    started = time.process_time()
    kernel(q, k, v, causal, q.shape[-1] ** -0.5)
    spent = time.process_time() - started
    pairs = q.shape[1] * q.shape[2] * ((q.shape[2] + 1) / 2 if causal else k.shape[2])
    return spent / pairs * 1e9


def main():
    if not (native.supported(torch.bfloat16, 64) and native.library()):
        raise SystemExit("This machine has no AVX-512 bfloat16 without AMX, or no C compiler.")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{machine.cpu_name()}, torch {torch.__version__}, ns a (query, key) pair, 1 thread\n")
    print("| head dim | heads / key heads | queries x keys | torch | native | ratio |")
    print("|---:|---:|---:|---:|---:|---:|")
    for dim, (heads, key_heads) in SHAPES.items():
        for keys, causal in ((KEYS, False), (QUERIES, True)):
            q = torch.randn(1, heads, QUERIES, dim).bfloat16()
            k, v = torch.randn(2, 1, key_heads, keys, dim).bfloat16()
            turns = [
                [nanoseconds(f, q, k, v, causal) for f in (torch_cpu, native.attention)]
                for _ in range(TURNS)
            ]
            theirs, ours = (min(costs) for costs in zip(*turns, strict=True))
            shape = f"{QUERIES} x {keys}" + (", causal" if causal else "")
            print(
                f"| {dim} | {heads} / {key_heads} | {shape} "
                f"| {theirs:.2f} | {ours:.2f} | {theirs / ours:.2f} |"
            )


if __name__ == "__main__":
    main()
