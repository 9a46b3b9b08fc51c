"""Hands that type commands: inside this process, or as a process of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from falaj.doors.cli import main

__all__ = ["Answer", "environment", "run_apart", "run_here"]

CLEAN = ("FALAJ_URL", "FALAJ_CONFIG", "FALAJ_TOKEN_FILE", "NO_COLOR", "FORCE_COLOR")


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


def run_here(root: Path, *args: str, **env: str) -> Answer:
    """The command line inside this process: what `main` does, without the start of a Python."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    kept_argv, kept_env = sys.argv, dict(os.environ)
    sys.argv = ["falaj", *args]
    for name in CLEAN:
        os.environ.pop(name, None)
    os.environ.update(env, COLUMNS="120")
    try:
        with (
            contextlib.chdir(root),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = main.answer()
    finally:
        sys.argv = kept_argv
        os.environ.clear()
        os.environ.update(kept_env)
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())
    return Answer(code, *texts)


def environment(**more: str) -> dict[str, str]:
    left_out = {*CLEAN, "PYTHONDONTWRITEBYTECODE"}
    return {k: v for k, v in os.environ.items() if k not in left_out} | more


def run_apart(root: Path, *args: str, **env: str) -> Answer:
    """The command line as people start it: a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "falaj", *args],
        cwd=root,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Answer(done.returncode, done.stdout, done.stderr)
