from statistics import fmean

import numpy as np
import pytest

from harness import stats
from harness.stats import (
    Paired,
    bootstrap_mean,
    detectable,
    difference_of_shares,
    enough,
    holm,
    least_p,
    mean_interval,
    paired,
    sign_flip,
    stratified_interval,
    wilson,
)


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
    scipy, values = pytest.importorskip("scipy.stats"), [3.1, 3.4, 3.9]
    expected = scipy.t.interval(0.95, 2, loc=np.mean(values), scale=scipy.sem(values))
    assert mean_interval(values) == pytest.approx(expected, rel=1e-12)
    assert mean_interval([3.1, 3.1, 3.4, 3.4, 3.9, 3.9], list("aabbcc")) == pytest.approx(expected)


@pytest.mark.parametrize("clusters", [2, 3, 9, 10, 11, 20])
@pytest.mark.parametrize("members", [1, 4])
def test_an_interval_of_a_mean_covers_as_often_as_it_says(clusters, members):
    """Of values that lie about their cluster's own, some clusters larger than others."""
    rng, inside = np.random.default_rng(0), []
    for i in range(600):
        sizes = rng.integers(1, members + 1, size=clusters)
        own = np.repeat(rng.normal(size=clusters), sizes)
        values, names = own + 0.3 * rng.normal(size=len(own)), np.repeat(range(clusters), sizes)
        low, high = mean_interval(values, names, seed=i)
        inside.append(low <= 0 <= high)
    assert 0.93 - 0.03 * (members > 1) <= np.mean(inside) <= 0.98


def test_many_clusters_are_drawn_again_and_again():
    values = np.random.default_rng(1).normal(size=500)
    plain, wider = bootstrap_mean(values, seed=3), mean_interval(values, seed=3)
    assert wider == pytest.approx(plain, abs=0.01) and wider[0] <= plain[0] < plain[1] <= wider[1]


def test_what_is_made_of_groups_is_drawn_group_by_group():
    """A mean of two means: its error is that of both, whatever their sizes."""
    rng = np.random.default_rng(0)
    groups = rng.normal(0, 1, 40), rng.normal(5, 2, 400)
    low, high = stratified_interval(groups, fmean)
    error = np.sqrt(sum(group.var() / len(group) for group in groups)) / 2
    middle = fmean(group.mean() for group in groups)
    assert (low, high) == pytest.approx((middle - 1.96 * error, middle + 1.96 * error), abs=0.02)
    with pytest.raises(ValueError, match="one value"):
        stratified_interval([[1.0, 2.0], [3.0]], fmean)


def test_what_is_made_of_groups_is_drawn_cluster_by_cluster():
    """Ten values that are one value ten times say no more than it does."""
    alone = [[0.1, 0.9, 0.4], [0.3, 0.2, 0.8, 0.5]]
    tenfold = [[x for x in group for _ in range(10)] for group in alone]
    names = [[i for i in range(len(group)) for _ in range(10)] for group in alone]
    assert stratified_interval(tenfold, fmean, names) == pytest.approx(
        stratified_interval(alone, fmean)
    )
    with pytest.raises(ValueError, match="or cluster"):
        stratified_interval([[1.0, 2.0]], fmean, [["a", "a"]])


@pytest.mark.parametrize("each", [2, 3, 5])
def test_of_groups_with_few_values_the_interval_covers_as_often_as_it_says(each):
    rng = np.random.default_rng(0)
    ends = [
        stratified_interval(rng.normal(size=(8, each)).tolist(), fmean, seed=i, rounds=500)
        for i in range(400)
    ]
    assert 0.92 <= np.mean([low <= 0 <= high for low, high in ends]) <= 0.98


def pairs(n, seed=7):
    return np.random.default_rng(seed).normal(size=(2, n))


@pytest.mark.parametrize("n", [1, 3, 10, 40])
def test_a_row_compared_with_itself_is_no_different(n):
    for scores in (pairs(n)[0], pairs(n)[0] > 0):
        result = paired(scores, scores)
        assert result.mean == 0 and result.p == 1
        assert result.low is None or result.low <= 0 <= result.high


