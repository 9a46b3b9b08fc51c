"""README and tutorial, typed line by line: what stands below each command is what it says."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/tutorial.md")
transcripts = runpy.run_path(str(ROOT / "docs" / "transcripts.py"))


@pytest.fixture
def typing(tmp_path, monkeypatch):
    """An empty folder; servers that a page left running are ended, also when the test fails."""
    if shutil.which("curl") is None:
        monkeypatch.setenv("PATH", f"{stand_in(tmp_path)}{os.pathsep}{os.environ['PATH']}")
    folder = tmp_path / "typed"
    folder.mkdir()
    yield folder
    for known in folder.glob("*/.falaj/targets/*/server-*.json"):
        pid = json.loads(known.read_text()).get("pid", 0)
        if pid and "falaj.doors.predict" in command_of(pid) and str(folder) in command_of(pid):
            os.kill(pid, signal.SIGTERM)


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")
    except OSError:
        return ""


def stand_in(tmp_path):
    """A fresh Debian has no curl; this one knows the words that the README uses."""
    programs = tmp_path / "bin"
    programs.mkdir()
    shutil.copy(ROOT / "tests" / "parts" / "curl.py", programs / "curl")
    (programs / "curl").chmod(0o755)
    return programs


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_is_what_one_gets(page, typing):
    text = (ROOT / page).read_text()
    assert transcripts["blocks"](text), "nothing to type"
    assert transcripts["differences"](text, typing) == []


def test_another_word_is_a_difference(tmp_path):
    page = "```console\n$ echo ready 12\nready 99\n$ echo not ready\nready\n```\n"
    (found,) = transcripts["differences"](page, tmp_path)
    assert "it said\nnot ready" in found


def test_an_elision_needs_its_neighbours(tmp_path):
    page = "```console\n$ printf 'a\\nb\\nc\\n'\n...\nc\n$ printf 'a\\nb\\n'\n...\nz\n```\n"
    (found,) = transcripts["differences"](page, tmp_path)
    assert "...\nz" in found


def test_the_code_that_a_command_ended_with_is_seen(tmp_path):
    page = "```console\n$ (exit 5)\n$ test $? = 5 && echo five\nfive\n```\n"
    assert transcripts["differences"](page, tmp_path) == []
