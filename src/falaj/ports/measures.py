"""Numbers that another system keeps, at a time."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

__all__ = ["Measures", "NoMeasure"]


class NoMeasure(Exception):
    """The system did not answer, or not with a number. Says why; never holds a secret."""


class Measures(Protocol):
    """One server of somebody else's. Every adapter passes tests/contracts/test_measures.py."""

    def value(self, query: str, at: datetime) -> float | None:
        """The sum over the series that the query names, at that time; None where there are none.

        Raises NoMeasure.
        """
