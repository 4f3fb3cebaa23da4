"""CLEX's frequencies at t = 16, forward and backward, against the published layer's work.

That is torchdiffeq's rk4 at steps of 0.01 in float32: 6000 evaluations, each of which computes the
NTK-aware frequencies again. Both are held to a solution in float64, at half of those steps.
"""

import time
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from statistics import median

import torch
from sides import Facts, Row, at_least, main, parser, threads
from torch import Tensor
from torchdiffeq import odeint

from harness import catalog
from harness.rope import Rope

FASTER = 20
DIMS = (64, 128)
THETA, STEP = 1e4, 0.01


def exact(given: Namespace) -> Facts:
    """Leaves, for each dimension, the log frequencies and the gradients of the loss."""
    for dim in DIMS:
        weights = _weights(dim, torch.float64)
        found = _solved(weights, dim, given.factor, STEP / 2)
        _loss(found.exp()).backward()
        kept = [found.detach(), *(w.grad for w in weights)]
        torch.save(kept, given.folder / f"{dim}.pt")
    return {"threads": threads()}


def published(given: Namespace) -> Facts:
    def frequencies(weights: list[Tensor], dim: int, t: float) -> Tensor:
        return _solved(weights, dim, t, STEP).exp()

    return _side(given, frequencies)


def ours(given: Namespace) -> Facts:
    from importlib import import_module

    clex = catalog.load("methods", "clex")
    equation = import_module(type(clex).__module__).Equation

    def frequencies(weights: list[Tensor], dim: int, t: float) -> Tensor:
        rope = Rope(theta=THETA, dim=dim, original_length=4096)
        layer = equation(*weights)
        layer.ode_up_proj, layer.ode_down_proj = map(torch.nn.Parameter, weights)
        weights[:] = layer.parameters()
        return replace(clex, factor=t).encoding(rope, 4096, layer).frequencies

    return _side(given, frequencies)


def rows(given: Namespace, found: dict[str, Facts]) -> list[Row]:
    made = []
    for dim in map(str, DIMS):
        mine, theirs = (found[side][dim] for side in ("ours", "published"))
        what = f"head dimension {dim}, t = {given.factor:g}"
        made.append(at_least(f"{what}, forward and backward", mine, theirs, FASTER))
        for key, name in (("error", "log frequencies"), ("gradient_error", "gradients, relative")):
            made.append(
                Row(
                    what=f"{what}, largest error of {name}",
                    ours=f"{mine[key]:.1e}",
                    peer=f"{theirs[key]:.1e}",
                    bar="no larger",
                    reached=mine[key] <= theirs[key],
                )
            )
    return made


def flags() -> ArgumentParser:
    made = parser(__doc__)
    made.add_argument("--factor", type=float, default=16.0, help="the time t to solve for")
    made.add_argument("--repeats", type=int, default=3, help="the median of so many is kept")
    return made


def _side(given: Namespace, frequencies) -> Facts:
    return {str(dim): _timed(given, dim, frequencies) for dim in DIMS}


def _timed(given: Namespace, dim: int, frequencies) -> Facts:
    _loss(frequencies(_weights(dim), dim, 1.5)).backward()  # what is loaded at first is loaded
    forward, backward = [], []
    for _ in range(given.repeats):
        weights = _weights(dim)
        started = time.perf_counter()
        found = frequencies(weights, dim, given.factor)
        solved = time.perf_counter()
        _loss(found).backward()
        forward.append(solved - started)
        backward.append(time.perf_counter() - solved)
    exactly, *gradients = torch.load(given.folder / f"{dim}.pt", weights_only=True)
    pairs = zip((w.grad for w in weights), gradients, strict=True)
    return {
        "seconds": median(forward) + median(backward),
        "forward": median(forward),
        "backward": median(backward),
        "error": float((found.detach().double().log() - exactly).abs().max()),
        "gradient_error": max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs),
    }


def _weights(dim: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """W_up as it is drawn, W_down as after some training."""
    generator = torch.Generator().manual_seed(dim)
    up = (2 * torch.rand(dim // 2, dim, generator=generator) - 1) / dim**0.5
    down = 0.01 * torch.randn(dim, dim // 2, generator=generator)
    return [w.to(dtype).requires_grad_() for w in (up, down)]


def _loss(frequencies: Tensor) -> Tensor:
    return (frequencies * torch.arange(1, len(frequencies) + 1)).sum()


def _solved(weights: list[Tensor], dim: int, t: float, step: float) -> Tensor:
    """Log frequencies at t: dz/dt = tanh((z + l(t)) W_up) W_down + dl/dt, z(1) = ln theta."""
    up, down = weights

    def slope(now: Tensor, z: Tensor) -> Tensor:
        alpha = 2 * now - 1 if now >= 1 else torch.ones_like(now)
        j = torch.arange(0, dim, 2, dtype=z.dtype)
        ntk = 1 / (THETA * alpha ** (dim / (dim - 2))) ** (j / dim)
        return torch.tanh((z + ntk.log()) @ up) @ down - 2 * j / ((dim - 2) * alpha)

    start = torch.log(1 / THETA ** (torch.arange(0, dim, 2, dtype=up.dtype) / dim))
    times = torch.tensor([1.0, t], dtype=up.dtype)
    return odeint(slope, start, times, method="rk4", options={"step_size": step})[1]


if __name__ == "__main__":
    main(flags(), {"exact": exact, "published": published, "ours": ours}, rows)
