"""How sure a number is, and that two differ: intervals, and a test of paired items."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import ceil, comb, log2, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def wilson(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
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


FEW = 10
"""Of fewer clusters too few different means can be drawn."""


def mean_interval(
    values: "Sequence[float] | np.ndarray",
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """The interval of a mean of clustered values: bootstrap, or Student's t where they are few.

    With t, the mean is a ratio of the clusters' sums and counts, and its error that of the
    residuals: Cochran 1977, Sampling Techniques, section 6.4. The bootstrap's percentiles are taken
    so much further out that they are t's where values are normal, for as they are they cover 90 %
    of the time with ten clusters: Hesterberg 2015, https://doi.org/10.1080/00031305.2015.1089789

    Raises:
        ValueError: fewer than two clusters, from which nothing can be said about the spread.
    """
    from scipy.special import stdtrit

    sums, counts = _totals(values, clusters)
    k = len(sums)
    t = stdtrit(k - 1, (1 + level) / 2)
    if k >= FEW:
        out = NormalDist().cdf(sqrt(k / (k - 1)) * t)
        return bootstrap_mean(values, clusters, seed, 2 * out - 1)
    mean, margin = sums.sum() / counts.sum(), t * _error(sums, counts)
    return float(mean - margin), float(mean + margin)


def score_interval(
    values: "Sequence[float]", clusters: Sequence[Hashable] | None = None
) -> tuple[float | None, float | None]:
    """That of scores from 0 to 1; none where all are alike, from which no spread is seen."""
    low, high = (min(max(end, 0.0), 1.0) for end in mean_interval(values, clusters))
    return (None, None) if high - low <= ROUNDING else (low, high)


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

    sums, counts = _totals(values, clusters)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(rounds, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def stratified_interval(
    strata: "Sequence[Sequence[float]]",
    value: Callable[[Sequence[float]], float],
    clusters: Sequence[Sequence[Hashable]] | None = None,
    seed: int = 0,
    level: float = 0.95,
    rounds: int = 2000,
) -> tuple[float, float]:
    """The percentile interval of what is made of several groups' means, each drawn from by itself.

    Davison & Hinkley 1997, Bootstrap Methods and their Application, section 3.2. A group of n drawn
    again varies by (n - 1) / n of what it does, and so is spread by that; percentiles are t's, of
    as many degrees of freedom as the groups have together, as in `mean_interval`. Of a group with
    clusters whole clusters are drawn, and n is theirs.

    Args:
        strata: the values of each group.
        value: of the groups' means, in their order.
        clusters: of each group those of its values; None: each value is its own.
        seed: of the draws.
        level: how often it holds the true value.
        rounds: how often is drawn.

    Raises:
        ValueError: a group of fewer than two values or clusters, whose spread nobody knows.
    """
    import numpy as np
    from scipy.special import stdtrit

    names = [None] * len(strata) if clusters is None else clusters
    totals = [_totals(*group, least=1) for group in zip(strata, names, strict=True)]
    if any(len(sums) < 2 for sums, _ in totals):
        raise ValueError("A group of one value or cluster says nothing about its spread.")
    rng, means = np.random.default_rng(seed), []
    for sums, counts in totals:
        n, mean = len(sums), sums.sum() / counts.sum()
        which = rng.integers(n, size=(rounds, n))
        drawn = sums[which].sum(1) / counts[which].sum(1)
        means.append(mean + sqrt(n / (n - 1)) * (drawn - mean))
    values = [value(drawn) for drawn in np.transpose(means).tolist()]
    free = sum(len(sums) - 1 for sums, _ in totals)
    out = NormalDist().cdf(stdtrit(free, (1 + level) / 2))
    low, high = np.quantile(values, [1 - out, out])
    return float(low), float(high)


EXACT = 18
"""Up to so many pairs every assignment of signs is looked at; of more, so many are drawn:"""
DRAWS = 9999
CLEAR = 10
"""Draws that reach a difference: so many of some ten thousand, and more make it no rarer."""
ROUNDING = 1e-12
"""What two equal sums may differ by, as a share of what was summed."""


@dataclass(frozen=True)
class Paired:
    """The mean difference of two lists of scores of the same items: the first less the second."""

    mean: float
    low: float | None
    """The 95 % interval's lower end; None where there is one item, or one cluster of them."""
    high: float | None
    p: float
    """How likely so large a difference is, either way, if it is chance which of a pair is which."""
    least: float
    """The smallest p that a sample of this size can give."""
    detectable: float | None
    """The smallest true difference that such a sample shows four times of five; None: none."""
    n: int