@pytest.mark.parametrize("n", [2, 9, 12, 60])
def test_swapping_two_rows_flips_the_sign_and_nothing_else(n):
    for a, b in (pairs(n), pairs(n) > 0):
        one, other = paired(a, b), paired(b, a)
        assert (one.p, one.detectable, one.n) == (other.p, other.detectable, other.n)
        flipped = (-other.mean, -other.high, -other.low)
        assert (one.mean, one.low, one.high) == pytest.approx(flipped, abs=1e-12)


def test_one_pair_has_no_interval_and_shows_nothing():
    assert paired([3.5], [2.0]) == Paired(1.5, None, None, p=1.0, least=1.0, detectable=None, n=1)


@pytest.mark.parametrize("n", [3, 8, 11])
def test_the_exact_test_agrees_with_scipy(n):
    test = pytest.importorskip("scipy.stats").permutation_test
    a, b = pairs(n)
    theirs = test((a, b), _mean_difference, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(a - b) == pytest.approx(theirs.pvalue, rel=1e-12)


def _mean_difference(a, b, axis=-1):
    return (a - b).mean(axis)


@pytest.mark.parametrize(("better", "worse"), [(6, 0), (12, 2), (30, 19), (5, 5)])
def test_of_equal_differences_it_is_mcnemars_exact_test(better, worse):
    theirs = pytest.importorskip("scipy.stats").binomtest(better, better + worse).pvalue
    differences = [1] * better + [-1] * worse + [0] * 13
    assert sign_flip(differences) == pytest.approx(theirs, rel=1e-12)


def test_signs_drawn_at_random_agree_with_all_of_them(monkeypatch):
    differences = pairs(15)[0] + 0.4
    exact = sign_flip(differences)
    monkeypatch.setattr(stats, "EXACT", 0)
    drawn = sign_flip(differences)
    assert drawn == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 9999))
    assert drawn == sign_flip(differences) != sign_flip(differences, seed=1)


def test_no_p_is_below_what_was_drawn():
    assert sign_flip(1 + pairs(40)[0] / 100, draws=999) == 1 / 1000


def test_of_many_comparisons_one_can_be_significant_still():
    sure, unsure = 1 + pairs(40)[0] / 100, pairs(40)[0] - pairs(40)[1]
    for many in (1, 600, 3000):
        draws = enough(many)
        assert many * sign_flip(sure, draws=draws) < 0.05
        assert least_p(40, draws=draws) == sign_flip(sure, draws=draws)
    assert sign_flip(unsure, draws=enough(3000)) == pytest.approx(sign_flip(unsure), rel=0.05)


@pytest.mark.parametrize("n", [1, 4, 9, 18, 25])
def test_no_sample_gives_less_than_its_least_p(n):
    together, apart = np.ones(n), 1 + pairs(n)[0] / 100
    assert paired(together, 0 * together).p == paired(together, 0 * together).least
    assert (
        paired(apart, 0 * apart).p
        == paired(apart, 0 * apart).least
        == pytest.approx(max(2.0 ** (1 - n), 1e-4 * (n > 18)))
    )


def test_a_cluster_has_one_sign():
    values, clusters = np.repeat([0.5, 1.0, 2.0], 50), np.repeat(list("abc"), 50)
    assert sign_flip(values, clusters) == sign_flip([0.5, 1.0, 2.0]) == 0.25
    assert paired(values, 0 * values, clusters).detectable is None


@pytest.mark.parametrize("size", [5, 14, 25])
def test_of_two_rows_that_do_not_differ_one_in_twenty_is_significant(size):
    draws = np.random.default_rng(3).normal(size=(400, size))
    found = np.mean([sign_flip(row, draws=499) <= 0.05 for row in draws])
    assert found <= (0 if size == 5 else 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 400))
    assert found >= (0 if size == 5 else 0.05 - 2.5 * np.sqrt(0.05 * 0.95 / 400))


