"""What the benchmarks promise about their numbers."""

from __future__ import annotations

import importlib
import json
import platform
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COLUMNS = {"metric", "unit", "ours", "peer", "peer_name", "ratio", "target", "holds"}


@pytest.fixture
def harness():
    sys.path.insert(0, str(ROOT))
    try:
        yield importlib.import_module("bench.harness")
    finally:
        sys.path.remove(str(ROOT))


def test_cpu_of_grandchildren_counts(harness, tmp_path):
    spin = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spin!r}], check=True)"
    cost = harness.once([sys.executable, "-c", child], at=tmp_path, env={})
    assert cost.cpu_s >= 0.3


def test_a_command_that_fails_is_no_measurement(harness, tmp_path):
    with pytest.raises(RuntimeError, match=r"ended with 3:\noops"):
        code = "import sys; print('oops'); sys.exit(3)"
        harness.once([sys.executable, "-c", code], at=tmp_path, env={})


def test_a_ratio_above_its_target_does_not_hold(harness):
    assert harness.compared("a", 3.0, 1.0, "b", unit="ms", target=2.0).holds is False
    assert harness.compared("a", 2.0, 1.0, "b", unit="ms", target=2.0).holds is True
    assert harness.compared("a", 2.0, 1.0, "b", unit="ms").holds is None


def test_results_have_one_form_and_name_no_machine():
    for path in sorted((ROOT / "bench" / "results").glob("*.json")):
        text = path.read_text()
        document = json.loads(text)
        assert set(document) == {"name", "at", "machine", "load", "versions", "rows"}
        assert document["name"] == path.stem
        assert all(set(row) == COLUMNS for row in document["rows"])
        assert path.with_suffix(".md").exists()
        assert not any(folder in text for folder in ("/home/", "/tmp", "/usr"))


def test_pages_of_results_name_no_machine():
    """The words around the tables are written by hand, and what a tool printed may stand in them."""
    for path in sorted((ROOT / "bench" / "results").glob("*.md")):
        text = path.read_text()
        assert not any(folder in text for folder in ("/home/", "/tmp", "/usr", "/root"))
        assert platform.node() not in text.split()


def test_what_a_failing_command_printed_is_heard(harness, tmp_path):
    code = "import sys; print('boom'); sys.exit(3)"
    cost, ended, said = harness.heard([sys.executable, "-c", code], at=tmp_path, env={})
    assert (ended, said, cost.runs) == (3, "boom\n", 1)
