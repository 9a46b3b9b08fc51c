"""Each kind of check on good, bad, null, NaN, empty, absent and wrongly typed columns."""

# ruff: noqa: DTZ001 times without a zone are what is tested
from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest

from falaj.data.checks import checks_of, holds
from falaj.data.odcs import parse_contract
from falaj.data.scan import Masks, scan
from falaj.facts.checks import Verdict
from falaj.facts.data import Classification

HEAD = "apiVersion: v3.1.0\nkind: DataContract\nid: c\nname: c\nversion: 1.0.0\nstatus: active\n"
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def results(text, frame, **more):
    contract = parse_contract((HEAD + text).encode(), file="c.yaml")
    given = {
        "references": {}, "unreadable": {}, "masks": Masks(classes={}),
        "key": contract.tables[0].key, "now": NOW,
    } | more  # fmt: skip
    found = scan(checks_of(contract, "t"), frame.lazy(), **given)
    return {result.check.removeprefix("data."): result for result in found}


def column(said, rest=""):
    return f"schema:\n  - name: t\n    properties:\n      - {{name: a, {said}}}\n{rest}"


def option(words, kind="integer"):
    return column(f"logicalType: {kind}, logicalTypeOptions: {{{words}}}")


def quality(words, where=""):
    inner = f"quality: [{{{words}}}]"
    return column(inner) if not where else column("tags: []", f"    {inner}\n")


def ints(*cells):
    return pl.DataFrame({"a": pl.Series(cells, dtype=pl.Int64)})


def floats(*cells):
    return pl.DataFrame({"a": pl.Series(cells, dtype=pl.Float64)})


def texts(*cells):
    return pl.DataFrame({"a": pl.Series(cells, dtype=pl.String)})


