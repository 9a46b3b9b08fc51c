"""A project's own checks: what they return decides; what they do wrong has its line."""

from __future__ import annotations

import msgspec
import numpy as np
import polars as pl
import pytest

from falaj.facts.checks import Verdict
from falaj.links.local.checks import own_checks
from falaj.pipelines.checking import run_checks

MODULE = """
import os, time
import numpy as np
import falaj
from falaj import check

CALLS = []

@check
def holds(score, rows):
    return bool((score(rows) >= 0).all())

@check
def breaks(score, rows):
    return False, "two answers are negative"

@check(at_most=0.5)
def mean(score, rows):
    return score(rows).mean()

@check(at_least=0.9)
def low_mean(score, rows):
    return np.float64(0.2)

@check(at_most=0.5)
def doubtful(score, rows):
    return 0.45, 0.40, 0.52

@check(at_least=0.5)
def surely_low(score, rows):
    return 0.3, 0.2, 0.4

@check
def raises(score, rows):
    rows["no such column"]

@check
def silent(score, rows):
    pass

@check
def number_without_limit(score, rows):
    return 0.3

@check(at_most=1)
def nan(score, rows):
    return float("nan")

@check(at_most=1)
def turned_round(score, rows):
    return 0.5, 0.9, 0.1

@check
def matrix(score, rows):
    return len(score(np.zeros((3, 2)))) == 3 and "town" in rows.columns

@check
def spoils(score, rows):
    rows.drop_in_place("a")
    return True

@check
def leaves(score, rows):
    raise SystemExit(3)

@check
def dies(score, rows):
    os._exit(7)

@check
def sleeps(score, rows):
    time.sleep(60)

def plain(score, rows):
    return True
"""
SAID = {  # function -> verdict, words of the reason
    "holds": ("pass", "returned True"),
    "breaks": ("fail", "two answers are negative"),
    "mean": ("pass", "at most 0.5"),
    "low_mean": ("fail", "at least 0.9"),
    "doubtful": ("inconclusive", "0.45 [0.4, 0.52]"),
    "surely_low": ("fail", "0.3 [0.2, 0.4]"),
    "raises": ("error", "(checks.py:35)"),
    "silent": ("error", "returned NoneType"),
    "number_without_limit": ("error", "needs @falaj.check(at_least=...)"),
    "nan": ("error", "expected a truth value"),
    "turned_round": ("error", "does not lie between"),
    "matrix": ("pass", ""),
    "leaves": ("error", "SystemExit: 3"),
    "plain": ("error", "is not decorated with @falaj.check"),
    "nowhere": ("error", "does not exist"),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = tmp_path_factory.mktemp("own")
    (root / "checks.py").write_text(MODULE)
    rows = pl.DataFrame({"a": [0.1, 0.2], "b": [0.3, 0.4], "y": [0, 1], "town": ["n", "s"]})
    names = [f"checks:{name}" for name in ("spoils", *SAID)]
    found = run_checks(names, root, lambda x: x[:, 0].astype(np.float64), rows, ("a", "b"))
    return {one.check.removeprefix("checks."): one for one in found}


@pytest.mark.parametrize(("name", "verdict", "words"), [(k, *v) for k, v in SAID.items()])
def test_what_it_returns_decides(results, name, verdict, words):
    assert results[name].verdict == verdict, results[name].reason
    assert words in results[name].reason


def test_a_module_that_is_not_there_is_an_error(tmp_path):
    (found,) = run_checks(["nothing:here"], tmp_path, lambda x: x, pl.DataFrame({"y": [1]}), ())
    assert found.verdict is Verdict.ERROR
    assert "ModuleNotFoundError" in found.reason


def test_by_hand_it_is_the_function_itself():
    from falaj import check

    @check(at_most=2)
    def double(score, rows):
        return 2 * rows

    assert double(None, 3) == 6
    assert double.__name__ == "double"


# --- in a process of their own ---


def ordered(tmp_path, *names):
    """A folder with an order and a model that answers its first column."""
    from onnx import TensorProto, helper

    root, folder = tmp_path / "root", tmp_path / "order"
    root.mkdir()
    folder.mkdir()
    (root / "checks.py").write_text(MODULE)
    graph = helper.make_graph(
        [helper.make_node("ReduceMax", ["x"], ["p"], axes=[1], keepdims=1)],
        "m",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "model").mkdir()
    (folder / "model" / "model.onnx").write_bytes(model.SerializeToString())
    pl.DataFrame({"a": [0.1], "b": [0.3], "y": [1], "town": ["n"]}).write_parquet(
        folder / "rows.parquet"
    )
    schema = {
        "inputs": [
            {
                "name": "x",
                "datatype": "FP32",
                "shape": [-1, 2],
                "columns": [{"name": "a"}, {"name": "b"}],
            }
        ],
        "outputs": [{"name": "p", "datatype": "FP32", "shape": [-1, 1]}],
    }
    checks = [f"checks:{name}" for name in names]
    order = {"root": str(root), "checks": checks, "schema": schema, "many": False}
    (folder / "order.json").write_bytes(msgspec.json.encode(order))
    return folder, checks


def test_a_child_process_answers(tmp_path):
    found = own_checks(*ordered(tmp_path, "holds", "mean", "raises"), 60)
    assert [one.verdict for one in found] == ["pass", "pass", "error"]
    assert found[1].value == pytest.approx(0.3)


ENDS = {"a check that takes the process with it": ("dies", 60, "ended with 7"),
        "a check that does not end": ("sleeps", 8, "no answer within 8 s")}  # fmt: skip


@pytest.mark.parametrize(("name", "seconds", "words"), ENDS.values(), ids=ENDS)
def test_a_child_that_never_answers_is_an_error_for_each(tmp_path, name, seconds, words):
    found = own_checks(*ordered(tmp_path, "holds", name), seconds)
    assert [one.verdict for one in found] == [Verdict.ERROR, Verdict.ERROR]
    assert words in found[0].reason
