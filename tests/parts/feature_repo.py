"""A feature repository made from a seed: late records, corrections, gaps, old values, another's key."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

__all__ = ["customers", "drivers", "feast", "labels", "write_repo"]

YAML = """
project: rides
registry: data/registry.db
provider: local
online_store:
  type: sqlite
  path: data/online.db
offline_store:
  type: file
entity_key_serialization_version: 3
"""

DEFINITIONS = """
from datetime import timedelta

import pandas as pd
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bool, Float32, Float64, Int64, String, UnixTimestamp, Uuid

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)

driver_source = FileSource(
    name="driver_source",
    path="data/drivers.parquet",
    timestamp_field="happened",
    created_timestamp_column="recorded",
)
customer_source = FileSource(
    name="customer_source", path="data/customers.parquet", timestamp_field="known"
)

drivers = FeatureView(
    name="drivers",
    entities=[driver],
    ttl=timedelta(0),
    schema=[
        Field(name="driver_id", dtype=Int64),
        Field(name="rate", dtype=Float64),
        Field(name="trips", dtype=Int64),
        Field(name="score", dtype=Float32),
        Field(name="city", dtype=String),
        Field(name="active", dtype=Bool),
        Field(name="seen", dtype=UnixTimestamp),
        Field(name="last", dtype=Array(Float32)),
    ],
    source=driver_source,
)
customers = FeatureView(
    name="customers",
    entities=[customer],
    ttl=timedelta(days=10),
    schema=[
        Field(name="customer_id", dtype=String),
        Field(name="spent", dtype=Float64),
        Field(name="score", dtype=Float64),
    ],
    source=customer_source,
)
odd = FeatureView(
    name="odd",
    entities=[driver],
    schema=[Field(name="driver_id", dtype=Int64), Field(name="token", dtype=Uuid)],
    source=driver_source,
)

@on_demand_feature_view(sources=[drivers], schema=[Field(name="double", dtype=Float64)])
def doubled(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"double": rows["rate"] * 2})


FIRST = ["rate", "trips", "score", "city", "active", "seen", "last"]
ride = FeatureService(name="ride", features=[drivers[FIRST], customers[["spent"]]])
driver_only = FeatureService(name="driver_only", features=[drivers[["trips", "rate"]]])
twice = FeatureService(name="twice", features=[drivers[["score"]], customers[["score"]]])
other = FeatureService(
    name="other",
    features=[
        # Both get a name: Feast 0.67 cannot put a view beside itself otherwise (it sorts them).
        drivers[["trips"]].with_name("first"),
        drivers[["trips"]].with_name("guide").with_join_key_map({"driver_id": "guide_id"}),
    ],
)
computed = FeatureService(name="computed", features=[drivers[["rate"]], doubled])
uuids = FeatureService(name="uuids", features=[odd])
"""

QUIET = {"FEAST_USAGE": "False", "DO_NOT_TRACK": "1"}


def drivers(seed: int, now: datetime, *, rows: int = 600) -> pl.DataFrame:
    """Events of 12 drivers over 60 days: recorded up to 20 days later; some twice, corrected."""
    draw = np.random.default_rng(seed)
    start = now - timedelta(days=60)
    seconds = draw.integers(0, 59 * 86_400, rows)
    lag = np.where(draw.random(rows) < 0.2, draw.integers(0, 20 * 86_400, rows), 60)
    happened = [start + timedelta(seconds=int(s)) for s in seconds]
    recorded = [
        min(at + timedelta(seconds=int(late)), now - timedelta(seconds=5))
        for at, late in zip(happened, lag, strict=True)
    ]
    gaps = draw.random((rows, 7)) < 0.1

    def some(column: int, values: list) -> list:
        return [None if gaps[i, column] else value for i, value in enumerate(values)]

    made = pl.DataFrame(
        {
            "driver_id": draw.integers(1000, 1012, rows),
            "happened": pl.Series(happened, dtype=pl.Datetime("us", "UTC")),
            "recorded": pl.Series(recorded, dtype=pl.Datetime("us", "UTC")),
            "rate": some(
                0, [float(v) for v in draw.normal(size=rows) * 10.0 ** draw.integers(-9, 9, rows)]
            ),
            "trips": some(1, [int(v) for v in draw.integers(-(2**53) + 1, 2**53, rows)]),
            "score": pl.Series(some(2, [float(v) for v in draw.random(rows)]), dtype=pl.Float32),
            "city": some(3, [["دبي", "Abu Dhabi", ""][v] for v in draw.integers(0, 3, rows)]),
            "active": some(4, [bool(v) for v in draw.integers(0, 2, rows)]),
            "seen": pl.Series(some(5, happened), dtype=pl.Datetime("us", "UTC")),
            "last": pl.Series(
                [[float(v) for v in draw.random(3)] for _ in range(rows)], dtype=pl.List(pl.Float32)
            ),
            "token": ["0"] * rows,
        }
    )
    again = made.filter(draw.random(rows) < 0.1).with_columns(
        pl.col("rate") + 1, recorded=pl.lit(now - timedelta(seconds=4)).dt.cast_time_unit("us")
    )
    return pl.concat([made, again])


def customers(seed: int, now: datetime, *, rows: int = 80) -> pl.DataFrame:
    """Known at once; 8 customers, so that the last value of some is too old."""
    draw = np.random.default_rng(seed + 1)
    known = [
        now - timedelta(seconds=int(s)) for s in draw.choice(50 * 86_400, rows, replace=False) + 5
    ]
    return pl.DataFrame(
        {
            "customer_id": [f"c{v}" for v in draw.integers(0, 8, rows)],
            "known": pl.Series(known, dtype=pl.Datetime("us", "UTC")),
            "spent": draw.normal(size=rows),
            "score": draw.normal(size=rows),
        }
    ).filter(~((pl.col("customer_id") == "c3") & (pl.col("known") > now - timedelta(days=12))))


def labels(seed: int, now: datetime, *, rows: int = 150) -> pl.DataFrame:
    """Questions about known and unknown entities at random times, some at one time, one without."""
    draw = np.random.default_rng(seed + 2)
    asked = [now - timedelta(seconds=int(s)) for s in draw.integers(10, 62 * 86_400, rows)]
    asked[1] = asked[0]
    asked[2] = asked[0]
    drivers = [int(v) for v in draw.integers(999, 1013, rows)]
    drivers[1] = drivers[0]
    return pl.DataFrame(
        {
            "y": draw.integers(0, 2, rows),
            "driver_id": [*drivers[:-1], None],
            "customer_id": [f"c{v}" for v in draw.integers(0, 9, rows)],
            "asked": pl.Series([*asked[:5], None, *asked[6:]], dtype=pl.Datetime("us", "UTC")),
        }
    )


def write_repo(root: Path, seed: int, now: datetime) -> Path:
    """The folder of a repository with its rows; nothing is applied yet."""
    (root / "data").mkdir(parents=True)
    (root / "feature_store.yaml").write_text(YAML)
    (root / "definitions.py").write_text(DEFINITIONS)
    drivers(seed, now).write_parquet(root / "data" / "drivers.parquet")
    customers(seed, now).write_parquet(root / "data" / "customers.parquet")
    return root


def feast(root: Path, *words: str) -> str:
    """Run Feast's own command, as the keeper of the repository would."""
    command = Path(sys.executable).with_name("feast")
    done = subprocess.run(
        [command, *words],
        cwd=root,
        env=os.environ | QUIET,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def moment() -> datetime:
    """Now, in whole seconds: SQLite's online store keeps no parts of one."""
    return datetime.now(UTC).replace(microsecond=0)
