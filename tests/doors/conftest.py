"""A small project that was run, gated, released and asked for; and hands that type commands."""

from __future__ import annotations

import fcntl
import os
import shutil

import pytest
from small_project import write_project
from typing_hands import run_apart, run_here

STORY = (
    ("run",),
    ("gate",),
    ("release", "create"),
    ("change", "open", "-m", "the first one"),
    ("access", "add", "layla", "--role", "approver"),
    ("access", "add", "omar", "--role", "operator"),
    ("access", "add", "noor", "--role", "risk"),
    ("access", "add", "zayed", "--role", "viewer"),
    ("access", "add", "owner-2", "--role", "approver", "--person", "owner"),
)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """Built once, also when several processes share the work. To read; `workspace` is a copy."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    root = shared / "prepared-project"
    with (shared / "prepared-project.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "ready").exists():
            shutil.rmtree(root, ignore_errors=True)
            write_project(root)
            for line in STORY:
                done = run_here(root, *line)
                assert done.code == 0, f"falaj {' '.join(line)}: {done.err}"
            (root / "ready").touch()
    return root


@pytest.fixture
def workspace(prepared, tmp_path):
    """A project with release 1.0.0, CHG-0001 that waits, and layla, omar, zayed, owner-2."""
    return shutil.copytree(prepared, tmp_path / "project")


@pytest.fixture
def here():
    return run_here


@pytest.fixture
def apart():
    return run_apart
