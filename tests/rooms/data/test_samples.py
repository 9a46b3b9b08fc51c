"""Checks on a sample: the same rows every time, rates with bounds, and nothing that it cannot show."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from falaj.base.errors import FalajError
from falaj.data.checks import checks_of, decided
from falaj.data.datasets import open_dataset
from falaj.data.odcs import parse_contract
from falaj.data.pages import report_page
from falaj.data.scan import ROW, Draw, Masks, scan
from falaj.data.service import validate
from falaj.facts.checks import Verdict
from falaj.links.duckdb.engine import DuckDb
from falaj.stats.intervals import clopper_pearson

HEAD = "apiVersion: v3.1.0\nkind: DataContract\nid: c\nname: c\nversion: 1.0.0\nstatus: active\n"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
N = 100_000


def drawn(draw, n=N):
    numbers = pl.LazyFrame({"a": pl.int_range(n, eager=True)}).with_row_index(ROW)
    return numbers.filter(draw.chosen()).collect(engine="streaming")[ROW].to_numpy()


def splitmix(numbers, seed):
    """Independent of Polars, in the words of the paper."""
    z = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@pytest.mark.parametrize("pct", [0.1, 1.0, 10.0, 50.0])
@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_the_sample_is_what_its_formula_says(pct, seed):
    got = drawn(Draw(pct=pct, seed=seed))
    with np.errstate(over="ignore"):
        chosen = splitmix(np.arange(N), seed) >> np.uint64(11)
    assert got.tolist() == np.flatnonzero(chosen < np.uint64(round(pct / 100 * 2**53))).tolist()
    share = pct / 100
    assert abs(len(got) - N * share) < 5 * np.sqrt(N * share * (1 - share))


def test_neighbours_are_drawn_independently():
    chosen = np.zeros(N, bool)
    chosen[drawn(Draw(pct=20, seed=7))] = True
    both = (chosen[1:] & chosen[:-1]).mean()
    assert abs(both - 0.04) < 5 * np.sqrt(0.04 * 0.96 / N)


TEXT = (
    HEAD
    + """schema:
  - name: t
    properties:
      - {name: id, logicalType: integer, unique: true}
      - {name: a, logicalType: integer, logicalTypeOptions: {minimum: 0}}
      - {name: b, logicalType: integer, logicalTypeOptions: {minimum: 0}}
      - name: c
        quality: [{metric: nullValues, unit: percent, mustBeLessThan: 5}]
    quality:
      - {id: rows, metric: rowCount, mustBe: 100000}
      - {id: sum, type: sql, query: "select count(*) from t where b < 0", mustBe: 0}
