"""Results of other tools' check suites, read as check results."""

from __future__ import annotations

from typing import Protocol

from falaj.facts.checks import CheckResult

__all__ = ["EvidenceReader"]


class EvidenceReader(Protocol):
    """Knows the results of one tool by their looks; the tool itself is never imported.

    No value of a row is taken over: only counts, names of columns and what was asked of them.
    Every adapter passes tests/contracts/test_evidence_of_others.py.
    """

    @property
    def tool(self) -> str:
        """The tool's name, as people write it."""

    def takes(self, result: object) -> bool:
        """Whether `result` is an object of this tool."""

    def read(self, result: object, rows: object | None) -> tuple[CheckResult, ...]:
        """One result a check. rows: the frame, for a tool whose result does not hold it.

        Raises FalajError (data.evidence-unreadable) for what proves nothing.
        """

    def takes_document(self, document: object) -> bool:
        """Whether the decoded JSON is a report of this tool."""

    def read_document(self, document: object, rows: int) -> tuple[CheckResult, ...]:
        """The same from its report. rows: of the dataset that it speaks of."""
