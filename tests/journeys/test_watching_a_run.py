"""A run that goes on: its metrics and points are seen from another process, and outlive a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from small_project import TOML, write_project
from typing_hands import environment, run_here

SAYS = """
    import os, pathlib, time
    here = pathlib.Path(__file__).parent
    (here / "pid").write_text(str(os.getpid()))
    for i in range(500):
        falaj.log(loss=1.0 / (i + 1), step=i)
    falaj.log(part=0.25)
    while not (here / "end").exists():
        time.sleep(0.05)
"""


@pytest.fixture(params=["worker", "in-process"])
def project(request, tmp_path):
    root = write_project(
        tmp_path / "p", toml=TOML + f'\n[pipelines]\nexecutor = "{request.param}"\n'
    )
    code = (root / "pipeline.py").read_text()
    mark = "    falaj.log(months="
    code = code.replace("@step\ndef train", "@step(retries=0)\ndef train")
    (root / "pipeline.py").write_text(code.replace(mark, SAYS.strip("\n") + "\n" + mark, 1))
    return root


@contextmanager
def going(root):
    """A run in a process of its own, seen to have said something."""
    child = subprocess.Popen(
        [sys.executable, "-m", "falaj", "run", "--json"],
        cwd=root, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until and child.poll() is None:
            seen = run_here(root, "runs", "show", "--json")
            if seen.code == 0 and seen.json()["data"]["metrics"].get("part") == 0.25:
                break
            time.sleep(0.3)
        assert child.poll() is None, child.communicate()
        yield child
    finally:
        (root / "end").touch()
        if child.poll() is None:
            child.kill()
        child.communicate()


def test_a_run_is_watched_and_ends_as_any_other(project):
    with going(project) as child:
        told = run_here(project, "runs", "show")
        assert told.code == 0 and "running" in told.out and "part = 0.2500" in told.out
        shown = run_here(project, "runs", "show", "--html", "run.html")
        page = (project / "run.html").read_text()
        assert shown.code == 0 and "<svg" in page and "loss" in page
        found = run_here(project, "runs", "list", "metrics.part > 0.2", "--json").json()["data"]
        assert [one["status"] for one in found] == ["running"]
        (project / "end").touch()
        out, err = child.communicate(timeout=120)
        assert child.returncode == 0, err
    run = run_here(project, "runs", "show", "--json").json()["data"]
    assert run["status"] == "ok" and run["metrics"]["part"] == 0.25 and run["metrics"]["auc"] == 0.9
    assert '"ok"' in out


def test_what_was_said_outlives_the_process_of_the_step(project):
    """With its own process the run fails and says so; in the run's it is found to be interrupted."""
    with going(project) as child:
        os.kill(int((project / "pid").read_text()), signal.SIGKILL)
        child.communicate(timeout=120)
        assert child.returncode != 0
    if 'executor = "in-process"' in (project / "falaj.toml").read_text():
        assert (
            run_here(project, "run", "-p", "slope=0.5").code == 0
        )  # it has to be found by somebody
        run = run_here(project, "runs", "list", "--json").json()["data"][-1]
        assert run["status"] == "interrupted"
    else:
        run = run_here(project, "runs", "show", "--json").json()["data"]
        assert run["status"] == "failed" and "process went away" in run["error"]
    shown = run_here(project, "runs", "show", run["id"], "--html", "run.html", "--json")
    assert shown.json()["data"]["metrics"]["part"] == 0.25
    page = (project / "run.html").read_text()
    assert "<svg" in page and "loss" in page
