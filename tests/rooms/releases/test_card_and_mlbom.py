"""The model card and the ML-BOM tell what the evidence says, and what nobody said."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest

from falaj.base import canonical
from falaj.base.locks import read_lock
from falaj.facts.checks import CheckResult, GateReport, Verdict, Waiver
from falaj.facts.data import Label
from falaj.facts.models import Schema
from falaj.facts.releases import DatasetRef
from falaj.facts.runs import Run, RunStatus
from falaj.releases.card import NOTES, card
from falaj.releases.mlbom import mlbom

AT = datetime(2026, 3, 1, tzinfo=UTC)
TREE = "sha256:" + "ab" * 32
RESULTS = (
    CheckResult(
        check="quality.roc_auc",
        gate="quality",
        verdict=Verdict.PASS,
        reason="lower bound 0.79 reaches 0.7",
        metric="roc_auc",
        value=0.8125,
        low=0.79,
        high=0.83,
        limit=0.7,
        n=1000,
    ),
    CheckResult(
        check="bias.origin=JFK",
        gate="bias",
        verdict=Verdict.INCONCLUSIVE,
        reason="too few rows | <script>",
        metric="equal_opportunity_ratio",
        value=0.9,
        low=0.7,
        n=40,
    ),
)
REPORT = GateReport(
    subject=TREE,
    policy="sha256:" + "7" * 64,
    at=AT,
    results=RESULTS,
    required=("quality", "bias", "latency"),
    waivers=(Waiver(check="bias.origin=JFK", owner="risk", reason="few rows", expires=AT),),
)
RUN = Run(
    id="r1",
    project="p",
    pipeline="delay",
    parameters={"depth": 6},
    seed=7,
    principal="a",
    status=RunStatus.OK,
    started=AT,
)
DATA = (DatasetRef(dataset="flights", content="sha256:" + "1" * 64, bytes=TREE, rows=12),)


def write_card(**notes):
    return card(
        model="delay",
        version="7",
        task="binary-classification",
        runtime="onnx",
        schema=Schema(inputs=(), outputs=()),
        threshold="0.5",
        report=REPORT,
        run=RUN,
        datasets=DATA,
        label=Label(countries=("AE",)),
        notes=notes,
    )


def write_bom(**other):
    parts = {
        "model": "delay",
        "version": "7",
        "task": "binary-classification",
        "runtime": "onnx",
        "tree": TREE,
        "files": {"m.onnx": TREE},
        "schema": Schema(inputs=(), outputs=()),
        "report": REPORT,
        "datasets": DATA,
        "label": Label(countries=("AE",)),
        "environment_lock": b"numpy==2.1.0 \\\n --hash=sha256:" + b"a" * 64 + b"\nx[y]==1\n",
        "created": AT,
        "notes": {"limits": "Not for winter.", "users": "planners"},
    }
    return mlbom(**{**parts, **other})


def test_the_card_has_metrics_with_intervals_and_groups():
    text = write_card()
    assert "| quality.roc_auc | pass | 0.8125 | 0.79 to 0.83 | 0.7 | 1000 |" in text
    assert "| bias.origin=JFK | inconclusive | 0.9 | 0.7 to open | open | 40 |" in text
    assert "### latency: inconclusive (required)\n\nNo check was made." in text
    assert "| flights | 12 | 111111111111 |" in text
    assert "Countries: AE. Purposes: not stated." in text
    assert "not under version control" in text
    assert "## Waivers" in text


def test_what_nobody_stated_is_named():
    text = write_card(intended_use="Planning of crews.")
    missing = text[text.index("## Missing") :]
    assert "known limits" in missing
    assert "intended use," not in missing
    assert "## Intended use\n\nPlanning of crews." in text
    assert "## Missing" not in write_card(**dict.fromkeys(NOTES, "said"))


def test_words_of_people_stay_words():
    text = write_card(limits="# not | a <script>alert(1)</script> [link](x) `code` & more\n\n- two")
    assert "<script>" not in text
    assert (
        r"\# not \| a &lt;script&gt;alert(1)&lt;/script&gt; \[link\](x) \`code\` &amp; more" in text
    )
    assert "\n\n\\- two\n" in text


def test_the_same_facts_give_the_same_card_and_bom():
    assert write_card(limits="a") == write_card(limits="a")
    assert canonical.dumps(write_bom()) == canonical.dumps(write_bom())


def test_the_bom_follows_cyclonedx_1_6():
    bom = write_bom()
    assert (bom["bomFormat"], bom["specVersion"], bom["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(
        r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
        bom["serialNumber"],
    )
    model = bom["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert metrics[0] == {
        "type": "roc_auc",
        "value": "0.8125",
        "slice": "all",
        "confidenceInterval": {"lowerBound": "0.79", "upperBound": "0.83"},
    }
    assert metrics[1]["slice"] == "origin=JFK"
    assert model["modelCard"]["considerations"]["fairnessAssessments"][0]["groupAtRisk"] == (
        "origin=JFK"
    )
    assert json.loads(json.dumps(bom)) == bom


def test_every_reference_of_the_bom_leads_somewhere():
    bom = write_bom()
    known = {part["bom-ref"] for part in bom["components"]}
    assert len(known) == len(bom["components"])
    (dependency,) = bom["dependencies"]
    assert dependency["ref"] == bom["metadata"]["component"]["bom-ref"]
    assert set(dependency["dependsOn"]) == known
    card_ = bom["metadata"]["component"]["modelCard"]
    assert {d["ref"] for d in card_["modelParameters"]["datasets"]} <= known


def test_another_model_gets_another_serial_number():
    assert write_bom(tree="sha256:" + "cd" * 32)["serialNumber"] != write_bom()["serialNumber"]


LOCKS = {
    "hashes over several lines": (
        b"numpy==2.1.0 \\\n    --hash=sha256:" + b"b" * 64 + b" \\\n    --hash=sha256:" + b"a" * 64,
        [("numpy", "2.1.0", ("a" * 64, "b" * 64))],
    ),
    "extras, markers, comments": (
        b"# made by a tool\nUvicorn[standard]==0.54.0 ; python_version > '3'\n  # via x\n",
        [("uvicorn", "0.54.0", ())],
    ),
    "names are normalised and sorted": (
        b"Zope.Interface==1\nabc_def==2\n",
        [("abc-def", "2", ()), ("zope-interface", "1", ())],
    ),
    "an open range is not a pin": (b"numpy>=2\n-e .\n", []),
    "empty": (b"", []),
}


@pytest.mark.parametrize(("lock", "found"), LOCKS.values(), ids=LOCKS)
def test_packages_of_a_lock(lock, found):
    assert [(pin.name, pin.version, pin.hashes) for pin in read_lock(lock).pins] == found
