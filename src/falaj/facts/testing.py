"""Test reports: what a project's own tests of its data and models said, about which code.

Wire rules as for all facts: fields are only added, at the end, with a default.
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, Literal

from falaj.base.time import Instant
from falaj.facts.checks import Verdict
from falaj.facts.runs import Code, Environment
from falaj.facts.wire import Fact

__all__ = ["Outcome", "TestOutcome", "TestReport"]

Outcome = Literal["passed", "failed", "error", "skipped", "xfailed", "xpassed"]


class TestOutcome(Fact, frozen=True, kw_only=True):
    """One test. message: at most three lines; without values where data is protected."""

    __test__: ClassVar[bool] = False

    name: str  # as pytest calls it: tests/test_model.py::test_units[si]
    outcome: Outcome
    seconds: float = 0.0
    message: str = ""


class TestReport(Fact, frozen=True, kw_only=True):
    """One run of a project's tests.

    tree: digest of the project's code. selection: what was asked for; nothing: all tests, and only
    such a report decides a gate. models: digests of the models that tests asked to predict.
    error: pytest's own lines, when it could not begin. junit, log: digests of blobs.
    """

    __test__: ClassVar[bool] = False

    id: str
    at: Instant
    person: str
    verdict: Verdict
    tree: str
    code: Code
    environment: Environment
    tests: tuple[TestOutcome, ...]
    seconds: float
    selection: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    error: str = ""
    pytest: str = ""
    junit: str = ""
    log: str = ""

    def counts(self) -> dict[str, int]:
        """How many of each outcome that there is, in the order of `Outcome`."""
        found = Counter(test.outcome for test in self.tests)
        names: tuple[Outcome, ...] = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")
        return {name: found[name] for name in names if found[name]}
