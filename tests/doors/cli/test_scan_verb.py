"""`falaj scan` ends with what programs rely on, and says what it could not look at."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from advisory_records import archive, bundle, events, record

import parts
from falaj.base.errors import Exit
from falaj.links.keyring.keys import KeyRing

FLAW = record("GHSA-1", "flask", events(("introduced", "0"), ("fixed", "2.0")))


@pytest.fixture
def project(here, workspace):
    (workspace / "requirements.lock").write_text("flask==1.0\n")
    archive(workspace / "all.zip", FLAW)
    return workspace


@pytest.fixture
def known(here, project):
    assert here(project, "scan", "database", "build", "all.zip").code == 0
    assert here(project, "scan", "database", "import", "advisories.zip").code == 0
    return project


def test_without_advisories_nothing_is_healthy(here, project):
    done = here(project, "scan", "--only", "dependencies")
    assert done.code == Exit.INCONCLUSIVE
    assert "falaj scan database import" in done.out


def test_a_finding_ends_with_three(here, known):
    done = here(known, "scan", "--only", "dependencies")
    assert done.code == Exit.GATE_FAIL
    assert "flask 1.0: a flaw of flask (high); fixed in 2.0" in done.out
    assert "1 packages of requirements.lock, advisories" in done.out


def test_what_a_scan_says_to_machines(here, known):
    done = here(known, "scan", "--only", "dependencies", "--json")
    document = done.json()
    assert document["schema"] == "falaj.scan/1"
    assert document["data"].keys() >= {
        "id", "at", "lock", "packages", "unread", "database", "built_at", "vulnerabilities",
        "licences", "results", "verdict",
    }  # fmt: skip
    (found,) = document["data"]["vulnerabilities"]
    assert found.keys() >= {"package", "version", "id", "ids", "severity", "state", "fixed"}


def test_a_lock_without_a_flaw_ends_with_nothing(here, known):
    (known / "requirements.lock").write_text("flask==2.0\n")
    assert here(known, "scan", "--only", "dependencies").code == 0


def test_an_alias_that_is_ignored_is_in_doubt(here, known):
    toml = (known / "falaj.toml").read_text()
    entry = '\n[[gates.dependencies.ignore]]\nid = "GHSA-1"\nreason = "r"\nuntil = "2999-01-01"\n'
    (known / "falaj.toml").write_text(f"{toml}\n[gates.dependencies]\n{entry}")
    assert here(known, "scan", "--only", "dependencies").code == Exit.INCONCLUSIVE
    (known / "falaj.toml").write_text(
        f"{toml}\n[gates.dependencies]\n{entry.replace('2999', '2019')}"
    )
    assert here(known, "scan", "--only", "dependencies").code == Exit.GATE_FAIL


def test_a_day_that_is_none_is_shown_where_it_stands(here, known):
    with (known / "falaj.toml").open("a") as file:
        file.write(
            '\n[gates.dependencies]\n[[gates.dependencies.ignore]]\nid = "GHSA-1"\nreason = "r"\n'
            'until = "2026-02-30"\n'
        )
    done = here(known, "scan")
    assert done.code == Exit.USAGE
    assert "'2026-02-30' is no day" in done.err
    assert "falaj.toml:" in done.err


def test_scanners_that_are_missing_are_an_error_with_its_cure(here, known):
    done = here(known, "scan", "--only", "code", "--json")
    assert done.code == Exit.INTERNAL
    told = {r["check"]: r["reason"] for r in done.json()["data"]["results"]}
    assert "pip install 'falaj[scan]'" in told["code.bandit"]
    assert "pip install 'falaj[scan]'" in told["code.detect-secrets"]


def test_an_older_bundle_ends_with_eight(here, known):
    ring = KeyRing(known / ".falaj" / "keys")
    made = bundle(known, ring, FLAW, at=datetime.now(UTC) - timedelta(days=9))
    done = here(known, "scan", "database", "import", str(made), "--json")
    assert done.code == Exit.CONFLICT
    assert done.json()["code"] == "scans.older-database"


def test_a_bundle_of_somebody_else_ends_with_seven(here, project, tmp_path):
    ring = KeyRing(tmp_path / "other")
    made = bundle(tmp_path, ring, FLAW, at=datetime.now(UTC))
    done = here(project, "scan", "database", "import", str(made))
    assert done.code == Exit.UNVERIFIED
    assert "scans.bundle-signature" in done.err
    assert "--trust" not in done.out


def test_a_bundle_is_built_outside_of_a_project_with_a_ring(here, tmp_path):
    archive(tmp_path / "all.zip", FLAW)
    done = here(tmp_path, "scan", "database", "build", "all.zip")
    assert done.code == Exit.USAGE
    assert "--keys" in done.err
    done = here(tmp_path, "scan", "database", "build", "all.zip", "--keys", "ring", "--json")
    assert done.code == 0
    assert done.json()["data"]["records"] == 1
    assert (tmp_path / "advisories.trust.json").is_file()


def test_an_export_of_another_ecosystem_is_refused(here, project):
    done = here(project, "scan", "database", "build", "all.zip", "--ecosystem", "npm")
    assert done.code == Exit.USAGE
    assert "scans.bad-archive" in done.err


def test_a_file_that_is_no_bundle_is_refused(here, project):
    done = here(project, "scan", "database", "import", "all.zip")
    assert done.code == Exit.UNVERIFIED
    assert "scans.bad-bundle" in done.err


LEAK = 'KEY = "AKIA' + 'IOSFODNN7EXAMPLQ"\n'


def test_with_the_scanners_installed(known):
    """In the environment of the extra, by its own falaj."""
    import os
    import subprocess

    falaj = parts.environment("scan") / "falaj"
    (known / "leak.py").write_text(LEAK)
    home = {**os.environ, "PATH": f"{falaj.parent}{os.pathsep}{os.environ['PATH']}"}
    words = [falaj, "scan", "--only", "code", "--json", "--sarif", "scan.sarif"]
    done = subprocess.run(
        words, cwd=known, capture_output=True, text=True, check=False, env=home, timeout=300
    )
    assert done.returncode == Exit.GATE_FAIL, done.stderr
    scan = json.loads(done.stdout)["data"]
    assert scan["tools"].keys() == {"bandit", "detect-secrets"}
    assert {f["rule"] for f in scan["findings"]} >= {"secret.aws-access-key"}
    assert "AKIA" not in done.stdout
    runs = json.loads((known / "scan.sarif").read_text())["runs"]
    assert [run["tool"]["driver"]["name"] for run in runs] == ["falaj", "bandit", "detect-secrets"]
    places = [r["locations"][0]["physicalLocation"] for r in runs[2]["results"]]
    assert "leak.py" in {place["artifactLocation"]["uri"] for place in places}
