"""Real results of Pandera, Pointblank and Great Expectations, recorded; see `label` and `version`."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from falaj.base.errors import FalajError
from falaj.facts.checks import Verdict
from falaj.links.greatexpectations import evidence as great
from falaj.links.pandera import evidence as pandera
from falaj.links.pointblank import evidence as pointblank

RECORDED = Path(__file__).parent / "recorded" / "evidence"


def recorded(name):
    found = json.loads((RECORDED / f"{name}.json").read_text())
    assert found["label"] == "recorded" and found["version"]
    return found


def told(results):
    return {r.check.removeprefix("data."): (r.verdict, r.value) for r in results}


def test_pandera():
    said = recorded("pandera")
    found = pandera.results(
        said["failure_cases"], depth=said["depth"], rows=4, version=said["version"]
    )
    assert told(found) == {
        "pandera.table.column_in_dataframe": (Verdict.FAIL, 1),
        "pandera.hour.not_nullable": (Verdict.FAIL, 1),
        "pandera.hour.in_range": (Verdict.FAIL, 1),
        "pandera.carrier.isin": (Verdict.FAIL, 1),
    }
    assert all(r.details["engine"] == "pandera 0.35.0" for r in found)
    assert "XX" not in str(found), "values of rows stay where they are"


def test_pandera_that_did_not_look_at_the_data_is_refused():
    for depth in ("SCHEMA_ONLY", "ValidationDepth.SCHEMA_ONLY", "", "None"):
        with pytest.raises(FalajError, match="not at the data"):
            pandera.results([], depth=depth, rows=4, version="0.35.0")


def test_pandera_without_failures():
    (good,) = pandera.results([], depth="SCHEMA_AND_DATA", rows=4, version="0.35.0")
    assert good.verdict is Verdict.PASS
    (empty,) = pandera.results([], depth="SCHEMA_AND_DATA", rows=0, version="0.35.0")
    assert empty.verdict is Verdict.INCONCLUSIVE


def test_panderas_list_of_allowed_values_is_cut():
    case = {"column": "dest", "schema_context": "Column", "check": f"isin({['AAA'] * 1458})"}
    (found,) = pandera.results([case] * 3, depth="SCHEMA_AND_DATA", rows=9, version="0.35.0")
    assert found.value == 3 and len(found.requirement) == 80


def test_pointblank():
    said = recorded("pointblank")
    found = pointblank.results(json.dumps(said["report"]), version=said["version"])
    assert told(found) == {
        "pointblank.1.hour.col_vals_between": (Verdict.FAIL, 1),
        "pointblank.2.hour.col_vals_not_null": (Verdict.FAIL, 1),
        "pointblank.3.carrier.col_vals_in_set": (Verdict.FAIL, 1),
        "pointblank.4.who.rows_distinct": (Verdict.PASS, 0),
        "pointblank.5.gone.col_exists": (Verdict.FAIL, 1),
        "pointblank.6.table.row_count_match": (Verdict.PASS, 0),
    }


STEPS = {  # change of the first step -> verdict
    "not active": ({"active": False}, Verdict.SKIPPED),
    "could not be made": ({"eval_error": True}, Verdict.ERROR),
    "no rows": ({"n": 0, "n_failed": 0, "all_passed": True}, Verdict.INCONCLUSIVE),
    "says passed but counts a failure": ({"all_passed": True}, Verdict.FAIL),
    "says failed but counts none": ({"n_failed": 0}, Verdict.FAIL),
}


@pytest.mark.parametrize(("change", "verdict"), STEPS.values(), ids=STEPS)
def test_steps_of_pointblank(change, verdict):
    step = recorded("pointblank")["report"][0] | change
    (found,) = pointblank.results(json.dumps([step]), version="1.1.1")
    assert found.verdict is verdict


def test_great_expectations():
    said = recorded("great_expectations")
    found = great.results(said["document"])
    by_kind = {
        (r.check.split(".")[3], r.check.split(".")[4]): (r.verdict, r.value, r.n) for r in found
    }
    assert by_kind == {
        ("carrier", "column_values_to_be_between"): (Verdict.ERROR, None, 0),
        ("hour", "column_values_to_be_between"): (Verdict.FAIL, 1, 4),
        ("hour", "column_values_to_not_be_null"): (Verdict.FAIL, 1, 4),
        ("carrier", "column_values_to_be_in_set"): (Verdict.FAIL, 1, 4),
        ("who", "column_values_to_be_unique"): (Verdict.PASS, 0, 4),
        ("table", "table_row_count_to_equal"): (Verdict.PASS, None, 0),
        ("gone", "column_to_exist"): (Verdict.FAIL, None, 0),
    }
    assert "XX" not in str(found)


def expectation(**change):
    document = copy.deepcopy(recorded("great_expectations")["document"])
    one = next(r for r in document["results"] if r["result"].get("unexpected_count") == 1)
    for key, value in change.items():
        target, _, field = key.rpartition("__")
        place = one
        for part in target.split("__") if target else ():
            place = place[part]
        place[field] = value
    document["results"] = [one]
    (found,) = great.results(document)
    return found


def test_mostly_is_told():
    found = expectation(success=True, expectation_config__kwargs__mostly=0.7)
    assert found.verdict is Verdict.PASS and "mostly 0.7" in found.requirement
    assert found.limit == pytest.approx(1.2)


def test_no_rows_prove_nothing():
    found = expectation(success=True, result__element_count=0, result__unexpected_count=0)
    assert found.verdict is Verdict.INCONCLUSIVE


def test_a_warning_is_shown_and_not_counted():
    assert expectation(expectation_config__severity="warning").gate == "data-shown"


UNREADABLE = {
    "pointblank: no list": lambda: pointblank.results("{}", version="1"),
    "pointblank: no steps": lambda: pointblank.results("[]", version="1"),
    "pointblank: not JSON": lambda: pointblank.results("<html>", version="1"),
    "pointblank: not interrogated": lambda: pointblank.results(
        json.dumps([recorded("pointblank")["report"][0] | {"n": None, "n_failed": None}]),
        version="1",
    ),
    "great expectations: nothing": lambda: great.results({}),
    "great expectations: no results": lambda: great.results(
        {"meta": {"great_expectations_version": "1"}, "results": []}
    ),
    "great expectations: no verdict": lambda: expectation(success=None),
    "pandera: other rows": lambda: pandera.results(
        [{"x": 1}], depth="SCHEMA_AND_DATA", rows=1, version="1"
    ),
}


@pytest.mark.parametrize("ask", UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_result_is_refused(ask):
    with pytest.raises(FalajError) as caught:
        ask()
    assert caught.value.code == "data.evidence-unreadable" and caught.value.problems[0].fix
