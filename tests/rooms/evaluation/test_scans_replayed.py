"""`falaj gate --what-if` on stored scans: decided anew where the evidence allows, else inconclusive."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from falaj.base.locks import read_lock
from falaj.evaluation.codescan import check_code
from falaj.evaluation.licences import check_licences, licences_of
from falaj.evaluation.replay import replay
from falaj.evaluation.vulnerabilities import check_vulnerabilities
from falaj.facts.checks import GateReport
from falaj.facts.project import CodeTable, DependenciesTable, GatesTable, IgnoreTable
from falaj.facts.scans import AdvisoryDatabase, CodeFinding, Declared, Vulnerability
from falaj.facts.wire import decode, encode
from falaj.ports.scanners import Scanned

NOW = datetime(2026, 3, 2, tzinfo=UTC)
LOCK = read_lock(b"p==1.0\n")
DATABASE = AdvisoryDatabase(
    id="sha256:" + "d" * 64, ecosystem="PyPI", records=1, built_at=NOW - timedelta(days=5),
    source="a", source_sha256="s", signer="v", key="k", person="p", at=NOW,
)  # fmt: skip
FLAW = Vulnerability(
    package="p", version="1.0", id="GHSA-1", ids=("CVE-1", "GHSA-1"), severity="medium", cvss=5.1
)
SHELL = CodeFinding(tool="bandit", rule="B602", file="a.py", line=3, severity="high", message="m")
PICKLE = replace(SHELL, rule="B403", severity="low")
MIT = Declared(package="p", version="1.0", expression="MIT")


def stored(dependencies=None, code=None, found=(FLAW,), lines=(SHELL, PICKLE)):
    """A report as it comes out of the store."""
    results = []
    if dependencies is not None:
        results += check_vulnerabilities(
            found, LOCK, dependencies, DATABASE, lock_digest="l", now=NOW
        )
        named = licences_of(LOCK, {"p": MIT})
        results += check_licences(named, dependencies, lock_digest="l", now=NOW)
    if code is not None:
        results += check_code(
            {"bandit": Scanned(version="1", findings=lines)}, code, tree="t", now=NOW
        )
    report = GateReport(
        subject="s", policy="p", at=NOW, results=tuple(results), required=("dependencies", "code")
    )
    return decode(GateReport, encode(report))


def what_if(report, gate, **tables):
    return replay(report, GatesTable(**tables), (gate,), policy="q").verdict_of(gate)


USUAL = DependenciesTable()
IGNORE = (IgnoreTable(id="CVE-1", reason="r", until="2026-06-01"),)
OVER = (IgnoreTable(id="CVE-1", reason="r", until="2026-03-01"),)

DEPENDENCIES = {  # rules of the report, other rules -> verdict
    "the same": (USUAL, USUAL, "pass"),
    "a stricter limit": (USUAL, DependenciesTable(fail_from="medium"), "fail"),
    "a looser limit": (DependenciesTable(fail_from="low"), USUAL, "pass"),
    "a younger database": (USUAL, DependenciesTable(max_age_days=4), "fail"),
    "an older one": (DependenciesTable(max_age_days=1), USUAL, "pass"),
    "ignored now": (
        DependenciesTable(fail_from="low"), DependenciesTable(fail_from="low", ignore=IGNORE),
        "inconclusive",
    ),
    "ignored until a day before the report": (
        DependenciesTable(fail_from="low"), DependenciesTable(fail_from="low", ignore=OVER), "fail",
    ),
    "no longer ignored": (
        DependenciesTable(fail_from="low", ignore=IGNORE), DependenciesTable(fail_from="low"), "fail",
    ),
    "the same licences": (
        DependenciesTable(licences_allowed=("MIT",)), DependenciesTable(licences_allowed=("MIT",)), "pass",
    ),
    "licences that nobody asked about": (
        USUAL, DependenciesTable(licences_allowed=("MIT",)), "inconclusive",
    ),
    "other licences": (
        DependenciesTable(licences_allowed=("MIT",)), DependenciesTable(licences_denied=("MIT",)),
        "inconclusive",
    ),
    "no licences any more": (DependenciesTable(licences_denied=("MIT",)), USUAL, "pass"),
    "nobody looked": (None, USUAL, "inconclusive"),
}  # fmt: skip


@pytest.mark.parametrize(("was", "now", "verdict"), DEPENDENCIES.values(), ids=DEPENDENCIES)
def test_dependencies(was, now, verdict):
    assert what_if(stored(was), "dependencies", dependencies=now) == verdict


CODE = {
    "the same": (CodeTable(), CodeTable(), "fail"),
    "a limit above all": (CodeTable(), CodeTable(fail_from="high"), "fail"),
    "ignored now": (
        CodeTable(), CodeTable(ignore=(IgnoreTable(id="B602", reason="r", until="2026-06-01"),)), "inconclusive",
    ),
    "nobody looked": (None, CodeTable(), "inconclusive"),
}  # fmt: skip


@pytest.mark.parametrize(("was", "now", "verdict"), CODE.values(), ids=CODE)
def test_code(was, now, verdict):
    assert what_if(stored(code=was), "code", code=now) == verdict


def test_what_lies_below_the_old_limit_is_not_known():
    """It was counted and not kept, so a stricter rule cannot be decided."""
    report = stored(code=CodeTable(fail_from="high"), lines=(PICKLE,))
    assert what_if(report, "code", code=CodeTable(fail_from="high")) == "pass"
    assert what_if(report, "code", code=CodeTable(fail_from="low")) == "inconclusive"


def test_a_looser_rule_passes_what_failed():
    report = stored(code=CodeTable(fail_from="low"), lines=(PICKLE,))
    assert what_if(report, "code", code=CodeTable(fail_from="low")) == "fail"
    assert what_if(report, "code", code=CodeTable(fail_from="high")) == "pass"


def test_a_gate_that_the_rules_do_not_have_is_not_told():
    report = replay(stored(USUAL, CodeTable()), GatesTable(), (), policy="q")
    assert report.results == ()
