"""What is wrong with a request: findings with their place, at most twenty, told together."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["MAX_FINDINGS", "Finding", "Refusal"]

MAX_FINDINGS: Final = 20


class Finding(NamedTuple):
    """One thing that is wrong with a request: where (input or column, row) and why."""

    code: str
    message: str
    field: str = ""
    row: int = -1


class Refusal(Exception):
    """The request cannot be answered as it is; at most twenty findings, the first leads."""

    def __init__(self, *findings: Finding, status: int = 400) -> None:
        self.findings = findings[:MAX_FINDINGS]
        self.status = status
        super().__init__(findings[0].message)
