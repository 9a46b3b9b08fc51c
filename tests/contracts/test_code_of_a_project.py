"""Which code a project is: by its files, with or without git; tests and what was built apart."""

from __future__ import annotations

import subprocess

import pytest

from falaj.base import digests
from falaj.links.files.blobs import FileBlobs
from falaj.links.git.code import changed_files, code_tree, read_code


@pytest.fixture
def project(tmp_path):
    root = tmp_path / "project"
    for name in ("pipeline.py", "src/steps.py", "queries/rows.sql"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


CHANGES = {  # file -> whether it is code of the model
    "pipeline.py": True,
    "src/more.py": True,
    "queries/rows.sql": True,
    "tests/test_model.py": False,
    "tests/helper.py": False,
    "test_beside.py": False,
    "conftest.py": False,
    "README.md": False,
    "falaj.toml": False,
    ".falaj/x.py": False,
    ".venv/x.py": False,
    "__pycache__/x.py": False,
    "build/x.py": False,
    "environment/lib/x.py": False,
}


@pytest.mark.parametrize(("name", "counts"), CHANGES.items(), ids=CHANGES)
def test_what_is_code(project, name, counts):
    (project / "environment").mkdir()
    (project / "environment" / "pyvenv.cfg").touch()
    before = code_tree(project)
    path = project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("other")
    assert (code_tree(project) != before) is counts


def test_folders_of_the_settings(project):
    whole, part = code_tree(project), code_tree(project, ("src",))
    assert digests.is_digest(whole) and digests.is_digest(part) and whole != part
    assert code_tree(project, ("none",)) == ""


def test_with_and_without_git(project, tmp_path):
    blobs = FileBlobs(tmp_path / "blobs")
    outside = read_code(project, blobs)
    assert outside.commit == "" and outside.tree == code_tree(project)
    for words in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "one")):
        who = ("-c", "user.name=t", "-c", "user.email=t@localhost")
        subprocess.run(["git", *who, *words], cwd=project, check=True)
    inside = read_code(project, blobs)
    assert inside.commit and not inside.dirty and inside.tree == outside.tree


def committed(root, words):
    say = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(root)]
    for line in (["add", "-A"], ["commit", "-q", "-m", words]):
        subprocess.run([*say, *line], check=True, capture_output=True)
    head = subprocess.run([*say, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return head.stdout.strip()


def test_what_differs_between_two_commits(project):
    """Below the project's folder alone, whatever else the repository holds."""
    top = project.parent
    subprocess.run(["git", "init", "-q", str(top)], check=True)
    first = committed(top, "first")
    (project / "pipeline.py").write_text("other")
    (project / "src" / "steps.py").unlink()
    (project / "a name\nof two lines.py").write_text("new")
    (top / "outside.py").write_text("new")
    second = committed(top, "second")
    assert set(changed_files(project, first, second)) == {
        ("M", "pipeline.py"), ("D", "src/steps.py"), ("A", "a name\nof two lines.py"),
    }  # fmt: skip
    assert changed_files(project, first, first) == ()


WRONG = {
    "not a commit": "f" * 40,
    "an option": "--output=stolen",
    "a name of a branch": "HEAD",
    "nothing": "",
}


@pytest.mark.parametrize("name", WRONG.values(), ids=WRONG)
def test_what_is_no_commit_here_is_not_asked_for(project, name):
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    first = committed(project, "first")
    assert changed_files(project, first, name) is None
    assert changed_files(project, name, first) is None
    assert not (project / "stolen").exists()
