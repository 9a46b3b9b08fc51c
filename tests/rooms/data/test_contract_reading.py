"""Reading contracts: what is understood, and how each mistake is placed."""

from __future__ import annotations

import pytest

from falaj.base.errors import FalajError
from falaj.data.odcs import parse_contract
from falaj.facts.data import Classification

HEAD = "apiVersion: v3.1.0\nkind: DataContract\nid: c\nname: c\nversion: 1.0.0\nstatus: active\n"


def read(text, head=HEAD):
    return parse_contract((head + text).encode(), file="contracts/c.odcs.yaml")


def table(properties="", rest=""):
    return f"schema:\n  - name: t\n    properties:\n{properties}{rest}"


def test_a_contract_is_understood():
    contract = read(
        table(
            "      - name: id\n        logicalType: integer\n        primaryKey: true\n"
            "        primaryKeyPosition: 2\n        logicalTypeOptions: {minimum: 1, format: i32}\n"
            "      - name: zone\n        logicalType: string\n        primaryKey: true\n"
            "        classification: PII\n        logicalTypeOptions: {pattern: '^[A-Z]+$'}\n"
            "        relationships: [{to: zones.code}]\n"
            "        quality:\n          - {metric: nullValues, mustBeLessThan: 5, unit: percent}\n",
            "    quality:\n      - {metric: rowCount, mustBeBetween: [10, 20], severity: warning}\n",
        )
    )
    t = contract.table("anything")
    assert t.key == ("zone", "id")
    assert t.properties[0].options.minimum == 1 and t.properties[0].options.format == "i32"
    assert t.properties[1].classification is Classification.PERSONAL
    assert t.references[0].dataset == "zones" and t.references[0].to == ("code",)
    assert t.quality[0].operator == "<" and t.quality[0].unit == "percent"
    assert t.quality[1].limit == (10.0, 20.0) and t.quality[1].severity == "warning"
    assert (
        t.properties[1].place.line == 15 and t.properties[1].place.file == "contracts/c.odcs.yaml"
    )


