"""What a plan refuses before anything runs: each finding with its line and a cure."""

from __future__ import annotations

import pytest

from falaj.base.errors import FalajError
from falaj.pipelines.plan import canonical_value, parse_value

HEAD = """
import enum
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl

from falaj import Dataset, Model, pipeline, step

"""

REFUSED = {  # code, line that is named, text after HEAD
    "no return annotation": (
        "annotation-missing", "@step",
        "@step\ndef a():\n    return 1\n\n@pipeline\ndef main():\n    return a()\n",
    ),
    "parameter without a type": (
        "annotation-missing", "@step",
        "@step\ndef a(x) -> int:\n    return 1\n\n@pipeline\ndef main() -> int:\n    return a(1)\n",
    ),
    "a type that is not stored": (
        "type-not-storable", "@step",
        "@step\ndef a() -> object:\n    return 1\n\n@pipeline\ndef main():\n    return a()\n",
    ),
    "a set as the answer": (
        "type-not-storable", "@step",
        "@step\ndef a() -> set[int]:\n    ...\n\n@pipeline\ndef main():\n    return a()\n",
    ),
    "an unstorable field": (
        "type-not-storable", "@step",
        ("class P(NamedTuple):\n    x: pl.DataFrame\n    y: set[int]\n\n"
        "@step\ndef a() -> P: ...\n\n@pipeline\ndef main():\n    a()\n"),
    ),
    "a dict with number keys": (
        "type-not-storable", "@step",
        "@step\ndef a() -> dict[int, int]:\n    ...\n\n@pipeline\ndef main():\n    a()\n",
    ),
    "a generator": (
        "not-a-plain-function", "@step",
        "@step\ndef a() -> list[int]:\n    yield 1\n\n@pipeline\ndef main():\n    return a()\n",
    ),
    "a coroutine": (
        "not-a-plain-function", "@step",
        "@step\nasync def a() -> int:\n    return 1\n\n@pipeline\ndef main():\n    return a()\n",
    ),
    "an argument of another type": (
        "type-mismatch", "b(a())",
        ("@step\ndef a() -> int:\n    return 1\n@step\ndef b(x: str) -> int:\n    return 1\n"
        "@pipeline\ndef main() -> int:\n    return b(a())\n"),
    ),
    "an integer where a float is asked": (
        "type-mismatch", "b(a())",
        ("@step\ndef a() -> int:\n    return 1\n@step\ndef b(x: float) -> int:\n    return 1\n"
        "@pipeline\ndef main() -> int:\n    return b(a())\n"),
    ),
    "an answer of another type": (
        "type-mismatch", "@pipeline",
        "@step\ndef a() -> int:\n    return 1\n@pipeline\ndef main() -> str:\n    return a()\n",
    ),
    "a dataset that is not declared": (
        "no-such-dataset", "@step",
        "@step\ndef a(*, flight: Dataset) -> int:\n    return 1\n@pipeline\ndef main():\n    a()\n",
    ),
    "a dataset that is passed": (
        "dataset-passed", "a(1)",
        "@step\ndef a(flights: Dataset) -> int:\n    return 1\n@pipeline\ndef main():\n    a(1)\n",
    ),
    "a path as a parameter": (
        "parameter-type", "a(Path",
        "@step\ndef a(x: Path) -> int:\n    return 1\n@pipeline\ndef main():\n    a(Path('x'))\n",
    ),
    "NaN as a parameter": (
        "parameter-type", "a(float",
        "@step\ndef a(x: float) -> int:\n    return 1\n@pipeline\ndef main():\n    a(float('nan'))\n",
    ),
    "a default of another type": (
        "parameter-type", "@step",
        "@step\ndef a(x: int = 'one') -> int:\n    return 1\n@pipeline\ndef main():\n    a()\n",
    ),
    "a default of no parameter type": (
        "parameter-type", "@step",
        "@step\ndef a(x: Any = object()) -> int:\n    return 1\n@pipeline\ndef main():\n    a()\n",
    ),
    "a missing argument": (
        "argument-missing", "a()",
        "@step\ndef a(x: int) -> int:\n    return 1\n@pipeline\ndef main():\n    a()\n",
    ),
    "an argument too many": (
        "bad-call", "a(1, 2)",
        "@step\ndef a(x: int) -> int:\n    return 1\n@pipeline\ndef main():\n    a(1, 2)\n",
    ),
    "an open signature": (
        "open-signature", "@step",
        "@step\ndef a(*xs: int) -> int:\n    return 1\n@pipeline\ndef main():\n    a(1)\n",
    ),
    "two steps of one name": (
        "name-twice", "@step(name='a')",
        ("@step\ndef a() -> int:\n    return 1\n@step(name='a')\ndef b() -> int:\n    return 1\n"
        "@pipeline\ndef main():\n    a()\n    b()\n"),
    ),
    "a list of answers and values": (
        "mixed-list", "b([a(), 2])",
        ("@step\ndef a() -> int:\n    return 1\n@step\ndef b(x: list[int]) -> int:\n    return 1\n"
        "@pipeline\ndef main():\n    b([a(), 2])\n"),
    ),
    "a pipeline that returns a number": (
        "result-not-a-step", "@pipeline",
        "@pipeline\ndef main() -> int:\n    return 1\n",
    ),
    "a pipeline that returns several": (
        "result-not-a-step", "@pipeline",
        ("class P(NamedTuple):\n    x: int\n    y: int\n@step\ndef a() -> P: ...\n"
        "@pipeline\ndef main() -> P:\n    return a()\n"),
    ),
    "a pipeline that calls itself": (
        "recursion", "@pipeline",
        "@pipeline\ndef main() -> int:\n    return main()\n",
    ),
    "a pipeline that raises": (
        "plan-failed", "1 / 0",
        "@pipeline\ndef main() -> int:\n    return 1 / 0\n",
    ),
    "a module that raises": ("import-failed", "1 / 0", "x = 1 / 0\n"),
    "a module that is not Python": ("syntax", "def :", "def :\n"),
    "no such function": ("no-such-pipeline", "", "def other(): ...\n"),
    "a function that is no pipeline": ("no-such-pipeline", "", "def main(): ...\n"),
    "an annotation that cannot be read": (
        "annotation-unreadable", "@step",
        "@step\ndef a() -> 'Unknown':\n    return 1\n@pipeline\ndef main():\n    return a()\n",
    ),
    "reads that match nothing": (
        "reads-nothing", "a()",
        "@step(reads=['sql/*.sql'])\ndef a() -> int:\n    return 1\n@pipeline\ndef main():\n    a()\n",
    ),
    "a class as a step": ("not-a-function", "step(int)", "a = step(int)\n"),
    "a timeout in other words": ("bad-timeout", "@step", "@step(timeout='soon')\ndef a() -> int: ...\n"),
}  # fmt: skip


