"""ports/scanners.py: bandit and detect-secrets as programs of their own, which run nothing they read."""

from __future__ import annotations

import sys

import pytest

import parts
from falaj.base.errors import FalajError
from falaj.links.bandit.scanner import Bandit
from falaj.links.detectsecrets.scanner import DetectSecrets

KEY = "AKIA" + "IOSFODNN7" + "EXAMPLQ"  # of the form of a real one, in parts for our own scanners
CODE = "import subprocess\n\n\ndef go(words):\n    subprocess.call(words, shell=True)\n"
KINDS = {"bandit": Bandit, "detect-secrets": DetectSecrets}


@pytest.fixture(params=KINDS)
def scanner(request):
    return KINDS[request.param](str(parts.environment("scan") / "python"))


@pytest.fixture
def code(tmp_path):
    root = tmp_path / "project"
    (root / "deep").mkdir(parents=True)
    (root / "bad.py").write_text(f'{CODE}\n\nKEY = "{KEY}"\n')
    (root / "deep" / "good.py").write_text("def add(a, b):\n    return a + b\n")
    return root


def test_findings_name_file_and_line(scanner, code):
    found = scanner.scan(code, ["bad.py", "deep/good.py"])
    assert found.version[0].isdigit()
    assert found.unread == ()
    lines = {"bandit": ("B602", 5, "high"), "detect-secrets": ("secret.aws-access-key", 8, "high")}
    wanted = lines[scanner.name]
    assert wanted in {(one.rule, one.line, one.severity) for one in found.findings}
    assert {one.file for one in found.findings} == {"bad.py"}
    assert {one.tool for one in found.findings} == {scanner.name}


def test_the_secret_itself_is_never_told(scanner, code):
    assert KEY not in repr(scanner.scan(code, ["bad.py"]))


def test_no_file_is_no_finding(scanner, code):
    found = scanner.scan(code, [])
    assert (found.findings, found.unread) == ((), ())
    assert found.version


def test_a_file_whose_name_is_like_an_option(scanner, code):
    (code / "--help.py").write_text(f'{CODE}\nKEY = "{KEY}"\n')
    assert {one.file for one in scanner.scan(code, ["--help.py"]).findings} == {"--help.py"}


def test_what_cannot_be_read_is_named(scanner, code):
    (code / "broken.py").write_bytes(b"def (\xff\xfe\n")
    (unread,) = scanner.scan(code, ["broken.py"]).unread
    assert unread.startswith("broken.py: ")


def test_places_that_look_away_are_counted(scanner, code):
    quiet = {"bandit": "  # nosec", "detect-secrets": "  # pragma: allowlist secret"}[scanner.name]
    text = CODE.replace("shell=True)", f"shell=True){quiet}") + f'\n\nKEY = "{KEY}"{quiet}\n'
    (code / "quiet.py").write_text(text)
    found = scanner.scan(code, ["quiet.py"])
    assert found.silenced >= 1
    assert not [one for one in found.findings if one.severity == "high"]


def test_code_of_the_project_never_runs_in_place_of_the_tool(scanner, code):
    trap = "open('ran', 'w').close()\nraise SystemExit(0)\n"
    for name in ("bandit", "detect_secrets", "yaml", "sitecustomize", "json"):
        (code / f"{name}.py").write_text(trap)
    scanner.scan(code, ["bandit.py", "bad.py"])
    assert not (code / "ran").exists()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_tool_that_is_not_installed_is_named_with_its_cure(tmp_path, kind):
    python = sys.executable  # of the tests, which have no scanners
    with pytest.raises(FalajError) as found:
        kind(python).scan(tmp_path, [])
    assert found.value.code == "scans.tool-missing"
    assert "falaj[scan]" in found.value.problems[0].fix


FALSE = {
    "no answer": "",
    "no JSON": "print('all is well')",
    "another form": "print('{}')",
    "an end that is not good": 'print(\'{"results": {}, "version": "1"}\'); raise SystemExit(7)',
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("words", FALSE.values(), ids=FALSE)
def test_an_answer_that_cannot_be_read_is_no_health(tmp_path, kind, words):
    """A Python that holds another program under the tool's name."""
    (tmp_path / "a.py").write_text("a = 1\n")
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\n{words}\n")
    python.chmod(0o755)
    with pytest.raises(FalajError) as found:
        kind(str(python)).scan(tmp_path, ["a.py"])
    assert found.value.code == "scans.tool-failed"