NUMBER = "      - {name: a, logicalType: %s, logicalTypeOptions: {%s}}\n"
MISTAKES = {  # text, code, line, words of message or fix
    "unknown key at the top": ("schemas: []\n" + table("      - {name: a}\n"),
                               "contract-unknown-key", 7, "'schema'"),
    "unknown key of a property": (table("      - {name: a, logicaltype: integer}\n"),
                                  "contract-unknown-key", 10, "'logicalType'"),
    "unknown option": (table(NUMBER % ("integer", "min: 1")),
                       "contract-unknown-key", 10, "min"),
    "unknown type": (table("      - {name: a, logicalType: int}\n"),
                     "contract-value", 10, "'int'"),
    "a word for a flag": (table("      - {name: a, required: maybe}\n"),
                          "contract-value", 10, "true or false"),
    "a flag for a number": (table(NUMBER % ("integer", "minLength: true")),
                            "contract-value", 10, "whole number"),
    "look-around": (table(NUMBER % ("string", "pattern: '(?<=a)b'")),
                    "contract-pattern", 10, "look-around"),
    "back-reference": (table(NUMBER % ("string", "pattern: '(a)\\1'")),
                       "contract-pattern", 10, "back-references"),
    "multiple of nothing": (table(NUMBER % ("number", "multipleOf: 0")),
                            "contract-value", 10, "above 0"),
    "unknown class": (table("      - {name: a, classification: secret-ish}\n"),
                      "contract-value", 10, "secret-ish"),
    "unknown metric": (table("      - {name: a, quality: [{metric: nullValue}]}\n"),
                       "contract-value", 10, "nullValues"),
    "unknown severity": (table("      - {name: a, quality: [{metric: nullValues, severity: low}]}\n"),
                         "contract-value", 10, "warning"),
    "two operators": (table("      - {name: a, quality: [{metric: nullValues, mustBe: 0, mustNotBe: 1}]}\n"),
                      "contract-value", 10, "expected one"),
    "a limit in words": (table("      - {name: a, quality: [{metric: nullValues, mustBe: few}]}\n"),
                         "contract-value", 10, "a number"),
    "one limit for two": (table("      - {name: a, quality: [{metric: nullValues, mustBeBetween: [1]}]}\n"),
                          "contract-value", 10, "two numbers"),
    "an expression that is none": (
        table("      - {name: a}\n", "    quality:\n      - {type: custom, engine: falaj, implementation: 'a ='}\n"),
        "contract-expression", 12, "no condition"),
    "a sub-select": (
        table("      - {name: a}\n", "    quality:\n      - {type: custom, engine: falaj, implementation: 'a in (select 1)'}\n"),
        "contract-expression", 12, "no condition"),
    "a sub-select of a file": (
        table("      - {name: a}\n", "    quality:\n      - {type: custom, engine: falaj, implementation: \"a in (SELECT x FROM read_csv('/etc/passwd'))\"}\n"),
        "contract-expression", 12, "not allowed"),
    "reading a file": (
        table("      - {name: a}\n", "    quality:\n      - {type: custom, engine: falaj, implementation: \"read_csv('/etc/passwd')\"}\n"),
        "contract-expression", 12, "no condition"),
    "a column twice": (table("      - {name: a}\n      - {name: a}\n"),
                       "contract-value", 11, "twice"),
    "a key twice": (table("      - {name: a, required: true, required: false}\n"),
                    "contract-value", 10, "twice"),
    "a column without a name": (table("      - {required: true}\n"), "contract-value", 10, "no name"),
    "a reference to nowhere": (table("      - {name: a, relationships: [{to: code}]}\n"),
                               "contract-value", 10, "dataset.column"),
    "no schema": ("description: {}\n", "contract-value", 1, "schema"),
    "a list for a mapping": ("schema: [3]\n", "contract-value", 7, "mapping"),
    "a mapping for a list": ("schema: {name: t}\n", "contract-value", 7, "list"),
    "an alias": ("tags: &x [a]\n" + table("      - {name: a, tags: *x}\n"), "contract-alias", 11, "aliases"),
    "not YAML": ("schema: [\n", "contract-yaml", 8, "YAML"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "code", "line", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_placed(text, code, line, words):
    with pytest.raises(FalajError) as caught:
        read(text)
    problem = caught.value.problems[0]
    assert problem.code == f"data.{code}"
    assert (problem.place.file, problem.place.line) == ("contracts/c.odcs.yaml", line)
    assert words in f"{problem.message} {problem.fix} {problem.why}"


def test_every_mistake_is_told_at_once():
    with pytest.raises(FalajError) as caught:
        read(table("      - {name: a, logicalType: int}\n      - {name: b, requird: true}\n"))
    assert [p.place.line for p in caught.value.problems] == [10, 11]


VERSIONS = {"v3.0.2": True, "v3.1.0": True, "v3.2.0": True, "v2.2.2": False, "v4.0.0": False}


@pytest.mark.parametrize(("version", "good"), VERSIONS.items(), ids=VERSIONS)
def test_versions(version, good):
    text = HEAD.replace("v3.1.0", version)
    if good:
        assert read(table("      - {name: a}\n"), text).api_version == version
    else:
        with pytest.raises(FalajError, match="apiVersion") as caught:
            read(table("      - {name: a}\n"), text)
        assert caught.value.code == "data.contract-version"


def test_older_and_newer_fields_are_read_and_what_is_not_checked_is_listed():
    contract = read(
        table(
            "      - {name: a, enum: [x, y], quality: [{rule: nullValues}]}\n"
            "      - {name: b, map: {}, logicalType: number, logicalTypeOptions: {format: i32}}\n"
        )
    )
    t = contract.table("t")
    assert t.quality[0].metric == "nullValues"
    assert t.properties[0].allowed == ("x", "y")
    assert t.properties[1].options.format == "", "the schema's default for numbers means nothing"
    assert any("metric" in note for note in contract.notes)
    assert any("map" in note for note in contract.notes)


def test_too_large():
    with pytest.raises(FalajError, match="at most") as caught:
        read("description: {usage: '" + "x" * 1024 * 1024 + "'}\n")
    assert caught.value.code == "data.contract-too-large"


def test_the_table_of_a_dataset():
    two = (
        "schema:\n  - {name: a, properties: [{name: x}]}\n  - {name: b, properties: [{name: y}]}\n"
    )
    assert read(two).table("b").properties[0].name == "y"
    with pytest.raises(FalajError) as caught:
        read(two).table("c")
    assert caught.value.code == "data.contract-no-table"
