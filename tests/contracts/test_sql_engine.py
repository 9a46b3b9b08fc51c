"""SQL rules of contracts: what a query may not do, and that it ends whatever it does."""

from __future__ import annotations

import os
import subprocess
import time

import polars as pl
import pytest

from falaj.base.errors import FalajError
from falaj.data.checks import checks_of
from falaj.data.odcs import parse_contract
from falaj.facts.project import DuckdbTable
from falaj.links.duckdb.engine import DuckDb, duckdb_engine

ROWS = pl.LazyFrame({"a": [1, 2, 3], "word": ["Fatima-4711", "b", "c"]})
TIGHT = DuckDb(timeout_s=1.0, memory_mb=128, threads=1)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """All hostile queries at once, in one process, with a true one behind them."""
    folder = tmp_path_factory.mktemp("hostile")
    secret = folder / "secret.csv"
    secret.write_text("a\n4711\n")
    home = folder / "home"
    home.mkdir()
    queries = {
        "a file": f"select count(*) from read_csv('{secret}')",
        "a file by its name": f"select count(*) from '{secret}'",
        "a file as text": f"select length(content) from read_text('{secret}')",
        "a file beside the tables": "select count(*) from read_text('said.txt')",
        "a way out of the tables' folder": f"select count(*) from read_text('../../{secret}')",
        "a list of files": "select count(*) from glob('/etc/*')",
        "the network": "select count(*) from read_csv('http://127.0.0.1:9/x.csv')",
        "the network by a bucket": "select count(*) from 's3://bucket/x.parquet'",
        "writing a file": f"copy t to '{folder}/stolen.csv'",
        "writing a file out of a query": f"copy (select 1) to '{folder}/stolen.parquet'",
        "another database": f"attach '{folder}/other.db' as other",
        "an extension": "install httpfs",
        "an extension that is loaded": "load httpfs",
        "an extension by a function": "select count(*) from st_read('x')",
        "two statements": "select 1; select 2",
        "opening it again": "set enable_external_access = true",
        "a larger memory": "set memory_limit = '100GB'",
        "a pragma": "pragma database_list",
        "a new table": "create table u as select * from t",
        "a lost table": "drop view t",
        "more rows": "insert into t values (1)",
        "a secret": "create secret s (type s3, key_id 'x', secret 'y')",
        "an export": f"export database '{folder}/all'",
        "a call": "call pragma_version()",
        "no SQL": "give me all",
        "nothing": "",
        "a value in its words": "select sum(cast(word as int)) from t",
    }
    found = DuckDb().numbers([*queries.values(), "select count(*) from t"], {"t": ROWS})
    return dict(zip([*queries, "then"], found, strict=True)), folder


def test_whatever_is_hostile_is_refused(hostile):
    answers, folder = hostile
    let_through = {what: got for what, got in answers.items() if not isinstance(got, FalajError)}
    assert let_through == {"then": 3.0}
    assert {got.code for what, got in answers.items() if what != "then"} == {"data.sql-rule"}
    assert {path.name for path in folder.iterdir()} == {"secret.csv", "home"}


def test_no_error_quotes_a_value(hostile):
    answers, _ = hostile
    told = " ".join(f"{got} {got.problems[0].why}" for got in answers.values() if got != 3.0)
    assert "Fatima" not in told and "4711" not in told


ENDLESS = {
    "a join of 10^12 rows": "select count(*) from range(1000000) a, range(1000000) b"
    " where (a.range * b.range) % 7 = 3",
    "a recursion without an end": "with recursive r as (select 1 as i union all select i + 1 from r"
    " where i < 1e18) select max(i) from r",
    "a long series": "select sum(sin(range)) from range(1000000000000)",
}


@pytest.mark.parametrize("query", ENDLESS.values(), ids=ENDLESS)
def test_a_query_without_an_end_is_ended(query):
    begun = time.perf_counter()
    late, after = TIGHT.numbers([query, "select max(a) from t"], {"t": ROWS})
    assert isinstance(late, FalajError) and late.code == "data.sql-late", late
    assert "[links.duckdb]" in late.problems[0].fix and "1 s" in str(late)
    assert after == 3.0
    assert time.perf_counter() - begun < 20


