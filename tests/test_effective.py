"""How far a score holds: laws of every rule, then each rule on numbers done by hand."""

from math import e, exp, inf, log

import numpy as np
import pytest

from harness.effective import Point, Reach, by_perplexity, by_share, by_threshold, pareto, tax

K = 1024
LENGTHS = [4 * K, 8 * K, 16 * K, 32 * K]
NONE = [None] * 4


def around(values, by):
    return [v - by for v in values], [v + by for v in values]


def rules(values, lows, highs):
    """Every rule on one row of shares; perplexity on its inverse."""
    below, above = ([None if x is None else 1 / x for x in row] for row in (highs, lows))
    worse = [1 / v for v in values]
    yield by_share(LENGTHS, values, lows, highs)
    yield by_threshold(LENGTHS, values, lows, highs, 0.7)
    yield by_perplexity(LENGTHS, worse, below, above, original=4 * K)


@pytest.mark.parametrize("seed", range(30))
def test_the_length_lies_in_its_interval(seed):
    draw = np.random.default_rng(seed)
    values = draw.uniform(0.3, 1, size=4)
    lows, highs = values - draw.uniform(0, 0.25, size=4), values + draw.uniform(0, 0.25, size=4)
    for reach in rules(values.tolist(), lows.tolist(), highs.tolist()):
        assert (reach.low or 0) <= (reach.length or 0) <= (reach.high or 0)
        assert reach.censored == (reach.length == LENGTHS[-1])


def test_the_order_of_the_lengths_does_not_matter():
    values, turned = [0.9, 0.8, 0.85, 0.2], LENGTHS[::-1]
    lows, highs = around(values, 0.02)
    assert by_share(turned, values[::-1], lows[::-1], highs[::-1]) == by_share(
        LENGTHS, values, lows, highs
    )


def test_what_falls_and_rises_again_holds_only_until_it_fell():
    values = [0.9, 0.91, 0.1, 0.9]
    for reach in rules(values, *around(values, 0.001)):
        assert reach.length == reach.low == reach.high == 8 * K and not reach.censored


def test_what_holds_to_the_end_may_reach_further():
    for reach in rules([0.9] * 4, [0.9] * 4, [0.9] * 4):
        assert reach.length == reach.low == reach.high == 32 * K and reach.censored


def test_a_length_that_was_not_measured_is_passed_over():
    values, ends = [0.9, None, 0.9, None], [0.9] * 4
    reach = by_share(LENGTHS, values, ends, ends)
    assert reach == Reach(16 * K, 16 * K, 16 * K, "nolima", censored=True)


def test_of_changes_that_do_not_vary_nothing_is_said_of_how_much_they_might():
    from harness.effective import _paired

    same, less = {"a": 1.0, "b": 1.0}, {"a": 0.8, "b": 0.8}
    assert _paired(less, same, -0.2) is None
    assert _paired(same, same, 0.0) is not None
    low, high = _paired(less | {"b": 0.7}, same, -0.25)
    assert -inf < low < -0.25 < high < inf


def test_without_intervals_nothing_is_sure_but_where_it_starts():
    values = [0.9, 0.9, 0.1, 0.1]
    assert by_share(LENGTHS, values, NONE, NONE).low == 4 * K
    assert by_share(LENGTHS, values, NONE, NONE).high == 32 * K
    assert by_threshold(LENGTHS, values, NONE, NONE, 0.7).low is None
    perplexity = by_perplexity(LENGTHS, [9, 8, 80, 80], original=4 * K)
    assert (perplexity.low, perplexity.high) == (4 * K, 32 * K)


def test_nolimas_rule_is_a_share_of_the_best_short_score():
    """GPT-4o of the paper's table 3: base score 99.3, effective length 8k."""
    lengths = [K, 2 * K, 4 * K, 8 * K, 16 * K, 32 * K]
    values = [98.1, 98.0, 95.7, 89.2, 81.6, 69.7]
    reach = by_share(lengths, values, *around(values, 5), base=99.3)
    assert reach == Reach(8 * K, 4 * K, 16 * K, "nolima", censored=False)
    shorter, more = [250, 500, *lengths], [80, 99.3, *values]
    assert by_share(shorter, more, *around(more, 5)) == reach


def test_the_base_is_of_the_shortest_where_no_short_one_was_measured():
    values = [0.8, 1.0, 0.69, 0.67]
    assert by_share(LENGTHS, values, *around(values, 0.0)).length == 16 * K
    assert by_share(LENGTHS, values, *around(values, 0.0), short=8 * K).length == 8 * K
    assert by_share(LENGTHS, values, *around(values, 0.0), of=0.5).censored


def test_the_base_holds_however_few_its_trials():
    assert by_share(LENGTHS, [0.8] * 4, [0.4] * 4, [1.0] * 4).low == 4 * K


def test_rulers_rule_is_a_fixed_score():
    """Llama-2-7B, the paper's threshold itself, holds at 4k and at no more."""
    values = [0.856, 0.0, 0.0, 0.0]
    assert by_threshold(LENGTHS, values, values, values) == Reach(
        4 * K, 4 * K, 4 * K, "ruler", censored=False
    )
    assert by_threshold(LENGTHS, [0.85] * 4, NONE, NONE).length is None
    assert by_threshold(LENGTHS, [0.85] * 4, NONE, NONE, 0.8, rule="ours").rule == "ours"


