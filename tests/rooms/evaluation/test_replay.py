"""Other rules over stored evidence: the same verdicts as if they had been asked from the start."""

from __future__ import annotations

from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pytest

from falaj.evaluation import rules
from falaj.evaluation.replay import replay
from falaj.evaluation.service import measure
from falaj.evaluation.sets import EvaluationSet
from falaj.facts.checks import CheckResult, GateReport, Verdict
from falaj.facts.project import (
    BiasTable,
    GatesTable,
    LatencyTable,
    QualityTable,
    RobustnessTable,
)

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def rows() -> EvaluationSet:
    rng = np.random.default_rng(3)
    y = (rng.random(4000) < 0.4).astype(np.int8)
    x = np.column_stack([rng.normal(size=4000) + 1.5 * y, rng.normal(size=4000)])
    group = rng.choice(["a", "b"], size=4000, p=[0.7, 0.3])
    return EvaluationSet(
        x=x.astype(np.float32), y=y, columns=("signal", "noise"), digest="d", groups={"who": group}
    )


def score(x):
    return 1 / (1 + np.exp(-(np.nan_to_num(x[:, 0].astype(np.float64)) - 0.75)))


def gates(**limits) -> GatesTable:
    at = {"auc": 0.75, "tpr": 0.8, "drop": 0.05, "ms": 5.0} | limits
    return GatesTable(
        quality=QualityTable(at_least=at["auc"], margin_to_champion=0.02),
        bias=BiasTable(group="who", at_least=at["tpr"]),
        robustness=RobustnessTable(missing=("noise", "signal"), max_drop=at["drop"]),
        latency=LatencyTable(p99_ms=at["ms"], max_memory_mb=limits.get("mb")),
    )


REQUIRED = ("quality", "bias", "robustness", "latency")


def measured(table: GatesTable) -> GateReport:
    return measure(
        candidate=rows(), score=score, threshold=0.5, champion=score, champion_release="sha256:c",
        gates=table, required=REQUIRED, contracts=(), security=(),
        latencies_us=np.full(1000, 900), reuse=0, subject="sha256:t", policy="sha256:p", now=NOW,
        on_check=lambda _: None, memory_mb={"ready": 70.0, "peak": 90.5},
    )  # fmt: skip


POLICIES = {
    "the same": {},
    "a higher bar": {"auc": 0.95},
    "a lower bar": {"auc": 0.5, "tpr": 0.5},
    "a bar on the interval": {"auc": 0.857},
    "stricter on groups": {"tpr": 0.99},
    "more loss allowed": {"drop": 0.45},
    "faster": {"ms": 0.5},
    "enough memory": {"mb": 100.0},
    "too little memory": {"mb": 90.5},
}


@pytest.mark.parametrize("limits", POLICIES.values(), ids=POLICIES)
def test_replaying_is_measuring_again(limits):
    there = measured(gates())
    again = replay(there, gates(**limits), REQUIRED, policy="sha256:q")
    fresh = measured(gates(**limits))
    assert {r.check: r.verdict for r in again.results} == {
        r.check: r.verdict for r in fresh.results
    }
    assert again.verdict is fresh.verdict
    assert again.policy == "sha256:q"


def test_what_was_never_measured_is_inconclusive():
    there = measured(GatesTable(quality=QualityTable(at_least=0.75)))
    again = replay(there, gates(), REQUIRED, policy="q")
    assert again.verdict_of("quality") is Verdict.PASS
    for gate in ("bias", "robustness"):
        assert again.verdict_of(gate) is Verdict.INCONCLUSIVE
    assert "run `falaj gate`" in again.results[-1].reason


def test_another_group_column_cannot_be_answered_from_these_counts():
    there = measured(gates())
    other = GatesTable(bias=BiasTable(group="age"))
    assert replay(there, other, ("bias",), policy="q").verdict is Verdict.INCONCLUSIVE


def test_a_worn_out_set_stays_inconclusive_under_the_same_limit():
    worn = CheckResult(
        check="quality.roc_auc", gate="quality", verdict=Verdict.INCONCLUSIVE, reason="worn out",
        value=0.9, low=0.88, high=0.92, limit=0.75,
    )  # fmt: skip
    there = GateReport(subject="t", policy="p", at=NOW, results=(worn,), required=("quality",))
    same = GatesTable(quality=QualityTable(at_least=0.75))
    assert replay(there, same, ("quality",), policy="q").verdict is Verdict.INCONCLUSIVE


def test_waivers_are_not_carried_into_other_rules():
    there = measured(gates())
    assert replay(there, gates(), REQUIRED, policy="q").waivers == ()


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)


def test_the_page_escapes_hostile_words_and_loads_nothing():
    hostile = CheckResult(
        check="x<script>alert(1)</script>", gate="quality", verdict=Verdict.FAIL,
        reason="<img src=http://example.com onerror=x>",
    )  # fmt: skip
    report = GateReport(subject="t", policy="p", at=NOW, results=(hostile,), required=("quality",))
    tags = Tags()
    tags.feed(rules.html(report))
    assert not tags.seen & {"script", "img", "link", "iframe", "object"}
    assert "✕ fail" in rules.html(report)
