"""What differs between two releases: every section, nothing where nothing does, no markup of others."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from falaj.base.locks import read_lock
from falaj.facts.attestations import GATE, PROVENANCE, statement
from falaj.facts.data import Classification, DatasetVersion, Label
from falaj.facts.models import Column, Datatype, Schema, Tensor
from falaj.facts.releases import DatasetRef, Manifest, Release
from falaj.facts.runs import Code, Environment, Run, RunStatus
from falaj.releases.diff import Side, compare, in_words, page

AT = datetime(2026, 3, 1, tzinfo=UTC)


def d(sign):
    return "sha256:" + sign * 64


DATA = DatasetRef(dataset="flights", content=d("1"), bytes=d("2"), rows=100)
VERSION = DatasetVersion(
    dataset="flights", bytes=d("2"), content=d("1"), schema="s1", columns={"a": d("a"), "b": d("b")},
    rows=100, source="flights.parquet", contract=d("c"), at=AT,
)  # fmt: skip
SCHEMA = Schema(
    inputs=(
        Tensor(name="x", datatype=Datatype.FP32, shape=(-1, 2),
               columns=(Column(name="a", unit="min"), Column(name="b", minimum=0.0))),
    ),
    outputs=(Tensor(name="p", datatype=Datatype.FP32, shape=(-1, 1)),),
)  # fmt: skip
MANIFEST = Manifest(
    model="delay", version="1.0.0", files={"model/model.onnx": d("3"), "evidence/g.json": d("4")},
    runtime="onnx", task="binary-classification", schema=SCHEMA, threshold="0.5", tree=d("5"),
    environment=d("6"), code=Code(commit="0" * 40, tree=d("7")), run="r1", datasets=(DATA,),
    label=Label(countries=("AE",)), created=AT,
)  # fmt: skip
RELEASE = Release(
    id=d("8"), model="delay", version="1.0.0", model_version="delay/1", run="r1", tree=d("5"),
    folder="f", evidence=d("9"), authors=("a",), created=AT,
)  # fmt: skip
RUN = Run(
    id="r1", project="p", pipeline="delay", parameters={"depth": 6, "rate": 0.1}, seed=7,
    principal="a", status=RunStatus.OK, started=AT, datasets=(VERSION,),
    environment=Environment(python="3.11", platform="linux"),
)  # fmt: skip


RULES = d("p")


def gate(verdict="pass", value="0.81", low="0.79", high="0.83", policy=RULES, **more):
    result = {
        "check": "quality.roc_auc",
        "metric": "roc_auc",
        "value": value,
        "low": low,
        "high": high,
    }
    predicate = {"gate": "quality", "verdict": verdict, "required": True, "policy": policy,
                 "results": [result], "waivers": [], **more}  # fmt: skip
    return statement(GATE, "delay", d("5"), predicate)


LOCK = read_lock(b"flask==1.0\nnumpy==2.1.0\n")


def side(release=None, manifest=None, run=None, lock=LOCK, statements=None, findings=()):
    return Side(
        replace(RELEASE, **(release or {})),
        replace(MANIFEST, **(manifest or {})),
        replace(RUN, **(run or {})),
        lock,
        statements or {"evidence/gate-quality.dsse.json": gate()},
        findings,
    )


CASES = {  # the other side -> (section, what, change, before, after)
    "a dataset more": (
        side(manifest={"datasets": (DATA, replace(DATA, dataset="weather"))}),
        ("data", "weather", "added", "", f"100 rows, {d('1')}"),
    ),
    "a dataset less": (
        side(manifest={"datasets": ()}),
        ("data", "flights", "removed", f"100 rows, {d('1')}", ""),
    ),
    "more rows": (
        side(manifest={"datasets": (replace(DATA, rows=120),)}),
        ("data", "flights: rows", "changed", "100", "120"),
    ),
    "other values": (
        side(manifest={"datasets": (replace(DATA, content=d("0")),)}),
        ("data", "flights: content", "changed", d("1"), d("0")),
    ),
    "the same values in other files": (
        side(manifest={"datasets": (replace(DATA, bytes=d("0")),)}),
        ("data", "flights: files", "changed", d("2"), d("0")),
    ),
    "another schema": (
        side(run={"datasets": (replace(VERSION, schema="s2"),)}),
        ("data", "flights: schema", "changed", "s1", "s2"),
    ),
    "a column changed": (
        side(run={"datasets": (replace(VERSION, columns={"a": d("a"), "b": d("0")}),)}),
        ("data", "flights: column b", "changed", d("b"), d("0")),
    ),
    "a column came": (
        side(run={"datasets": (replace(VERSION, columns={**VERSION.columns, "c": d("0")}),)}),
        ("data", "flights: column c", "added", "", d("0")),
    ),
    "the contract went": (
        side(run={"datasets": (replace(VERSION, contract=""),)}),
        ("data", "flights: contract", "removed", d("c"), ""),
    ),
    "it may be elsewhere": (
        side(manifest={"label": Label(countries=("AE", "SA"))}),
        ("data", "label: countries", "changed", "AE", "AE, SA"),
    ),
    "it is more protected": (
        side(manifest={"label": replace(MANIFEST.label, classification=Classification.PERSONAL)}),
        ("data", "label: classification", "changed", "internal", "personal"),
    ),
    "a feature came": (
        side(manifest={"schema": replace(SCHEMA, inputs=(replace(SCHEMA.inputs[0], columns=(*SCHEMA.inputs[0].columns, Column(name="c"))),))}),
        ("features", "in x.c", "added", "", "place 2, open to open"),
    ),
    "a range moved": (
        side(manifest={"schema": replace(SCHEMA, inputs=(replace(SCHEMA.inputs[0], columns=(SCHEMA.inputs[0].columns[0], Column(name="b", minimum=-1.0))),))}),
        ("features", "in x.b", "changed", "place 1, 0 to open", "place 1, -1 to open"),
    ),
    "another threshold": (
        side(manifest={"threshold": "0.6"}), ("features", "threshold", "changed", "0.5", "0.6"),
    ),
    "another commit": (
        side(manifest={"code": replace(MANIFEST.code, commit="1" * 40)}),
        ("code", "commit", "changed", "0" * 40, "1" * 40),
    ),
    "changes that are not committed": (
        side(manifest={"code": replace(MANIFEST.code, diff=d("0"))}),
        ("code", "changes that are not committed", "added", "", d("0")),
    ),
    "a parameter": (
        side(run={"parameters": {"depth": 8, "rate": 0.1}}), ("parameters", "depth", "changed", "6", "8"),
    ),
    "a parameter less": (
        side(run={"parameters": {"depth": 6}}), ("parameters", "rate", "removed", "0.1", ""),
    ),
    "another seed": (side(run={"seed": 8}), ("parameters", "seed", "changed", "7", "8")),
    "a package more": (
        side(lock=read_lock(b"flask==1.0\nnumpy==2.1.0\npip==1\n")), ("dependencies", "pip", "added", "", "1"),
    ),
    "a package less": (
        side(lock=read_lock(b"flask==1.0\n")), ("dependencies", "numpy", "removed", "2.1.0", ""),
    ),
    "another version": (
        side(lock=read_lock(b"flask==2.0\nnumpy==2.1.0\n")), ("dependencies", "flask", "changed", "1.0", "2.0"),
    ),
    "the same version with other files": (
        side(lock=read_lock(b"flask==1.0 --hash=sha256:" + b"a" * 64 + b"\nnumpy==2.1.0\n")),
        ("dependencies", "flask 1.0: hashes", "changed", "0 files", "1 files"),
    ),
    "something without a version": (
        side(lock=read_lock(b"flask==1.0\nnumpy==2.1.0\npip\n")),
        ("dependencies", "not pinned: pip, without one version", "added", "", "yes"),
    ),
    "another Python": (
        side(run={"environment": Environment(python="3.12", platform="linux")}),
        ("dependencies", "Python", "changed", "3.11", "3.12"),
    ),
    "another number": (
        side(statements={"evidence/gate-quality.dsse.json": gate(value="0.85", low="0.84", high="0.86")}),
        ("metrics", "quality.roc_auc", "changed", "0.81 [0.79, 0.83]", "0.85 [0.84, 0.86]"),
    ),
    "another verdict": (
        side(statements={"evidence/gate-quality.dsse.json": gate("fail")}),
        ("gates", "quality", "changed", "pass (required)", "fail (required)"),
    ),
    "a waiver": (
        side(statements={"evidence/gate-quality.dsse.json": gate(waivers=[{"check": "c"}])}),
        ("gates", "quality", "changed", "pass (required)", "pass (required, 1 waived)"),
    ),
    "other rules": (
        side(statements={"evidence/gate-quality.dsse.json": gate(policy=d("q"))}),
        ("gates", "digest of the rules", "changed", d("p"), d("q")),
    ),
    "evidence more": (
        side(statements={"evidence/gate-quality.dsse.json": gate(),
                         "evidence/provenance.dsse.json": statement(PROVENANCE, "n", d("5"), {})}),
        ("evidence", "provenance.dsse.json", "added", "", None),
    ),
    "other model files": (
        side(manifest={"files": {"model/model.onnx": d("0")}}),
        ("evidence", "model/model.onnx", "changed", d("3"), d("0")),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("other", "row"), CASES.values(), ids=CASES)
def test_what_differs_is_said(other, row):
    found = compare(side(), other).rows
    matching = [one for one in found if (one.section, one.what) == row[:2]]
    assert len(matching) == 1, [(one.section, one.what) for one in found]
    (one,) = matching
    assert (one.change, one.before) == row[2:4]
    assert row[4] is None or one.after == row[4]


@pytest.mark.parametrize(("other", "row"), CASES.values(), ids=CASES)
def test_the_way_back_is_the_same_turned_round(other, row):
    turned = {"added": "removed", "removed": "added", "changed": "changed"}
    there = {(r.section, r.what, r.change, r.before, r.after) for r in compare(side(), other).rows}
    back = {
        (r.section, r.what, turned[r.change], r.after, r.before)
        for r in compare(other, side()).rows
    }
    assert there == back


def test_equal_releases_have_no_row():
    same = compare(side(), side())
    assert same.rows == ()
    assert in_words(same) == "Nothing differs: they are the same release."
    named = compare(side(), side(release={"id": d("0"), "version": "1.0.1"}))
    assert in_words(named) == "Nothing differs: they are equal but for their names."
    assert "equal but for their names" in page(named)


def test_signatures_and_times_are_no_difference():
    """Evidence is compared by what it says."""
    other = side(manifest={"files": {**MANIFEST.files, "evidence/g.json": d("0")}, "created": AT})
    assert compare(side(), other).rows == ()


INTERVALS = {
    "apart": (("0.79", "0.83"), ("0.84", "0.86"), "the intervals lie apart"),
    "overlapping": (("0.79", "0.83"), ("0.82", "0.86"), "the intervals overlap"),
    "touching": (("0.79", "0.83"), ("0.83", "0.86"), "the intervals overlap"),
    "open": (("0.79", None), ("0.83", "0.86"), ""),
    "no numbers": (("x", "0.8"), ("0.83", "0.86"), ""),
}


@pytest.mark.parametrize(("one", "other", "words"), INTERVALS.values(), ids=INTERVALS)
def test_intervals_are_told_and_not_judged(one, other, words):
    sides = [
        side(statements={"e": gate(value=value, low=ends[0], high=ends[1])})
        for value, ends in (("0.8", one), ("0.85", other))
    ]
    (row,) = [r for r in compare(*sides).rows if r.section == "metrics"]
    assert row.note == words


def test_files_of_the_code_are_named():
    other = side(manifest={"code": replace(MANIFEST.code, commit="1" * 40, tree=d("0"))})
    found = compare(side(), other, [("M", "pipeline.py"), ("A", "new.py"), ("D", "old.py")])
    named = {row.what: row.change for row in found.rows if row.what.endswith(".py")}
    assert named == {"pipeline.py": "changed", "new.py": "added", "old.py": "removed"}
    unknown = compare(side(), other)
    (tree,) = [row for row in unknown.rows if row.what == "code files"]
    assert tree.note == "the commits are not both here"


def test_the_page_escapes_what_others_wrote():
    other = side(
        release={"version": "<script>1"},
        run={"parameters": {"<img src=x onerror=alert(1)>": "</td>"}},
        findings=("<b>model.onnx</b> was changed",),
    )
    text = page(compare(side(), other))
    assert "<script" not in text
    assert "<img" not in text
    assert "<b>model" not in text
    assert "Does not hold" in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
