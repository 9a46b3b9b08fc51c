"""A place where code of others may run, because it can do nothing there but reckon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

__all__ = ["Sandbox"]


class Sandbox(Protocol):
    """Runs one job on a model file apart from this process. tests/contracts/test_sandbox.py.

    Inside there is no network, nothing of this machine's files but programs and libraries, one
    folder to write into, no second process, and an end: of memory, of time, of what is written.
    """

    def about(self) -> str:
        """Words for provenance: which sandbox, with which limits."""

    def job(self, name: str, folder: Path, tell: Callable[[float], None]) -> str:
        """Do `scan`, `convert` or `answer` on what lies in `folder`, which then holds the answer.

        tell: hears the seconds that have gone by. Returns nothing, or why the job did not end
        well. Raises FalajError where there is no sandbox on this machine.
        """