def test_perplexity_pairs_documents_and_sees_what_intervals_do_not():
    """Documents differ far more from one another than each does from itself."""
    short = {"a": 2.0, "b": 3.0, "c": 4.0}
    losses = {
        4 * K: short,
        8 * K: {name: loss - 0.05 - loss / 1e3 for name, loss in short.items()},
        16 * K: {
            name: loss + d for (name, loss), d in zip(short.items(), [-0.01, 0, 0.01], strict=True)
        },
        32 * K: {name: loss + 0.05 + loss / 1e3 for name, loss in short.items()},
    }
    values = [exp(np.mean(list(found.values()))) for found in losses.values()]
    lows, highs = [v / e for v in values], [v * e for v in values]
    paired = by_perplexity(LENGTHS, values, lows, highs, original=4 * K, items=losses)
    assert paired == Reach(16 * K, 8 * K, 16 * K, "perplexity", censored=False)
    loose = by_perplexity(LENGTHS, values, lows, highs, original=4 * K)
    assert loose == Reach(32 * K, 4 * K, 32 * K, "perplexity", censored=True)


def test_a_perplexity_above_what_may_be_holds_nowhere_however_few_documents_show_it():
    values, wide = [20.0, 21, 25, 22], ([5.0] * 4, [90.0] * 4)
    assert by_perplexity(LENGTHS, values, *wide, original=4 * K).length == 32 * K
    reach = by_perplexity(LENGTHS, values, *wide, original=4 * K, most=20 / 0.85)
    assert reach == Reach(8 * K, 4 * K, 8 * K, "perplexity", censored=False)


def test_perplexity_is_compared_with_the_longest_length_of_the_original_window():
    values = [50.0, 10.0, 9.0, 20.0]
    tight = [v * 0.99 for v in values], [v * 1.01 for v in values]
    for original in (8 * K, 10_000):
        assert by_perplexity(LENGTHS, values, *tight, original=original).length == 16 * K
    assert by_perplexity(LENGTHS, values, *tight, original=4 * K).length == 32 * K


def test_intervals_of_perplexity_add_as_errors_do():
    """Two of 3 % and 4 % give one of 5 %: a rise by 4.9 % is none, by 5.1 % it is one."""
    by = [exp(0.03), exp(0.04)]

    def reach(rise):
        values = [10, 10 * exp(rise)]
        lows, highs = (
            [v / x for v, x in zip(values, by, strict=True)],
            [v * x for v, x in zip(values, by, strict=True)],
        )
        return by_perplexity([4 * K, 8 * K], values, lows, highs, original=4 * K).length

    assert reach(0.049) == 8 * K and reach(0.051) == 4 * K


def test_a_tax_is_a_difference_or_a_ratio_with_its_interval():
    points = tax(0.7, 0.67, 0.74, 0.8, 0.77, 0.84)
    assert points == pytest.approx((-0.1, -0.15, -0.05))
    times = tax(12, 12 / exp(0.03), 12 * exp(0.04), 10, 10 / exp(0.03), 10 * exp(0.04), ratio=True)
    assert times == pytest.approx((1.2, 1.2 / exp(0.05), 1.2 * exp(0.05)))
    assert tax(12, None, None, 10, 9, 11, ratio=True) == (pytest.approx(1.2), None, None)
    assert tax(1e305, 1e300, 1e308, 1, 0.1, 10, ratio=True)[2] is None  # no number is so large
    assert log(times[0]) == pytest.approx(-log(tax(10, 9, 11, 12, 11, 13, ratio=True)[0]))


def test_no_other_beats_a_point_of_the_front_and_one_beats_every_other():
    draw = np.random.default_rng(0)
    points = [
        Point(name=str(i), tokens=int(t), quality=float(q))
        for i, (t, q) in enumerate(
            zip(draw.integers(9, size=40), draw.integers(9, size=40), strict=True)
        )
    ]
    for sign in (1, -1):

        def beats(p, q, sign=sign):
            as_good = p.tokens <= q.tokens and sign * p.quality >= sign * q.quality
            return as_good and (p.tokens, p.quality) != (q.tokens, q.quality)

        expected = [p for p in points if not any(beats(q, p) for q in points)]
        front = pareto(points, higher_is_better=sign > 0)
        assert sorted(p.name for p in front) == sorted(p.name for p in expected)
        assert [p.tokens for p in front] == sorted(p.tokens for p in front)


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (lambda: by_share([4, 4], [1, 1], [1, 1], [1, 1]), "twice"),
        (lambda: by_share(LENGTHS, NONE, NONE, NONE), "Nothing was measured"),
        (lambda: by_share(LENGTHS, [0.0] * 4, NONE, NONE), "of nothing there is no share"),
        (lambda: by_share(LENGTHS, [0.5] * 4, NONE, NONE, base=0), "of nothing there is no share"),
        (lambda: by_threshold([4], [float("nan")], [0], [1]), "finite"),
        (lambda: by_perplexity(LENGTHS, [9] * 4, original=2 * K), "up to 2048 tokens"),
        (lambda: by_perplexity([4, 8], [9, 0], [8, 0], [10, 1], original=4), "above zero"),
    ],
)
def test_what_cannot_be_said_is_refused_with_a_reason(ask, why):
    with pytest.raises(ValueError, match=why):
        ask()
