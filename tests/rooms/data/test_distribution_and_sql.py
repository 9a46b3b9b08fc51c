"""Distributions against quantiles and frozen edges; SQL rules; what a contract may not ask."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from falaj.base.errors import FalajError
from falaj.data.checks import checks_of
from falaj.data.odcs import parse_contract, read_contract
from falaj.data.scan import Masks, scan
from falaj.facts.checks import Verdict
from falaj.facts.data import Classification
from falaj.links.duckdb.engine import DuckDb
from falaj.stats.drift import fit_edges
from falaj.stats.summaries import encode

HEAD = "apiVersion: v3.1.0\nkind: DataContract\nid: c\nname: c\nversion: 1.0.0\nstatus: active\n"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
DRAW = np.random.default_rng(5)
REFERENCE = DRAW.normal(size=5000)


def said(implementation, more=""):
    return (
        f"{HEAD}schema:\n  - name: t\n    properties:\n      - name: a{more}\n        quality:\n"
        f"          - {{type: custom, engine: falaj, implementation: {implementation}}}\n"
    )


def result(contract, frame, name="a.distribution", **more):
    given = {
        "references": {}, "unreadable": {}, "masks": Masks(classes={}), "key": (), "now": NOW,
        "name": "t",
    } | more  # fmt: skip
    found = scan(checks_of(contract, "t"), frame.lazy(), **given)
    return {one.check.removeprefix("data."): one for one in found}[name]


QUANTILES = "{metric: distribution, quantiles: {0.5: [-1, 1], 1: [null, 6]}}"
FRAMES = {  # values -> verdict, words
    "inside": ([-2.0, 0.0, 5.0], Verdict.PASS, "as promised"),
    "the median moved": ([2.0, 3.0, 4.0], Verdict.FAIL, "quantile 0.5 is 3"),
    "the largest": ([0.0, 0.0, 9.0], Verdict.FAIL, "quantile 1 is 9"),
    "nulls and NaN do not count": ([None, float("nan"), 0.0], Verdict.PASS, "as promised"),
    "nothing but nulls": ([None, None], Verdict.INCONCLUSIVE, "no value"),
    "no rows": ([], Verdict.INCONCLUSIVE, "no rows"),
}


@pytest.mark.parametrize(("values", "verdict", "words"), FRAMES.values(), ids=FRAMES)
def test_quantiles(values, verdict, words):
    contract = parse_contract(said(QUANTILES).encode(), file="c.yaml")
    found = result(contract, pl.DataFrame({"a": pl.Series(values, dtype=pl.Float64)}))
    assert found.verdict is verdict and words in found.reason


def test_a_quantile_of_a_personal_column_is_not_shown():
    text = said(QUANTILES, "\n        classification: personal")
    contract = parse_contract(text.encode(), file="c.yaml")
    masks = Masks(classes={"a": Classification.PERSONAL}, key=b"k")
    found = result(contract, pl.DataFrame({"a": [471100.0, 471100.0]}), masks=masks)
    assert found.verdict is Verdict.FAIL and "4711" not in str(found)


def test_a_column_without_numbers_has_no_distribution():
    contract = parse_contract(said(QUANTILES).encode(), file="c.yaml")
    assert result(contract, pl.DataFrame({"a": ["x"]})).verdict is Verdict.ERROR
    assert result(contract, pl.DataFrame({"b": ["x"]})).verdict is Verdict.SKIPPED


@pytest.fixture
def with_reference(tmp_path):
    (tmp_path / "a.edges.json").write_bytes(encode(fit_edges(REFERENCE, "a")))
    file = tmp_path / "c.odcs.yaml"
    file.write_text(said("{metric: distribution, reference: a.edges.json, psi: 0.1}"))
    return file


MOVES = {  # how the window moved -> verdict
    "not at all": (lambda x: x, Verdict.PASS),
    "another sample of the same law": (lambda _: DRAW.normal(size=5000), Verdict.PASS),
    "half a deviation": (lambda x: x + 0.5, Verdict.FAIL),
    "wider": (lambda x: x * 2, Verdict.FAIL),
    "a third is gone": (lambda x: np.where(np.arange(len(x)) % 3, x, np.nan), Verdict.FAIL),
}


@pytest.mark.parametrize(("move", "verdict"), MOVES.values(), ids=MOVES)
def test_distance_from_a_reference(with_reference, move, verdict):
    contract = read_contract(with_reference)
    found = result(contract, pl.DataFrame({"a": move(REFERENCE)}))
    assert found.verdict is verdict, found.reason
    assert "PSI" in found.reason and found.value is not None


def test_another_reference_is_another_contract(with_reference):
    before = read_contract(with_reference).digest
    with_reference.with_name("a.edges.json").write_bytes(encode(fit_edges(REFERENCE + 1, "a")))
    assert read_contract(with_reference).digest != before


BAD = {  # implementation -> words of the problem
    "{metric: distribution, reference: none.json}": "none.json",
    "{metric: distribution, reference: ../a.edges.json}": "cannot be used",
    "{metric: distribution, reference: /etc/passwd}": "cannot be used",
    "{metric: distribution, reference: other.json}": "cannot be used",
    "{metric: distribution}": "expected a reference file or quantiles",
    "{metric: distribution, quantiles: {2: [0, 1]}}": "expected a share and two bounds",
    "{metric: distribution, quantiles: {0.5: 1}}": "expected a share and two bounds",
    "{metric: distribution, quantiles: [1]}": "expected a share and two bounds",
    "{metric: distributoin, quantiles: {0.5: [0, 1]}}": "did you mean 'distribution'",
    "{metric: distribution, quantile: {0.5: [0, 1]}}": "did you mean 'quantiles'",
}


@pytest.mark.parametrize(("words", "told"), BAD.items(), ids=BAD)
def test_what_cannot_be_promised_is_refused_when_it_is_read(with_reference, words, told):
    other = with_reference.with_name("other.json")
    other.write_bytes(encode(fit_edges(REFERENCE, "b")))
    with_reference.write_text(said(words))
    with pytest.raises(FalajError) as caught:
        read_contract(with_reference)
    problem = caught.value.problems[0]
    assert told in problem.message + problem.fix
    assert problem.place.line == 12


def test_a_rule_about_a_column_stands_at_a_column():
    text = f"{HEAD}schema:\n  - name: t\n    quality: [{{metric: nullValues}}]\n"
    with pytest.raises(FalajError, match="stands at the table"):
        parse_contract(text.encode(), file="c.yaml")


def test_allowed_values_with_a_pattern_ask_for_both():
    text = (
        f"{HEAD}schema:\n  - name: t\n    properties:\n      - name: a\n        quality:\n"
        "          - {metric: invalidValues, arguments: {validValues: [ab, b], pattern: '^a'}}\n"
    )
    contract = parse_contract(text.encode(), file="c.yaml")
    found = result(contract, pl.DataFrame({"a": ["ab", "b", "ac"]}), "a.invalidValues")
    assert found.value == 2


def sql(query, rest="mustBe: 0"):
    words = query.replace("'", "''")
    text = (
        f"{HEAD}schema:\n  - name: t\n    properties: [{{name: a}}]\n    quality:\n"
        f"      - {{id: q, type: sql, query: '{words}', {rest}}}\n"
    )
    return parse_contract(text.encode(), file="c.yaml")


QUERIES = {  # query, operator -> verdict
    ("select count(*) from t where a < 0", "mustBe: 0"): Verdict.PASS,
    ("select count(*) from t where a > 1", "mustBe: 0"): Verdict.FAIL,
    ("with b as (select max(a) as m from t) select m from b", "mustBeBetween: [2, 3]"): Verdict.PASS,
    ("select avg(t.a) from t join o using (a)", "mustBeGreaterThan: 1"): Verdict.PASS,
    ("select count(*) from nonesuch", "mustBe: 0"): Verdict.ERROR,
    ("select a from t", "mustBe: 0"): Verdict.ERROR,
    ("select null", "mustBe: 0"): Verdict.ERROR,
    ("select 'x'", "mustBe: 0"): Verdict.ERROR,
    ("this is not sql", "mustBe: 0"): Verdict.ERROR,
}  # fmt: skip


@pytest.mark.parametrize("case", QUERIES, ids=[query for query, _ in QUERIES])
def test_sql_rules(case):
    frame = pl.DataFrame({"a": [1, 2, 3]})
    references = {"o": pl.LazyFrame({"a": [2, 3]})}
    found = result(sql(*case), frame, "q", sql=DuckDb(), references=references)
    assert found.verdict is QUERIES[case], found.reason


HOSTILE = (
    "select count(*) from read_csv('/etc/passwd')",
    "select count(*) from '/etc/passwd'",
    "select count(*) from read_text('/etc/hostname')",
    "select count(*) from glob('/*')",
    "copy t to '/tmp/stolen.csv'",
    "attach '/tmp/x.db' as x",
    "install httpfs",
    "select 1; select 2",
    "set enable_external_access = true",
    "drop table t",
    "create table u as select * from t",
    "insert into t values (1)",
    "pragma database_list",
)


@pytest.mark.parametrize("query", HOSTILE)
def test_a_query_reaches_nothing_but_the_tables(query):
    found = result(sql(query), pl.DataFrame({"a": [1]}), "q", sql=DuckDb())
    assert found.verdict is Verdict.ERROR, found.reason


def test_an_engine_that_quotes_a_value_is_not_quoted():
    frame = pl.DataFrame({"a": ["Fatima-4711"]})
    found = result(sql("select sum(cast(a as int)) from t"), frame, "q", sql=DuckDb())
    assert found.verdict is Verdict.ERROR and "Fatima" not in str(found)


def test_without_the_engine_a_rule_is_skipped_and_no_pass():
    found = result(sql("select 0"), pl.DataFrame({"a": [1]}), "q")
    assert found.verdict is Verdict.SKIPPED and "falaj[duckdb]" in found.reason


COUNTS = {  # condition that breaks it -> contract's property
    "a < 3 or a > 7 or isnan(a)": "logicalTypeOptions: {minimum: 3, maximum: 7}",
    "a is null": "required: true",
    "a is not null and a not in (1, 5)": "enum: [1, 5]",
    "a % 2 != 0 or isnan(a)": "logicalTypeOptions: {multipleOf: 2}",
}


@pytest.mark.parametrize(("condition", "promise"), COUNTS.items(), ids=COUNTS.values())
def test_duckdb_counts_the_same(condition, promise):
    draw = np.random.default_rng(1)
    values = draw.integers(0, 10, size=2000).astype(float).tolist()
    values = [
        None if i % 17 == 0 else float("nan") if i % 29 == 0 else v for i, v in enumerate(values)
    ]
    frame = pl.DataFrame({"a": values}, strict=False)
    text = f"{HEAD}schema:\n  - name: t\n    properties: [{{name: a, {promise}}}]\n"
    contract = parse_contract(text.encode(), file="c.yaml")
    checks = [c.id for c in checks_of(contract, "t") if c.kind not in {"present", "type"}]
    ours = result(contract, frame, checks[0]).value
    query = f"select count(*) from t where {condition}"
    (theirs,) = DuckDb().numbers([query], {"t": frame.lazy()})
    assert ours == theirs > 0
