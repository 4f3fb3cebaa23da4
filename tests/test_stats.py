import numpy as np
import pytest

from harness.stats import bootstrap_mean, mean_interval, wilson


@pytest.mark.parametrize("n", [1, 2, 10, 97])
def test_wilson_agrees_with_scipy(n):
    binomtest = pytest.importorskip("scipy.stats").binomtest
    for successes in {0, 1, n // 2, n}:
        theirs = binomtest(successes, n).proportion_ci(method="wilson")
        assert wilson(successes, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilson_is_known_for_nine_of_ten():
    assert wilson(9, 10) == pytest.approx((0.59585, 0.98212), abs=1e-5)


def test_wilson_reaches_the_ends_and_never_passes_them():
    assert wilson(0, 20)[0] == 0 and wilson(20, 20)[1] == 1
    assert wilson(0, 20)[1] > 0 and wilson(20, 20)[0] < 1


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_what_is_no_proportion(successes, n):
    with pytest.raises(ValueError, match="no proportion"):
        wilson(successes, n)


def test_bootstrap_is_the_normal_interval_for_many_values():
    values = np.random.default_rng(1).normal(5, 2, size=2000)
    error = 1.96 * values.std() / np.sqrt(len(values))
    low, high = bootstrap_mean(values)
    assert low == pytest.approx(values.mean() - error, abs=error / 10)
    assert high == pytest.approx(values.mean() + error, abs=error / 10)


def test_bootstrap_draws_clusters_not_values():
    values, clusters = np.repeat([0.0, 1.0, 2.0, 3.0], 100), np.repeat(list("abcd"), 100)
    clustered, loose = bootstrap_mean(values, clusters), bootstrap_mean(values)
    assert clustered == bootstrap_mean([0.0, 1.0, 2.0, 3.0])
    assert clustered[1] - clustered[0] > 3 * (loose[1] - loose[0])


def test_bootstrap_is_the_same_for_a_seed():
    assert bootstrap_mean([1, 2, 4]) == bootstrap_mean([1, 2, 4])
    values = np.random.default_rng(2).normal(size=30)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_bootstrap_needs_two_clusters():
    with pytest.raises(ValueError, match="at least 2 clusters, and there are 1"):
        bootstrap_mean([1, 2, 3], ["a", "a", "a"])
    with pytest.raises(ValueError, match="3 values and 2 clusters"):
        bootstrap_mean([1, 2, 3], ["a", "b"])


def test_few_clusters_have_the_interval_of_students_t():
    stats, values = pytest.importorskip("scipy.stats"), [3.1, 3.4, 3.9]
    expected = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert mean_interval(values) == pytest.approx(expected, rel=1e-12)
    assert mean_interval([3.1, 3.1, 3.4, 3.4, 3.9, 3.9], list("aabbcc")) == pytest.approx(expected)


@pytest.mark.parametrize("clusters", [2, 3, 5, 20])
def test_an_interval_of_a_mean_covers_as_often_as_it_says(clusters):
    rng = np.random.default_rng(0)
    inside = [
        low <= 0 <= high
        for low, high in (mean_interval(rng.normal(size=clusters), seed=i) for i in range(600))
    ]
    assert 0.91 <= np.mean(inside) <= 0.98


def test_many_clusters_are_drawn_again_and_again():
    values = np.random.default_rng(1).normal(size=30)
    assert mean_interval(values, seed=3) == bootstrap_mean(values, seed=3)
