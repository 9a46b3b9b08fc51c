"""SQL over frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import polars as pl

__all__ = ["SqlEngine"]


class SqlEngine(Protocol):
    """Answers one SELECT over named tables. It reaches no file and no network."""

    @property
    def version(self) -> str:
        """Name and version, for the record."""

    def number(self, query: str, tables: Mapping[str, pl.LazyFrame]) -> float:
        """The one number that the query gives.

        Only tables that the query names are looked at. Raises FalajError, which shows no value of
        a row: not one SELECT, not one number, or the engine refuses.
        """
