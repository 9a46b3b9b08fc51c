"""The promises of ports/tables.py: rows of lakes and databases, read only, one snapshot for all."""

from __future__ import annotations

import importlib.util
import sqlite3
from datetime import date

import polars as pl
import pytest

import parts
from falaj.base import snapshots
from falaj.base.errors import FalajError
from falaj.data.datasets import open_dataset
from falaj.data.odcs import parse_contract
from falaj.links.database.reader import DatabaseTables
from falaj.links.delta.reader import DeltaTables
from falaj.links.iceberg.reader import IcebergTables

ROWS = pl.DataFrame({"a": [1, 2, 3], "s": ["x", None, "ز"]})
MORE = pl.DataFrame({"a": [4], "s": ["y"]})


class Delta:
    source = "delta:lake/flights"

    def __init__(self, root):
        self.path = str(root / "lake" / "flights")
        (root / "lake").mkdir()
        ROWS.write_delta(self.path)

    def add(self):
        MORE.write_delta(self.path, mode="append")

    @staticmethod
    def reader(folder):
        return DeltaTables(folder)


class Iceberg:
    source = "iceberg:lake.traffic.flights"

    def __init__(self, root):
        from pyiceberg.catalog.sql import SqlCatalog

        self.catalog = SqlCatalog(
            "lake", uri=f"sqlite:///{root / 'lake.db'}", warehouse=f"file://{root / 'warehouse'}"
        )
        self.catalog.create_namespace("traffic")
        self.catalog.create_table("traffic.flights", schema=ROWS.to_arrow().schema)
        self.add(ROWS)

    def add(self, rows=MORE):
        table = self.catalog.load_table("traffic.flights")
        table.append(rows.to_arrow().cast(table.schema().as_arrow()))

    @staticmethod
    def reader(folder):
        return IcebergTables(folder)


class Database:
    source = "sqlite:///flights.db?table=flights"

    def __init__(self, root):
        self.file = root / "flights.db"
        self.put("create table flights (a integer primary key, s text)")
        self.put("insert into flights values (3, 'ز'), (1, 'x'), (2, null)")

    def put(self, words):
        with sqlite3.connect(self.file) as connection:
            connection.execute(words)
        connection.close()

    def add(self):
        self.put("insert into flights values (4, 'y')")

    @staticmethod
    def reader(folder):
        return DatabaseTables(folder)


APART = importlib.util.find_spec("pyiceberg") is not None  # in Iceberg's own environment
KINDS = {"iceberg": Iceberg} if APART else {"delta": Delta, "database": Database}

if not APART:

    def test_iceberg_keeps_the_same_promises():
        parts.suite("arrow", "tests/contracts/test_tables.py", "-k", "[iceberg] or snapshot_never")


@pytest.fixture(params=KINDS)
def table(request, tmp_path):
    return KINDS[request.param](tmp_path)


def opened(table, tmp_path, source="", **more):
    reader = table.reader(tmp_path / "snapshots")
    return open_dataset("t", source or table.source, root=tmp_path, tables=[reader], **more)


def test_rows_come_as_they_are_and_with_the_engines_name_for_them(table, tmp_path):
    data = opened(table, tmp_path)
    assert data.read().equals(ROWS)
    version = data.version
    assert version.rows == 3 and version.source == table.source
    assert version.engine["engine"] in {"delta", "iceberg", "sqlite"}
    plain = ROWS.write_parquet(tmp_path / "t.parquet")
    assert plain is None
    same = open_dataset("t", "t.parquet", root=tmp_path).version
    assert same.content == version.content, "the engine does not count, the values do"
    assert same.engine == {}


def test_without_asking_again_everybody_sees_the_snapshot_that_is_kept(table, tmp_path):
    first = opened(table, tmp_path).version
    table.add()
    assert opened(table, tmp_path).version.bytes == first.bytes, "another process of the same run"
    again = opened(table, tmp_path, fresh=True)
    assert again.version.rows == 4 and again.version.content != first.content
    assert opened(table, tmp_path).version.bytes == again.version.bytes
    if first.engine["engine"] != "sqlite":
        assert again.version.engine != first.engine


def test_a_reader_that_has_begun_keeps_its_file(table, tmp_path):
    begun = opened(table, tmp_path)
    rows = begun.scan()
    table.add()
    opened(table, tmp_path, fresh=True).read()
    assert rows.collect().height == 3


def test_nothing_is_read_before_it_is_asked_for(table, tmp_path):
    reader = table.reader(tmp_path / "snapshots")
    wrong = table.source.replace("flights", "nonesuch")
    data = open_dataset("t", wrong, root=tmp_path, tables=[reader])
    with pytest.raises(FalajError) as caught:
        data.read()
    assert caught.value.code in {"data.table-unreadable", "data.bad-source"}
    assert not list((tmp_path / "snapshots").rglob("*.parquet"))
    assert not (tmp_path / "nonesuch.db").exists()


def test_a_named_version_never_changes(tmp_path):
    table = Delta(tmp_path)
    table.add()
    old = opened(table, tmp_path, "delta:lake/flights@0", fresh=True)
    assert old.version.rows == 3 and old.version.engine["version"] == "0"
    assert opened(table, tmp_path, "delta:lake/flights@1").version.rows == 4
    with pytest.raises(FalajError, match="cannot be read"):
        opened(table, tmp_path, "delta:lake/flights@7").read()


if APART:

    def test_a_named_snapshot_never_changes(tmp_path):
        table = Iceberg(tmp_path)
        first = table.catalog.load_table("traffic.flights").current_snapshot().snapshot_id
        table.add()
        source = f"{table.source}@{first}"
        assert opened(table, tmp_path, source).version.rows == 3
        assert opened(table, tmp_path, source, fresh=True).version.engine["snapshot"] == str(first)
        with pytest.raises(FalajError, match="cannot be read"):
            opened(table, tmp_path, f"{table.source}@7").read()


