"""From raw rows to features: only what is known at the scheduled departure."""

from __future__ import annotations

from typing import Literal, NamedTuple

import polars as pl

from falaj import Dataset, step

# Left out on purpose: with temperature and dew point a winter model reads the thermometer as a
# calendar; wind direction and pressure name the day.
WEATHER = ("humid", "wind_speed", "wind_gust", "precip", "visib")
FEATURES = (
    "hour",
    "minute",
    "weekday",
    "distance",
    "carrier",
    "origin",
    "dest_lat",
    "dest_lon",
    "plane_age",
    "seats",
    "departures",
    *WEATHER,
)
CARRIERS = [
    "9E",
    "AA",
    "AS",
    "B6",
    "DL",
    "EV",
    "F9",
    "FL",
    "HA",
    "MQ",
    "OO",
    "UA",
    "US",
    "VX",
    "WN",
    "YV",
]
ORIGINS = ("EWR", "JFK", "LGA")
LATE_MINUTES = 15
WEATHER_LAG = "1h"  # an hour's row may be read late in that hour; the hour before is known for sure


class Split(NamedTuple):
    train: pl.DataFrame
    test: pl.DataFrame


@step
def load(month_from: int, month_to: int, *, flights: Dataset) -> pl.DataFrame:
    """Scheduled flights; cancelled ones too, because they count in the departures of their hour."""
    return flights.read().filter(pl.col("month").is_between(month_from, month_to))


@step
def join(
    rows: pl.DataFrame,
    *,
    units: Literal["us", "si"],
    weather: Dataset,
    planes: Dataset,
    airports: Dataset,
) -> pl.DataFrame:
    """Each flight beside the weather of the hour before, its plane and its destination."""
    return beside(rows, in_units(weather.read(), units), planes.read(), airports.read())


def in_units(weather: pl.DataFrame, units: str) -> pl.DataFrame:
    """The feed as it comes (mph, inches, miles), or as ICAO writes it (m/s, mm, metres)."""
    numbers = weather.with_columns(pl.col(WEATHER).cast(pl.Float64))
    if units == "us":
        return numbers
    return numbers.with_columns(
        pl.col("wind_speed", "wind_gust") * 0.44704,
        pl.col("precip") * 25.4,
        pl.col("visib") * 1609.344,
    )


def known_by() -> pl.Expr:
    """When the delay of a flight is known: it has landed. Whoever asks earlier must not see it."""
    minutes = pl.col("minute") + pl.col("dep_delay") + pl.col("air_time")
    return pl.col("at") + pl.duration(minutes=minutes)


def beside(
    rows: pl.DataFrame, weather: pl.DataFrame, planes: pl.DataFrame, airports: pl.DataFrame
) -> pl.DataFrame:
    at = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ")
    return (
        rows.with_columns(at.alias("at"))
        .join(
            weather.select("origin", at.dt.offset_by(WEATHER_LAG).alias("at"), *WEATHER),
            on=["origin", "at"],
            how="left",
            maintain_order="left",
        )
        .join(
            planes.select("tailnum", pl.col("year").alias("built"), "seats"),
            on="tailnum",
            how="left",
            maintain_order="left",
        )
        .join(
            airports.select(pl.col("faa").alias("dest"), "lat", "lon"),
            on="dest",
            how="left",
            maintain_order="left",
        )
    )


@step
def features(joined: pl.DataFrame) -> pl.DataFrame:
    """One float32 column a feature, NaN where unknown; the day, the label and the group beside it.

    `y` is null where a flight was cancelled or diverted: it has no arrival.
    """
    date = pl.date("year", "month", "day")
    columns = {
        "hour": pl.col("hour"),
        "minute": pl.col("minute"),
        "weekday": date.dt.weekday(),
        "distance": pl.col("distance"),
        "carrier": index("carrier", CARRIERS),
        "origin": index("origin", ORIGINS),
        "dest_lat": pl.col("lat"),
        "dest_lon": pl.col("lon"),
        "plane_age": pl.col("year") - pl.col("built"),
        "seats": pl.col("seats"),
        "departures": pl.len().over("origin", "at"),
        **{name: pl.col(name) for name in WEATHER},
    }
    return joined.select(
        date.alias("date"),
        pl.col("at"),
        (pl.col("arr_delay") > LATE_MINUTES).cast(pl.Int8).alias("y"),
        pl.col("origin").alias("origin_airport"),
        *(
            column.cast(pl.Float32).fill_null(float("nan")).alias(name)
            for name, column in columns.items()
        ),
    )


def index(column: str, names: tuple[str, ...] | list[str]) -> pl.Expr:
    return pl.col(column).replace_strict(names, range(len(names)), default=None)


@step
def split(rows: pl.DataFrame) -> Split:
    """Hold out whole days (the 5th, 10th, ... 30th), so that no storm stands on both sides."""
    known = rows.filter(pl.col("y").is_not_null())
    held_out = pl.col("date").dt.day() % 5 == 0
    return Split(known.filter(~held_out), known.filter(held_out))