NAN = float("nan")
# kind -> id, contract, [(frame, violations)]
CASES = {
    "required": ("a.required", column("required: true"), [
        (ints(1, 2), 0), (ints(1, None), 1), (floats(NAN, 1.0), 0)]),
    "null limit": ("a.nullValues", quality("metric: nullValues"), [
        (ints(1), 0), (ints(None, None, 1), 2)]),
    "missing": ("a.missingValues",
        quality("metric: missingValues, arguments: {missingValues: ['', N/A]}"), [
        (texts("x"), 0), (texts("", "N/A", "n/a", None), 2)]),
    "missing with null": ("a.missingValues",
        quality("metric: missingValues, arguments: {missingValues: ['', null]}"), [
        (texts("x"), 0), (texts("", None), 2)]),
    "range": ("a.range", option("minimum: 1, maximum: 12"), [
        (ints(1, 12, None), 0), (ints(0, 13, 5), 2)]),
    "range of floats": ("a.range", option("minimum: 0, maximum: 1", "number"), [
        (floats(0.0, 1.0, None), 0), (floats(NAN, 2.0, -1.0), 3)]),
    "range without a maximum": ("a.range", option("minimum: 0", "number"), [
        (floats(1e300, None), 0), (floats(NAN), 1)]),
    "exclusive range": ("a.range", option("exclusiveMinimum: 0, exclusiveMaximum: 3"), [
        (ints(1, 2), 0), (ints(0, 3), 2)]),
    "exclusive flags of 3.0": ("a.range", option("minimum: 0, exclusiveMinimum: true"), [
        (ints(1), 0), (ints(0), 1)]),
    "range of dates": ("a.range", option("minimum: 2020-01-01", "date"), [
        (pl.DataFrame({"a": [date(2020, 1, 1), None]}), 0), (pl.DataFrame({"a": [date(2019, 1, 1)]}), 1)]),
    "range of times": ("a.range", option("maximum: '2020-01-01T00:00:00Z'", "timestamp"), [
        (pl.DataFrame({"a": [datetime(2020, 1, 1, tzinfo=UTC)]}), 0),
        (pl.DataFrame({"a": [datetime(2020, 1, 1, 1)]}), 1)]),
    "multiple": ("a.multiple", option("multipleOf: 5"), [
        (ints(0, 5, -10, None), 0), (ints(1, 5), 1)]),
    "multiple of a fraction": ("a.multiple", option("multipleOf: 0.1", "number"), [
        (floats(0.3, 1.1, 0.7, None), 0), (floats(0.35, NAN), 2)]),
    "length": ("a.length", option("minLength: 1, maxLength: 3", "string"), [
        (texts("a", "زور", None), 0), (texts("", "abcd"), 2)]),
    "pattern is a search": ("a.pattern", option("pattern: 'b+'", "string"), [
        (texts("abc", None), 0), (texts("ac", ""), 2)]),
    "pattern of a rule": ("a.invalidValues",
        quality("metric: invalidValues, arguments: {pattern: '^x'}"), [
        (texts("xy", None), 0), (texts("yx"), 1)]),
    "uuid": ("a.format", option("format: uuid", "string"), [
        (texts("123e4567-e89b-12d3-a456-426614174000", None), 0), (texts("123"), 1)]),
    "email": ("a.format", option("format: email", "string"), [
        (texts("a@b.ae"), 0), (texts("a@b", "a b@c.d"), 2)]),
    "ipv4": ("a.format", option("format: ipv4", "string"), [
        (texts("10.0.0.255"), 0), (texts("256.1.1.1", "1.2.3"), 2)]),
    "hostname": ("a.format", option("format: hostname", "string"), [
        (texts("a-b.example.ae", "h"), 0), (texts("-a.b", "a..b"), 2)]),
    "allowed": ("a.invalidValues",
        quality("metric: invalidValues, arguments: {validValues: [JFK, LGA]}"), [
        (texts("JFK", None), 0), (texts("jfk", "EWR", "LGA"), 2)]),
    "allowed numbers": ("a.allowed", column("enum: [1, 2]"), [
        (ints(1, 2, None), 0), (ints(3), 1)]),
    "allowed floats": ("a.allowed", column("enum: [1, 2.5]"), [
        (floats(1.0, 2.5, None), 0), (floats(3.0, NAN), 2)]),
    "allowed days": ("a.allowed", column("enum: [2020-01-01, 'no day']"), [
        (pl.DataFrame({"a": [date(2020, 1, 1), None]}), 0), (pl.DataFrame({"a": [date(2019, 1, 1)]}), 1)]),
    "allowed booleans": ("a.allowed", column("enum: [true]"), [
        (pl.DataFrame({"a": [True, None]}), 0), (pl.DataFrame({"a": [False]}), 1)]),
    "unique": ("a.unique", column("unique: true"), [
        (ints(1, 2, None, None), 0), (ints(1, 1, 1, 2, 2), 3)]),
    "key": ("a.key", column("primaryKey: true"), [
        (ints(1, 2), 0), (ints(1, 1, None), 2)]),
    "duplicates": ("table.duplicateValues",
        quality("metric: duplicateValues, arguments: {properties: [a]}", "table"), [
        (ints(1, 2), 0), (ints(1, 1), 1)]),
    "cross-column": ("table.falaj",
        quality("type: custom, engine: falaj, implementation: 'a * 2 = 4'", "table"), [
        (ints(2, None), 0), (ints(2, 3), 1)]),
    "items": ("a.items", option("minItems: 1, maxItems: 2, uniqueItems: true", "array"), [
        (pl.DataFrame({"a": [[1], [1, 2], None]}), 0),
        (pl.DataFrame({"a": [[], [1, 2, 3], [1, 1]]}, schema={"a": pl.List(pl.Int64)}), 3)]),
}  # fmt: skip


@pytest.mark.parametrize(("name", "text", "pairs"), CASES.values(), ids=CASES)
def test_counts_what_breaks_it(name, text, pairs):
    for frame, violations in pairs:
        result = results(text, frame)[name]
        assert result.value == violations, result.reason
        assert result.verdict is (Verdict.FAIL if violations else Verdict.PASS)
        assert result.gate == "data" and result.n == frame.height
        if violations:
            sample = result.details["sample"]
            assert len(sample) == violations and sample[0]["row"] >= 1


