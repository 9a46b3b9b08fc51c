"""What a profile says, and what it never says about protected columns."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime, timedelta

import msgspec
import numpy as np
import polars as pl
import pytest

from falaj.base.errors import FalajError
from falaj.data.datasets import open_dataset
from falaj.data.odcs import parse_contract
from falaj.data.pages import profile_page, report_page
from falaj.data.profile import profile
from falaj.data.propose import propose
from falaj.data.service import validate
from falaj.facts.data import Classification, Label
from falaj.facts.wire import decode, encode
from falaj.links.duckdb.engine import DuckDb
from falaj.stats.summaries import Edges, of_plain

HEAD = "apiVersion: v3.1.0\nkind: DataContract\nid: c\nname: c\nversion: 1.0.0\nstatus: active\n"
AT = datetime(2026, 3, 1, tzinfo=UTC)
DRAW = np.random.default_rng(3)
N = 1000
FRAME = pl.DataFrame(
    {
        "n": [None if i % 10 == 0 else i for i in range(N)],
        "x": [float("nan") if i % 100 == 0 else float(i % 7) for i in range(N)],
        "word": ["abc"[i % 3] * (i % 3 + 1) for i in range(N)],
        "late": [i % 4 == 0 for i in range(N)],
        "flag": [1 if i % 2 else 0 for i in range(N)],
        "day": [date(2020, 1, 1) + timedelta(days=i % 30) for i in range(N)],
        "list": [[i] for i in range(N)],
    }
)


def opened(tmp_path, frame, contract=None, classification=Classification.INTERNAL):
    frame.write_parquet(tmp_path / "t.parquet")
    label = Label(classification=classification)
    return open_dataset("t", "t.parquet", root=tmp_path, contract=contract, label=label)


@pytest.fixture
def made(tmp_path):
    found = profile(opened(tmp_path, FRAME), at=AT, by="word")
    return found, {column.name: column for column in found.columns}


def test_numbers(made):
    found, columns = made
    assert found.rows == N and [c.name for c in found.columns] == FRAME.columns
    n = columns["n"]
    assert (n.nulls, n.distinct, n.minimum, n.maximum) == (100, 900, 1, 999)
    assert n.mean == pytest.approx(FRAME["n"].mean())
    assert n.deviation == pytest.approx(FRAME["n"].std())
    assert n.quantiles["0.5"] == FRAME["n"].quantile(0.5, "lower")
    x = columns["x"]
    assert (x.nans, x.nulls, x.minimum, x.maximum) == (10, 0, 0.0, 6.0)
    assert sum(n.histogram.counts) == 900 and sum(x.histogram.counts) == 990


def test_the_edges_are_those_of_a_monitor(made):
    _, columns = made
    edges = of_plain(columns["x"].edges)
    assert isinstance(edges, Edges) and edges.column == "x"
    assert sum(edges.reference) + edges.nan == N


def test_words_days_and_flags(made):
    _, columns = made
    word = columns["word"]
    assert [(one.value, one.count) for one in word.top] == [("a", 334), ("bb", 333), ("ccc", 333)]
    assert word.lengths[0] == 1 and word.lengths[2] == 3
    assert (columns["day"].minimum, columns["day"].maximum) == ("2020-01-01", "2020-01-30")
    assert columns["late"].distinct == 2 and columns["late"].histogram is None
    assert columns["list"].distinct is None and columns["list"].top == ()


def test_rates_by_group_with_their_bounds(made):
    found, _ = made
    late = {one.group: one for one in found.rates if one.column == "late"}
    assert {one.column for one in found.rates} == {"late", "flag"}
    truth = FRAME.group_by("word").agg(pl.col("late").mean(), pl.len())
    for word, rate, n in truth.rows():
        assert (late[word].rate, late[word].n) == (pytest.approx(rate), n)
        assert late[word].low < rate < late[word].high


def test_correlations(tmp_path):
    a = DRAW.normal(size=400)
    frame = pl.DataFrame(
        {"a": a, "same": 2 * a, "curve": np.exp(a), "other": DRAW.normal(size=400)}
    )
    found = profile(opened(tmp_path, frame), at=AT)
    pairs = {(one.first, one.second): one for one in found.correlations}
    assert pairs["a", "same"].pearson == pytest.approx(1)
    assert pairs["a", "curve"].spearman == pytest.approx(1)
    assert pairs["a", "curve"].pearson < 0.95
    assert abs(pairs["a", "other"].spearman) < 0.2


def test_duckdb_measures_the_same(made):
    found, columns = made
    tables = {"t": FRAME.lazy()}
    assert DuckDb().numbers(["select count(distinct n) from t"], tables)[0] == columns["n"].distinct
    assert DuckDb().numbers(["select stddev(n) from t"], tables)[0] == pytest.approx(
        columns["n"].deviation
    )
    query = "select quantile_disc(n, 0.95) from t"
    assert abs(DuckDb().numbers([query], tables)[0] - columns["n"].quantiles["0.95"]) <= 1
    assert found.rows == DuckDb().numbers(["select count(*) from t"], tables)[0]


FRAMES = {
    "no rows": FRAME.clear(),
    "one row": FRAME.head(1),
    "nothing but nulls": pl.DataFrame({"a": [None, None], "b": pl.Series([None, None], dtype=pl.Int8)}),
    "infinite": pl.DataFrame({"a": [float("inf"), float("-inf"), 1.0]}),
    "huge": pl.DataFrame({"a": [-1.7e308, 1.7e308]}),
    "one value": pl.DataFrame({"a": [0.0, 0.0]}),
    "categories": pl.DataFrame({"a": pl.Series(["x", "y"], dtype=pl.Categorical)}),
    "decimals": pl.DataFrame({"a": pl.Series(["1.10", "2.20"]).cast(pl.Decimal(10, 2))}),
    "times": pl.DataFrame({"a": [AT, None], "b": [timedelta(1), None]}),
    "binary and objects": pl.DataFrame({"a": [b"x"], "b": [{"c": 1}]}),
}  # fmt: skip


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_odd_frames_have_a_profile_a_page_and_a_wire_form(tmp_path, frame):
    found = profile(opened(tmp_path, frame), at=AT)
    assert len(found.columns) == frame.width
    assert decode(type(found), encode(found)) == found
    assert "<html" in profile_page(found)


def test_a_page_runs_nothing_and_loads_nothing(tmp_path):
    evil = "<script>alert(1)</script><img src=//evil.example/x onerror=x>"
    frame = pl.DataFrame({evil: [evil] * 30, "n": range(30), "f": [0, 1] * 15})
    found = profile(opened(tmp_path, frame), at=AT, by=evil)
    page = profile_page(found)
    assert "<script" not in page and "<img" not in page and "&lt;script&gt;" in page
    assert "src=" not in page.replace("src=//evil", "") and "href=" not in page


# -- protected columns -------------------------------------------------------------------------------

CANARY = "Fatima-Al-4711"
NUMBER = 471147114711


def personal(rows):
    return pl.DataFrame(
        {
            "who": [CANARY] * rows,
            "salary": [NUMBER] * rows,
            "share": [NUMBER + 0.5] * rows,
            "born": [datetime(1947, 11, 4, 7, 11, tzinfo=UTC)] * rows,
            "tags": [[CANARY]] * rows,
            "ill": [i < 3 for i in range(rows)],
            "city": ["Dubai", "Sharjah"] * (rows // 2),
        }
    )


CLASSES = """schema:
  - name: t
    properties:
      - {name: who, classification: personal, primaryKey: true, logicalTypeOptions: {pattern: '^x', maxLength: 3}}
      - {name: salary, classification: personal, logicalType: integer, logicalTypeOptions: {maximum: 5, multipleOf: 10}}
      - name: share
        classification: sensitive
        quality:
          - {type: custom, engine: falaj, implementation: {metric: distribution, quantiles: {0.5: [0, 1]}}}
      - {name: born, classification: confidential, logicalType: date}
      - {name: tags, classification: personal, logicalType: array, logicalTypeOptions: {minItems: 3}}
      - {name: ill, classification: sensitive}
      - {name: city, classification: public, enum: [Ajman]}
    relationships: [{from: [t.who], to: [o.k]}]
    quality:
      - {id: s1, type: sql, query: select sum(cast(who as int)) from t, mustBe: 0}
      - {id: s2, type: sql, query: select max(who) from t, mustBe: 0}
      - {id: c1, type: custom, engine: falaj, implementation: "cast(who as int) > 0"}
      - {id: c2, type: custom, engine: falaj, implementation: "salary < 0"}
