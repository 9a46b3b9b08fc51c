"""Bad input to gates: a word for each, never a traceback, and never a pass."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from falaj.evaluation import rules
from falaj.evaluation.service import measure
from falaj.evaluation.sets import EvaluationSet
from falaj.facts.checks import Verdict
from falaj.facts.project import (
    BiasTable,
    GatesTable,
    LatencyTable,
    QualityTable,
    RobustnessTable,
)

NOW = datetime(2026, 11, 24, tzinfo=UTC)
REQUIRED = ("quality", "bias", "robustness", "latency")
N = 400


def rows(n=N, *, y=None, groups=None):
    draw = np.random.default_rng(0)
    truth = (draw.random(n) < 0.5).astype(np.int8) if y is None else np.full(n, y, np.int8)
    x = np.column_stack([draw.normal(size=n) + 2 * truth, draw.normal(size=n)]).astype(np.float32)
    who = {"who": np.where(np.arange(n) % 2, "a", "b").astype(str)} if groups is None else groups
    return EvaluationSet(x=x, y=truth, columns=("signal", "noise"), digest="sha256:e", groups=who)


def good(x):
    return 1 / (1 + np.exp(1 - np.nan_to_num(x[:, 0].astype(np.float64))))


def constant(x):
    return np.full(len(x), 0.7)


def nan(x):
    return np.full(len(x), np.nan)


def one_nan(x):
    return np.r_[np.nan, good(x)[1:]]


def short(x):
    return good(x)[1:]


def breaks(_x):
    raise RuntimeError("no such tensor")


ANY = {Verdict.INCONCLUSIVE, Verdict.FAIL, Verdict.ERROR}
CASES = {  # rows, model, champion, more -> allowed verdicts of the gate, a word of some reason
    "no rows": (rows(0), good, None, {}, {Verdict.INCONCLUSIVE}, "no held-out rows"),
    "one row": (rows(1), good, None, {}, {Verdict.INCONCLUSIVE}, "one class"),
    "two rows": (rows(2, groups={}), good, None, {}, ANY, ""),
    "all no": (rows(y=0), good, None, {}, {Verdict.INCONCLUSIVE}, "one class"),
    "all yes": (rows(y=1), good, None, {}, {Verdict.INCONCLUSIVE}, "one class"),
    "a constant score": (rows(), constant, None, {}, ANY, "no variance"),
    "a constant champion": (rows(), good, constant, {"at_least": 0.999}, ANY, ""),
    "no score is a number": (rows(), nan, None, {}, {Verdict.FAIL}, "no number"),
    "one score is no number": (rows(), one_nan, None, {}, {Verdict.FAIL}, "1 of 400"),
    "fewer scores than rows": (rows(), short, None, {}, {Verdict.ERROR}, "expected one"),
    "a model that breaks": (rows(), breaks, None, {}, {Verdict.ERROR}, "no such tensor"),
    "a champion that breaks": (rows(), good, breaks, {}, {Verdict.ERROR}, "no such tensor"),
    "a champion without numbers": (rows(), good, nan, {}, {Verdict.ERROR}, "live model"),
    "no such group column": (rows(groups={}), good, None, {}, {Verdict.ERROR}, "no column 'who'"),
    "one group only": (
        rows(groups={"who": np.full(N, "a")}), good, None, {}, {Verdict.INCONCLUSIVE}, "one group",
    ),
    "a reference that is not there": (rows(), good, None, {"reference": "z"}, ANY, "z"),
    "no such input": (rows(), good, None, {"missing": ("wind_*",)}, {Verdict.ERROR}, "wind_*"),
    "no answer was timed": (rows(), good, None, {"us": []}, {Verdict.INCONCLUSIVE}, "timed"),
    "one answer was timed": (rows(), good, None, {"us": [900]}, {Verdict.INCONCLUSIVE}, "few"),
    "memory that nobody tells": (rows(), good, None, {"mb": 100.0}, {Verdict.INCONCLUSIVE}, "memory"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("candidate", "score", "champion", "more", "allowed", "word"), CASES.values(), ids=CASES
)
@pytest.mark.parametrize("metric", ["roc_auc", "accuracy"])
def test_it_is_said_in_words_and_never_passes(
    metric, candidate, score, champion, more, allowed, word
):
    if metric == "accuracy" and score is constant:
        word = ""  # it has an accuracy, and a low one
    report = measure(
        candidate=candidate, score=score, threshold=0.5, champion=champion,
        champion_release="c" if champion else "", required=REQUIRED, contracts=(), security=(),
        gates=GatesTable(
            quality=QualityTable(metric=metric, at_least=more.get("at_least", 0.6)),
            bias=BiasTable(group="who", reference=more.get("reference", "")),
            robustness=RobustnessTable(missing=more.get("missing", ("noise",))),
            latency=LatencyTable(p99_ms=5, max_memory_mb=more.get("mb")),
        ),
        latencies_us=np.array(more.get("us", [900] * 1000), np.int64), reuse=0,
        subject="sha256:t", policy="sha256:p", now=NOW, on_check=lambda _: None,
    )  # fmt: skip
    assert report.verdict in allowed, report.results
    said = " | ".join(f"{r.check}: {r.reason}" for r in report.results)
    assert word in said
    assert all(r.reason for r in report.results)
    for result in report.results:
        for number in (result.value, result.low, result.high):
            assert number is None or np.isfinite(number), result.check
    assert "Traceback" not in rules.html(report) + rules.markdown(report) + rules.junit(report)
