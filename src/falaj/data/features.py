"""Features as they were known at the time of a label, and as they are known now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import polars as pl

from falaj.base import frames
from falaj.base.errors import FalajError
from falaj.ports.features import FeatureStore

__all__ = ["Online", "as_of", "online"]

ROW: Final = "__falaj_label"
TIME: Final = "__falaj_time"
WAIT: Final = timedelta(seconds=1)


def as_of(
    labels: pl.DataFrame,
    view: pl.DataFrame | pl.LazyFrame,
    *,
    entity: str | Sequence[str],
    at: str,
    available_at: str,
    tolerance: timedelta | None = None,
) -> pl.DataFrame:
    """Join to each label the newest row of its entity that was available by then.

    Args:
        labels: rows with the entity and the time `at` of the question.
        view: rows with the entity, the time `available_at` from which on they could be known, and
            features. An event is known when it was *recorded*, not when it happened.
        entity: column or columns that both sides have.
        at: time of the label. Rows without a time get no features.
        available_at: time of the view. Rows without one were never available.
        tolerance: an older row counts as none.

    Returns:
        The labels in their order, with the columns of the view; null where nothing was known. Of
        rows that became available at one moment the last one counts.

    Raises FalajError: a column is absent or would come twice, or the times are of two kinds.
    """
    keys = [entity] if isinstance(entity, str) else list(entity)
    right = view.lazy()
    schema = right.collect_schema()
    _must_fit(labels.schema, schema, keys, at, available_at)
    left_time, right_time = pl.col(at), pl.col(available_at)
    if labels.schema[at] != schema[available_at]:  # units: the finer one is the common one
        zone = getattr(labels.schema[at], "time_zone", None)
        left_time = left_time.cast(pl.Datetime("ns", zone))
        right_time = right_time.cast(pl.Datetime("ns", zone))
    # Polars cannot see whether groups are sorted and only warns: so it is done here. The sort is
    # stable, and of equal times the join takes the last.
    known = (
        right.with_columns(right_time.alias(TIME))
        .drop_nulls(TIME)
        .sort(TIME, maintain_order=True)
        .cast({key: labels.schema[key] for key in keys if labels.schema[key] != schema[key]})
    )
    asked = labels.lazy().with_row_index(ROW).with_columns(left_time.alias(TIME))
    timed = asked.drop_nulls(TIME).sort(TIME, maintain_order=True)
    joined = timed.join_asof(
        known,
        on=TIME,
        by=keys,
        strategy="backward",
        tolerance=tolerance,
        check_sortedness=False,
    )
    untimed = asked.filter(pl.col(TIME).is_null())
    whole = pl.concat([joined, untimed], how="diagonal")
    return whole.sort(ROW).drop(ROW, TIME).collect()


def _must_fit(
    labels: pl.Schema, view: pl.Schema, keys: list[str], at: str, available_at: str
) -> None:
    for name, where, schema in (
        *((key, "labels", labels) for key in [*keys, at]),
        *((key, "view", view) for key in [*keys, available_at]),
    ):
        if name not in schema:
            raise FalajError(
                "data.no-column",
                f"the {where} have no column {name!r}",
                why=f"there are: {', '.join(schema)}",
                fix="name one of them",
            )
    twice = [name for name in view if name in labels and name not in keys]
    if twice:
        raise FalajError(
            "data.column-twice",
            f"column {twice[0]!r} is in the labels and in the view",
            why="one would hide the other, and a label is no feature",
            fix="rename it in one of them",
        )
    kinds = [_kind(labels[at]), _kind(view[available_at])]
    if kinds[0] != kinds[1] or not kinds[0]:
        raise FalajError(
            "data.times-differ",
            f"{at!r} is {labels[at]}, {available_at!r} is {view[available_at]}",
            why="times of two kinds cannot be put in order without a guess",
            fix="make both timestamps of one time zone, or both dates",
        )


def _kind(dtype: pl.DataType) -> str:
    if dtype == pl.Date:
        return "date"
    return f"timestamp {getattr(dtype, 'time_zone', None)}" if dtype == pl.Datetime else ""


class Online(NamedTuple):
    """What a feature store knows now.

    frame: the rows that were asked about, with the features of the service in its order; null where
    nothing is known or it is too old. at: the same features, as times of the events that the values
    are from. digest: of the service, to compare with that of training. now: by the store's clock.
    """

    frame: pl.DataFrame
    at: pl.DataFrame
    digest: str
    now: datetime

    def age(self) -> pl.DataFrame:
        """How old each value is; null where nothing is known."""
        return self.at.select(-(pl.all() - pl.lit(self.now)))

    def stale(self, max_age: timedelta) -> pl.Series:
        """Rows with a value that is older than this, or with none where one is asked for."""
        old = self.age().select(pl.any_horizontal((pl.all() > max_age).fill_null(value=True)))
        return old.to_series().alias("stale")


def online(
    store: FeatureStore,
    service: str,
    rows: pl.DataFrame,
    *,
    timeout: timedelta = WAIT,
    expect: str = "",
) -> Online:
    """Look up what is known now about each row's entity.

    Args:
        store: such as `falaj.links.feast.store.FeastStore`.
        service: the feature service that the model was trained with.
        rows: with the join keys of the service; other columns stay beside the features.
        timeout: of the whole question; the store's start counts too, unless it was started before.
        expect: the digest of the service at training; another one is refused.

    Returns:
        The same columns in the same order, of the same types, as historical retrieval gives.

    Raises FalajError: unknown service, entity column absent, another digest, no online store, late.
    """
    answer = store.online(service, rows.to_dicts(), timeout=timeout, expect=expect)
    columns = answer.service.columns
    twice = [name for name in columns if name in rows.columns]
    if twice:
        raise FalajError(
            "data.column-twice",
            f"column {twice[0]!r} is in the rows and in feature service {service}",
            why="one would hide the other",
            fix="ask with the join keys alone, or with full names",
        )
    values = [
        pl.Series(name, answer.values[name], dtype=frames.dtype_of(kind), strict=False)
        for name, kind in columns.items()
    ]
    times = [pl.Series(name, answer.at[name], dtype=pl.Datetime("us", "UTC")) for name in columns]
    return Online(rows.hstack(values), pl.DataFrame(times), answer.service.digest, answer.now)
