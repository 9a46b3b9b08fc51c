"""What a person sees when something is wrong, and what never shows."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_project import write_project
from typing_hands import environment, run_apart

import falaj
from falaj.base.errors import Exit
from falaj.doors.cli.codes import explanations

ESCAPE = "\x1b["


SECRET = "hunter2-of-a-policy"


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A copy of the program with a rule that does not fit: a mistake of ours that nobody foresees."""
    source = shutil.copytree(
        Path(falaj.__file__).parent,
        tmp_path_factory.mktemp("broken") / "src" / "falaj",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    policy = source / "access" / "policy" / "base.cedar"
    rule = f'permit(principal, action == Falaj::Action::"{SECRET}", resource);'
    policy.write_text(policy.read_text() + rule)
    return source.parent


@pytest.fixture
def crash(broken, tmp_path):
    """Type something into the broken program; returns the answer and the reports that it left."""
    root = write_project(tmp_path / "secret-customer")
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def type_(*line):
        done = run_apart(root, *line, PYTHONPATH=str(broken), TMPDIR=str(scratch))
        return done, sorted(scratch.glob("falaj-crash-*.txt"))

    return type_


def test_a_crash_leaves_a_redacted_report_and_no_traceback(crash, tmp_path):
    done, (report,) = crash("status")
    assert done.code == Exit.INTERNAL
    assert done.out == ""
    assert "Traceback" not in done.err
    assert "error[cli.crash]" in done.err
    assert report.name in done.err
    text = report.read_text()
    assert "verb: status" in text
    assert re.search(r"^  \w+\.py:\d+ in \w+$", text, re.MULTILINE), "where in our code it was"
    for value in (str(tmp_path), "secret-customer", SECRET, "policies do not fit"):
        assert value not in text
        assert value not in done.err.replace(str(report), "")
    assert report.stat().st_mode & 0o077 == 0


def test_a_crash_speaks_to_machines_too(crash):
    done, found = crash("status", "--json")
    told = done.json()
    assert (done.code, told["code"], told["exit"], told["status"]) == (1, "cli.crash", 1, 500)
    assert len(found) == 1


def test_who_asks_for_the_traceback_gets_it(crash):
    done, found = crash("--debug", "status")
    assert done.code == 1
    assert "Traceback" in done.err
    assert found == []


def test_rules_that_do_not_fit_stop_the_start(crash):
    """Nothing is served under half a law."""
    done, _ = crash("up", "--port", "0")
    assert done.code == Exit.INTERNAL
    assert "falaj is up" not in done.out


OUTSIDE = {
    "no project here": ("status",),
    "no project for a run": ("run",),
    "no project to serve": ("up", "--port", "0"),
    "no project to work off": ("worker", "--once"),
    "no settings": ("config", "show"),
}


@pytest.mark.parametrize("line", OUTSIDE.values(), ids=OUTSIDE)
def test_outside_a_project_it_says_so(here, tmp_path, line):
    done = here(tmp_path, *line)
    assert done.code == Exit.USAGE
    assert "error[config.no-project]" in done.err
    assert "falaj init" in done.err
    assert not (tmp_path / ".falaj").exists()


def test_the_project_may_be_named(here, workspace, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for line in (("status",), ("config", "show"), ("worker", "--once")):
        assert here(elsewhere, *line, FALAJ_CONFIG=str(workspace)).code == 0
    inside = workspace / "notebooks" / "deep"
    inside.mkdir(parents=True)
    assert here(inside, "status").code == 0, "a folder below the project is inside it"


def test_a_folder_that_holds_something_is_left_alone(here, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    done = here(tmp_path, "init", "mine")
    assert done.code == Exit.CONFLICT
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_without_trust_nothing_is_verified(here, prepared, tmp_path):
    """A pack or a folder from elsewhere never vouches for itself."""
    folder = shutil.copytree(prepared / ".falaj/releases/flight-delay/1.0.0", tmp_path / "got")
    done = here(tmp_path, "verify", str(folder))
    assert done.code == Exit.USAGE
    assert "error[audit.no-trust-root]" in done.err


@pytest.mark.parametrize("code", explanations())
def test_every_code_is_explained(here, tmp_path, code):
    done = here(tmp_path, "explain", code)
    assert done.code == 0
    assert done.out.startswith(f"{code}\n")
    assert "Why: " in done.out
    assert "Fix: " in done.out


def test_explain_lists_and_helps(here, tmp_path):
    everything = here(tmp_path, "explain")
    assert [line.split()[0] for line in everything.out.splitlines()] == list(explanations())
    near = here(tmp_path, "explain", "acces.four-eye")
    assert near.code == Exit.USAGE
    assert "access.four-eyes" in near.err


def test_settings_say_where_they_come_from(here, workspace):
    rows = {row["path"]: row for row in here(workspace, "config", "show", "--json").json()["data"]}
    assert rows["gates.quality.at_least"]["value"] == 0.7
    assert re.fullmatch(r"falaj\.toml:\d+.*", rows["gates.quality.at_least"]["origin"])
    assert rows["gates.quality.max_reuse"]["origin"] == "default"


def on_a_terminal(root, *line, **env):
    """stdout is a terminal; its bytes as text."""
    ours, theirs = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "falaj", *line],
            cwd=root,
            env=environment(TERM="xterm", **env),
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
    finally:
        os.close(theirs)
    assert done.returncode == 0
    parts = []
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    return b"".join(parts).decode()


def test_colour_is_for_terminals_that_want_it(apart, prepared):
    line = ("verify", ".falaj/releases/flight-delay/1.0.0")
    assert ESCAPE in on_a_terminal(prepared, *line)
    plain = on_a_terminal(prepared, *line, NO_COLOR="1")
    assert ESCAPE not in plain
    assert "✓ pass" in plain, "never colour alone"
    assert ESCAPE not in apart(prepared, *line).out


HOSTILE = ["\x1b[2J", "\u202e", "\x00", "a\x07b", "\x9b31m"]


@pytest.mark.parametrize("name", HOSTILE[:2] + HOSTILE[3:])
def test_a_name_cannot_steer_the_terminal(here, workspace, name):
    done = here(workspace, "change", "show", f"x{name}")
    assert done.code == Exit.USAGE
    assert all(c == "\n" or c.isprintable() for c in done.err)


def test_an_interrupt_ends_with_130_and_one_line(workspace):
    child = subprocess.Popen(
        [sys.executable, "-m", "falaj", "worker", "--duty", "learning", "--every", "0.1"],
        cwd=workspace,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        ready = workspace / ".falaj" / "mask.key"
        before = ready.stat().st_mtime_ns
        assert before
        # The lease of its duty shows that it turns.
        wait_for_lease(workspace)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=20)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == Exit.INTERRUPTED
    assert "Traceback" not in said
    assert "interrupted" in said


def wait_for_lease(root):
    import sqlite3
    import time

    end = time.monotonic() + 20
    while time.monotonic() < end:
        with sqlite3.connect(root / ".falaj" / "store.db") as db:
            if db.execute("SELECT count(*) FROM lease WHERE name = 'learning'").fetchone()[0]:
                return
        time.sleep(0.1)
    raise AssertionError("the worker never began")


def test_a_reader_that_leaves_early_is_no_error(prepared):
    command = f"{sys.executable} -m falaj explain | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=prepared,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "0"
    assert "Traceback" not in done.stderr