@pytest.mark.parametrize(("name", "text", "pairs"), CASES.values(), ids=CASES)
def test_no_rows_is_inconclusive_never_a_pass(name, text, pairs):
    result = results(text, pairs[0][0].clear())[name]
    assert result.verdict is Verdict.INCONCLUSIVE and "no rows" in result.reason


@pytest.mark.parametrize(("name", "text", "pairs"), CASES.values(), ids=CASES)
def test_an_absent_column_skips_its_checks(name, text, pairs):
    found = results(text, pl.DataFrame({"other": [1]}))
    assert found[name].verdict is Verdict.SKIPPED and "'a' is absent" in found[name].reason
    present = found["a.present"]
    assert present.verdict is Verdict.FAIL
    assert "c.yaml:10" in present.reason and "'a'" in present.reason and "skipped" in present.reason


def test_samples_name_rows_values_and_keys():
    text = (
        "schema:\n  - name: t\n    properties:\n      - {name: k, primaryKey: true}\n"
        "      - {name: a, logicalTypeOptions: {maximum: 9}}\n"
    )
    frame = pl.DataFrame({"k": range(100, 160), "a": [1, *range(10, 69)]})
    result = results(text, frame)["a.range"]
    assert result.value == 59 and len(result.details["sample"]) == 20
    assert result.details["sample"][0] == {"row": 2, "value": 10, "key": {"k": 101}}
    assert result.details["place"] == {"file": "c.yaml", "line": 11, "column": 9}


TYPES = {  # logical type and options -> types that keep it, types that break it
    "integer": ("", [pl.Int8, pl.Int64, pl.UInt32], [pl.Float64, pl.String, pl.Boolean]),
    "integer i32": ("format: i32", [pl.Int32], [pl.Int64, pl.UInt32]),
    "number": ("", [pl.Float32, pl.Int64], [pl.String, pl.Boolean]),
    "number f32": ("format: f32", [pl.Float32], [pl.Float64]),
    "string": ("", [pl.String, pl.Categorical], [pl.Int64, pl.Binary]),
    "boolean": ("", [pl.Boolean], [pl.Int8]),
    "date": ("", [pl.Date], [pl.Datetime("us"), pl.String]),
    "timestamp": ("", [pl.Datetime("us"), pl.Datetime("ms", "UTC")], [pl.Date]),
    "timestamp with a zone": ("timezone: true", [pl.Datetime("us", "UTC")], [pl.Datetime("us")]),
    "time": ("", [pl.Time], [pl.Duration("us")]),
    "array": ("", [pl.List(pl.Int64), pl.Array(pl.Int64, 2)], [pl.Int64]),
    "object": ("", [pl.Struct({"x": pl.Int64})], [pl.String]),
}


@pytest.mark.parametrize("name", TYPES)
def test_types(name):
    words, good, bad = TYPES[name]
    text = option(words, name.split()[0])
    for kind in [*good, *bad]:
        result = results(text, pl.DataFrame({"a": pl.Series([None], dtype=kind)}))["a.type"]
        assert result.verdict is (Verdict.PASS if kind in good else Verdict.FAIL), kind


def test_a_column_of_another_type_skips_its_other_checks():
    found = results(option("minimum: 1"), texts("x"))
    assert found["a.type"].verdict is Verdict.FAIL
    assert found["a.range"].verdict is Verdict.SKIPPED and "another type" in found["a.range"].reason


