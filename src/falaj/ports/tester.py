"""The project's own tests, run in a process of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from falaj.facts.testing import TestOutcome

__all__ = ["Tested", "Tester"]


@dataclass(frozen=True, kw_only=True)
class Tested:
    """What came of it. error: the tool's own lines, at most 20, when no test could be run.

    models: digests of the models that tests asked to predict. log: all that was printed.
    """

    tests: tuple[TestOutcome, ...] = ()
    seconds: float = 0.0
    models: tuple[str, ...] = ()
    error: str = ""
    log: bytes = b""
    version: str = ""


class Tester(Protocol):
    """Runs a project's tests. Every adapter passes tests/contracts/test_tester.py."""

    def run(
        self, root: Path, *, paths: tuple[str, ...], keyword: str, run: str, show_values: bool
    ) -> Tested:
        """Run the tests of the project in `root`; it leaves nothing behind there.

        paths, keyword: which ones; nothing: all. run: whose model the tests ask; nothing: the
        newest. show_values: messages may hold values of rows.

        Raises FalajError: the tool is not installed (testing.pytest-missing), its process ended
        without an answer (testing.broken-off), or it took too long (testing.too-long).
        """
