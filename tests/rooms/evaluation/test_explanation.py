"""What moves a model: the numbers of scikit-learn, bounds that cover, bounded work, named errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.inspection import partial_dependence, permutation_importance

from falaj.base.errors import FalajError
from falaj.evaluation.explanation import BATCH, METRICS, explain, grid

SUBJECT, ROWS = "sha256:" + "1" * 64, "sha256:" + "2" * 64
WEIGHTS = np.array([1.5, -0.7, 0.0, 0.4])
NAMES = ("strong", "back", "idle", "weak")


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def score(x):
    return sigmoid(np.nan_to_num(x.astype(np.float64)) @ WEIGHTS)


def made(n, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    return x, (rng.random(n) < score(x)).astype(np.float64)


def told(x, y, model=score, columns=NAMES, **more):
    words = {"metric": "roc_auc", "subject": SUBJECT, "evaluation": ROWS} | more
    return explain(x, y, columns, model, **words)


class Fixed(ClassifierMixin, BaseEstimator):
    """The same model in scikit-learn's clothes."""

    classes_ = np.array([0, 1])

    def fit(self, _x, _y):
        self.fitted_ = True
        return self

    def predict_proba(self, x):
        p = score(np.asarray(x, np.float32))
        return np.column_stack([1 - p, p])

    def predict(self, x):
        return (self.predict_proba(x)[:, 1] > 0.5).astype(int)


@pytest.mark.parametrize("metric", ["roc_auc", "accuracy"])
def test_the_losses_are_those_of_scikit_learn(metric):
    x, y = made(2000)
    ours = {one.name: one for one in told(x, y, metric=metric, repeats=30).importances}
    theirs = permutation_importance(
        Fixed().fit(x, y), x, y, scoring=metric, n_repeats=30, random_state=0
    )
    for place, name in enumerate(NAMES):
        # Both are means over 30 shuffles: they differ by the noise of shuffling alone.
        noise = np.hypot(theirs.importances_std[place], ours[name].spread) / np.sqrt(30)
        gap = abs(ours[name].value - theirs.importances_mean[place])
        assert gap <= 4 * noise + 1e-12, name


def test_the_curves_are_those_of_scikit_learn():
    x, y = made(800)
    for one in told(x, y, curves=4).dependences:
        place = NAMES.index(one.column)
        theirs = partial_dependence(
            Fixed().fit(x, y), x, [place], kind="both", method="brute", response_method="predict_proba",
            custom_values={place: np.array(one.at, np.float32)},
        )  # fmt: skip
        assert np.allclose(one.mean, theirs["average"][0], atol=1e-6)
        low, high = np.quantile(theirs["individual"][0], [0.1, 0.9], axis=0)
        assert np.allclose(one.low, low, atol=1e-6)
        assert np.allclose(one.high, high, atol=1e-6)


def test_a_curve_runs_where_scikit_learn_lets_it_run():
    x, y = made(900)
    theirs = partial_dependence(Fixed().fit(x, y), x, [0], method="brute", grid_resolution=20)
    assert np.allclose(grid(x[:, 0].astype(np.float64), 20), theirs["grid_values"][0], atol=0.02)


@pytest.mark.parametrize("metric", ["roc_auc", "accuracy", "neg_brier_score"])
def test_the_bounds_hold_the_true_loss(metric):
    """90 % two-sided, over draws of rows and of shuffles: 200 trials, +- 3 standard errors."""
    x, y = made(200_000, seed=99)
    true = {
        one.name: one.value
        for one in told(x, y, metric=metric, most_rows=200_000, repeats=3, curves=0).importances
    }
    trials, inside = 200, dict.fromkeys(NAMES, 0)
    for seed in range(trials):
        x, y = made(500, seed=seed)
        for one in told(x, y, metric=metric, seed=seed, curves=0).importances:
            inside[one.name] += one.low <= true[one.name] <= one.high
    for name in ("strong", "back", "weak"):
        assert 0.83 <= inside[name] / trials <= 0.97, (name, inside)
    assert inside["idle"] == trials, "nothing is lost, exactly"


def test_what_the_model_ignores_loses_nothing_and_says_so():
    x, y = made(3000)
    found = {one.name: one for one in told(x, y).importances}
    assert found["idle"].value == found["idle"].low == found["idle"].high == 0
    assert found["idle"].p == 1
    assert found["strong"].p < 1e-6
    assert told(x, y).importances[0].name == "strong"