def test_a_check_that_cannot_be_made_is_an_error_and_takes_no_other_with_it():
    text = (
        "schema:\n  - name: t\n    properties:\n      - {name: a, logicalTypeOptions: {pattern: x}}\n"
        "      - {name: b, required: true}\n"
        "    quality:\n      - {type: custom, engine: falaj, implementation: 'b > c'}\n"
    )
    found = results(text, pl.DataFrame({"a": [1], "b": ["x"], "c": [2]}))
    assert found["a.pattern"].verdict is Verdict.ERROR
    assert found["table.falaj"].verdict is Verdict.ERROR
    assert found["b.required"].verdict is Verdict.PASS


def test_references():
    text = column("logicalType: string, relationships: [{to: airports.faa}]")
    frame = texts("JFK", "BQN", None, "BQN")
    airports = pl.LazyFrame({"faa": ["JFK", "LGA", "JFK"]})
    result = results(text, frame, references={"airports": airports})["a.reference"]
    assert result.value == 2 and result.verdict is Verdict.FAIL
    assert [row["row"] for row in result.details["sample"]] == [2, 4]
    assert results(text, frame)["a.reference"].verdict is Verdict.SKIPPED
    other = {"airports": pl.LazyFrame({"code": ["x"]})}
    assert results(text, frame, references=other)["a.reference"].verdict is Verdict.ERROR


def test_a_reference_of_two_columns():
    text = (
        "schema:\n  - name: t\n    properties: [{name: a}, {name: b}]\n"
        "    relationships: [{from: [t.a, t.b], to: [o.x, o.y]}]\n"
    )
    frame = pl.DataFrame({"a": [1, 1, None], "b": [1, 2, 9]})
    other = {"o": pl.LazyFrame({"x": [1], "y": [1]})}
    assert results(text, frame, references=other)["a+b.reference"].value == 1


ROWS = {"mustBeGreaterThan: 2": True, "mustBe: 2": False, "mustBeBetween: [1, 3]": True}


@pytest.mark.parametrize(("words", "good"), ROWS.items(), ids=ROWS)
def test_row_count(words, good):
    result = results(quality(f"metric: rowCount, {words}", "table"), ints(1, 2, 3))[
        "table.rowCount"
    ]
    assert result.verdict is (Verdict.PASS if good else Verdict.FAIL) and result.value == 3


def test_an_empty_dataset_has_a_row_count():
    result = results(quality("metric: rowCount, mustBeGreaterThan: 0", "table"), ints())
    assert result["table.rowCount"].verdict is Verdict.FAIL


LIMITS = {
    "rows": ("mustBeLessOrEqualTo: 1", Verdict.PASS),
    "too many": ("mustBeLessThan: 1", Verdict.FAIL),
    "percent": ("mustBeLessThan: 30, unit: percent", Verdict.PASS),
    "percent, too many": ("mustBeLessThan: 25, unit: percent", Verdict.FAIL),
}


@pytest.mark.parametrize(("words", "verdict"), LIMITS.values(), ids=LIMITS)
def test_limits(words, verdict):
    found = results(quality(f"metric: nullValues, {words}"), ints(1, 2, 3, None))
    assert found["a.nullValues"].verdict is verdict


def test_freshness():
    text = (
        column("logicalType: timestamp")
        + "slaProperties:\n  - {property: latency, value: 2, unit: d, element: t.a}\n"
    )
    new, old = datetime(2026, 2, 28), datetime(2026, 2, 20)
    assert results(text, pl.DataFrame({"a": [old, new]}))["a.freshness"].verdict is Verdict.PASS
    assert results(text, pl.DataFrame({"a": [old]}))["a.freshness"].verdict is Verdict.FAIL
    empty = pl.DataFrame({"a": [old]}).clear()
    assert results(text, empty)["a.freshness"].verdict is Verdict.INCONCLUSIVE


def test_what_is_only_told_is_not_counted_in_the_gate():
    told = {
        "warning": "metric: nullValues, severity: warning",
        "words": "type: text, description: looks right",
        "another engine": "type: custom, engine: soda, implementation: x",
    }
    for name, words in told.items():
        result = list(results(quality(words), ints(None)).values())[-1]
        assert result.gate == "data-shown", name
    sql = list(results(quality("type: sql, query: select 1"), ints(1)).values())[-1]
    assert sql.verdict is Verdict.SKIPPED and sql.gate == "data", (
        "a gate does not count it as a pass"
    )


