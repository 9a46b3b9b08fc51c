"""Metrics equal scikit-learn's to the last digits; their bounds hold what they promise."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from sklearn import metrics as sk

from falaj.stats import metrics, paired
from falaj.stats.metrics import Sample, against, alone, influence

DIGEST = "sha256:" + hashlib.sha256(b"evidence").hexdigest()
AT = {"at_least": 0.5}, {"at_most": 0.5}


def binary(n=600, seed=0, strength=1.2):
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.4).astype(np.int8)
    score = 1 / (1 + np.exp(-(rng.normal(size=n) + strength * (2 * y - 1))))
    return y, np.round(score, 2)  # ties


def multi(n=600, seed=0, classes=3):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    raw = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[y]
    p = np.exp(raw) / np.exp(raw).sum(1, keepdims=True)
    return y, p


def numbers(n=600, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    y = rng.normal(10, 3, n)
    return y, y + rng.normal(scale=noise, size=n)


def queries(many=80, size=8, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, many * size).astype(float)
    return y, np.round(y + rng.normal(scale=2, size=len(y))), np.repeat(np.arange(many), size)


def told(p):
    return p.argmax(1) if p.ndim == 2 else p > 0.5


ORACLES = {
    "roc_auc": (binary, sk.roc_auc_score),
    "accuracy": (binary, lambda y, p: sk.accuracy_score(y, told(p))),
    "balanced_accuracy": (binary, lambda y, p: sk.balanced_accuracy_score(y, told(p))),
    "f1": (binary, lambda y, p: sk.f1_score(y, told(p))),
    "precision": (binary, lambda y, p: sk.precision_score(y, told(p))),
    "recall": (binary, lambda y, p: sk.recall_score(y, told(p))),
    "f1_macro": (binary, lambda y, p: sk.f1_score(y, told(p), average="macro")),
    "f1_weighted": (binary, lambda y, p: sk.f1_score(y, told(p), average="weighted")),
    "log_loss": (binary, sk.log_loss),
    "brier_score_loss": (binary, sk.brier_score_loss),
    "roc_auc_ovr, many": (multi, lambda y, p: sk.roc_auc_score(y, p, multi_class="ovr")),
    "accuracy, many": (multi, lambda y, p: sk.accuracy_score(y, told(p))),
    "balanced_accuracy, many": (multi, lambda y, p: sk.balanced_accuracy_score(y, told(p))),
    "f1_macro, many": (multi, lambda y, p: sk.f1_score(y, told(p), average="macro")),
    "f1_weighted, many": (multi, lambda y, p: sk.f1_score(y, told(p), average="weighted")),
    "log_loss, many": (multi, sk.log_loss),
    "r2": (numbers, sk.r2_score),
    "mean_absolute_error": (numbers, sk.mean_absolute_error),
    "mean_squared_error": (numbers, sk.mean_squared_error),
    "root_mean_squared_error": (numbers, sk.root_mean_squared_error),
    "mean_absolute_percentage_error": (numbers, sk.mean_absolute_percentage_error),
}
TASKS = {binary: (metrics.BINARY, 2), multi: (metrics.MULTICLASS, 3), numbers: ("regression", 2)}


def sample_of(made, y):
    task, classes = TASKS[made]
    return Sample(y, task=task, classes=classes)


def limit_of(name):
    return AT[0] if metrics.METRICS[name].greater else AT[1]


@pytest.mark.parametrize(("case", "made", "oracle"), [(k, *v) for k, v in ORACLES.items()])
def test_values_are_those_of_scikit_learn(case, made, oracle):
    y, p = made()
    name = case.partition(",")[0]
    sample = sample_of(made, y)
    found = alone(name, sample, p, digest=DIGEST, **limit_of(name))
    assert found.value == pytest.approx(float(oracle(y, p)), abs=1e-12)
    assert influence(name, sample, p).value == pytest.approx(found.value, abs=1e-12)
    assert found.low < found.value < found.high


def test_ndcg_is_that_of_scikit_learn_with_ties():
    y, score, unit = queries()
    mine = alone("ndcg", Sample(y, task="ranking", unit=unit), score, at_least=0.5, digest=DIGEST)
    shape = (80, 8)
    assert mine.value == pytest.approx(sk.ndcg_score(y.reshape(shape), score.reshape(shape)))
    assert mine.n == 80


@pytest.mark.parametrize(("case", "made", "oracle"), [(k, *v) for k, v in ORACLES.items()])
def test_influence_is_what_leaving_a_row_out_does(case, made, oracle):
    """The jackknife: se by influence and se by leaving each row out agree."""
    y, p = made(120)
    name, sample = case.partition(",")[0], sample_of(made, y)
    left = [float(oracle(np.delete(y, i), np.delete(p, i, axis=0))) for i in range(len(y))]
    se = math.sqrt((len(y) - 1) * np.var(left))
    assert influence(name, sample, p).se() == pytest.approx(se, rel=0.1)


# --- bounds ---

COVERED = {  # metric, maker, truth
    "balanced_accuracy": (binary, None),
    "f1_macro": (multi, None),
    "mean_absolute_error": (numbers, math.sqrt(2 / math.pi)),
    "r2": (numbers, 1 - 1 / 9),
    "log_loss": (multi, None),
}


@pytest.mark.parametrize("name", COVERED)
def test_each_bound_misses_the_truth_in_about_five_of_a_hundred(name):
    made, truth = COVERED[name]
    if truth is None:
        y, p = made(100_000, seed=99)
        truth = influence(name, sample_of(made, y), p).value
    low = high = 0
    for seed in range(100):
        y, p = made(400, seed=1000 + seed)
        found = alone(name, sample_of(made, y), p, digest=DIGEST, **limit_of(name))
        low += found.low > truth
        high += found.high < truth
    most = 100 * 0.05 + 3 * math.sqrt(100 * 0.05 * 0.95)
    assert max(low, high) <= most


def test_rows_of_one_unit_are_drawn_together():
    """Twenty equal rows a unit carry the news of one: the bound must not shrink."""
    y, value = numbers(100)
    unit = np.repeat(np.arange(100), 20)
    once = alone(
        "mean_absolute_error", Sample(y, task="regression"), value, at_most=2, digest=DIGEST
    )
    long = Sample(np.repeat(y, 20), task="regression", unit=unit)
    many = alone("mean_absolute_error", long, np.repeat(value, 20), at_most=2, digest=DIGEST)
    flat = alone(
        "mean_absolute_error", long._replace(unit=None), np.repeat(value, 20), at_most=2,
        digest=DIGEST,
    )  # fmt: skip
    wide, blind = once.high - once.low, flat.high - flat.low
    assert many.high - many.low == pytest.approx(wide, rel=0.1)
    assert blind < wide / 3


def test_an_area_with_units_widens_as_well():
    y, p = binary(300)
    long = Sample(np.repeat(y, 10), unit=np.repeat(np.arange(300), 10))
    once = paired.auc_verdict(y, p, at_least=0.5)
    many = alone("roc_auc", long, np.repeat(p, 10), at_least=0.5, digest=DIGEST)
    assert (many.low, many.high) == pytest.approx((once.low, once.high), abs=0.003)


def test_the_normal_draw_and_the_multinomial_agree():
    y, value = numbers(1050)
    fine = alone("r2", Sample(y, task="regression"), value, at_least=0.5, digest=DIGEST)
    few = alone(
        "r2", Sample(y[:1000], task="regression"), value[:1000], at_least=0.5, digest=DIGEST
    )
    assert fine.high - fine.low == pytest.approx(few.high - few.low, rel=0.12)


# --- beside a champion ---


def noisy(p, scale, seed=1):
    rng = np.random.default_rng(seed)
    if p.ndim == 2:
        raw = np.log(p) + rng.normal(scale=3 * scale, size=p.shape)
        return np.exp(raw) / np.exp(raw).sum(1, keepdims=True)
    if p.max() <= 1:
        return np.clip(p + rng.normal(scale=scale / 2, size=len(p)), 0, 1)
    return p + rng.normal(scale=scale, size=len(p))


@pytest.mark.parametrize(("case", "made"), [(k, v[0]) for k, v in ORACLES.items()])
def test_a_noisier_model_fails_and_the_same_one_passes(case, made):
    name = case.partition(",")[0]
    y, p = made(4000)
    sample = sample_of(made, y)
    same = against(name, sample, p, p, margin=0.01, digest=DIGEST)
    worse = against(name, sample, p, noisy(p, 1.0), margin=0.01, digest=DIGEST)
    better = against(name, sample, noisy(p, 1.0), p, margin=0.01, digest=DIGEST)
    assert (same.verdict, better.verdict) == ("pass", "pass")
    assert worse.verdict == "fail" or (name == "precision" and worse.value > 0)


PAIRED = {"mean_absolute_error": 0.1, "balanced_accuracy": 0.02}


@pytest.mark.parametrize(("name", "margin"), PAIRED.items())
def test_a_model_worse_by_the_margin_rarely_passes(name, margin):
    passed, trials = 0, 100
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        if name == "mean_absolute_error":
            y = rng.normal(size=800)
            a, b = rng.normal(size=(2, 800))
            live, mine = y + a, y + 1.1 * (0.8 * a + 0.6 * b)
            sample = Sample(y, task="regression")
        else:
            y = rng.integers(0, 2, 800)
            live = np.where(rng.random(800) < 0.8, y, 1 - y).astype(float)
            flip = rng.random(800) < np.where(live == y, 0.05, 0.1)  # .8 -> .78
            mine = np.where(flip, 1 - live, live)
            sample = Sample(y)
        found = against(name, sample, live, mine, margin=margin, digest=DIGEST)
        passed += found.verdict == "pass"
    assert passed / trials <= 0.05 + 2.33 * math.sqrt(0.05 * 0.95 / trials)


# --- what cannot be judged ---

REFUSED = {  # metric, sample, answers -> words
    "no number": ("accuracy", Sample(np.zeros(60)), np.full(60, np.nan), "no number"),
    "beyond 1": ("log_loss", Sample(np.zeros(60)), np.full(60, 1.5), "outside 0 to 1"),
    "other shape": ("accuracy", Sample(np.zeros(60)), np.zeros((60, 2)), "of shape"),
    "no rows": ("accuracy", Sample(np.zeros(0)), np.zeros(0), "no rows"),
    "other task": ("r2", Sample(np.zeros(60)), np.zeros(60), "is not measured for"),
    "no query": ("ndcg", Sample(np.zeros(60), task="ranking"), np.zeros(60), "query"),
}


@pytest.mark.parametrize(("name", "sample", "answer", "words"), REFUSED.values(), ids=REFUSED)
def test_bad_answers_are_named(name, sample, answer, words):
    with pytest.raises(ValueError, match=words):
        alone(name, sample, answer, digest=DIGEST, **limit_of(name))


UNDECIDED = {
    "few rows": ("mean_absolute_error", *numbers(40), "40 rows"),
    "few of a class": ("f1_macro", np.r_[np.ones(10), np.zeros(200)], np.linspace(0, 1, 210), "10 rows of a class"),
    "one class only": ("balanced_accuracy", np.ones(200), np.linspace(0, 1, 200), "0 rows of a class"),
    "no spread": ("mean_absolute_error", np.zeros(200), np.ones(200), "no two rows differ"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "y", "answer", "words"), UNDECIDED.values(), ids=UNDECIDED)
def test_what_rows_cannot_decide_is_inconclusive(name, y, answer, words):
    task = "regression" if name.startswith("mean") else metrics.BINARY
    found = alone(name, Sample(y, task=task), answer, digest=DIGEST, **limit_of(name))
    assert found.verdict == "inconclusive"
    assert words in found.reason