@pytest.mark.parametrize(("code", "line", "text"), REFUSED.values(), ids=REFUSED)
def test_refused_before_anything_runs(shop, code, line, text):
    shop.write({"pipeline.py": HEAD + text})
    with pytest.raises(FalajError) as caught:
        shop.run(datasets={"flights": None})
    problem = next(p for p in caught.value.problems if p.code == f"pipelines.{code}")
    assert problem.fix
    assert problem.place is not None and problem.place.file == "pipeline.py"
    if line:
        assert line in (shop.root / "pipeline.py").read_text().splitlines()[problem.place.line - 1]
    assert shop.told == []


UNKNOWN = {
    "if": "if a(): pass",
    "and": "a() and 1",
    "comparison": "a() == 1",
    "order": "a() < 1",
    "length": "len(a())",
    "loop": "for x in a(): pass",
    "unpacking": "x, y = a()",
    "arithmetic": "a() + 1",
    "reversed arithmetic": "1 - a()",
    "negation": "-a()",
    "item": "a()[0]",
    "attribute": "a().height",
    "text": "f'{a()}'",
    "number": "int(a())",
    "index": "[1, 2][a()]",
    "membership": "1 in a()",
    "call": "a()()",
    "assignment": "a()['x'] = 1",
    "with": "with a(): pass",
}


@pytest.mark.parametrize("text", UNKNOWN.values(), ids=UNKNOWN)
def test_a_value_that_is_not_known_yet(shop, text):
    shop.write(
        {
            "pipeline.py": HEAD
            + "@step\ndef a() -> int:\n    return 1\n\n@pipeline\ndef main() -> int:\n"
            + f"    {text}\n    return a()\n"
        }
    )
    with pytest.raises(FalajError) as caught:
        shop.run()
    assert caught.value.code == "pipelines.value-not-known-yet"
    place = caught.value.problems[0].place
    assert place is not None and text in place.excerpt[0][1]
    assert "parameter" in caught.value.problems[0].fix


