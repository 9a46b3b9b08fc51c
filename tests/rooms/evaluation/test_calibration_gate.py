"""Calibration: perfect probabilities pass on enough rows, crooked ones fail, and bad ones are named."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from falaj.evaluation.calibration import check_calibration
from falaj.evaluation.replay import replay
from falaj.evaluation.service import measure
from falaj.evaluation.sets import EvaluationSet
from falaj.facts.checks import Verdict
from falaj.facts.project import CalibrationTable, GatesTable

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def made(n, crooked=0.0, seed=0):
    """y drawn from p; the model says p moved away from one half by `crooked`."""
    rng = np.random.default_rng(seed)
    p = rng.beta(2, 3, n)
    y = (rng.random(n) < p).astype(np.int8)
    said = np.clip(p + crooked * np.sign(p - 0.5), 0, 1)
    rows = EvaluationSet(
        x=said[:, None].astype(np.float32), y=y, columns=("p",), digest=f"sha256:{seed + 1:x}"
    )
    return rows, said


CASES = {  # rows, crooked, limit -> verdict
    "perfect, many rows": (10_000, 0.0, 0.05, Verdict.PASS),
    "crooked, many rows": (10_000, 0.15, 0.05, Verdict.FAIL),
    "perfect, few rows": (400, 0.0, 0.03, Verdict.INCONCLUSIVE),
    "too few for bins": (100, 0.0, 0.05, Verdict.INCONCLUSIVE),
}


@pytest.mark.parametrize(("n", "crooked", "limit", "verdict"), CASES.values(), ids=CASES)
def test_the_bound_decides(n, crooked, limit, verdict):
    rows, said = made(n, crooked)
    (found,) = check_calibration(rows, said, CalibrationTable(max_error=limit))
    assert found.verdict is verdict, found.reason


def test_a_model_at_the_limit_passes_rarely_and_a_perfect_one_often():
    at_limit = perfect = 0
    for seed in range(100):
        rows, said = made(4000, 0.05, seed)
        (found,) = check_calibration(rows, said, CalibrationTable(max_error=0.048))
        at_limit += found.verdict is Verdict.PASS
        rows, said = made(4000, 0.0, seed)
        (found,) = check_calibration(rows, said, CalibrationTable(max_error=0.05))
        perfect += found.verdict is Verdict.PASS
    assert at_limit <= 100 * (0.077 + 2.33 * 0.027)  # the bound's own type I error: up to 7.7 %
    assert perfect >= 85


def test_the_reliability_plot_is_kept():
    rows, said = made(3000)
    (found,) = check_calibration(rows, said, CalibrationTable(max_error=0.05, bins=10))
    points = found.details["reliability"]
    assert [point["rows"] for point in points] == [300] * 10
    assert [point["said"] for point in points] == sorted(point["said"] for point in points)
    assert all(point["low"] <= point["true"] <= point["high"] for point in points)
    assert found.details["mean_gap"]["low"] < found.details["mean_gap"]["high"]


def test_many_classes_are_judged_by_the_class_that_is_answered():
    rng = np.random.default_rng(1)
    p = rng.dirichlet((1, 1, 1), 8000)
    y = (p.cumsum(1) > rng.random(8000)[:, None]).argmax(1)
    rows = EvaluationSet(
        x=np.zeros((8000, 1), np.float32), y=y, columns=("x",), digest="sha256:1",
        task="multiclass-classification", classes=("a", "b", "c"),
    )  # fmt: skip
    sharp = p**3 / (p**3).sum(1, keepdims=True)
    table = CalibrationTable(max_error=0.05)
    assert check_calibration(rows, p, table)[0].verdict is Verdict.PASS
    assert check_calibration(rows, sharp, table)[0].verdict is Verdict.FAIL


def test_what_is_no_probability_is_named():
    rows, said = made(500)
    table = CalibrationTable(max_error=0.05)
    (found,) = check_calibration(rows, said * 3, table)
    assert found.verdict is Verdict.FAIL
    assert "no probability" in found.reason
    (same,) = check_calibration(rows, np.full(500, 0.4), table)
    assert same.verdict is Verdict.INCONCLUSIVE
    values = EvaluationSet(
        x=rows.x, y=said, columns=rows.columns, digest="d", task="regression", classes=()
    )
    assert check_calibration(values, said, table)[0].verdict is Verdict.ERROR


@pytest.mark.parametrize("limit", [0.01, 0.05, 0.1, 0.3])
def test_replaying_is_measuring_again(limit):
    rows, said = made(3000, 0.08)

    def report(table):
        return measure(
            candidate=rows, score=lambda _: said, threshold=0.5, champion=None,
            champion_release="", gates=GatesTable(calibration=table), required=("calibration",),
            contracts=(), security=(), latencies_us=None, reuse=0, subject="t", policy="p",
            now=NOW, on_check=lambda _: None,
        )  # fmt: skip

    there, table = report(CalibrationTable(max_error=0.05)), CalibrationTable(max_error=limit)
    again = replay(there, GatesTable(calibration=table), ("calibration",), policy="q")
    assert again.verdict is report(table).verdict