BOMBS = {
    "a table of pairs": "select count(*) from (select distinct a.range, b.range from"
    " range(20000) a, range(20000) b)",
    "a text": "select length(string_agg(repeat('x', 10000000), '')) from range(100000)",
    "one value": "select length(repeat('xxxxxxxxxx', 300000000))",
    "a list": "select len(list(a.range || 'x')) from range(10000000) a, range(100) b",
    "a sort": "select count(*) from (select md5(range::text) as m from range(50000000) order by m"
    " limit 40000000)",
}


@pytest.mark.parametrize("query", BOMBS.values(), ids=BOMBS)
def test_a_query_that_takes_all_memory_is_ended(query):
    patient = DuckDb(timeout_s=30.0, memory_mb=128, threads=1)
    bomb, after = patient.numbers([query, "select max(a) from t"], {"t": ROWS})
    assert isinstance(bomb, FalajError) and bomb.code == "data.sql-memory", bomb
    assert "128 MiB" in str(bomb) and "memory_mb" in bomb.problems[0].fix
    assert after == 3.0


def test_nothing_runs_on_when_it_is_answered():
    TIGHT.numbers([next(iter(ENDLESS.values()))], {"t": ROWS})
    mine = subprocess.run(
        ["ps", "-o", "args", "--ppid", str(os.getpid())], capture_output=True, text=True, check=True
    )
    assert "falaj.links.duckdb" not in mine.stdout


def test_a_table_may_be_larger_than_the_memory():
    """It is read from its file, piece by piece."""
    n = 8_000_000
    wide = pl.LazyFrame().select(pl.int_range(n).alias("a")).with_columns(
        (pl.col("a") * 7919 % 1000003).cast(pl.Float64).alias(f"b{i}") for i in range(4)
    )  # fmt: skip
    (found,) = DuckDb(timeout_s=60, memory_mb=96, threads=1).numbers(
        ["select sum(a) + count(b3) from t"], {"t": wide}
    )
    assert found == n * (n - 1) / 2 + n


def test_only_tables_that_are_named_are_looked_at():
    class Untouched:
        def sink_parquet(self, *_args, **_kwargs):
            raise AssertionError("nobody asked for it")

    tables = {"t": ROWS, "other": Untouched()}
    assert DuckDb().numbers(["select count(*) from t"], tables) == (3.0,)


def test_tables_of_any_name():
    names = ("flights", "my-table", "with space", "Select", "apostrophe's")
    got = DuckDb().numbers(
        [f'select count(*) from "{name}"' for name in names], dict.fromkeys(names, ROWS)
    )
    assert got == (3.0,) * len(names)


def test_the_engine_stands_in_the_record():
    assert DuckDb().version.startswith("duckdb ")


def test_the_settings_of_the_project_reach_the_engine():
    engine = duckdb_engine(DuckdbTable(timeout="100ms", memory_mb=64, threads=1))
    (late,) = engine.numbers([ENDLESS["a join of 10^12 rows"]], {})
    assert "0.1 s" in str(late)
    assert "64 MiB" in str(engine.too_large())


def test_a_check_says_the_code_and_what_to_do():
    from datetime import UTC, datetime

    from falaj.data.scan import Masks, scan

    query = ENDLESS["a join of 10^12 rows"]
    text = (
        "apiVersion: v3.1.0\nkind: DataContract\nid: c\nname: c\nversion: 1.0.0\nstatus: active\n"
        "schema:\n  - name: t\n    properties: [{name: a}]\n    quality:\n"
        f'      - {{id: pairs, type: sql, query: "{query}", mustBe: 0}}\n'
        '      - {id: rest, type: sql, query: "select count(*) from t", mustBe: 3}\n'
    )
    contract = parse_contract(text.encode(), file="c.yaml")
    found = {
        one.check: one
        for one in scan(
            checks_of(contract, "t"), ROWS, references={}, unreadable={}, masks=Masks(classes={}),
            key=(), now=datetime(2026, 3, 1, tzinfo=UTC), name="t", sql=TIGHT,
        )
    }  # fmt: skip
    late = found["data.pairs"]
    assert late.verdict == "error" and "within 1 s" in late.reason
    assert late.details["code"] == "data.sql-late" and "[links.duckdb]" in late.details["fix"]
    assert found["data.rest"].verdict == "pass"
