"""How sure a number is: intervals for proportions and for means of clustered values."""

from collections.abc import Hashable, Sequence
from math import sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of a proportion that behaves at few trials, and at 0 and n successes.

    Wilson 1927, https://doi.org/10.2307/2276774, without continuity correction.

    Raises:
        ValueError: no trials, or more successes than trials.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} successes in {n} trials are no proportion.")
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = successes / n
    centre = p + z**2 / (2 * n)
    margin = z * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = ((centre + sign * margin) / (1 + z**2 / n) for sign in (-1, 1))
    return (0.0 if successes == 0 else low), (1.0 if successes == n else high)


def bootstrap_mean(
    values: "Sequence[float] | np.ndarray",
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    level: float = 0.95,
    rounds: int = 2000,
) -> tuple[float, float]:
    """The percentile interval of a mean, by drawing whole clusters again and again.

    Windows of one document are alike, so documents are drawn, not windows; without clusters each
    value is its own. Efron & Tibshirani 1993, An Introduction to the Bootstrap, section 13.3;
    clusters after Davison & Hinkley 1997, Bootstrap Methods and their Application, section 3.8.

    Raises:
        ValueError: fewer than two clusters, from which nothing can be said about the spread.
    """
    import numpy as np

    values = np.asarray(values, dtype=np.float64)
    keys = list(range(len(values))) if clusters is None else list(clusters)
    if len(keys) != len(values):
        raise ValueError(f"There are {len(values)} values and {len(keys)} clusters for them.")
    index = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    if len(index) < 2:
        raise ValueError(f"An interval needs at least 2 clusters, and there are {len(index)}.")
    of_value = np.array([index[key] for key in keys])
    sums = np.bincount(of_value, weights=values)
    counts = np.bincount(of_value)
    drawn = np.random.default_rng(seed).integers(len(index), size=(rounds, len(index)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