def paired(
    a: "Sequence[float] | np.ndarray",
    b: "Sequence[float] | np.ndarray",
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    level: float = 0.95,
    draws: int = DRAWS,
    together: int = 1,
) -> Paired:
    """How much higher `a` is than `b`, item by item, and how sure that is.

    What could be seen is of so many comparisons made `together`, of which one p is corrected for
    all. The rest is of this one.

    The interval is that of `mean_interval`; of scores that are all 0 or 1, and no clusters of such,
    Newcombe's, which knows that two equal rows of few trials may yet differ. Where all items differ
    by the same there is none: nothing is seen of how much they vary.

    Raises:
        ValueError: the lists are not of the same items, there are none, or one is not finite.
    """
    import numpy as np

    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if len(a) != len(b) or not len(a):
        raise ValueError(f"Pairs are of the same items, and here are {len(a)} and {len(b)}.")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("A score is no finite number, and nothing can be said of its difference.")
    difference, shares = a - b, clusters is None and _binary(a, b)
    alike = np.ptp(difference) <= ROUNDING * np.abs(difference).max()
    low, high = None, None
    if shares:
        low, high = difference_of_shares(a, b, level)
    elif len(a if clusters is None else set(clusters)) > 1 and not (alike and difference.any()):
        low, high = mean_interval(difference, clusters, seed, level)
    return Paired(
        mean=float(difference.mean()),
        low=low,
        high=high,
        p=sign_flip(difference, clusters, seed, draws),
        least=least_p(
            len(a) if clusters is None else len(set(clusters)), shares=shares, draws=draws
        ),
        detectable=None
        if alike and not shares
        else detectable(difference, clusters, level=1 - (1 - level) / together, shares=shares),
        n=len(a),
    )


def difference_of_shares(
    a: "Sequence[float] | np.ndarray", b: "Sequence[float] | np.ndarray", level: float = 0.95
) -> tuple[float, float]:
    """The interval of the difference of two paired proportions, from Wilson's for each.

    Newcombe 1998, Statistics in Medicine 17, 2635-2650, method 10,
    https://doi.org/10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C
    """
    import numpy as np

    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    n, p, q = len(a), float(a.mean()), float(b.mean())
    (low_p, high_p), (low_q, high_q) = (wilson(int(x.sum()), n, level) for x in (a, b))
    both, one, other, neither = (int(x.sum()) for x in (a & b, a & ~b, ~a & b, ~a & ~b))
    together = both * neither - one * other
    if together > 0:
        together = max(together - n / 2, 0)
    spread = (both + one) * (other + neither) * (both + other) * (one + neither)
    phi = together / sqrt(spread) if spread else 0.0
    down, up = (p - low_p, high_q - q), (high_p - p, q - low_q)
    below, above = (
        sqrt(max(x**2 - 2 * phi * x * y + y**2, 0)) for x, y in (down, up)
    )  # max: rounding
    return p - q - below, p - q + above


