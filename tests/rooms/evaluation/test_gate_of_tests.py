"""What the project's own tests mean for a gate: the newest report on the very code decides."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.evaluation import rules
from falaj.facts import testing
from falaj.facts.checks import CheckResult, GateReport, Verdict, of_dataset, shown_word, worst
from falaj.facts.runs import Code, Environment

NOW = datetime(2026, 11, 24, tzinfo=UTC)
CODE, OTHER = "sha256:" + "c" * 64, "sha256:" + "d" * 64
MODEL = "sha256:" + "a" * 64


def outcomes(*words):
    return tuple(
        testing.TestOutcome(name=f"tests/test_a.py::test_{i}", outcome=word, message="why")
        for i, word in enumerate(words)
    )


def report(*words, **more):
    tests = outcomes(*words)
    said = {"tree": CODE, "verdict": rules.verdict_of_tests(tests, more.get("error", ""))}
    return testing.TestReport(
        **{
            "id": "r",
            "at": NOW,
            "person": "p",
            "code": Code(),
            "environment": Environment(),
            "tests": tests,
            "seconds": 1.0,
            **said,
            **more,
        }
    )


VERDICTS = {
    "all passed": (("passed", "passed"), "", Verdict.PASS),
    "one failed": (("passed", "failed"), "", Verdict.FAIL),
    "one broke outside itself": (("passed", "error"), "", Verdict.ERROR),
    "a failure goes before a break": (("failed", "error"), "", Verdict.FAIL),
    "no tests at all": ((), "", Verdict.INCONCLUSIVE),
    "all skipped": (("skipped", "skipped"), "", Verdict.INCONCLUSIVE),
    "failed as expected": (("xfailed",), "", Verdict.INCONCLUSIVE),
    "skipped beside passed": (("skipped", "passed"), "", Verdict.PASS),
    "could not begin": ((), "ImportError", Verdict.ERROR),
}


@pytest.mark.parametrize(("words", "error", "verdict"), VERDICTS.values(), ids=VERDICTS)
def test_verdicts(words, error, verdict):
    assert rules.verdict_of_tests(outcomes(*words), error) is verdict


@given(st.lists(st.sampled_from(testing.Outcome.__args__)))
def test_nothing_passes_that_holds_a_failure_or_no_pass(words):
    found = rules.verdict_of_tests(outcomes(*words))
    bad = {"failed", "error"} & set(words)
    good = {"passed", "xpassed"} & set(words)
    assert (found is Verdict.PASS) == (bool(good) and not bad)


GATES = {  # reports, newest first -> verdict, words of the reason
    "passes": ([report("passed")], Verdict.PASS, "1 passed in 1.0 s"),
    "fails": ([report("passed", "failed")], Verdict.FAIL, "1 passed, 1 failed"),
    "none": ([], Verdict.INCONCLUSIVE, "no test report for this code: run falaj test"),
    "of other code": ([report("passed", tree=OTHER)], Verdict.INCONCLUSIVE, "no test report"),
    "of a part of the tests": (
        [report("passed", selection=("-k model",))], Verdict.INCONCLUSIVE, "no test report",
    ),
    "the newest decides": ([report("failed"), report("passed")], Verdict.FAIL, "1 failed"),
    "a part does not hide the whole": (
        [report("passed", selection=("tests/a.py",)), report("failed")], Verdict.FAIL, "1 failed",
    ),
    "nothing was found": ([report()], Verdict.INCONCLUSIVE, "no tests were found"),
    "could not begin": ([report(error="E  ImportError: x")], Verdict.ERROR, "ImportError: x"),
    "asked this model": ([report("passed", models=(MODEL,))], Verdict.PASS, "1 passed"),
    "asked another model": (
        [report("passed", models=(OTHER,))], Verdict.INCONCLUSIVE, "falaj test --run 01RUN",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("reports", "verdict", "words"), GATES.values(), ids=GATES)
def test_gate(reports, verdict, words):
    found = rules.gate_of_tests(reports, tree=CODE, model=MODEL, run="01RUN")
    assert worst(tuple(r.verdict for r in found)) is verdict
    assert found[0].check == "tests.suite" and words in found[0].reason
    assert {r.gate for r in found} == {"tests"}


def test_a_run_that_does_not_say_its_code_passes_by_no_report():
    """Two runs without a digest of their code are not of the same code."""
    (found,) = rules.gate_of_tests([report("passed", tree="")], tree="", model=MODEL, run="r")
    assert found.verdict is Verdict.INCONCLUSIVE and "run the pipeline again" in found.reason


def test_failed_tests_are_named_and_at_most_twenty():
    found = rules.gate_of_tests(
        [report("passed", *["failed"] * 30)], tree=CODE, model=MODEL, run="r"
    )
    assert len(found) == 21 and found[1].check == "tests.tests/test_a.py::test_1"
    assert found[0].value == 30 and found[0].details["report"] == "r"


def test_junit_is_xml_whatever_a_message_holds():
    tests = (
        testing.TestOutcome(
            name='t.py::test_<a>["x"]', outcome="failed", message="a < b\x00 & \ud800"
        ),
        testing.TestOutcome(name="t.py::test_b", outcome="skipped"),
        testing.TestOutcome(name="t.py", outcome="error", message="broken"),
    )
    root = ET.fromstring(rules.junit_of_tests(tests, 2.5))
    assert root.get("failures") == root.get("errors") == root.get("skipped") == "1"
    assert root[0].get("name") == 'test_<a>["x"]' and root[0].find("failure") is not None


# --- what is told and not counted ---

WORDS = {
    ("data", "fail", "error"): "fail",
    ("data-shown", "fail", "warning"): "warning",
    ("data-shown", "error", ""): "warning",
    ("data-shown", "fail", "info"): "note",
    ("data-shown", "pass", "warning"): "pass",
    ("data-shown", "skipped", "error"): "skipped",
    ("quality", "error", ""): "error",
}


@pytest.mark.parametrize("asked", WORDS, ids="-".join)
def test_what_does_not_count_is_never_called_a_failure(asked):
    assert shown_word(*asked) == WORDS[asked]


def test_a_warning_is_no_red_test_in_ci():
    def check(gate, severity):
        return CheckResult(
            check=f"data.flights.{severity}", gate=gate, verdict=Verdict.FAIL, reason="3 rows",
            details={"severity": severity},
        )  # fmt: skip

    made = GateReport(
        subject="s", policy="p", at=NOW, required=("data",),
        results=(check("data", "error"), check("data-shown", "warning")),
    )  # fmt: skip
    root = ET.fromstring(rules.junit(made))
    assert root.get("failures") == "1"
    assert [len(case.findall("failure")) for case in root] == [1, 0]
    assert "warning: 3 rows" in root[1].find("system-out").text
    assert "| data.flights.warning | warning |" in rules.markdown(made)
    assert 'class="warning"' in rules.html(made)


def test_two_datasets_do_not_share_names():
    one = CheckResult(check="data.hour.range", gate="data", verdict=Verdict.PASS, reason="")
    (flights,), (weather,) = of_dataset([one], "flights"), of_dataset([one], "weather")
    assert (flights.check, weather.check) == ("data.flights.hour.range", "data.weather.hour.range")
    assert flights.details["dataset"] == "flights"