REFUSED = {  # source -> what is told
    "delta:s3://bucket/t": "expected delta:<path>",
    "delta:lake@latest": "expected delta:<path>",
    "iceberg:lake": "expected iceberg",
    "iceberg:lake.ns/../x": "expected iceberg",
    "sqlite:///t.db": "cannot be used",
    "sqlite:///t.db?table=a&query=select 1": "cannot be used",
    "sqlite:///t.db?query=delete from a": "cannot be used",
    "sqlite:///t.db?query=select 1; drop table a": "cannot be used",
    "sqlite:///t.db?table=a&mode=rwc": "cannot be used",
    "sqlite:///none.db?table=a": "cannot be used",
    "sqlite://?table=a": "cannot be used",
    "postgresql://u:hunter2@127.0.0.1:1/d?table=a": "holds a password",
}


@pytest.mark.parametrize(("source", "words"), REFUSED.items(), ids=REFUSED)
def test_sources_that_are_refused_before_anything_is_opened(tmp_path, source, words):
    with sqlite3.connect(tmp_path / "t.db") as connection:
        connection.execute("create table a (x)")
    connection.close()
    readers = [kind.reader(tmp_path / "s") for kind in (Delta, Iceberg, Database)]
    with pytest.raises(FalajError) as caught:
        open_dataset("t", source, root=tmp_path, tables=readers).read()
    assert words in str(caught.value) and caught.value.problems[0].fix
    assert "hunter2" not in str(caught.value.problems)
    assert not (tmp_path / "none.db").exists()


def database(tmp_path, *lines):
    with sqlite3.connect(tmp_path / "d.db") as connection:
        for line in lines:
            connection.execute(line)
    connection.close()
    return DatabaseTables(tmp_path / "snapshots")


HEAD = "apiVersion: v3.1.0\nkind: DataContract\nid: c\nname: c\nversion: 1.0.0\nstatus: active\n"


def test_a_query_cannot_write_however_it_is_written(tmp_path):
    reader = database(tmp_path, "create table a (x)", "insert into a values (1)")
    source = "sqlite:///d.db?query=with b as (select 1) delete from a"
    with pytest.raises(FalajError) as caught:
        open_dataset("t", source, root=tmp_path, tables=[reader]).read()
    assert caught.value.code == "data.table-unreadable"
    rows = open_dataset("t", "sqlite:///d.db?table=a", root=tmp_path, tables=[reader]).read()
    assert rows["x"].to_list() == [1]


def test_columns_of_sqlite_get_the_contracts_types(tmp_path):
    reader = database(
        tmp_path,
        "create table a (n, day, late, share)",
        "insert into a values (1, '2013-01-01', 0, 1), (2, '2013-01-02', 1, 0.5)",
    )
    text = (
        "schema:\n  - name: t\n    properties:\n"
        "      - {name: n, logicalType: integer, logicalTypeOptions: {format: i16}}\n"
        "      - {name: day, logicalType: date}\n      - {name: late, logicalType: boolean}\n"
        "      - {name: share, logicalType: number}\n"
    )
    said = parse_contract((HEAD + text).encode(), file="c.yaml")
    source = "sqlite:///d.db?query=select * from a where n %25 1 = 0 order by n"
    data = open_dataset("t", source, root=tmp_path, tables=[reader], contract=said)
    frame = data.read()
    assert frame.dtypes == [pl.Int16, pl.Date, pl.Boolean, pl.Float64]
    assert frame["day"].to_list() == [date(2013, 1, 1), date(2013, 1, 2)]
    assert data.unreadable == {}


def test_a_column_of_mixed_kinds_is_told_without_its_values(tmp_path):
    reader = database(tmp_path, "create table a (x)", "insert into a values (1), ('Fatima-4711')")
    with pytest.raises(FalajError) as caught:
        open_dataset("t", "sqlite:///d.db?table=a", root=tmp_path, tables=[reader]).read()
    problem = caught.value.problems[0]
    assert problem.code == "data.mixed-types" and "int, str" in problem.why
    assert "Fatima" not in str(problem)


def test_an_empty_table_has_its_columns(tmp_path):
    reader = database(tmp_path, "create table a (x integer, y text)")
    frame = open_dataset("t", "sqlite:///d.db?table=a", root=tmp_path, tables=[reader]).read()
    assert frame.columns == ["x", "y"] and frame.height == 0


def test_a_driver_that_is_not_there_is_named(tmp_path):
    reader = DatabaseTables(tmp_path)
    (tmp_path / "secret").write_text("hunter2\n")
    source = "postgresql+pg8000://u@127.0.0.1:1/d?table=a&password_file=secret"
    with pytest.raises(FalajError) as caught:
        open_dataset("t", source, root=tmp_path, tables=[reader]).read()
    assert caught.value.code == "data.extra-missing" and "hunter2" not in str(caught.value.problems)


def test_a_snapshot_that_fails_half_way_leaves_the_old_one(tmp_path):
    def good(part):
        part.write_bytes(b"1")
        return {"engine": "x"}

    def bad(part):
        part.write_bytes(b"2")
        raise OSError("disk full")

    first = snapshots.keep(tmp_path, "s", good)
    with pytest.raises(OSError, match="disk full"):
        snapshots.keep(tmp_path, "s", bad)
    assert snapshots.kept(tmp_path, "s") == first
    assert [p.name for p in first.file.parent.iterdir() if p.name.endswith(".part")] == []
