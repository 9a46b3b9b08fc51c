"""The ML-BOM: its own check, and the schema of CycloneDX 1.6 where the extra is there."""

from __future__ import annotations

import copy
import os
import subprocess
from datetime import UTC, datetime

import pytest

import parts
from falaj.base import canonical
from falaj.facts.checks import CheckResult, GateReport, Verdict
from falaj.facts.data import Classification, Label
from falaj.facts.models import Column, Datatype, Schema, Tensor
from falaj.facts.releases import DatasetRef
from falaj.releases.mlbom import mlbom, trouble

AT = datetime(2026, 3, 1, tzinfo=UTC)
TREE = "sha256:" + "ab" * 32
SCHEMA = Schema(
    inputs=(
        Tensor(
            name="x", datatype=Datatype.FP32, shape=(-1, 2),
            columns=(Column(name="a", nullable=True, minimum=0.0), Column(name="b <script>")),
        ),
    ),
    outputs=(Tensor(name="p", datatype=Datatype.FP32, shape=(-1, 1)),),
)  # fmt: skip


def result(check, gate, **more):
    return CheckResult(
        check=check, gate=gate, verdict=more.pop("verdict", Verdict.PASS), reason="r", **more
    )


RESULTS = (
    result("quality.roc_auc", "quality", metric="roc_auc", value=0.8125, low=0.79, high=0.83),
    result("bias.origin=JFK", "bias", metric="ratio", value=0.9, low=0.7, verdict=Verdict.FAIL),
    result("slices.carrier=UA", "slices", metric="roc_auc", value=1e-9, high=0.5),
)
LOCK = (
    "flask==1.0 --hash=sha256:" + "a" * 64 + " --hash=sha256:" + "b" * 64
    + "\ntorch==2.1+cu121\npytz>=1\nnumpy==2.1.0\nscipy==1.0\n"
)  # fmt: skip
LICENCES = {
    "flask==1.0": "BSD-3-Clause",
    "numpy==2.1.0": "BSD-3-Clause AND MIT",
    "scipy==1.0": "BSD-unspecified",
}


def bill(results=RESULTS, datasets=2, notes=None, lock=LOCK, schema=SCHEMA):
    return mlbom(
        model="delay",
        version="7",
        task="binary-classification",
        runtime="onnx",
        tree=TREE,
        files={"model.onnx": TREE, "deep/config.json": "sha256:" + "c" * 64},
        schema=schema,
        report=GateReport(
            subject=TREE, policy=TREE, at=AT, results=results, required=("quality", "bias")
        ),
        datasets=[
            DatasetRef(dataset=f"d{n}", content="sha256:" + f"{n}" * 64, bytes=TREE, rows=12)
            for n in range(datasets)
        ],
        label=Label(classification=Classification.PERSONAL, countries=("AE", "SA")),
        environment_lock=lock.encode(),
        created=AT,
        notes=notes or {},
        licences=LICENCES,
    )


SAID = {"summary": "Late?", "users": "planners", "intended_use": "plans", "limits": "no winter",
        "out_of_scope": "people", "ethics": "none"}  # fmt: skip
BILLS = {
    "whole": bill(notes=SAID),
    "nothing-known": bill(results=(), datasets=0, lock="", schema=Schema(inputs=(), outputs=())),
    "usual": bill(),
}


def test_dependencies_have_addresses_hashes_and_licences():
    by_name = {part["name"]: part for part in bill()["components"] if part["type"] == "library"}
    assert by_name["flask"]["purl"] == "pkg:pypi/flask@1.0"
    assert by_name["torch"]["purl"] == "pkg:pypi/torch@2.1%2Bcu121"
    assert [h["content"][0] for h in by_name["flask"]["externalReferences"][0]["hashes"]] == [
        "a",
        "b",
    ]
    assert by_name["flask"]["licenses"] == [{"expression": "BSD-3-Clause"}]
    assert by_name["numpy"]["licenses"] == [{"expression": "BSD-3-Clause AND MIT"}]
    assert by_name["scipy"]["licenses"] == [{"license": {"name": "BSD-unspecified"}}]
    assert "licenses" not in by_name["torch"]


def test_what_is_not_pinned_is_named():
    properties = bill()["metadata"]["component"]["properties"]
    assert {"name": "falaj:not-pinned", "value": "pytz, without one version"} in properties


def test_metrics_have_slices_and_intervals():
    card = bill()["metadata"]["component"]["modelCard"]
    metrics = card["quantitativeAnalysis"]["performanceMetrics"]
    assert [(m["slice"], m["confidenceInterval"]) for m in metrics] == [
        ("all", {"lowerBound": "0.79", "upperBound": "0.83"}),
        ("origin=JFK", {"lowerBound": "0.7"}),
        ("carrier=UA", {"upperBound": "0.5"}),
    ]


@pytest.mark.parametrize("made", BILLS.values(), ids=BILLS)
def test_our_own_check_finds_nothing(made):
    assert trouble(made) == []


BREAKS = {
    "another form": (lambda b: b.update(bomFormat="SPDX"), "SPDX"),
    "another version": (lambda b: b.update(specVersion="1.5"), "1.5"),
    "a serial number that is none": (lambda b: b.update(serialNumber="7"), "'7' is no urn:uuid"),
    "no model": (
        lambda b: b["metadata"]["component"].update(type="library"),
        "no machine-learning",
    ),
    "no component at all": (lambda b: b.update(metadata={}), "no machine-learning"),
    "no card": (lambda b: b["metadata"]["component"].pop("modelCard"), "no modelCard"),
    "a name that stands twice": (lambda b: b["components"].append(b["components"][0]), "twice"),
    "a part without a name": (lambda b: b["components"][0].update(name=""), "name ''"),
    "a part of no kind": (lambda b: b["components"][0].update(type="thing"), "'thing'"),
    "a hash that is none": (
        lambda b: b["components"][0]["hashes"][0].update(content="ab"),
        "no SHA-256",
    ),
    "a library without an address": (lambda b: b["components"][-1].update(purl=""), "purl"),
    "a reference that leads nowhere": (lambda b: b["components"].pop(), "which is no component"),
}


@pytest.mark.parametrize(("change", "words"), BREAKS.values(), ids=BREAKS)
def test_our_own_check_finds_what_is_broken(change, words):
    made = copy.deepcopy(BILLS["whole"])
    change(made)
    assert any(words in found for found in trouble(made)), trouble(made)


def test_the_schema_of_cyclonedx(tmp_path, make_release):
    python = parts.environment("scan") / "python"
    for name, made in BILLS.items():
        (tmp_path / f"{name}.json").write_bytes(canonical.dumps(made))
    signed = make_release().folder / "mlbom.cdx.json"
    (tmp_path / "signed.json").write_bytes(signed.read_bytes())
    words = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
             "tests/parts/suites/cyclonedx_suite.py"]  # fmt: skip
    done = subprocess.run(
        words, cwd=parts.ROOT, env={**os.environ, "FALAJ_BILLS": str(tmp_path)}, check=False,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-500:]
    assert "11 passed" in done.stdout
