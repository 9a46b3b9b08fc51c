"""`falaj test`: the project's own tests, their evidence, and the gate that asks for it."""

from __future__ import annotations

import json

import pytest
from small_project import TOML, write_project

from falaj.app import Works
from falaj.base.errors import Exit
from falaj.facts.releases import Release

ASKS = TOML.replace('requires = ["quality", "security"]', 'requires = ["quality", "tests"]')

GOOD = """
import polars as pl
import pytest


def test_the_data(dataset_sample):
    first, some = dataset_sample("rows", 5), dataset_sample("rows", 50, seed=1)
    assert first.height == 5 and some.height == 50
    assert some.equals(dataset_sample("rows", 50, seed=1))
    assert not some.equals(dataset_sample("rows", 50, seed=2))


def test_the_step_itself():
    from pipeline import load

    class Rows:
        def read(self):
            return pl.DataFrame({"a": ["1.5"], "b": ["2"]})

    assert load(rows=Rows())["a"].to_list() == [1.5]


def test_a_small_run(pipeline_run, dataset_sample):
    made = pipeline_run(datasets={"rows": dataset_sample("rows", 200)}, slope=2.0)
    assert made.metrics["rows"] == 100 and made.parameters["slope"] == 2.0
    assert made.output("load").height == 200
    assert made.held_out().height == 100
    made.model.assert_rises(made.held_out(), {"a": 5.0})


def test_the_model(trained_model):
    rows = [{"a": 1.0, "b": 0.0, "other": "x"}, {"a": -1.0, "b": 0.0, "other": "y"}]
    assert trained_model.features == ("a", "b")
    assert trained_model.decide(rows).tolist() == [True, False]
    trained_model.assert_rises(rows, {"a": 3.0})
    trained_model.assert_falls(rows, lambda frame: frame.with_columns(a=pl.col("a") - 1))
    trained_model.assert_invariant(rows, {"other": "z"})
    with pytest.raises(AssertionError, match="2 of 2 scores move by more than 0.01; most in row 0"):
        trained_model.assert_invariant(rows, {"a": [3.0, -1.5]}, within=0.01)
    with pytest.raises(AssertionError, match="50.0% of 2 scores rise or stay"):
        trained_model.assert_rises(rows, {"a": [3.0, -3.0]})
    with pytest.raises(AssertionError, match="does not look at it"):
        trained_model.assert_rises(rows, {"other": "z"})
    with pytest.raises(AssertionError, match="no column 'b'"):
        trained_model.predict({"a": [1.0]})
"""


@pytest.fixture
def tested(tmp_path):
    def make(text=GOOD, *, toml=ASKS, **files):
        root = write_project(tmp_path / "project", toml=toml)
        (root / "tests").mkdir()
        (root / "tests" / "test_it.py").write_text(text)
        for name, more in files.items():
            (root / "tests" / f"{name}.py").write_text(more)
        return root

    return make


def verdicts(report):
    return {r["check"]: r["verdict"] for r in report["results"] if r["gate"] == "tests"}


def test_from_tests_to_a_release(here, tested):
    root = tested()
    assert here(root, "run").code == 0
    before = sorted(p for p in root.rglob("*") if ".falaj" not in p.parts)
    asked = here(root, "gate", "--json")
    assert asked.code == Exit.INCONCLUSIVE
    (only,) = [r for r in asked.json()["data"]["results"] if r["gate"] == "tests"]
    assert only["reason"] == "no test report for this code: run falaj test"

    done = here(root, "test", "--full")
    assert done.code == 0, done.out + done.err
    assert "4 passed" in done.out and "tests/test_it.py::test_the_model" in done.out
    assert sorted(p for p in root.rglob("*") if ".falaj" not in p.parts) == before
    assert len(json.loads(here(root, "runs", "list", "--json").out)["data"]) == 1, "no run of it"

    gate = here(root, "gate", "--json")
    assert gate.code == 0 and verdicts(gate.json()["data"]) == {"tests.suite": "pass"}
    shown = here(root, "test", "--show", "--write", "junit.xml")
    assert shown.code == 0 and 'tests="4"' in (root / "junit.xml").read_text()
    assert "tests of this code: ✓ pass, 4 passed" in here(root, "runs", "show").out
    assert here(root, "runs", "show", "--html", "run.html").code == 0
    assert "test_a_small_run" in (root / "run.html").read_text()
    assert "tests.finished" in here(root, "audit", "log").out

    assert here(root, "release", "create").code == 0
    works = Works.open(root)
    (release,) = works.ground.store.find(Release)
    works.close()
    folder = root / release.folder
    assert (folder / "evidence" / "gate-tests.dsse.json").is_file()
    assert "### tests: pass (required)" in (folder / "card.md").read_text()


