"""Run a program of the Python that runs here, kept apart from the folder that it looks at."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from falaj.base.errors import FalajError

__all__ = ["Said", "ask", "failed"]

LONGEST_S: Final = 600.0
TAIL: Final = 400
ABSENT: Final = "No module named "


class Said(NamedTuple):
    code: int
    out: bytes
    err: str


def ask(python: str, module: str, words: Sequence[str], *, root: Path, name: str) -> Said:
    """Run `python -I -m module` in `root`. name: what people call it.

    -I: neither the folder nor PYTHONPATH is searched, or a file of the project with the tool's name
    would run in its place.

    Raises FalajError: scans.tool-missing, scans.tool-failed (too long).
    """
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.environ.get("HOME", str(root)),
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
    }
    command = (python, "-I", "-B", "-m", module, *words)
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=LONGEST_S,
        )
    except subprocess.TimeoutExpired:
        raise failed(name, f"it gave no answer within {LONGEST_S:g} s") from None
    err = done.stderr.decode(errors="replace")
    if ABSENT + module in err or f"{ABSENT}'{module}'" in err:
        raise FalajError(
            "scans.tool-missing",
            f"{name} is not installed where this project's code runs",
            why=f"the scan is made by {Path(python).name} -m {module}",
            fix="pip install 'falaj[scan]'",
        )
    return Said(done.returncode, done.stdout, err)


def failed(name: str, why: str) -> FalajError:
    return FalajError(
        "scans.tool-failed",
        f"{name} gave no answer that can be read",
        why=why[-TAIL:],
        fix=f"run {name} by hand on the project's code; another version may be installed",
    )
