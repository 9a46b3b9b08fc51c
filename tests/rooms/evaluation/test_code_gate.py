"""The gate `code`, and a scan as SARIF."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from falaj.evaluation.codescan import broken, check_code
from falaj.evaluation.sarif import sarif
from falaj.facts.checks import CheckResult, Verdict, worst
from falaj.facts.project import CodeTable, IgnoreTable
from falaj.facts.scans import CodeFinding, Scan, Vulnerability
from falaj.ports.scanners import Scanned

NOW = datetime(2026, 3, 2, tzinfo=UTC)
SHELL = CodeFinding(
    tool="bandit", rule="B602", file="pipeline.py", line=3, severity="high", message="shell=True"
)
PICKLE = replace(SHELL, rule="B403", line=1, severity="low", message="pickle")


def checked(*found, table=None, **more):
    tools = {"bandit": Scanned(version="1.9.4", findings=found, **more)}
    return check_code(tools, table or CodeTable(), tree="t", now=NOW)


def ignore(id, until="2026-06-01"):
    return CodeTable(ignore=(IgnoreTable(id=id, reason="its words are ours", until=until),))


CASES = {  # findings, rules, more -> verdict, words
    "nothing": ((), None, {}, Verdict.PASS, "0 findings that count"),
    "what counts": ((SHELL,), None, {}, Verdict.FAIL, "pipeline.py:3: shell=True"),
    "what is below": ((PICKLE,), None, {}, Verdict.PASS, "1 below medium"),
    "a lower limit": ((PICKLE,), CodeTable(fail_from="low"), {}, Verdict.FAIL, "pickle"),
    "a rule that is ignored": ((SHELL,), ignore("B602"), {}, Verdict.INCONCLUSIVE, "its words"),
    "in one file": ((SHELL,), ignore("B602:pipeline.py"), {}, Verdict.INCONCLUSIVE, "its words"),
    "in another file": ((SHELL,), ignore("B602:other.py"), {}, Verdict.FAIL, "shell=True"),
    "until a day that is over": ((SHELL,), ignore("B602", "2026-03-01"), {}, Verdict.FAIL, "shell"),
    "a file that was not read": (
        (), None, {"unread": ("a.py: syntax error",)}, Verdict.ERROR, "a.py: syntax error",
    ),
    "places that tell it to look away": ((), None, {"silenced": 2}, Verdict.PASS, "2 places"),
    "more than anybody reads": (
        tuple(replace(SHELL, line=n) for n in range(1, 302)), None, {}, Verdict.FAIL, "301 findings",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("found", "table", "more", "wanted", "words"), CASES.values(), ids=CASES)
def test_what_counts(found, table, more, wanted, words):
    results = checked(*found, table=table, **more)
    assert worst(tuple(r.verdict for r in results)) is wanted
    assert any(words in r.reason for r in results if r.verdict is wanted)
    assert len(results) <= 202


def test_a_tool_that_is_missing_is_an_error_and_no_pass():
    assert broken("bandit", "it is not installed").verdict is Verdict.ERROR


FLAW = Vulnerability(
    package="flask", version="1.0", id="GHSA-1", ids=("CVE-1", "GHSA-1"), severity="high",
    summary="<b>bad</b>", fixed=("2.0",), cvss=7.5, line=4,
)  # fmt: skip
DOUBT = replace(FLAW, id="GHSA-2", ids=("GHSA-2",), state="unknown", why="no version", cvss=None)
SCAN = Scan(
    id="s", at=NOW, person="p", lock="sha256:1", lock_file="my requirements.txt", packages=2,
    unread=("numpy, without one version",), vulnerabilities=(FLAW, DOUBT), findings=(SHELL, PICKLE),
    tools={"bandit": "1.9.4", "detect-secrets": "1.5.0"},
    results=(
        CheckResult(
            check="dependencies.licence.q", gate="dependencies", verdict=Verdict.FAIL, reason="q: GPL"
        ),
    ),
)  # fmt: skip


def test_sarif():
    made = sarif(SCAN, "0.1.0")
    assert made["version"] == "2.1.0"
    own, bandit, secrets = made["runs"]
    assert [run["tool"]["driver"]["name"] for run in made["runs"]] == [
        "falaj", "bandit", "detect-secrets",
    ]  # fmt: skip
    assert [(r["ruleId"], r["level"]) for r in own["results"]] == [
        ("GHSA-1", "error"), ("GHSA-2", "warning"), ("licence", "error"), ("not-pinned", "warning"),
    ]  # fmt: skip
    place = own["results"][0]["locations"][0]["physicalLocation"]
    assert place == {
        "artifactLocation": {"uri": "my%20requirements.txt"},
        "region": {"startLine": 4},
    }
    assert own["tool"]["driver"]["rules"][0]["properties"]["security-severity"] == "7.5"
    assert [r["level"] for r in bandit["results"]] == ["error", "note"]
    assert secrets["results"] == []


def test_every_rule_of_sarif_is_declared_and_every_fingerprint_is_its_own():
    for run in sarif(SCAN, "0.1.0")["runs"]:
        rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
        assert len(rules) == len(set(rules))
        assert {result["ruleId"] for result in run["results"]} <= set(rules)
        marks = [result["partialFingerprints"]["falaj/v1"] for result in run["results"]]
        assert len(set(marks)) == len(marks)


def test_a_finding_keeps_its_fingerprint_when_lines_move():
    moved = replace(SCAN, vulnerabilities=(replace(FLAW, line=9),))
    marks = [
        sarif(scan, "0")["runs"][0]["results"][0]["partialFingerprints"] for scan in (SCAN, moved)
    ]
    assert marks[0] == marks[1]
