from __future__ import annotations

import itertools
import math

import pytest
from scipy.stats import binomtest
from statsmodels.stats.proportion import (
    confint_proportions_2indep,
    proportion_confint,
    score_test_proportions_2indep,
)

from falaj.stats import intervals

ONE = [(0, 1), (0, 20), (1, 20), (7, 20), (20, 20), (36, 1200), (499, 500)]
TWO = [(1, 20, 3, 40), (10, 30, 25, 50), (0, 30, 5, 40), (30, 30, 38, 40), (120, 1000, 80, 1000)]

SCORE_RATIOS = {  # a, n, b, m -> ratio, low, high of the design, one-sided 95 %
    "loanapp black": (133, 197, 1527, 1681, 0.7432, 0.6800, 0.8017),
    "loanapp Hispanic": (85, 111, 1527, 1681, 0.8430, 0.7632, 0.9095),
    "HMDA": (243, 339, 1852, 2041, 0.7900, 0.7431, 0.8335),
    "logit black": (134, 197, 1523, 1681, 0.7508, 0.6875, 0.8091),
    "logit Hispanic": (88, 111, 1523, 1681, 0.8750, 0.7973, 0.9382),
    "logit black women": (30, 51, 1248, 1385, 0.6528, 0.5249, 0.7712),
    "logit Hispanic women": (16, 22, 1248, 1385, 0.8071, 0.6133, 0.9463),
    "logit TPR black": (104, 133, 1417, 1527, 0.8427, 0.7729, 0.9008),
    "logit TPR Hispanic": (76, 85, 1417, 1527, 0.9635, 0.8901, 1.0120),
}
NEWCOMBE = {
    "TPR black": (104, 133, 1417, 1527, -0.1460, -0.2245, -0.0827),
    "TPR Hispanic": (76, 85, 1417, 1527, -0.0338, -0.1179, 0.0173),
    "FPR black": (30, 64, 106, 154, -0.2196, -0.3548, -0.0765),
}


@pytest.mark.parametrize(
    ("a", "n", "b", "m", "ratio", "low", "high"), SCORE_RATIOS.values(), ids=SCORE_RATIOS
)
def test_score_ratio_equals_the_design(a, n, b, m, ratio, low, high):
    found = intervals.score_ratio(a, n, b, m)
    assert found == pytest.approx((ratio, low, high), abs=6e-5)


@pytest.mark.parametrize(
    ("a", "n", "b", "m", "gap", "low", "high"), NEWCOMBE.values(), ids=NEWCOMBE
)
def test_newcombe_equals_the_design(a, n, b, m, gap, low, high):
    assert intervals.newcombe(a, n, b, m) == pytest.approx((gap, low, high), abs=6e-5)


@pytest.mark.parametrize(("x", "n"), ONE)
@pytest.mark.parametrize("tail", [0.025, 0.05])
def test_one_proportion_equals_statsmodels_and_scipy(x, n, tail):
    expected = proportion_confint(x, n, alpha=2 * tail, method="wilson")
    assert intervals.wilson(x, n, tail=tail)[1:] == pytest.approx(expected, abs=1e-12)
    exact = binomtest(x, n).proportion_ci(1 - 2 * tail, method="exact")
    assert intervals.clopper_pearson(x, n, tail=tail)[1:] == pytest.approx(exact, abs=1e-11)


@pytest.mark.parametrize("table", TWO)
def test_two_proportions_equal_statsmodels(table):
    expected = confint_proportions_2indep(*table, method="newcomb")
    assert intervals.newcombe(*table)[1:] == pytest.approx(expected, abs=1e-10)
    found = intervals.score_ratio(*table)
    for ratio, z in zip(found[1:], (1.6448536, -1.6448536), strict=True):
        if 0 < ratio < math.inf:
            assert intervals.score_ratio_z(ratio, *table) == pytest.approx(z, abs=1e-6)
    if table[0] in {0, table[1]}:
        return  # its search fails at the corners
    ratio = confint_proportions_2indep(*table, method="score", compare="ratio", alpha=0.1)
    assert found[1:] == pytest.approx(ratio, abs=1e-5)


@pytest.mark.parametrize(("table", "ratio"), list(itertools.product(TWO, [0.5, 0.8, 1.0, 1.7])))
def test_the_score_statistic_equals_statsmodels(table, ratio):
    expected = score_test_proportions_2indep(*table, value=ratio, compare="ratio").statistic
    assert intervals.score_ratio_z(ratio, *table) == pytest.approx(expected, abs=1e-9)


def test_bounds_at_the_corners():
    assert intervals.score_ratio(0, 30, 5, 40).low == 0.0
    assert intervals.score_ratio(5, 30, 0, 40).high == math.inf
    assert intervals.score_ratio(0, 30, 0, 40)[1:] == (0.0, math.inf)
    full = intervals.score_ratio(30, 30, 40, 40)
    assert full.low < 1 < full.high
    assert intervals.score_ratio(0, 0, 5, 40)[1:] == (0.0, math.inf)
    assert intervals.newcombe(0, 0, 5, 40)[1:] == (-1.0, 1.0)
    assert intervals.wilson(0, 0)[1:] == intervals.clopper_pearson(0, 0)[1:] == (0.0, 1.0)


@pytest.mark.parametrize("bad", [(-1, 5), (6, 5)])
def test_impossible_counts_are_refused(bad):
    for function in (intervals.wilson, intervals.clopper_pearson):
        with pytest.raises(ValueError, match="expected"):
            function(*bad)
    with pytest.raises(ValueError, match="expected"):
        intervals.score_ratio(*bad, 3, 5)
