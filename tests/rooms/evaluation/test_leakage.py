"""Leakage: each way in which the test can be easier than life is named with its column."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from falaj.evaluation.leakage import check_leakage, prints
from falaj.evaluation.replay import replay
from falaj.evaluation.service import measure
from falaj.evaluation.sets import EvaluationSet, Reference
from falaj.facts.checks import Verdict
from falaj.facts.project import GatesTable, LeakageTable

NOW = datetime(2026, 11, 24, tzinfo=UTC)
DAY = np.datetime64("2026-01-01T00:00:00", "us")


def made(n=1000, leak=None, seed=0, **more):
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(np.int8)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    x[:, 0] += y
    if leak:
        x[:, 2] = leak(y, rng)
    names = ("signal", "noise", "third")
    return EvaluationSet(x=x, y=y, columns=names, digest="sha256:a", **more)


def trained(n=2000, seed=9, at=None):
    x = np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)
    return Reference(x=x, at=at)


def verdicts(results):
    return {one.check.removeprefix("leakage."): one.verdict for one in results}


LEAKS = {
    "a copy": lambda y, rng: y,
    "a copy turned round": lambda y, rng: 1 - y,
    "a copy in another unit": lambda y, rng: 100 * y + 7,
    "the target with a little noise": lambda y, rng: y + rng.normal(scale=0.1, size=len(y)),
    "known only afterwards: missing when nothing happened": lambda y, rng: np.where(
        y == 1, rng.normal(size=len(y)), np.nan
    ),
}


@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS)
def test_a_column_that_tells_the_target_is_named(leak):
    rows = made(leak=leak)
    (target, _) = check_leakage(rows, trained(), LeakageTable())
    assert target.verdict is Verdict.FAIL
    assert "third" in target.reason
    assert target.details["column"] == "third"
    assert target.value == pytest.approx(1, abs=0.01)


def test_honest_columns_pass_and_the_most_telling_is_named():
    target, twice = check_leakage(made(), trained(), LeakageTable())
    assert (target.verdict, twice.verdict) == (Verdict.PASS, Verdict.PASS)
    assert "most telling single input is signal" in target.reason


def test_an_allowed_column_may_tell():
    rows = made(leak=lambda y, rng: y)
    assert (
        check_leakage(rows, trained(), LeakageTable(allowed=("third",)))[0].verdict is Verdict.PASS
    )


def test_a_constant_column_is_no_evidence_of_anything():
    rows = made(leak=lambda y, rng: 1.0)
    target, _ = check_leakage(rows, trained(), LeakageTable())
    assert "third" not in target.details["alone"]
    alone = EvaluationSet(x=rows.x[:, 2:], y=rows.y, columns=("third",), digest="d")
    assert check_leakage(alone, None, LeakageTable())[0].verdict is Verdict.INCONCLUSIVE


def test_a_number_is_told_by_its_rank():
    rng = np.random.default_rng(0)
    y = rng.normal(size=800)
    x = np.column_stack([np.exp(y), rng.normal(size=800) + y]).astype(np.float32)
    rows = EvaluationSet(
        x=x, y=y, columns=("leak", "fair"), digest="d", task="regression", classes=()
    )
    (target, _) = check_leakage(rows, Reference(x=x[:1] + 1), LeakageTable())
    assert target.verdict is Verdict.FAIL
    assert target.details["column"] == "leak"
    expected = abs(spearmanr(x[:, 1], y).statistic)
    assert target.details["alone"]["fair"] == pytest.approx(expected, abs=1e-6)


# --- rows on both sides ---


@pytest.mark.parametrize(("copied", "verdict"), [(0, "pass"), (10, "pass"), (11, "fail")])
def test_rows_that_stand_on_both_sides_are_counted(copied, verdict):
    rows, there = made(), trained()
    there.x[:copied] = rows.x[:copied]
    _, twice = check_leakage(rows, there, LeakageTable(max_duplicates=0.01))
    assert twice.verdict == verdict
    assert twice.reason.startswith(f"{copied} of 1,000")
    assert twice.details["rows"] == list(range(1, min(copied, 5) + 1))


def test_holes_and_signs_of_zero_do_not_hide_a_copy():
    rows, there = made(), trained()
    rows.x[0] = (np.nan, 0.0, 1.0)
    there.x[5] = (np.float32(np.nan), -0.0, 1.0)
    there.x.view(np.uint32)[5, 0] = 0x7FC12345  # another NaN
    _, twice = check_leakage(rows, there, LeakageTable())
    assert twice.reason.startswith("1 of 1,000")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=60))
def test_prints_are_equal_exactly_where_rows_are(rows):
    x = np.array(rows, np.float32)
    found = prints(x)
    assert len(set(found.tolist())) == len(set(rows))


# --- time ---

TIMES = {  # last day of training, first day of the test -> verdict
    "training before the test": (10, 11, Verdict.PASS),
    "one row of the same moment": (10, 10, Verdict.FAIL),
    "training after the test": (20, 5, Verdict.FAIL),
}


@pytest.mark.parametrize(("last", "first", "verdict"), TIMES.values(), ids=TIMES)
def test_training_must_be_older_than_the_test(last, first, verdict):
    days = np.timedelta64(1, "D").astype("m8[us]")
    rows = made(at=DAY + days * (first + np.arange(1000)))
    there = trained(at=DAY + days * (last - np.arange(2000)))
    found = check_leakage(rows, there, LeakageTable())
    assert verdicts(found)["time"] is verdict
    assert "column at" in found[-1].reason
    assert "time" not in verdicts(check_leakage(rows, there, LeakageTable(by_time=False)))


def test_without_times_or_reference_nothing_is_claimed():
    assert "time" not in verdicts(check_leakage(made(), trained(), LeakageTable()))
    found = verdicts(check_leakage(made(), None, LeakageTable()))
    assert found["duplicates"] is Verdict.INCONCLUSIVE


LATER = {
    "the same": {},
    "stricter on inputs": {"max_alone": 0.6},
    "looser on rows": {"max_duplicates": 0.5},
    "stricter on rows": {"max_duplicates": 0.0},
}


@pytest.mark.parametrize("more", LATER.values(), ids=LATER)
def test_replaying_is_measuring_again(more):
    rows, there = made(), trained()
    there.x[:20] = rows.x[:20]

    def report(table):
        return measure(
            candidate=rows, score=lambda x: x[:, 0].astype(float), threshold=0.5, champion=None,
            champion_release="", gates=GatesTable(leakage=table), required=("leakage",),
            contracts=(), security=(), latencies_us=None, reuse=0, subject="t", policy="p",
            now=NOW, on_check=lambda _: None, reference=there,
        )  # fmt: skip

    table = LeakageTable(**more)
    again = replay(report(LeakageTable()), GatesTable(leakage=table), ("leakage",), policy="q")
    assert verdicts(again.results) == verdicts(report(table).results)
