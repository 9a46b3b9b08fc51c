"""Rows that break a contract, set aside: which ones, what is left, and what is shown of them."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import falaj
from falaj.base.errors import FalajError
from falaj.data.checks import checks_of
from falaj.data.datasets import open_dataset
from falaj.data.odcs import parse_contract, read_contract
from falaj.data.quarantine import rejected
from falaj.data.scan import BROKEN, ROW, Masks, broken_rows, scan
from falaj.data.service import validate
from falaj.facts.checks import Verdict
from falaj.facts.data import Classification, Label

HEAD = "apiVersion: v3.1.0\nkind: DataContract\nid: c\nname: c\nversion: 1.0.0\nstatus: active\n"
KEY = b"k" * 32
CONTRACT = (
    HEAD
    + """schema:
  - name: t
    properties:
      - {name: id, logicalType: integer, primaryKey: true}
      - {name: who, logicalType: string, classification: personal, required: true}
      - {name: plate, logicalType: string, classification: confidential}
      - {name: a, logicalType: integer, logicalTypeOptions: {minimum: 0, maximum: 9}}
      - {name: at, logicalType: string, relationships: [{to: places.code}]}
    quality:
      - {id: few, metric: rowCount, mustBeGreaterOrEqualTo: 3}
"""
)
ROWS = """id,who,plate,a,at
1,Fatima,AB-12,3,DXB
2,Omar,AB-13,77,DXB
2,Salma,AB-14,5,DXB
4,Layla,AB-15,6,ZZZ
5,Noura,AB-16,seven,DXB
6,Rashid,AB-17,-1,YYY
7,Hessa,AB-18,8,AUH
8,Saif,AB-19,9,AUH
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "t.csv").write_text(ROWS)
    (tmp_path / "places.csv").write_text("code\nDXB\nAUH\n")
    (tmp_path / "t.odcs.yaml").write_text(CONTRACT)
    return tmp_path


def opened(folder, *, source="t.csv", pct=100.0, **more):
    places = open_dataset("places", "places.csv", root=folder)
    return open_dataset(
        "t", source, root=folder, contract=read_contract(folder / "t.odcs.yaml", root=folder),
        quarantine_pct=pct, others={"places": places}, **more,
    )  # fmt: skip


def checked(dataset, folder):
    references = {"places": open_dataset("places", "places.csv", root=folder)}
    found = validate(dataset, references=references, mask_key=KEY)
    return found, {one.check: one for one in found.results}


def test_steps_read_what_keeps_the_contract(folder):
    dataset = opened(folder)
    assert dataset.read()["id"].to_list() == [1, 7, 8] == dataset.scan().collect()["id"].to_list()
    assert dataset.whole().collect().height == 8 == dataset.rows_in_all
    assert dict(dataset.broken.iter_rows()) == {
        1: ["a.range"], 2: ["id.key"], 3: ["at.reference"], 4: ["a.type"],
        5: ["a.range", "at.reference"],
    }  # fmt: skip


def test_the_same_of_a_typed_source(folder):
    rows = opened(folder, pct=None).read()
    rows.write_parquet(folder / "t.parquet")
    dataset = opened(folder, source="t.parquet")
    assert dataset.read()["id"].to_list() == [1, 5, 7, 8]  # what was unreadable is null there
    assert dataset.scan().select("a").collect().height == 4


def test_the_version_is_of_what_steps_read(folder):
    all_rows, left = opened(folder, pct=None).version, opened(folder).version
    assert left.rows == 3 and all_rows.rows == 8
    assert left.bytes == all_rows.bytes and left.content != all_rows.content
    alone = opened(folder).read()
    alone.write_parquet(folder / "left.parquet")
    assert opened(folder, source="left.parquet", pct=None).version.content == left.content


def test_a_looser_contract_is_another_version_only_when_other_rows_stay(folder):
    before = opened(folder).version
    (folder / "t.odcs.yaml").write_text(CONTRACT.replace("minimum: 0", "minimum: 1"))
    assert opened(folder).version.content == before.content
    (folder / "t.odcs.yaml").write_text(CONTRACT.replace("maximum: 9", "maximum: 99"))
    assert opened(folder).version.content != before.content


