"""The tests of the example project: they pass on it, they see a mistake, and the page shows them."""

from __future__ import annotations

import ast
import json
import re
import shutil
import textwrap
from pathlib import Path

import pytest
from typing_hands import run_here

from falaj.base.errors import Exit

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "flights"
PAGE = ROOT / "docs" / "howto" / "testing-models.md"


def test_the_page_shows_tests_of_the_example():
    """Every test and fixture that the page shows stands in the example, word for word."""
    told = "".join(p.read_text() for p in sorted((EXAMPLE / "tests").glob("*.py")))
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    shown = []
    for block in blocks:
        for node in ast.parse(block).body:
            if isinstance(node, ast.FunctionDef) and node.name != "check":
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                lines = block.splitlines()[first - 1 : node.end_lineno]
                assert textwrap.dedent("\n".join(lines)) in told, node.name
                shown.append(node.name)
    assert len(shown) >= 6


def test_the_page_names_every_fixture():
    from falaj import testing

    public = [
        name
        for name, found in vars(testing).items()
        if type(found).__name__ == "FixtureFunctionDefinition" and name != "falaj_workshop"
    ]
    assert len(public) == 4
    page = PAGE.read_text()
    assert [name for name in public if f"| `{name}" not in page] == []
    methods = [n for n in vars(testing.TrainedModel) if not n.startswith("_")]
    methods += [n for n in vars(testing.PipelineRun) if not n.startswith("_")]
    assert [name for name in methods if f".{name}" not in page] == []


@pytest.mark.journey
def test_flights(tmp_path):
    root = shutil.copytree(EXAMPLE, tmp_path / "flights")
    made = run_here(root, "run", "-p", "iterations=40")
    assert made.code == 0, made.err
    done = run_here(root, "test", "--json")
    assert done.code == 0, done.out + done.err
    report = json.loads(done.out)["data"]
    assert len(report["tests"]) >= 14 and {t["outcome"] for t in report["tests"]} == {"passed"}
    assert len(report["models"]) == 1

    # The weather of the same hour: the model would see the future.
    text = (root / "prepare.py").read_text()
    assert 'WEATHER_LAG = "1h"' in text
    (root / "prepare.py").write_text(text.replace('WEATHER_LAG = "1h"', 'WEATHER_LAG = "0h"'))
    told = run_here(root, "test")
    assert told.code == Exit.GATE_FAIL
    assert "test_the_weather_is_that_of_the_hour_before" in told.out and "1 failed" in told.out