"""
)


def frame(broken=0.02, nulls=0.01):
    draw = np.random.default_rng(3)
    return pl.DataFrame(
        {
            "id": np.arange(N),
            "a": np.where(draw.random(N) < broken, -1, 1),
            "b": np.ones(N, int),
            "c": pl.Series(np.where(draw.random(N) < nulls, np.nan, 1.0)).fill_nan(None),
        }
    )


def results(rows, **draw):
    contract = parse_contract(TEXT.encode(), file="c.yaml")
    found = scan(
        checks_of(contract, "t"), rows.lazy(), references={}, unreadable={}, key=(), now=NOW,
        masks=Masks(classes={}), name="t", sql=DuckDb(), draw=Draw(seed=5, **draw),
    )  # fmt: skip
    return {one.check.removeprefix("data."): one for one in found}


@pytest.fixture(scope="module")
def sampled():
    return results(frame(), pct=10.0)


def test_a_violation_that_was_seen_is_one(sampled):
    found = sampled["a.range"]
    assert found.verdict is Verdict.FAIL and found.unit == "%"
    assert found.low < 2.0 < found.high and found.low < found.value < found.high
    assert found.details["sampled"]["of"] == N and found.n == found.details["sampled"]["rows"]
    assert "sampled rows break it" in found.reason
    rows = [row["row"] for row in found.details["sample"]]
    assert rows == sorted(rows) and all(frame()["a"][row - 1] == -1 for row in rows)


def test_a_sample_without_one_proves_not_that_there_are_none(sampled):
    found = sampled["b.range"]
    assert found.verdict is Verdict.INCONCLUSIVE and found.value == 0
    assert found.high == pytest.approx(100 * clopper_pearson(0, found.n, tail=0.05).high)


def test_a_tolerance_is_decided_by_the_upper_bound(sampled):
    assert sampled["c.nullValues"].verdict is Verdict.PASS
    assert results(frame(nulls=0.08), pct=10.0)["c.nullValues"].verdict is Verdict.FAIL
    close = results(frame(nulls=0.05), pct=1.0)["c.nullValues"]
    assert close.verdict is Verdict.INCONCLUSIVE and close.low < 5 < close.high


def test_what_is_about_the_whole_is_judged_on_the_whole_or_not_at_all(sampled):
    assert sampled["rows"].verdict is Verdict.PASS and sampled["rows"].value == N
    assert sampled["sum"].verdict is Verdict.PASS
    assert sampled["id.unique"].verdict is Verdict.SKIPPED
    assert "all rows" in sampled["id.unique"].reason


def test_a_tolerance_for_promises_that_allow_none():
    found = results(frame(broken=0.001), pct=10.0, tolerance_pct=0.5)
    assert found["a.range"].verdict is Verdict.PASS and found["a.range"].limit == 0.5
    assert found["b.range"].verdict is Verdict.PASS
    few = results(frame(broken=0.0), pct=0.1, tolerance_pct=0.5)["b.range"]
    assert few.verdict is Verdict.INCONCLUSIVE and few.n < few.n_needed == 598


def test_the_bounds_cover_the_truth():
    """One-sided 95 % each: over 200 samples at most 5 % lie outside, up to chance."""
    rows = frame(broken=0.03).select("a").lazy()
    true = 100 * (frame(broken=0.03)["a"] < 0).mean()
    text = f"{HEAD}schema:\n  - name: t\n    properties: [{{name: a, logicalTypeOptions: {{minimum: 0}}}}]\n"
    checks = [
        c for c in checks_of(parse_contract(text.encode(), file="c.yaml"), "t") if c.kind == "range"
    ]
    below = above = 0
    for seed in range(200):
        (found,) = scan(
            checks, rows, references={}, unreadable={}, key=(), now=NOW, masks=Masks(classes={}),
            draw=Draw(pct=1.0, seed=seed * 0x1234567),
        )  # fmt: skip
        below, above = below + (true < found.low), above + (true > found.high)
    assert below <= 20 and above <= 20


DECISIONS = {  # operator, low, high, limit -> verdict
    "below": ("<", 0.0, 4.0, (5.0,), Verdict.PASS),
    "around": ("<", 4.0, 6.0, (5.0,), Verdict.INCONCLUSIVE),
    "above": ("<", 6.0, 7.0, (5.0,), Verdict.FAIL),
    "at least": (">=", 5.0, 6.0, (5.0,), Verdict.PASS),
    "equal and known": ("=", 0.0, 0.0, (0.0,), Verdict.PASS),
    "equal, not known": ("=", 0.0, 1.0, (0.0,), Verdict.INCONCLUSIVE),
    "not equal": ("=", 0.1, 1.0, (0.0,), Verdict.FAIL),
    "another": ("!=", 0.1, 1.0, (0.0,), Verdict.PASS),
    "perhaps another": ("!=", 0.0, 1.0, (0.0,), Verdict.INCONCLUSIVE),
    "inside": ("between", 2.0, 3.0, (1.0, 4.0), Verdict.PASS),
    "over the edge": ("between", 2.0, 5.0, (1.0, 4.0), Verdict.INCONCLUSIVE),
    "outside": ("between", 5.0, 6.0, (1.0, 4.0), Verdict.FAIL),
    "outside as asked": ("not between", 5.0, 6.0, (1.0, 4.0), Verdict.PASS),
    "inside against it": ("not between", 2.0, 3.0, (1.0, 4.0), Verdict.FAIL),
}


@pytest.mark.parametrize(
    ("operator", "low", "high", "limit", "verdict"), DECISIONS.values(), ids=DECISIONS
)
def test_what_is_decided(operator, low, high, limit, verdict):
    assert decided(operator, low, high, limit) is verdict


def dataset(tmp_path, **more):
    frame().write_parquet(tmp_path / "t.parquet")
    contract = parse_contract(TEXT.encode(), file="c.yaml")
    return open_dataset("t", "t.parquet", root=tmp_path, contract=contract, **more)


def test_the_report_says_that_it_is_a_sample(tmp_path):
    made = dataset(tmp_path, sample_pct=10.0)
    one, two = validate(made), validate(made)
    assert one.sample_pct == 10.0 and one.results == two.results
    page = report_page([one])
    assert "on a sample of 10 %" in page and "sample of 1" in page
    whole = validate(made, sample_pct=100.0)
    assert whole.sample_pct is None and "sample of" not in report_page([whole])
    assert {one.check: one.verdict for one in whole.results}["data.b.range"] is Verdict.PASS


def test_other_rows_are_another_sample(tmp_path):
    first = {one.check: one.n for one in validate(dataset(tmp_path, sample_pct=10.0)).results}
    frame(broken=0.5).write_parquet(tmp_path / "t.parquet")
    contract = parse_contract(TEXT.encode(), file="c.yaml")
    made = open_dataset("t", "t.parquet", root=tmp_path, contract=contract, sample_pct=10.0)
    second = {one.check: one.n for one in validate(made).results}
    assert first["data.a.range"] != second["data.a.range"]


def test_no_sample_of_a_quarantine(tmp_path):
    with pytest.raises(FalajError) as caught:
        validate(dataset(tmp_path, quarantine_pct=5.0), sample_pct=10.0)
    assert caught.value.code == "data.sample-of-quarantine"


def test_an_empty_sample_measures_nothing():
    found = results(frame().head(3), pct=0.0001)
    assert found["a.range"].verdict is Verdict.INCONCLUSIVE
    assert "the sample has no rows" in found["a.range"].reason
