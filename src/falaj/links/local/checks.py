"""A project's own checks in a child process with a time limit: they are code of others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from falaj.facts.checks import CheckResult, Verdict

__all__ = ["own_checks"]

TAIL = 400  # bytes of what the child said last


def own_checks(folder: Path, checks: Sequence[str], timeout_s: float) -> tuple[CheckResult, ...]:
    """Run the order that lies in the folder; a child that dies or stays away is an error each."""
    said = folder / "said.txt"
    with said.open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "falaj.doors.worker.checks", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        try:
            code: int | None = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)  # with all that the checks have started
                child.wait()
    results = folder / "results.json"
    if code == 0 and results.is_file():
        return tuple(msgspec.json.decode(results.read_bytes(), type=list[CheckResult]))
    last = said.read_bytes()[-TAIL:].decode(errors="replace").strip().splitlines()
    why = (
        f"no answer within {timeout_s:g} s"
        if code is None
        else f"the process of the checks ended with {code}: {last[-1] if last else 'without a word'}"
    )
    return tuple(
        CheckResult(
            check=f"checks.{one.partition(':')[2]}",
            gate="checks",
            verdict=Verdict.ERROR,
            reason=why,
        )
        for one in checks
    )