def test_other_code_has_no_report(here, tested):
    root = tested()
    assert here(root, "run").code == 0 and here(root, "test").code == 0
    text = (root / "pipeline.py").read_text()
    (root / "pipeline.py").write_text(text.replace("slope * a", "slope times a"))
    assert here(root, "run").code == 0
    assert here(root, "gate").code == Exit.INCONCLUSIVE
    # A test is no code of the model: writing one leaves the report of the run's code in force.
    (root / "pipeline.py").write_text(text)
    (root / "tests" / "test_more.py").write_text("def test_b(): pass\n")
    assert here(root, "run").code == 0
    assert "5 passed" in here(root, "test").out
    assert here(root, "gate").code == 0


def test_a_model_that_the_tests_did_not_ask(here, tested):
    root = tested()
    assert here(root, "run").code == 0
    first = here(root, "runs", "list", "--json").json()["data"][0]["id"]
    assert here(root, "test").code == 0
    assert here(root, "run", "-p", "slope=1.5").code == 0
    assert here(root, "gate").code == Exit.INCONCLUSIVE
    assert here(root, "gate", first).code == 0
    assert here(root, "test").code == 0
    assert here(root, "gate").code == 0
    again = here(root, "gate", first)
    assert again.code == Exit.INCONCLUSIVE and f"falaj test --run {first}" in again.out
    assert here(root, "test", "--run", first).code == 0
    assert here(root, "gate", first).code == 0


def test_a_failing_test(here, tested):
    root = tested("def test_a(): assert 1 == 2\ndef test_b(): pass\n")
    assert here(root, "run").code == 0
    done = here(root, "test")
    assert done.code == Exit.GATE_FAIL
    assert "✕ failed" in done.out and "assert 1 == 2" in done.out and "test_b" not in done.out
    assert "Traceback" not in done.out + done.err
    assert "1 failed, 1 passed" in here(root, "test", "--log").out
    gate = here(root, "gate", "--json")
    assert gate.code == Exit.GATE_FAIL
    assert verdicts(gate.json()["data"]) == {
        "tests.suite": "fail", "tests.tests/test_it.py::test_a": "fail",
    }  # fmt: skip
    part = here(root, "test", "-k", "test_b")
    assert part.code == 0 and "no evidence for a gate" in part.out
    assert here(root, "gate").code == Exit.GATE_FAIL, "a part does not hide the whole"


ENDS = {  # text of the test, of a conftest -> exit code, words that are said
    "no tests": ("x = 1\n", "", Exit.INCONCLUSIVE, "no tests were found"),
    "all skipped": (
        "import pytest\ndef test_a(): pytest.skip('not here')\n", "", Exit.INCONCLUSIVE, "1 skipped",
    ),
    "a broken conftest": ("def test_a(): pass\n", "import gone_away\n", Exit.INTERNAL, "gone_away"),
    "a broken module": ("import gone_away\n", "", Exit.INTERNAL, "gone_away"),
    "no model yet": (
        "def test_a(trained_model): pass\n", "", Exit.INTERNAL, "no run has made a model yet",
    ),
    "no such dataset": (
        "def test_a(dataset_sample): dataset_sample('none')\n", "", Exit.GATE_FAIL, "declares: rows",
    ),
    "a step that fails": (
        "def test_a(pipeline_run): pipeline_run(slope='x')\n", "", Exit.GATE_FAIL, "pipelines.",
    ),
    "a dataset without a contract": (
        "def test_a(contract_check): contract_check('rows', {'a': [1]})\n", "", Exit.GATE_FAIL,
        "data.no-contract",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "conftest", "code", "words"), ENDS.values(), ids=ENDS)
def test_ends(here, tested, text, conftest, code, words):
    root = tested(text, **({"conftest": conftest} if conftest else {}))
    done = here(root, "test")
    assert done.code == code, done.out + done.err
    assert words in done.out + done.err
    assert "falaj/testing.py" not in done.out + done.err, "no frames of ours"
    assert "Traceback (most" not in done.err or "conftest" in done.err
    assert here(root, "test", "--json").json()["data"]["verdict"] != "pass"


def test_a_path_that_is_not_there(here, tested):
    done = here(tested(), "test", "tests/none.py")
    assert done.code == Exit.USAGE and "error[testing.no-such-path]" in done.err


def test_nothing_to_show(here, tested):
    done = here(tested(), "test", "--show")
    assert done.code == Exit.USAGE and "run `falaj test`" in done.err


def test_a_viewer_cannot_run_code(here, tested):
    root = tested()
    assert here(root, "access", "add", "zayed", "--role", "viewer").code == 0
    assert here(root, "--as", "zayed", "test").code == Exit.NOT_ALLOWED


def test_what_is_protected_stands_in_no_report(here, tested):
    text = "def test_a(dataset_sample):\n    assert dataset_sample('rows')['origin_airport'][0] == 'x'\n"
    root = tested(text, toml=ASKS.replace('"internal"', '"personal"'))
    assert here(root, "run").code == 0
    done = here(root, "test", "--log", "--write", "junit.xml")
    assert done.code == Exit.GATE_FAIL
    assert here(root, "gate").code == Exit.GATE_FAIL
    gate = here(root, "gate", "--explain", "--json")
    said = done.out + done.err + (root / "junit.xml").read_text() + gate.out
    assert "LGA" not in said and "AssertionError (test_it.py:2)" in said