"""
SIGNS = ("Fatima", "4711", "1947")


def everything_said(tmp_path, dataset):
    """Each way in which something is told about a dataset."""
    said = []
    found = profile(dataset, at=AT, by="city")
    said += [encode(found).decode(), profile_page(found), repr(found)]
    said.append(propose(dataset))
    report = validate(dataset, references={}, mask_key=b"k" * 32, at=AT, sql=DuckDb())
    said += [encode(report).decode(), report_page([report]), repr(report)]
    for by in ("who", "salary", "none"):
        try:
            profile(dataset, at=AT, by=by)
        except FalajError as error:
            said.append(repr(error.problems))
    said.append(msgspec.json.encode(msgspec.to_builtins(dataset.version)).decode())
    return said


def test_no_personal_value_stands_anywhere(tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    contract = parse_contract((HEAD + CLASSES).encode(), file="c.yaml")
    said = everything_said(tmp_path, opened(tmp_path, personal(40), contract))
    told = "\n".join([*said, caplog.text, *capfd.readouterr()])
    assert [sign for sign in SIGNS if sign in told] == []
    assert "tok:" in told, "broken promises are told, with tokens"


def test_a_personal_dataset_without_a_contract_shows_no_value(tmp_path):
    dataset = opened(tmp_path, personal(40), classification=Classification.PERSONAL)
    found = profile(dataset, at=AT)
    said = encode(found).decode() + profile_page(found) + propose(dataset)
    assert [sign for sign in (*SIGNS, "Dubai") if sign in said] == []
    assert not found.correlations and all(c.edges is None for c in found.columns)


def test_small_counts_of_protected_columns_are_not_shown(tmp_path):
    frame = pl.DataFrame(
        {
            "few": [None if i < 3 else "x" for i in range(40)],
            "many": [None if i < 20 else "x" for i in range(40)],
            "near": [min(i, 36) for i in range(40)],
            "all": range(40),
            "ill": [i < 3 for i in range(40)],
            "group": ["a"] * 35 + ["b"] * 5,
        }
    )
    rest = ", ".join(f"{{name: {n}, classification: personal}}" for n in frame.columns[:-1])
    text = f"{HEAD}schema:\n  - name: t\n    properties: [{rest}]\n"
    contract = parse_contract(text.encode(), file="c.yaml")
    found = profile(opened(tmp_path, frame, contract), at=AT, by="group")
    columns = {column.name: column for column in found.columns}
    assert columns["few"].nulls is None and columns["many"].nulls == 20
    assert columns["all"].nulls == 0 and columns["all"].distinct == 40
    assert columns["near"].distinct is None, "three rows share a value: too few to tell"
    rates = {one.group: one for one in found.rates if one.column == "ill"}
    assert rates["a"].rate is None and rates["b"].n is None
    assert "fewer than 10" in profile_page(found)


def test_a_protected_column_makes_no_groups(tmp_path):
    dataset = opened(tmp_path, FRAME, classification=Classification.PERSONAL)
    with pytest.raises(FalajError) as caught:
        profile(dataset, at=AT, by="word")
    assert caught.value.code == "data.protected-column"
    with pytest.raises(FalajError) as caught:
        profile(opened(tmp_path, FRAME), at=AT, by="none")
    assert caught.value.code == "data.no-column"
