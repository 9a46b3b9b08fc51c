"""SQL over frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from falaj.base.errors import FalajError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["SqlEngine"]


class SqlEngine(Protocol):
    """Answers SELECTs over named tables. It reaches no file and no network, and always ends."""

    @property
    def version(self) -> str:
        """Name and version, for the record."""

    def numbers(
        self, queries: Sequence[str], tables: Mapping[str, pl.LazyFrame]
    ) -> tuple[float | FalajError, ...]:
        """The one number that each query gives, or why there is none.

        Only tables that a query names are looked at. A query has a time and a memory that it may
        take. No error shows a value of a row: not one SELECT, not one number, the engine refuses,
        too long, too much.
        """