def sign_flip(
    differences: "Sequence[float] | np.ndarray",
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> float:
    """The two-sided p of a mean difference: as if it were chance which of each pair is which.

    All signs of up to 18 differences are tried, and of any number of equal ones (McNemar's exact
    test); of more, `draws` at random, and p = (b + 1) / (m + 1), which never is 0: Phipson & Smyth
    2010, https://doi.org/10.2202/1544-6115.1585. Fisher 1935, The Design of Experiments, section
    21. Of clusters, a cluster's differences have one sign. Of more draws than some ten thousand
    the rest are made only while the difference is rare among them: Besag & Clifford 1991,
    https://doi.org/10.1093/biomet/78.2.301
    """
    import numpy as np

    sums = _totals(differences, clusters, least=1)[0]
    sums = sums[sums != 0]  # 0 is 0 whatever its sign
    k, size = len(sums), np.abs(sums)
    if not k:
        return 1.0
    if np.ptp(size) <= ROUNDING * size.max():
        most = max((sums > 0).sum(), (sums < 0).sum())
        return min(1.0, 2 * sum(comb(k, i) for i in range(most, k + 1)) / 2**k)
    reached = abs(sums.sum()) - ROUNDING * size.sum()
    if k <= EXACT:
        every = np.zeros(1)
        for x in sums:
            every = np.concatenate([every + x, every - x])
        return float((np.abs(every) >= reached).mean())
    rng, beyond = np.random.default_rng(seed), 0
    for begin in range(0, draws, 1000):
        heads = rng.integers(2, size=(min(1000, draws - begin), k), dtype=np.int8)
        drawn = 2 * (heads.astype(np.float64) @ sums) - sums.sum()
        beyond += int((np.abs(drawn) >= reached).sum())
        if begin + len(drawn) >= DRAWS and beyond >= CLEAR:
            return (beyond + 1) / (begin + len(drawn) + 1)
    return (beyond + 1) / (draws + 1)


def enough(comparisons: int, level: float = 0.95) -> int:
    """Draws after which, of so many comparisons made together, one can be significant."""
    return max(DRAWS, ceil(2 * comparisons / (1 - level)))


def least_p(n: int, *, shares: bool = False, draws: int = DRAWS) -> float:
    """The smallest p that so many pairs can give; `shares`: of scores that are 0 or 1."""
    return 2.0 ** (1 - n) if shares or n <= EXACT else 1 / (draws + 1)


def holm(ps: Sequence[float]) -> list[float]:
    """Several p-values, raised so that one below 0.05 is not chance among so many.

    Holm 1979, A simple sequentially rejective multiple test procedure,
    https://www.jstor.org/stable/4615733
    """
    adjusted, most = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        most = max(most, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = most
    return adjusted


def detectable(
    differences: "Sequence[float] | np.ndarray",
    clusters: Sequence[Hashable] | None = None,
    power: float = 0.8,
    level: float = 0.95,
    *,
    shares: bool = False,
) -> float | None:
    """The smallest true mean difference that a sample like this one would show so often.

    Bloom 1995, Minimum Detectable Effects, https://doi.org/10.1177/0193841X9501900504, with t. Of
    fewer than 6 pairs it is None: not even 5 that all agree are significant. It is None, too, where
    the differences do not vary. Of `shares`, scores that are 0 or 1, it is at least what puts 6 of
    the items on one side so often.
    """
    from scipy.special import betaincinv, stdtrit

    sums, counts = _totals(differences, clusters, least=1)
    k, needed = len(sums), ceil(1 - log2(1 - level))
    if k < needed:
        return None
    found = (stdtrit(k - 1, (1 + level) / 2) + stdtrit(k - 1, power)) * _error(sums, counts)
    if shares:
        found = max(found, betaincinv(needed, k - needed + 1, power))
    return float(found) or None


def _binary(*rows: "np.ndarray") -> bool:
    return all(bool(((scores == 0) | (scores == 1)).all()) for scores in rows)


def _error(sums: "np.ndarray", counts: "np.ndarray") -> float:
    """The standard error of a mean of clusters."""
    import numpy as np

    k, mean = len(sums), sums.sum() / counts.sum()
    return float(np.sqrt(k / (k - 1) * np.square(sums - mean * counts).sum()) / counts.sum())


def _totals(
    values: "Sequence[float] | np.ndarray", clusters: Sequence[Hashable] | None, least: int = 2
) -> "tuple[np.ndarray, np.ndarray]":
    """Each cluster's sum and count, in the order in which they come."""
    import numpy as np

    values = np.asarray(values, dtype=np.float64)
    keys = list(range(len(values))) if clusters is None else list(clusters)
    if len(keys) != len(values):
        raise ValueError(f"There are {len(values)} values and {len(keys)} clusters for them.")
    index = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    if len(index) < least:
        raise ValueError(
            f"An interval needs at least {least} clusters, and there are {len(index)}."
        )
    of_value = np.array([index[key] for key in keys])
    return np.bincount(of_value, weights=values), np.bincount(of_value)