def test_newcombes_interval_is_as_he_printed_it():
    """His table II, first row: 36 pairs alike, 12 better, 2 worse."""
    a, b = np.repeat([1, 1, 0], [36, 12, 2]), np.repeat([1, 0, 1], [36, 12, 2])
    assert difference_of_shares(a, b) == pytest.approx((0.0569, 0.3404), abs=5e-5)


@pytest.mark.parametrize("n", [5, 20, 100])
def test_the_interval_of_two_shares_covers_as_often_as_it_says(n):
    """Averaged over how good the two are and how alike, as Newcombe does."""
    draw, inside = np.random.default_rng(5), []
    for _ in range(800):
        p, q, alike = draw.uniform(size=3)
        x, y = draw.uniform(size=(2, n))
        same = draw.uniform(size=n) < alike
        low, high = difference_of_shares(x < p, np.where(same, x, y) < q)
        inside.append(low <= p - q <= high)
    assert 0.93 <= np.mean(inside) <= 0.99


def test_holm_is_known_for_four():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.2]) == [0.2]


def test_holm_keeps_the_order_and_never_lowers():
    ps = np.random.default_rng(1).uniform(0, 0.2, size=50).tolist()
    raised = holm(ps)
    assert all(p <= q <= 1 for p, q in zip(ps, raised, strict=True))
    order = np.argsort(ps)
    assert np.all(np.diff(np.array(raised)[order]) >= 0)
    assert holm(ps[::-1]) == raised[::-1]


def test_a_difference_that_is_detectable_is_seen_four_times_of_five():
    draws = np.random.default_rng(4).normal(size=(400, 14))
    within = np.mean([detectable(row) for row in draws])
    seen = np.mean([sign_flip(row + within) <= 0.05 for row in draws])
    assert 0.74 <= seen <= 0.86


def test_of_too_few_items_nothing_is_detectable():
    assert detectable([1, 2, 3, 4, 5]) is None and detectable([1, 2, 3, 4, 5, 7]) > 0
    assert min(sign_flip(np.ones(n)) for n in range(1, 6)) > 0.05 > sign_flip(np.ones(6))
    assert detectable(np.zeros(30)) is None


def test_of_shares_the_detectable_difference_puts_six_items_on_one_side():
    binom = pytest.importorskip("scipy.stats").binom
    share = detectable(np.zeros(30), shares=True)
    assert binom.sf(5, 30, share) == pytest.approx(0.8)


def test_pairs_are_of_the_same_items():
    with pytest.raises(ValueError, match="the same items, and here are 2 and 3"):
        paired([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="0 and 0"):
        paired([], [])


def test_the_bootstrap_agrees_with_scipys():
    bootstrap = pytest.importorskip("scipy.stats").bootstrap
    values = np.random.default_rng(8).exponential(size=80)
    theirs = bootstrap((values,), np.mean, method="percentile", rng=1).confidence_interval
    assert bootstrap_mean(values) == pytest.approx((theirs.low, theirs.high), abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("size", [3, 8, 10, 20, 60])
def test_the_interval_of_a_paired_difference_covers_as_often_as_it_says(size):
    """Of skewed scores that are alike in pairs, as documents' losses are."""
    draw, inside = np.random.default_rng(6), []
    for i in range(2000):
        shared = draw.exponential(size=size)
        a, b = shared + draw.normal(0.1, 0.2, size), shared + draw.normal(0, 0.1, size)
        result = paired(a, b, seed=i)
        inside.append(result.low <= 0.1 <= result.high)
    assert 0.92 <= np.mean(inside) <= 0.97


def test_of_differences_that_do_not_vary_nothing_is_said_of_how_much_they_might():
    it = paired([0.4] * 20, [1.4] * 20)
    assert (it.mean, it.low, it.high, it.detectable) == (pytest.approx(-1), None, None, None)
    same = paired([0.4, 0.2], [0.4, 0.2])
    assert (same.low, same.high, same.p) == (0, 0, 1)


def test_what_is_no_number_is_refused():
    with pytest.raises(ValueError, match="no finite number"):
        paired([float("nan"), 1, 2], [0, 0, 0])