def test_two_rules_of_one_name_are_told_apart():
    text = column("quality: [{metric: nullValues}, {metric: nullValues, mustBeLessThan: 9}]")
    assert {"a.nullValues", "a.nullValues[2]"} <= set(results(text, ints(1)))


CANARY = "Fatima-Al-Canary-784-1985"
PERSONAL = (
    "schema:\n  - name: t\n    properties:\n"
    "      - {name: who, logicalType: string, classification: personal, primaryKey: true,\n"
    "         logicalTypeOptions: {maxLength: 3, pattern: '^x$', format: email}, enum: [z],\n"
    "         relationships: [{to: o.k}]}\n"
    "      - {name: n, logicalTypeOptions: {maximum: 0}}\n"
    "    quality:\n      - {type: custom, engine: falaj, implementation: \"who = 'z'\"}\n"
)


def test_personal_values_stand_in_no_result():
    masks = Masks(classes={"who": Classification.PERSONAL}, key=b"k" * 32)
    frame = pl.DataFrame({"who": [CANARY, CANARY], "n": [1, 2]})
    found = results(PERSONAL, frame, masks=masks, references={"o": pl.LazyFrame({"k": ["z"]})})
    assert sum(r.verdict is Verdict.FAIL for r in found.values()) >= 7
    assert CANARY not in str(found) and "Fatima" not in str(found)
    tokens = {row["key"]["who"] for row in found["n.range"].details["sample"]}
    assert len(tokens) == 1 and next(iter(tokens)).startswith("tok:"), "equal values, equal tokens"


def test_a_message_of_the_engine_shows_no_personal_value():
    text = (
        "schema:\n  - name: t\n    properties:\n      - {name: who, classification: personal}\n"
        "    quality:\n      - {type: custom, engine: falaj, implementation: 'cast(who as int) > 0'}\n"
    )
    frame = pl.DataFrame({"who": [CANARY]})
    masks = Masks(classes={"who": Classification.PERSONAL}, key=b"k")
    result = results(text, frame, masks=masks)["table.falaj"]
    assert result.verdict is Verdict.ERROR and "Fatima" not in str(result)
    open_one = results(text, frame)["table.falaj"]
    assert "Fatima" in open_one.reason, "an open column is told as it is"


def test_masks_by_class():
    shown = {
        kind: Masks(classes={"a": kind}, key=b"k").show("Anna-42", "a") for kind in Classification
    }
    assert shown[Classification.PUBLIC] == shown[Classification.INTERNAL] == "Anna-42"
    assert shown[Classification.CONFIDENTIAL] == "Aaaa-99"
    assert shown[Classification.PERSONAL].startswith("tok:")
    assert shown[Classification.PERSONAL] == shown[Classification.SENSITIVE]
    other = Masks(classes={}, default=Classification.PERSONAL, key=b"other").show("Anna-42", "a")
    assert other != shown[Classification.PERSONAL], "another project's token says nothing here"
    assert Masks(classes={}, default=Classification.PERSONAL).show("Anna-42", "a") == "tok:hidden"
    assert Masks(classes={}, default=Classification.PERSONAL, key=b"k").show(None, "a") is None


OPERATORS = {
    ("=", 1, (1,)): True, ("!=", 1, (1,)): False, (">", 2, (1,)): True, (">=", 1, (1,)): True,
    ("<", 1, (1,)): False, ("<=", 1, (1,)): True, ("between", 3, (1, 3)): True,
    ("between", 4, (1, 3)): False, ("not between", 4, (1, 3)): True,
}  # fmt: skip


@pytest.mark.parametrize("case", OPERATORS)
def test_operators(case):
    assert holds(*case) is OPERATORS[case]