def test_all_findings_at_once(shop):
    shop.write(
        {
            "pipeline.py": HEAD
            + "@step\ndef a() -> object: ...\n@step\ndef b(x: int): ...\n"
            + "@pipeline\ndef main():\n    b('x')\n    a()\n    b()\n"
        }
    )
    with pytest.raises(FalajError) as caught:
        shop.run()
    codes = [p.code.removeprefix("pipelines.") for p in caught.value.problems]
    assert sorted(codes) == [
        "annotation-missing", "argument-missing", "parameter-type", "type-not-storable",
    ]  # fmt: skip


def test_branching_on_parameters_is_plain_python(shop):
    shop.write(
        {
            "pipeline.py": HEAD
            + "@step\ndef one(k: int) -> int:\n    return k\n"
            + "@step\ndef total(xs: list[int]) -> int:\n    return sum(xs)\n"
            + "@pipeline\ndef main(n: int = 3, big: bool = False) -> int:\n"
            + "    found = [one(k) for k in range(n)]\n    if big:\n        found.append(one(100))\n"
            + "    return total(found)\n"
        }
    )
    assert shop.value(shop.run()) == 3
    outcome = shop.run(parameters={"n": "4", "big": "true"})
    assert outcome.parameters == {"n": 4, "big": True}
    assert shop.value(outcome) == 106
    assert shop.states(outcome) == {
        "one": "cached", "one[2]": "cached", "one[3]": "cached", "one[4]": "executed",
        "one[5]": "executed", "total": "executed",
    }  # fmt: skip


def test_decorated_functions_stay_callable(shop):
    shop.write(
        {
            "pipeline.py": HEAD
            + "import falaj\n@step(retries=3)\ndef a(x: int) -> int:\n"
            + "    falaj.log(m=x)\n    return x + falaj.seed()\n"
            + "@pipeline\ndef main() -> int:\n    return a(1)\n"
        }
    )
    import sys

    sys.path.insert(0, str(shop.root))
    try:
        import pipeline

        assert pipeline.a(1) == 1 and pipeline.main() == 1
        assert pipeline.a.__name__ == "a"
    finally:
        sys.path.remove(str(shop.root))
        del sys.modules["pipeline"]


def test_the_callers_modules_and_path_come_back(shop):
    import sys

    shop.write({"pipeline.py": HEAD + "@pipeline\ndef main():\n    pass\n"})
    path, names = list(sys.path), set(sys.modules)
    shop.run()
    assert sys.path == path
    assert "pipeline" not in set(sys.modules) - names


PARAMETERS = {
    "unknown name": ({"rats": 1}, "no-such-parameter"),
    "wrong type": ({"rate": "fast"}, "parameter-type"),
    "outside the list": ({"kind": "z"}, "parameter-type"),
    "missing": ({}, "parameter-missing"),
}


@pytest.mark.parametrize(("given", "code"), PARAMETERS.values(), ids=PARAMETERS)
def test_parameters_that_do_not_fit(shop, given, code):
    need = "need: int" if code == "parameter-missing" else "need: int = 1"
    shop.write(
        {
            "pipeline.py": HEAD
            + f"@pipeline\ndef main({need}, rate: float = 1.0, kind: Literal['a'] = 'a'):\n    pass\n"
        }
    )
    with pytest.raises(FalajError) as caught:
        shop.run(parameters=given)
    assert caught.value.code == f"pipelines.{code}"


TEXTS = {
    "8": (int, 8), "0.5": (float, 0.5), "true": (bool, True), "abc": (str, "abc"),
    "[1,2]": (tuple[int, ...], (1, 2)), '{"a": 1}': (dict[str, int], {"a": 1}),
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_texts_of_the_command_line_are_parsed(text):
    kind, value = TEXTS[text]
    assert parse_value(text, kind) == value


def test_equal_looking_parameters_of_other_types_have_other_keys():
    values = [1, 1.0, True, "1", [1], (1,), {"a": 1}, None, -0.0, 0.0, 2**60]
    texts = {repr(canonical_value(value)) for value in values}
    assert len(texts) == len(values)
