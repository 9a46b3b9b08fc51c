"""Two equal runs at once in a project in which nothing has run yet: nobody fails, nothing runs twice."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

SETTINGS = """
[project]
name = "twins"
region = "ae"

[model]
name = "twins"
pipeline = "pipeline:main"
task = "binary-classification"

[gates.quality]
metric = "roc_auc"
at_least = 0.5
"""
PIPELINE = """
import time
from pathlib import Path
from falaj import pipeline, step

def ran(name):
    with Path("trace").open("a") as trace:
        trace.write(name + " ")
    time.sleep(0.3)

@step
def first(x: int) -> int:
    ran("first")
    return x + 1

@step
def second(x: int) -> int:
    ran("second")
    return x + 1

@pipeline
def main(x: int = 0) -> int:
    return second(first(x))
"""


@pytest.mark.parametrize("attempt", range(3))
def test_two_equal_first_runs(tmp_path, attempt):
    (tmp_path / "falaj.toml").write_text(SETTINGS)
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    words = [Path(sys.executable).with_name("falaj"), "run", "--param", f"x={attempt}"]
    both = [
        subprocess.Popen(
            words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    said = [one.communicate(timeout=120)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert Counter((tmp_path / "trace").read_text().split()) == {"first": 1, "second": 1}
