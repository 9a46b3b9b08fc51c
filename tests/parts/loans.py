"""A small project for whole walks: 6,000 rows of a formula, a logistic regression written as ONNX.

`swapped` turns one column round in the rows of training and of the gates alike, as a changed unit
would: such a model looks as good as before and harms callers, who still send the old column.
"""

from __future__ import annotations

import numpy as np
import polars as pl

__all__ = ["LEARNING", "MODEL", "PLACE", "TOML", "draw", "write_project"]

MODEL = "loan"
PLACE = "production"
ROWS = 6000
WEIGHTS = np.array([1.4, -1.6, 0.4])
FEATURES = ("income", "debt", "years")

TOML = """
[project]
name = "loans"
region = "ae"

[model]
name = "loan"
pipeline = "pipeline:main"
task = "binary-classification"
purpose = "Tells which loans will be paid back."

[[datasets]]
name = "rows"
source = "rows.parquet"
contract = "rows.odcs.yaml"
classification = "internal"
purpose = ["lending"]

[gates.quality]
metric = "roc_auc"
at_least = 0.75
margin_to_champion = 0.02

[gates.bias]
group = "branch"
at_least = 0.6

[gates.robustness]
missing = ["years"]
max_drop = 0.1

[environments.production]
target = "local"
requires = ["data", "quality", "bias", "robustness", "security"]
approvals = 1

[environments.production.rollout]
steps_pct = [20, 50, 100]
alpha = 0.001
beta = 0.2
margin = 3.0
slo = { errors = 0.05 }
stratum = "500ms"
grace = "300ms"
warmup = "0s"
hold = "500ms"
min_time = "1s"
min_requests = 50
stall = "20s"
"""

LEARNING = """
[monitors.drift]
window = "1h"
min_rows = 200

[learning]
retrain = true
on = ["drift"]

[learning.parameters.month]
by = 1
at_most = 12
"""

CONTRACT = """apiVersion: v3.1.0
kind: DataContract
id: rows
name: Loans and what became of them
version: 1.0.0
status: active
schema:
  - name: rows
    properties:
      - name: income
        logicalType: number
        required: true
      - name: debt
        logicalType: number
        required: true
      - name: years
        logicalType: number
        required: true
      - name: branch
        logicalType: string
        required: true
      - name: y
        logicalType: integer
        required: true
        logicalTypeOptions: {minimum: 0, maximum: 1}
      - name: part
        logicalType: integer
        required: true
"""

PIPELINE = '''"""The pipeline: plain functions."""

import numpy as np
import polars as pl
from onnx import TensorProto, helper, numpy_helper

import falaj
from falaj import Dataset, Model, pipeline, step

FEATURES = ["income", "debt", "years"]


@step
def load(*, rows: Dataset, swapped: bool) -> pl.DataFrame:
    frame = rows.read().with_columns(pl.col(FEATURES).cast(pl.Float32))
    return frame.with_columns(debt=-pl.col("debt")) if swapped else frame


@step
def fit(rows: pl.DataFrame, *, month: int) -> list[float]:
    """Newton's method on all rows but those of one part in twelve."""
    kept = rows.filter((pl.col("part") != month % 12) & (pl.col("part") < 100))
    x = np.column_stack([kept.select(FEATURES).to_numpy(), np.ones(len(kept))]).astype(float)
    y, w = kept["y"].to_numpy(), np.zeros(4)
    for _ in range(8):
        p = 1 / (1 + np.exp(-x @ w))
        w += np.linalg.solve(x.T @ (x * (p * (1 - p))[:, None]) + 1e-6 * np.eye(4), x.T @ (y - p))
    return [float(value) for value in w]


@step
def pack(weights: list[float], rows: pl.DataFrame) -> Model:
    graph = helper.make_graph(
        [
            helper.make_node("IsNaN", ["features"], ["hole"]),
            helper.make_node("Where", ["hole", "zero", "features"], ["full"]),
            helper.make_node("MatMul", ["full", "w"], ["dot"]),
            helper.make_node("Add", ["dot", "b"], ["z"]),
            helper.make_node("Sigmoid", ["z"], ["probability"]),
        ],
        "loan",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["n", 1])],
        [
            numpy_helper.from_array(np.array(weights[:3], np.float32).reshape(3, 1), "w"),
            numpy_helper.from_array(np.array(weights[3:], np.float32), "b"),
            numpy_helper.from_array(np.array(0, np.float32), "zero"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    falaj.log(bias=weights[3])
    return Model(
        made.SerializeToString(),
        schema={
            "input": "features",
            "columns": {name: {"nullable": name == "years"} for name in FEATURES},
            "output": "probability",
        },
        threshold=0.5,
        reference=rows.filter(pl.col("part") < 100).select(FEATURES),
        test=rows.filter(pl.col("part") >= 100).select(*FEATURES, "y", "branch"),
        parity={"rows": 1.0, "max_abs_diff": 0.0},
    )


@pipeline
def main(month: int = 1, swapped: bool = False) -> Model:
    rows = load(swapped=swapped)
    return pack(fit(rows, month=month), rows)
'''


def draw(n, seed, *, shift=0.0):
    """Rows of the formula and what became of them. shift: of `income`, as in a drift."""
    dice = np.random.default_rng(seed)
    x = dice.normal(size=(n, 3)).astype(np.float32)
    y = dice.random(n) < 1 / (1 + np.exp(-(x @ WEIGHTS) - 0.2))
    x[:, 0] += shift
    return x, y.astype(int)


def write_project(root, *, toml=TOML):
    """Write the project; parts 0-11 are for training, part 100 is held out."""
    root.mkdir(parents=True, exist_ok=True)
    x, y = draw(ROWS, 7)
    held = np.arange(ROWS) % 3 == 0
    pl.DataFrame(
        {
            **{name: x[:, i] for i, name in enumerate(FEATURES)},
            "branch": np.where(np.arange(ROWS) // 3 % 2, "north", "south"),
            "y": y,
            "part": np.where(held, 100, np.arange(ROWS) % 12),
        }
    ).write_parquet(root / "rows.parquet")
    (root / "falaj.toml").write_text(toml)
    (root / "rows.odcs.yaml").write_text(CONTRACT)
    (root / "pipeline.py").write_text(PIPELINE)
    return root
