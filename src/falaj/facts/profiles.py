"""What a dataset version looks like, and how two contracts differ.

Of protected columns (confidential and above) there is no value, no bound and no count under 10.
"""

from __future__ import annotations

from typing import Any, Literal

from falaj.base.time import Instant
from falaj.facts.data import Classification
from falaj.facts.wire import Fact

__all__ = ["ColumnProfile", "ContractChange", "Correlation", "Histogram", "Profile", "Rate", "Top"]


class Top(Fact, frozen=True, kw_only=True):
    value: str | int | float | bool
    count: int


class Histogram(Fact, frozen=True, kw_only=True):
    """Equal bins between low and high, for the eye."""

    low: float
    high: float
    counts: tuple[int, ...]


class ColumnProfile(Fact, frozen=True, kw_only=True):
    """None: not measured, or not shown because the column is protected or the count is small.

    is_open: whether values may be shown. quantiles: share -> value. lengths: shortest, mean,
    longest, in characters. edges: frozen bin edges with the counts on them (STATISTICS), as a
    monitor takes them.
    """

    name: str
    type: str
    classification: Classification
    is_open: bool
    nulls: int | None
    nans: int | None = None
    distinct: int | None = None
    minimum: str | int | float | bool | None = None
    maximum: str | int | float | bool | None = None
    mean: float | None = None
    deviation: float | None = None
    quantiles: dict[str, float] = {}
    lengths: tuple[float, float, float] | None = None
    top: tuple[Top, ...] = ()
    histogram: Histogram | None = None
    edges: dict[str, Any] | None = None


class Correlation(Fact, frozen=True, kw_only=True):
    """Of two open numeric columns, on n rows of a sample in which both are there."""

    first: str
    second: str
    pearson: float
    spearman: float
    n: int


class Rate(Fact, frozen=True, kw_only=True):
    """Share of ones of a 0/1 column in a group, with exact 95 % bounds. None: too few to show."""

    column: str
    group: str
    n: int | None
    rate: float | None = None
    low: float | None = None
    high: float | None = None


class Profile(Fact, frozen=True, kw_only=True):
    dataset: str
    version: str  # content digest
    rows: int
    columns: tuple[ColumnProfile, ...]
    correlations: tuple[Correlation, ...] = ()
    sampled: int = 0  # rows that the correlations were measured on
    by: str = ""
    rates: tuple[Rate, ...] = ()
    at: Instant


class ContractChange(Fact, frozen=True, kw_only=True):
    """breaking: data that keeps the new promise may break the old one."""

    where: str
    what: str
    kind: Literal["breaking", "compatible"]