def test_the_report_counts_and_the_rest_is_judged(folder):
    report, found = checked(opened(folder, pct=70.0), folder)
    assert report.rows == 3 and report.set_aside == 5
    told = found["data.quarantine"]
    assert told.verdict is Verdict.PASS and told.value == 5 and told.n == 8
    assert "5 of 8 rows (62.5 %) are set aside: a.range 2, at.reference 2" in told.reason
    assert told.details["set_aside"]["id.key"] == 1
    assert [row["row"] for row in told.details["sample"]] == [2, 3, 4, 5, 6]
    assert {one.verdict for one in report.results} == {Verdict.PASS}


def test_more_than_may_be_is_a_failure_with_a_way_out(folder):
    _, found = checked(opened(folder, pct=10.0), folder)
    told = found["data.quarantine"]
    assert told.verdict is Verdict.FAIL and told.gate == "data"
    assert told.details["code"] == "data.quarantine-full"
    assert "quarantine_pct" in told.details["fix"]


def test_rules_about_the_whole_are_held_against_what_is_left(folder):
    (folder / "t.odcs.yaml").write_text(CONTRACT.replace("OrEqualTo: 3", "OrEqualTo: 4"))
    _, found = checked(opened(folder), folder)
    assert found["data.few"].verdict is Verdict.FAIL and found["data.few"].value == 3


def test_without_a_quarantine_nothing_is_set_aside(folder):
    report, found = checked(opened(folder, pct=None), folder)
    assert report.rows == 8 and report.set_aside == 0 and "data.quarantine" not in found
    assert found["data.a.range"].verdict is Verdict.FAIL


def test_of_no_rows_nothing_is_known(folder):
    (folder / "t.csv").write_text(ROWS.splitlines()[0] + "\n")
    _, found = checked(opened(folder), folder)
    assert found["data.quarantine"].verdict is Verdict.INCONCLUSIVE


def test_what_is_kept_of_them_shows_no_protected_value(folder):
    dataset = opened(folder, label=Label(classification=Classification.INTERNAL))
    shown = rejected(dataset, KEY)
    assert shown[ROW].to_list() == [2, 3, 4, 5, 6]
    assert shown[BROKEN].to_list()[-1] == ["a.range", "at.reference"]
    assert shown["a"].to_list() == ["77", "5", "6", "seven", "-1"]  # also what could not be read
    assert shown["plate"].to_list()[0] == "AA-99"
    assert all(word.startswith("tok:") for word in shown["who"])
    assert "Omar" not in str(shown.to_dicts()) and "AB-13" not in str(shown.to_dicts())


def test_a_dataset_of_class_personal_shows_nothing(folder):
    dataset = opened(folder, label=Label(classification=Classification.PERSONAL))
    shown = rejected(dataset, KEY).drop(ROW, BROKEN)
    cells = {str(cell) for row in shown.iter_rows() for cell in row}
    assert all(cell.startswith("tok:") or cell == "AA-99" for cell in cells)
    assert all(cell not in str(checked(dataset, folder)[0]) for cell in ("Omar", "seven", "ZZZ"))


def test_two_datasets_that_point_to_each_other(tmp_path):
    def said(name, other):
        return HEAD + (
            f"schema:\n  - name: {name}\n    properties:\n      - {{name: k, relationships: "
            f"[{{to: {other}.k}}]}}\n"
        )

    made = {}
    for name, other, rows in (("one", "two", "1\n2\n"), ("two", "one", "2\n3\n")):
        (tmp_path / f"{name}.csv").write_text("k\n" + rows)
        made[name] = open_dataset(
            name, f"{name}.csv", root=tmp_path, quarantine_pct=100.0, others=made,
            contract=parse_contract(said(name, other).encode(), file="c.yaml"),
        )  # fmt: skip
    assert made["one"].read()["k"].to_list() == ["2"] == made["two"].read()["k"].to_list()


# -- falaj.split ---------------------------------------------------------------------------------


def frame(folder):
    return opened(folder, pct=None).read()


def test_split_by_hand(folder):
    places = pl.DataFrame({"code": ["DXB", "AUH"]})
    good, bad = falaj.split(
        frame(folder), folder / "t.odcs.yaml", references={"places": places}
    )  # fmt: skip
    assert good["id"].to_list() == [1, 5, 7, 8] and good.columns == frame(folder).columns
    assert bad["id"].to_list() == [2, 2, 4, 6]
    assert bad["falaj_broken"].to_list() == [
        ["a.range"], ["id.key"], ["at.reference"], ["a.range", "at.reference"],
    ]  # fmt: skip