def test_columns_that_say_the_same_are_named_and_can_be_shuffled_together():
    x, y = made(2000)
    x[:, 2] = x[:, 0] + 0.05 * np.random.default_rng(1).normal(size=len(x))

    def halves(z):
        return sigmoid(0.75 * z[:, 0].astype(float) + 0.75 * z[:, 2])

    alone = {one.name: one for one in told(x, y, halves).importances}
    assert alone["strong"].alike == ("idle",)
    assert alone["weak"].alike == ()
    both = {one.name: one for one in told(x, y, halves, together=["strong|idle"]).importances}
    assert both["strong|idle"].columns == ("strong", "idle")
    assert both["strong|idle"].alike == ()
    assert both["strong|idle"].value > 1.5 * max(alone["strong"].value, alone["idle"].value)
    assert set(both) == {"strong|idle", "back", "weak"}


def test_missing_values_have_a_score_of_their_own():
    x, y = made(1000)
    x[::4, 0] = np.nan
    first = next(one for one in told(x, y).dependences if one.column == "strong")
    assert first.missing_share == pytest.approx(0.25)
    assert first.missing == pytest.approx(
        float(score(np.c_[np.full(1000, np.nan), x[:, 1:]]).mean())
    )
    assert next(one for one in told(x, y).dependences if one.column == "back").missing is None


def test_the_same_question_has_the_same_answer():
    x, y = made(4000)
    assert told(x, y) == told(x, y)
    assert told(x, y).importances != told(x, y, seed=1).importances
    assert told(x, y).rows == 2000
    assert told(x, y).of_rows == 4000


@given(
    n=st.integers(60, 5000), wide=st.integers(1, 40), repeats=st.integers(1, 20),
    most=st.integers(60, 5000),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_the_work_is_bounded(n, wide, repeats, most):
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, wide)).astype(np.float32)
    y = np.arange(n) % 2.0
    largest = 0

    def model(rows):
        nonlocal largest
        largest = max(largest, len(rows))
        return rows[:, 0].astype(np.float64)

    found = told(x, y, model, [f"c{i}" for i in range(wide)], repeats=repeats, most_rows=most)
    assert found.rows <= min(n, most)
    assert largest <= BATCH
    assert found.scored <= 2_000_000
    assert len(found.dependences) == min(wide, 6)
    assert all(len(one.at) <= 20 and len(one.lines) <= 12 for one in found.dependences)


def test_few_rows_have_a_loss_and_no_bounds():
    x, y = made(60)
    assert all(one.low is one.high is one.p is None for one in told(x, y).importances)


def test_who_waits_hears_how_far_it_is():
    x, y = made(100)
    heard = []
    told(x, y, heard=lambda *words: heard.append(words))
    assert heard == [(i + 1, 4, name) for i, name in enumerate(NAMES)]


def nan_when_shuffled(z):
    found = score(z)
    found[z[:, 0] > 2] = np.nan
    return found


X, Y = made(400)
REFUSED = {  # what is wrong -> code, words
    "no rows": ({"x": X[:0], "y": Y[:0]}, "explain.no-rows", "no held-out rows"),
    "one class": ({"y": np.ones(400)}, "explain.one-class", "one class"),
    "a metric nobody knows": ({"metric": "f2"}, "explain.metric", "roc_auc"),
    "a number for a yes": ({"y": Y + 0.5}, "explain.metric", "yes or no"),
    "a pattern without columns": ({"together": ["wind_*"]}, "explain.no-column", "strong"),
    "a column in two patterns": ({"together": ["weak", "weak"]}, "explain.no-column", "'weak'"),
    "NaN answers": ({"model": nan_when_shuffled}, "explain.answers", "no number"),
    "scores in columns": ({"model": lambda z: np.c_[score(z), score(z)]}, "explain.answers", "shape"),
}  # fmt: skip


@pytest.mark.parametrize(("wrong", "code", "word"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_a_named_error(wrong, code, word):
    with pytest.raises(FalajError) as caught:
        told(**({"x": X, "y": Y} | wrong))
    first = caught.value.problems[0]
    assert first.code == code
    assert word in f"{first.message} {first.why}"


@pytest.mark.parametrize("metric", METRICS)
def test_odd_rows_give_numbers_or_errors_never_nan(metric):
    x, y = made(300)
    x[:, 1] = 5  # constant
    x[:, 3] = np.nan  # never there
    found = told(x, y, metric=metric)
    for one in found.importances:
        assert np.isfinite([one.value, one.low, one.high, one.p]).all()
    by = {one.column: one for one in found.dependences}
    assert by["back"].at == (5,)
    assert by["weak"].at == ()
    assert by["weak"].missing_share == 1
