"""A number, one of three classes, an order: run, gated, released and answered like yes and no."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import walks
from sklearn.metrics import f1_score, mean_absolute_error, ndcg_score

from falaj.base.errors import Exit

HEAD = """
[project]
name = "houses"
region = "ae"

[model]
name = "house"
pipeline = "pipeline:main"
task = "{task}"

[[datasets]]
name = "rows"
source = "rows.parquet"

[gates.quality]
metric = "{metric}"
{limit}
{more}

[gates.slices]
by = ["town"]
max_drop = 0.5
find = {find}
max_excess = 0.5

[gates.leakage]

[gates.robustness]
noise = ["size"]
{robust}
max_drop = 0.5

[environments.production]
target = "local"
requires = ["quality", "slices", "leakage", "robustness", "security"]
"""

PIPELINE = '''"""Least squares, as one matrix; of classes the softmax of it."""

import numpy as np
import polars as pl
from onnx import TensorProto, helper, numpy_helper

from falaj import Dataset, Model, pipeline, step

FEATURES = ["size", "age", "noise"]
TASK = "{task}"
CLASSES = {classes}


@step
def load(*, rows: Dataset) -> pl.DataFrame:
    return rows.read().with_columns(pl.col(FEATURES).cast(pl.Float32))


@step
def fit(rows: pl.DataFrame) -> Model:
    train = rows.filter(pl.col("part") == 0)
    x = np.column_stack([train.select(FEATURES).to_numpy(), np.ones(len(train))])
    y = train["y"].to_list()
    goal = np.array([[one == c for c in CLASSES] for one in y], float) if CLASSES else np.array(y)[:, None]
    w = np.linalg.lstsq(x, goal, rcond=None)[0].astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["dot"]),
        helper.make_node("Add", ["dot", "b"], ["z" if CLASSES else "answer"]),
    ]
    if CLASSES:
        nodes += [
            helper.make_node("Mul", ["z", "five"], ["sharp"]),
            helper.make_node("Softmax", ["sharp"], ["answer"], axis=1),
        ]
    graph = helper.make_graph(
        nodes, "house",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["n", len(CLASSES) or 1])],
        [
            numpy_helper.from_array(w[:3], "w"), numpy_helper.from_array(w[3], "b"),
            numpy_helper.from_array(np.array(5, np.float32), "five"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    schema = {{"input": "x", "columns": {{name: {{}} for name in FEATURES}}, "output": "answer"}}
    if CLASSES:
        schema["classes"] = CLASSES
    return Model(
        made.SerializeToString(), schema=schema, task=TASK, reference=train.select(FEATURES),
        test=rows.filter(pl.col("part") == 1).select(*FEATURES, "y", "town", "query"),
    )


@pipeline
def main() -> Model:
    return fit(load())
'''
CLASSES = ["cheap", "dear", "fair"]
TASKS = {
    "regression": ("mean_absolute_error", "at_most = 1.0", "", 3, 'rises = ["size"]\nfalls = ["age"]'),
    "forecasting": ("r2", "at_least = 0.7", 'unit = "query"', 3, "unit_error = { noise = 1.609 }"),
    "multiclass-classification": ("f1_macro", "at_least = 0.5", "", 2, ""),
    "ranking": ("ndcg", "at_least = 0.7", 'unit = "query"', 0, ""),
}  # fmt: skip


def written(root, task):
    metric, limit, more, find, robust = TASKS[task]
    root.mkdir()
    dice = np.random.default_rng(3)
    n = 4000
    x = dice.normal(size=(n, 3))
    y = 2 * x[:, 0] - x[:, 1] + dice.normal(size=n)
    if task == "multiclass-classification":
        y = np.array(CLASSES)[np.digitize(y, [-1, 1])]
    if task == "ranking":
        y = np.clip(np.round(y), 0, 4)
    pl.DataFrame(
        {
            "size": x[:, 0], "age": x[:, 1], "noise": x[:, 2], "y": y, "part": np.arange(n) % 2,
            "town": np.array(["north", "south"])[dice.integers(0, 2, n)],
            "query": np.arange(n) // 20,
        }
    ).write_parquet(root / "rows.parquet")  # fmt: skip
    text = HEAD.format(task=task, metric=metric, limit=limit, more=more, find=find, robust=robust)
    if task == "ranking":  # judged by whole queries
        text = text.replace('"slices", ', "")
    (root / "falaj.toml").write_text(text)
    classes = CLASSES if task == "multiclass-classification" else []
    (root / "pipeline.py").write_text(PIPELINE.format(task=task, classes=classes))
    return root


def oracle(root, task):
    """The metric by scikit-learn, from the model fitted again."""
    rows = pl.read_parquet(root / "rows.parquet")
    parts = [rows.filter(pl.col("part") == k) for k in (0, 1)]
    names = ["size", "age", "noise"]
    x, test = (np.column_stack([p.select(names).to_numpy(), np.ones(len(p))]) for p in parts)
    y, truth = (p["y"].to_numpy() for p in parts)
    if task == "multiclass-classification":
        goal = np.array([[one == c for c in CLASSES] for one in y], float)
        w = np.linalg.lstsq(x, goal, rcond=None)[0]
        return f1_score(truth, np.array(CLASSES)[(test @ w).argmax(1)], average="macro")
    answer = test @ np.linalg.lstsq(x, y, rcond=None)[0]
    if task == "ranking":
        query = parts[1]["query"].to_numpy()
        one = [ndcg_score([truth[query == q]], [answer[query == q]]) for q in np.unique(query)]
        return float(np.mean(one))
    if task == "regression":
        return mean_absolute_error(truth, answer)
    return 1 - ((truth - answer) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()


@pytest.mark.parametrize("task", TASKS)
def test_the_way_of_another_task(tmp_path, task):
    root = written(tmp_path / "houses", task)
    assert walks.falaj(root, "run")[0] == 0
    code, out, err = walks.falaj(root, "gate", "--json")
    assert "Traceback" not in err
    report = json.loads(out)["data"]
    told = {one["check"]: (one["verdict"], one["reason"]) for one in report["results"]}
    assert code == Exit.OK, told
    metric = TASKS[task][0]
    quality = next(one for one in report["results"] if one["check"] == f"quality.{metric}")
    assert quality["value"] == pytest.approx(oracle(root, task), abs=2e-4)
    assert quality["n"] == (100 if task == "ranking" else 2000) or task == "ranking"
    assert {check.partition(".")[0] for check in told} >= {
        "quality",
        "slices",
        "leakage",
        "robustness",
    }
    # A second look at the same model is remembered, and says the same.
    again = json.loads(walks.falaj(root, "gate", "--json")[1])["data"]
    assert [r for r in again["results"] if r["gate"] != "quality"] == [
        r for r in report["results"] if r["gate"] != "quality"
    ]
    created = walks.falaj(root, "release", "create", "--version", "1.0.0")
    assert created[0] == 0, created


BROKEN = {  # what stands in the file -> words of the refusal
    "a metric of another task": ('metric = "r2"', 'metric = "roc_auc"', "roc_auc is not measured for a regression"),
    "a loss with a lower bound": ('metric = "r2"', 'metric = "mean_squared_error"', "needs `at_most`"),
    "no limit at all": ("at_least = 0.7", "", "r2 needs `at_least`"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "words"), BROKEN.values(), ids=BROKEN)
def test_a_metric_that_does_not_fit_is_named(tmp_path, old, new, words):
    root = written(tmp_path / "houses", "regression")
    text = (root / "falaj.toml").read_text()
    text = text.replace(
        'metric = "mean_absolute_error"\nat_most = 1.0', 'metric = "r2"\nat_least = 0.7'
    )
    (root / "falaj.toml").write_text(text.replace(old, new))
    code, _, err = walks.falaj(root, "gate")
    assert code == Exit.USAGE
    assert words in err


def test_a_class_that_the_model_does_not_know_is_named(tmp_path):
    root = written(tmp_path / "houses", "multiclass-classification")
    text = (root / "pipeline.py").read_text()
    (root / "pipeline.py").write_text(text.replace("'fair']", "'other']"))
    assert walks.falaj(root, "run")[0] == 0
    code, _, err = walks.falaj(root, "gate")
    assert code != 0
    assert "error[gate.unknown-class]: the held-out rows have a class 'fair'" in err
