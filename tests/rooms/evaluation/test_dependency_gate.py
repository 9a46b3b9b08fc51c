"""The gate `dependencies`: what fails, what stays in doubt, what is only told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from msgspec.structs import replace

from falaj.base.locks import read_lock
from falaj.evaluation.vulnerabilities import check_vulnerabilities
from falaj.facts.checks import Verdict, worst
from falaj.facts.project import DependenciesTable, IgnoreTable
from falaj.facts.scans import AdvisoryDatabase, Vulnerability

NOW = datetime(2026, 3, 2, tzinfo=UTC)
LOCK = read_lock(b"p==1.0\nq==1.0\n")
DATABASE = AdvisoryDatabase(
    id="sha256:" + "d" * 64, ecosystem="PyPI", records=17_000, built_at=NOW - timedelta(days=2),
    source="all.zip", source_sha256="sha256:" + "e" * 64, signer="vulndb", key="k", person="p", at=NOW,
)  # fmt: skip
FLAW = Vulnerability(
    package="p",
    version="1.0",
    id="GHSA-1",
    ids=("CVE-1", "GHSA-1"),
    severity="high",
    fixed=("2.0",),
)
UNRATED = replace(FLAW, severity="unrated")
DOUBT = replace(FLAW, state="unknown", why="'r12' is no version of PEP 440")


def ignore(id="CVE-1", until="2026-06-01"):
    return (IgnoreTable(id=id, reason="we never parse XML", until=until),)


def checked(*found, lock=LOCK, database=DATABASE, now=NOW, **rules):
    table = DependenciesTable(**rules)
    return check_vulnerabilities(
        found, lock, table, database, lock_digest="sha256:" + "f" * 64, now=now
    )


def verdict(results):
    return worst(tuple(r.verdict for r in results if r.gate == "dependencies"))


CASES = {  # findings, rules -> verdict of the gate, part of the deciding reason
    "nothing is known": ((), {}, Verdict.PASS, "none"),
    "at the limit": ((FLAW,), {}, Verdict.FAIL, "fixed in 2.0"),
    "above the limit": ((replace(FLAW, severity="critical"),), {}, Verdict.FAIL, "critical"),
    "below the limit": ((replace(FLAW, severity="medium"),), {}, Verdict.PASS, "1 below high"),
    "a lower limit": (
        (replace(FLAW, severity="medium"),), {"fail_from": "medium"}, Verdict.FAIL, "medium",
    ),
    "what nobody rated counts as high": ((UNRATED,), {}, Verdict.FAIL, "unrated"),
    "unless the rules say otherwise": ((UNRATED,), {"unrated_is": "low"}, Verdict.PASS, "1 below"),
    "what cannot be compared": ((DOUBT,), {}, Verdict.INCONCLUSIVE, "'r12' is no version"),
    "what cannot be compared and is small": (
        (replace(DOUBT, severity="low"),), {}, Verdict.PASS, "1 below",
    ),
    "no fix is known": ((replace(FLAW, fixed=()),), {}, Verdict.FAIL, "no fix is known"),
    "ignored by an alias, for a while": (
        (FLAW,), {"ignore": ignore()}, Verdict.INCONCLUSIVE, "Ignored until 2026-06-01: we never",
    ),
    "ignored by its own name": ((FLAW,), {"ignore": ignore("GHSA-1")}, Verdict.INCONCLUSIVE, "never"),
    "ignored no longer": ((FLAW,), {"ignore": ignore(until="2026-03-02")}, Verdict.FAIL, "fixed in"),
    "another one is ignored": ((FLAW,), {"ignore": ignore("CVE-2")}, Verdict.FAIL, "fixed in"),
    "a package is not ignored as a whole": ((FLAW,), {"ignore": ignore("p")}, Verdict.FAIL, "fixed"),
}  # fmt: skip


@pytest.mark.parametrize(("found", "rules", "wanted", "words"), CASES.values(), ids=CASES)
def test_what_counts(found, rules, wanted, words):
    results = checked(*found, **rules)
    assert verdict(results) is wanted
    assert any(words in r.reason for r in results if r.verdict is wanted)


def test_an_ignored_failure_is_never_a_pass():
    """Only a person with the role risk lets it through, by a waiver."""
    (one,) = [r for r in checked(FLAW, ignore=ignore()) if r.check == "dependencies.p.GHSA-1"]
    assert one.verdict is Verdict.INCONCLUSIVE


AGES = {  # days, limit -> verdict
    "fresh": (0, {}, Verdict.PASS),
    "of the last day": (7, {}, Verdict.PASS),
    "a moment older": (7.001, {}, Verdict.FAIL),
    "behind an air gap": (29, {"max_age_days": 30}, Verdict.PASS),
    "a clock that is behind": (-0.5, {}, Verdict.PASS),
}


@pytest.mark.parametrize(("days", "rules", "wanted"), AGES.values(), ids=AGES)
def test_the_age_of_the_database(days, rules, wanted):
    results = checked(database=replace(DATABASE, built_at=NOW - timedelta(days=days)), **rules)
    (age,) = [r for r in results if r.check == "dependencies.database"]
    assert age.verdict is wanted
    assert age.value >= 0


def test_without_a_database_nothing_is_known():
    (only,) = checked(FLAW, database=None)
    assert only.verdict is Verdict.INCONCLUSIVE
    assert "falaj scan database import" in only.reason


@pytest.mark.parametrize("lock", [b"", b"# nothing\n"])
def test_an_empty_lock_is_not_healthy(lock):
    assert verdict(checked(lock=read_lock(lock))) is Verdict.INCONCLUSIVE


def test_a_line_without_a_version_is_named():
    results = checked(lock=read_lock(b"p==1.0\nflask>=1\n"))
    assert verdict(results) is Verdict.INCONCLUSIVE
    assert "flask, without one version" in " ".join(r.reason for r in results)


def test_every_result_says_against_which_advisories():
    for result in checked(FLAW, DOUBT, replace(FLAW, severity="low", id="GHSA-2")):
        assert result.details["database"] == DATABASE.id
        assert result.details["built_at"] == "2026-02-28T00:00:00.000000Z"
        assert result.details["lock"] == "sha256:" + "f" * 64


@pytest.mark.parametrize("day", ["2026-02-30", "2026-13-01", "tomorrow", ""])
def test_an_entry_without_an_end_is_refused(day):
    with pytest.raises((ValueError, msgspec.ValidationError)):
        msgspec.convert({"id": "CVE-1", "reason": "r", "until": day}, IgnoreTable)


@pytest.mark.parametrize("part", ["id", "reason"])
def test_an_entry_without_a_reason_is_refused(part):
    whole = {"id": "CVE-1", "reason": "r", "until": "2026-06-01"}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**whole, part: ""}, IgnoreTable)
    del whole[part]
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(whole, IgnoreTable)
