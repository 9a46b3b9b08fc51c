"""Results of other tools' suites, handed in by a step: kept with the run, counted by the gate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import falaj
import parts
from falaj.facts.checks import Verdict
from falaj.links.pointblank.evidence import PointblankEvidence

RECORDED = Path(__file__).parents[2] / "contracts" / "recorded" / "evidence" / "pointblank.json"

# An object of that tool as far as a reader looks at it; what it answers was recorded.
STEP = """
import json
import falaj
from falaj import pipeline, step

class Validate:
    __module__ = "pointblank.validate"
    def get_json_report(self):
        return json.dumps(json.loads(open(RECORDED).read())["report"])

RECORDED = PLACE

@step
def look(n: int) -> int:
    found = falaj.evidence(WHAT, dataset="flights")
    return len(found)

@pipeline
def main(n: int = 1) -> int:
    return look(n)
"""


DECLARED = dict.fromkeys(("flights", "weather"))  # no step reads their rows


def written(shop, what="Validate()"):
    shop.write(pipeline=STEP.replace("PLACE", repr(str(RECORDED))).replace("WHAT", what))


def test_checks_are_kept_also_when_the_step_comes_from_the_cache(shop):
    written(shop)
    for status in ("executed", "cached"):
        done = shop.run(evidence=(PointblankEvidence(),), datasets=DECLARED)
        assert shop.states(done) == {"look": status} and shop.value(done) == 6
        (step,) = done.steps
        found = {r.check: r.verdict for r in step.checks}
        assert found["data.flights.pointblank.1.hour.col_vals_between"] is Verdict.FAIL
        assert found["data.flights.pointblank.4.who.rows_distinct"] is Verdict.PASS
        assert {r.details["dataset"] for r in step.checks} == {"flights"}


@pytest.mark.parametrize("what", ["42", "None", "[]", "{'results': []}"])
def test_what_is_no_result_fails_the_step(shop, what):
    written(shop, what)
    done = shop.run(evidence=(PointblankEvidence(),), datasets=DECLARED)
    assert "no result of a suite" in str(done.error.problems)


NAMES = {  # dataset of the step -> declared, words
    "a slip": ("flihgts", DECLARED, "did you mean 'flights'?"),
    "another one": ("boats", DECLARED, "declares: flights, weather\nfix: name one"),
    "none at all": ("flights", {}, "falaj.toml declares: none"),
}


@pytest.mark.parametrize(("name", "declared", "words"), NAMES.values(), ids=NAMES)
def test_a_dataset_that_nobody_declared_is_refused(shop, name, declared, words):
    step = STEP.replace("PLACE", repr(str(RECORDED))).replace("WHAT", "Validate()")
    shop.write(pipeline=step.replace('dataset="flights"', f"dataset={name!r}"))
    done = shop.run(evidence=(PointblankEvidence(),), datasets=declared)
    told = str(done.error.problems[0].message)
    assert "[data.unknown-dataset] there is no dataset" in told and words in told
    assert done.steps[0].checks == ()


def test_without_a_reader_nothing_is_passed_silently(shop):
    written(shop)
    assert "no result of a suite" in str(shop.run().error.problems)


def test_outside_a_run_a_step_can_be_called_in_a_test():
    assert falaj.evidence(object(), dataset="flights") == ()


def test_real_suites():
    parts.suite("suites", "tests/parts/suites_for_real.py")


def test_the_recorded_report_is_a_document_of_its_tool_alone():
    from falaj.links.greatexpectations.evidence import GreatExpectationsEvidence
    from falaj.links.pandera.evidence import PanderaEvidence

    readers = (PanderaEvidence(), PointblankEvidence(), GreatExpectationsEvidence())
    documents = {
        "pandera": "failure_cases", "pointblank": "report", "great_expectations": "document",
    }  # fmt: skip
    for place, (name, key) in enumerate(documents.items()):
        document = json.loads(RECORDED.with_name(f"{name}.json").read_text())[key]
        assert [r.takes_document(document) for r in readers] == [i == place for i in range(3)]
        found = readers[place].read_document(document, 4)
        assert any(r.verdict is Verdict.FAIL for r in found) and "XX" not in str(found)
