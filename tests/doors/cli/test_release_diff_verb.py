"""`falaj release diff` in a project: what a second run changed, names nobody knows, folders that lie."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from falaj.base.errors import Exit


def git(root, *words):
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *words],
        cwd=root, check=True, capture_output=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def twice(prepared, tmp_path_factory):
    """1.0.0, and 2.0.0 from another commit, with another parameter, package and row."""
    from typing_hands import run_here

    root = shutil.copytree(prepared, tmp_path_factory.mktemp("twice") / "project")
    git(root, "init", "-q", "-b", "main")
    (root / ".gitignore").write_text(".falaj/\nready\n*.html\n")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "first")
    lines = [("run",), ("gate",), ("release", "create", "--version", "1.1.0")]
    for line in lines:
        assert run_here(root, *line).code == 0
    text = (root / "pipeline.py").read_text()
    (root / "pipeline.py").write_text(text.replace("log(months=", "log(months_used="))
    (root / "helper.py").write_text("a = 1\n")
    (root / "requirements.lock").write_text("numpy==2.1.0\n")
    rows = (root / "rows.csv").read_text().splitlines()
    (root / "rows.csv").write_text("\n".join(rows[:-2]) + "\n")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "second")
    lines = [("run", "-p", "slope=2.0"), ("gate",), ("release", "create", "--version", "2.0.0")]
    for line in lines:
        done = run_here(root, *line)
        assert done.code == 0, done.err
    return root


def rows(document):
    return {(row["section"], row["what"]): row for row in document["data"]["rows"]}


def test_every_section_is_told(here, twice):
    done = here(twice, "release", "diff", "1.1.0", "2.0.0", "--json")
    assert done.code == 0, done.err
    document = done.json()
    assert document["schema"] == "falaj.release-diff/1"
    found = rows(document)
    assert found["data", "rows: rows"]["before"] == "1200"
    assert found["data", "rows: rows"]["after"] == "1198"
    assert found["data", "rows: column a"]["change"] == "changed"
    assert found["code", "commit"]["change"] == "changed"
    assert found["code", "pipeline.py"]["change"] == "changed"
    assert found["code", "helper.py"]["change"] == "added"
    assert found["parameters", "slope"]["after"] == "2.0"
    assert found["dependencies", "numpy"]
    assert found["dependencies", "msgspec"]["change"] == "removed"
    assert "[" in found["metrics", "quality.roc_auc"]["after"]
    assert found["metrics", "quality.roc_auc"]["note"].startswith("the intervals")
    assert found["evidence", "gate-quality.dsse.json"]["change"] == "changed"
    assert ("features", "threshold") not in found


def test_the_table_and_the_page(here, twice):
    done = here(twice, "release", "diff", "1.1.0", "2.0.0", "--html", "diff.html")
    assert done.code == 0
    assert "parameters" in done.out
    assert "slope" in done.out
    assert "1.0 -> 2.0" in done.out
    assert done.out.rstrip().endswith("differences between 1.1.0 and 2.0.0")
    text = (twice / "diff.html").read_text()
    assert "<h2>Parameters</h2>" in text
    assert "<script" not in text


def test_to_the_newest_when_no_other_one_is_named(here, twice):
    assert (
        here(twice, "release", "diff", "1.1.0", "--json").json()["data"]["other_version"] == "2.0.0"
    )


def test_the_same_release_twice(here, twice):
    done = here(twice, "release", "diff", "1.1.0", "1.1.0")
    assert done.code == 0
    assert done.out == "nothing differs between 1.1.0 and 1.1.0\n"


def test_a_release_made_again_of_the_same_run(here, twice):
    """Other signatures and another time are no difference."""
    assert here(twice, "release", "create", "--version", "2.0.1").code == 0
    done = here(twice, "release", "diff", "2.0.0", "2.0.1")
    assert done.out == "nothing differs between 2.0.0 and 2.0.1\n"


@pytest.mark.parametrize("names", [("9.9.9", "1.1.0"), ("1.1.0", "9.9.9"), ("sha256:00000000", "")])
def test_a_name_that_nobody_knows(here, twice, names):
    done = here(twice, "release", "diff", *filter(None, names), "--json")
    assert done.code == Exit.USAGE
    assert done.json()["code"] == "releases.unknown"
    assert "1.1.0" in done.json()["why"]


def test_a_folder_that_does_not_hold_ends_with_seven(here, twice, tmp_path):
    root = shutil.copytree(twice, tmp_path / "project")
    (root / ".falaj/releases/flight-delay/2.0.0/card.md").write_text("all is well\n")
    done = here(root, "release", "diff", "1.1.0", "2.0.0")
    assert done.code == Exit.UNVERIFIED
    assert "2.0.0: card.md was changed" in done.out


def test_a_manifest_that_was_changed_is_refused(here, twice, tmp_path):
    root = shutil.copytree(twice, tmp_path / "project")
    (root / ".falaj/releases/flight-delay/2.0.0/release.json").write_text("{}")
    done = here(root, "release", "diff", "1.1.0", "2.0.0")
    assert done.code == Exit.UNVERIFIED
    assert "error[releases." in done.err


def test_evidence_that_nobody_signed_tells_nothing(here, twice, tmp_path):
    """Its numbers do not come into the table."""
    root = shutil.copytree(twice, tmp_path / "project")
    file = root / ".falaj/releases/flight-delay/2.0.0/evidence/gate-quality.dsse.json"
    file.write_bytes(file.read_bytes().replace(b'"sig":"M', b'"sig":"A'))
    done = here(root, "release", "diff", "1.1.0", "2.0.0", "--json")
    assert done.code == Exit.UNVERIFIED
    assert rows(done.json())["metrics", "quality.roc_auc"]["change"] == "removed"