def test_split_without_the_other_dataset_leaves_its_check_out(folder):
    made = falaj.split(frame(folder).lazy(), str(folder / "t.odcs.yaml"))
    assert made.bad["id"].to_list() == [2, 2, 6]


def test_split_finds_the_contract_of_the_project(folder, monkeypatch):
    (folder / "falaj.toml").write_text("")
    (folder / "deep").mkdir()
    monkeypatch.chdir(folder / "deep")
    assert len(falaj.split(frame(folder), "t.odcs.yaml").bad) == 3


LOST = {
    "a column is absent": (lambda f: f.drop("plate"), "plate.present"),
    "a column has another type": (lambda f: f.with_columns(pl.lit("x").alias("a")), "a.type"),
}


@pytest.mark.parametrize(("change", "name"), LOST.values(), ids=LOST)
def test_what_every_row_breaks_splits_nothing(folder, change, name):
    with pytest.raises(FalajError, match=name) as caught:
        falaj.split(change(frame(folder)), folder / "t.odcs.yaml")
    assert caught.value.code == "data.cannot-split"
    assert caught.value.problems[0].place.file.endswith("t.odcs.yaml")


KEPT = {  # rules that set no row aside
    "a tolerance": "unit: percent, mustBeLessThan: 50",
    "a warning": "severity: warning",
}


@pytest.mark.parametrize("rest", KEPT.values(), ids=KEPT)
def test_what_a_rule_tolerates_stays(rest):
    text = (
        f"{HEAD}schema:\n  - name: t\n    properties:\n      - name: a\n        quality:\n"
        f"          - {{metric: nullValues, {rest}}}\n"
    )
    contract = parse_contract(text.encode(), file="c.yaml")
    good, bad = falaj.split(pl.DataFrame({"a": [1, None]}), contract)
    assert len(good) == 2 and bad.is_empty()


RULED = (
    HEAD
    + """schema:
  - name: t
    properties:
      - {name: k, unique: true}
      - {name: a, logicalType: integer, required: true, logicalTypeOptions: {minimum: -2, maximum: 2}}
      - {name: w, logicalType: string, logicalTypeOptions: {maxLength: 2, pattern: '^[ab]*$'}}
    quality:
      - {type: custom, engine: falaj, implementation: "a <= k"}
      - {metric: duplicateValues, arguments: {properties: [a, w]}}
"""
)
CELLS = st.fixed_dictionaries(
    {
        "k": st.none() | st.integers(-3, 3),
        "a": st.none() | st.integers(-4, 4),
        "w": st.none() | st.text("abc", max_size=3),
    }
)


@settings(deadline=None, max_examples=60)
@given(st.lists(CELLS, max_size=12))
def test_what_is_left_keeps_the_contract_and_nothing_is_lost(cells):
    contract = parse_contract(RULED.encode(), file="c.yaml")
    rows = pl.DataFrame(cells, schema={"k": pl.Int64, "a": pl.Int64, "w": pl.String})
    good, bad = falaj.split(rows, contract)
    assert len(good) + len(bad) == len(rows)
    assert all(bad["falaj_broken"].list.len() > 0)
    more = {"references": {}, "unreadable": {}}
    masks = {"masks": Masks(classes={}), "key": (), "now": datetime(2026, 3, 1, tzinfo=UTC)}
    found = scan(checks_of(contract, "t"), good.lazy(), **more, **masks)
    assert {one.verdict for one in found} <= {Verdict.PASS, Verdict.INCONCLUSIVE}
    assert len(good) == 0 or {one.verdict for one in found} == {Verdict.PASS}
    whole = scan(checks_of(contract, "t"), rows.lazy(), **more, **masks)
    broken, _ = broken_rows(checks_of(contract, "t"), rows.lazy(), **more)
    counted = broken[BROKEN].explode().to_list() if len(broken) else []
    for one in whole:
        if one.metric == "violations" and one.value is not None and len(rows):
            assert counted.count(one.check.removeprefix("data.")) == one.value
