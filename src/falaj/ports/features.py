"""Feature stores: values of features as they were known (training) and as they are (serving)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import polars as pl

__all__ = ["FeatureAnswer", "FeatureService", "FeatureStore"]


@dataclass(frozen=True, kw_only=True)
class FeatureService:
    """A named list of features with its definitions, as they stand in the store's registry.

    entities: join key -> type. columns: features in order -> type. views: view -> digest of its
    definition. max_age: view -> what is older counts as none. digest: of all that this service
    depends on; `registry`: of the whole registry. Neither changes when only rows change.
    """

    name: str
    entities: Mapping[str, str]
    columns: Mapping[str, str]
    views: Mapping[str, str]
    max_age: Mapping[str, timedelta]
    digest: str
    registry: str
    engine: str = ""


@dataclass(frozen=True, kw_only=True)
class FeatureAnswer:
    """What is known now. Each list has one entry a row, in the order of the question.

    values: feature -> values; None where nothing is known or what is known is too old. at: feature
    -> time of the event that the value is from; None where nothing is known.
    """

    service: FeatureService
    now: datetime
    values: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    at: Mapping[str, Sequence[datetime | None]] = field(default_factory=dict)


class FeatureStore(Protocol):
    """Both ways give the same columns in the same order with the same types.

    For one entity at one time both give the same values, bit by bit, once the online store holds
    what the offline store does. NaN is null. Errors are FalajErrors that show no value of a row.
    Every adapter passes tests/contracts/test_feature_stores.py.
    """

    def describe(self, service: str) -> FeatureService:
        """Raises FalajError for a service that is unknown or that cannot be kept to the bit."""

    def historical(
        self, service: str, labels: pl.DataFrame, *, at: str, expect: str = ""
    ) -> tuple[pl.DataFrame, FeatureService]:
        """The labels in their order with the features as they were known at the time `at` of each.

        A value that was recorded after that time is never used, nor one older than its view keeps
        it. Null where nothing was known. expect: digest of the service, or FalajError.
        """

    def online(
        self,
        service: str,
        entities: Sequence[Mapping[str, Any]],
        *,
        timeout: timedelta,
        expect: str = "",
    ) -> FeatureAnswer:
        """What is known now about each entity. Raises FalajError when it does not come in time."""

    def close(self) -> None:
        """Not an error twice."""
