"""Features as they were known at the time of a label: the point-in-time join."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import polars as pl

from falaj.base.errors import FalajError

__all__ = ["as_of"]

ROW: Final = "__falaj_label"
TIME: Final = "__falaj_time"


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
