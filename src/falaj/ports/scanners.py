"""Programs that look at a project's code without running it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from falaj.facts.scans import CodeFinding

__all__ = ["CodeScanner", "Scanned"]


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """findings: in the order of files and lines. unread: files that it could not read, with why.

    silenced: places where the code itself tells the tool to look away.
    """

    version: str
    findings: tuple[CodeFinding, ...] = ()
    unread: tuple[str, ...] = ()
    silenced: int = 0


class CodeScanner(Protocol):
    """Every adapter passes tests/contracts/test_code_scanners.py."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Endings of the files that it looks at."""

    def scan(self, root: Path, files: Sequence[str]) -> Scanned:
        """Look at files below `root`, in a process of its own that imports nothing of them.

        No connection is made. Raises FalajError: the tool is not installed (scans.tool-missing) or
        gave no answer (scans.tool-failed).
        """
