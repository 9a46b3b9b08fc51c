"""The card as a page: stands alone, in two languages, and names what nobody said."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from falaj.base.sheets import Html
from falaj.facts.checks import CheckResult, GateReport, Verdict, Waiver
from falaj.facts.data import Label
from falaj.facts.models import Column, Datatype, Schema, Tensor
from falaj.facts.releases import DatasetRef
from falaj.facts.runs import Run, RunStatus
from falaj.releases.card import NOTES
from falaj.releases.cardpage import ARABIC, card_page

AT = datetime(2026, 3, 1, tzinfo=UTC)
TREE = "sha256:" + "ab" * 32
HOSTILE = "<script>alert(1)</script>\u202e&\x00\ud800"
P99 = CheckResult(
    check="latency.p99", gate="latency", verdict=Verdict.PASS, reason="p99 is at most 2 ms",
    value=1.5, low=1.2, high=2.0, limit=5.0, unit="ms", n=2000,
    details={"memory_mb": {"ready": 70.0, "peak": 91.0}},
)  # fmt: skip
AUC = CheckResult(
    check="quality.roc_auc", gate="quality", verdict=Verdict.INCONCLUSIVE, reason=HOSTILE,
    metric="roc_auc", value=0.81, low=0.79, limit=0.8, n=1000,
)  # fmt: skip
TYPED = [
    CheckResult(check=f"data.c{i}.type", gate="data", verdict=Verdict.PASS, reason="is text")
    for i in range(20)
]
INPUT = Tensor(
    name="x", datatype=Datatype.FP32, shape=(-1, 1),
    columns=(Column(name=HOSTILE, nullable=True, minimum=0, unit="mi"),),
)  # fmt: skip


def page(*results, language="en", notes=None, **more):
    report = GateReport(
        subject=TREE, policy=TREE, at=AT, results=results, required=("quality", "bias"),
        waivers=(Waiver(check="quality.roc_auc", owner="r", reason=HOSTILE, expires=AT),),
    )  # fmt: skip
    run = Run(
        id="r1", project="p", pipeline="m:f", parameters={"depth": 6}, seed=7, principal="a",
        status=RunStatus.OK, started=AT,
    )  # fmt: skip
    return card_page(
        language=language, model="delay", version="7", task="binary-classification",
        runtime="onnx", schema=Schema(inputs=(INPUT,), outputs=()), threshold=None, report=report,
        run=run, datasets=(DatasetRef(dataset="d", content=TREE, bytes=TREE, rows=12),),
        label=Label(), notes=notes or {}, **more,
    )  # fmt: skip


def missing(text):
    found = re.search(r'<section class="missing">(.*?)</section>', text, re.DOTALL)
    return re.findall(r"<li>(.*?)</li>", found[1]) if found else []


def test_whatever_nobody_said_is_named():
    assert missing(page()) == [
        *NOTES.values(),
        "no explanation was made: falaj model explain",
        "the release was not timed",
        "no group was compared",
    ]


@pytest.mark.parametrize("key", NOTES)
def test_what_somebody_said_is_shown_and_not_missing(key):
    text = page(P99, notes={key: "said " + HOSTILE})
    assert NOTES[key] not in missing(text)
    assert f"<h2>{NOTES[key]}</h2>" in text
    assert "the release was not timed" not in missing(text)


def test_a_full_card_misses_nothing():
    group = CheckResult(check="bias.g=a", gate="bias", verdict=Verdict.PASS, reason="r")
    text = page(P99, AUC, group, notes=dict.fromkeys(NOTES, "said"), moved=[Html("<p>moved</p>")])
    assert missing(text) == []
    assert "<p>moved</p>" in text


@pytest.mark.parametrize("language", ["en", "ar"])
def test_the_page_stands_alone_and_holds_hostile_text(language):
    text = page(P99, AUC, *TYPED, language=language, notes={"summary": HOSTILE})
    assert "<script" not in text
    assert "\x00" not in text
    assert text.encode()
    assert "default-src 'none'" in text
    assert not re.search(r'\b(src|href|style|on\w+)="', text)
    assert not re.search(r"(?<!-)\b(left|right):|(margin|padding)-(left|right)", text)
    assert not re.search(r"https?://", text)
    assert text == page(P99, AUC, *TYPED, language=language, notes={"summary": HOSTILE})


def test_memory_and_intervals_are_shown():
    text = page(P99, AUC, *TYPED)
    assert "Peak memory while it was timed: <bdi>91 MB</bdi>" in text
    assert 'aria-label="1.5 [1.2, 2], limit 5"' in text
    assert "No check was made." in text, "bias is required and nobody looked"
    assert "<details><summary>" in text, "twenty passes of one gate are folded"
    assert "nan" not in text.lower()


def test_the_arabic_page_reads_from_the_right_and_translates_every_heading():
    text = page(P99, AUC, language="ar", notes=dict.fromkeys(NOTES, "قيل"))
    assert '<html lang="ar" dir="rtl">' in text
    headings = re.findall(r"<h2>(.*?)</h2>", text) + re.findall(
        r'<th scope="col"[^>]*>([^<]+)</th>', text
    )
    assert len(headings) > 20
    for heading in headings:
        assert not re.search("[a-zA-Z]", heading), heading
    assert all(ARABIC[title] for title in NOTES.values())
