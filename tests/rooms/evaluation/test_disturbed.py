"""Inputs that are noisy, in a wrong unit, out of range or unseen; and answers that must not turn."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from falaj.evaluation.replay import replay
from falaj.evaluation.robustness import Shift, check_shift, noisy, shifts
from falaj.evaluation.service import measure
from falaj.evaluation.sets import EvaluationSet, Reference
from falaj.facts.checks import Verdict
from falaj.facts.project import GatesTable, RobustnessTable

NOW = datetime(2026, 11, 24, tzinfo=UTC)
NAMES = ("income", "debt", "carrier", "idle")


def made(n=4000, **more):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    x[:, 2] = rng.integers(0, 5, n)
    x[:, 1] = np.exp(x[:, 1])
    y = (rng.random(n) < model(x)).astype(np.int8)
    return EvaluationSet(x=x, y=y, columns=NAMES, digest="sha256:a", **more)


def model(x):
    """Rises with income, falls with debt, knows five carriers, does not look at `idle`."""
    carrier = np.array([0.0, 0.6, -0.6, 0.3, -0.3, 0.0])[np.clip(x[:, 2], 0, 5).astype(int)]
    z = (1.5 * x[:, 0] - 1.0 * x[:, 1] + carrier).astype(np.float64)
    return 1 / (1 + np.exp(-np.clip(z, -500, 500)))


def humped(x):
    return np.exp(-(x[:, 0].astype(np.float64) ** 2))


def nervous(x):
    if x[:, 2].max() > 4:
        raise KeyError("carrier 5")
    return model(x)


TRAINED = Reference(x=made(2000).x)
CASES = {  # table, model, limits of the schema -> check, verdict
    "a little noise": ({"noise": ("income",)}, model, {}, "noise 0.1=income", "pass"),
    "much noise": ({"noise": ("income",), "noise_spread": 3}, model, {}, "noise 3=income", "fail"),
    "noise on what is not looked at": ({"noise": ("idle",), "noise_spread": 9}, model, {}, "noise 9=idle", "pass"),
    "a wrong unit that matters": ({"unit_error": {"debt": 100}}, model, {}, "unit x100=debt", "fail"),
    "a wrong unit that does not": ({"unit_error": {"debt": 1.05}}, model, {}, "unit x1.05=debt", "pass"),
    "a category never seen": ({"unseen": ("carrier",)}, model, {}, "unseen=carrier", "pass"),
    "a category that breaks it": ({"unseen": ("carrier",)}, nervous, {}, "unseen=carrier", "fail"),
    "the schema refuses it": ({"unseen": ("carrier",)}, nervous, {"carrier": (0, 4)}, "unseen=carrier", "pass"),
    "out of range": ({"out_of_range": ("debt",)}, model, {}, "out-of-range=debt", "fail"),
    "out of range, let through": ({"out_of_range": ("debt",)}, model, {"debt": (None, 1000)}, "out-of-range=debt", "fail"),
    "out of range, refused always": ({"out_of_range": ("debt",)}, model, {"debt": (0, 50)}, "out-of-range=debt", "pass"),
    "does not look at it": ({"invariant": ("idle",)}, model, {}, "invariant=idle", "pass"),
    "looks at it": ({"invariant": ("income",)}, model, {}, "invariant=income", "fail"),
    "rises": ({"rises": ("income",)}, model, {}, "rises=income", "pass"),
    "falls": ({"falls": ("debt",)}, model, {}, "falls=debt", "pass"),
    "does not rise": ({"rises": ("debt",)}, model, {}, "rises=debt", "fail"),
    "rises and falls": ({"rises": ("income",)}, humped, {}, "rises=income", "fail"),
    "may fall for some": ({"rises": ("income",), "max_against": 0.9}, humped, {}, "rises=income", "pass"),
    "no such column": ({"noise": ("salary",)}, model, {}, "noise 0.1=salary", "error"),
}  # fmt: skip


def report(table, score=model, *, rows=None, reference=TRAINED):
    return measure(
        candidate=rows or made(), score=score, threshold=0.5, champion=None, champion_release="",
        gates=GatesTable(robustness=table), required=("robustness",), contracts=(), security=(),
        latencies_us=None, reuse=0, subject="t", policy="p", now=NOW, on_check=lambda _: None,
        reference=reference,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("table", "score", "limits", "check", "verdict"), CASES.values(), ids=CASES
)
def test_each_disturbance_has_its_verdict(table, score, limits, check, verdict):
    (found,) = report(RobustnessTable(**table), score, rows=made(limits=limits)).results
    assert found.check == f"robustness.{check}"
    assert found.verdict == verdict, found.reason


def test_noise_is_measured_in_the_training_rows_spread():
    rows = made(20_000)
    shift = Shift("n", "noise", "debt", 0.5)
    moved = noisy(rows, [1], shift, TRAINED)
    gap = moved[:, 1] - rows.x[:, 1]
    assert gap.std() == pytest.approx(0.5 * TRAINED.x[:, 1].std(), rel=0.02)
    assert np.array_equal(np.delete(moved, 1, axis=1), np.delete(rows.x, 1, axis=1))


def test_what_answers_against_it_is_counted_with_its_row():
    (found,) = report(RobustnessTable(invariant=("income",))).results
    assert "answers change when it does, by up to" in found.reason
    assert found.n == 4000


def test_without_training_rows_nothing_is_claimed():
    (found,) = report(RobustnessTable(noise=("income",)), reference=None).results
    assert found.verdict is Verdict.INCONCLUSIVE


def test_every_row_that_is_refused_keeps_its_answer():
    rows = made(limits={"debt": (None, 3.0)})
    table = RobustnessTable(unit_error={"debt": 100})
    found = check_shift(rows, model(rows.x), model, shifts(table)[0], table, reference=TRAINED)
    assert found.details["refused"] == int((rows.x[:, 1] * np.float32(100) > 3).sum())


def test_a_regression_loses_its_own_metric():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2000, 1)).astype(np.float32)
    rows = EvaluationSet(
        x=x, y=x[:, 0] + rng.normal(size=2000), columns=("x",), digest="sha256:a",
        task="regression", classes=(),
    )  # fmt: skip
    table = RobustnessTable(noise=("x",), noise_spread=2)
    found = check_shift(
        rows, x[:, 0].astype(float), lambda x: x[:, 0].astype(float), shifts(table)[0], table,
        metric="r2", reference=Reference(x=x),
    )  # fmt: skip
    assert found.metric == "loss of r2"
    assert found.verdict is Verdict.FAIL


ALL = {
    "missing": ("idle",), "noise": ("income",), "unit_error": {"debt": 1.3}, "unseen": ("carrier",),
    "invariant": ("idle", "income"), "rises": ("income",), "falls": ("debt",),
}  # fmt: skip
LATER = {"the same": {}, "stricter": {"max_drop": 0.0001}, "looser": {"max_against": 1.0}}


@pytest.mark.parametrize("more", LATER.values(), ids=LATER)
def test_replaying_is_measuring_again(more):
    def steady(x):
        return np.where(np.isnan(x).any(axis=1), 0.5, model(np.nan_to_num(x)))

    table = RobustnessTable(**(ALL | more))
    there = report(RobustnessTable(**ALL), steady)
    again = replay(there, GatesTable(robustness=table), ("robustness",), policy="q")
    fresh = report(table, steady)
    assert {r.check: r.verdict for r in again.results} == {
        r.check: r.verdict for r in fresh.results
    }


def test_nothing_to_disturb_is_refused():
    with pytest.raises(ValueError, match="nothing is disturbed"):
        GatesTable(robustness=RobustnessTable())
