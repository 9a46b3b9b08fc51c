"""A whole project in one page: two features, a model of three nodes, gates that pass in a second."""

from __future__ import annotations

from pathlib import Path

__all__ = ["TOML", "write_project"]

TOML = """
[project]
name = "small"
region = "ae"

[model]
name = "flight-delay" # as the examples of the help texts say
pipeline = "pipeline:main"
task = "binary-classification"

[[datasets]]
name = "rows"
source = "rows.csv"
classification = "internal"
purpose = ["tests"]

[gates.quality]
metric = "roc_auc"
at_least = 0.70

[environments.production]
target = "local"
requires = ["quality", "security"]
approvals = 1

[environments.production.rollout]
stratum = "1s"
grace = "1s"
warmup = "1s"
hold = "1s"
min_time = "2s"
stall = "20s"
"""

PIPELINE = '''
import numpy as np
import polars as pl
from onnx import TensorProto, helper, numpy_helper

import falaj
from falaj import Dataset, Model, pipeline, step


@step
def load(*, rows: Dataset) -> pl.DataFrame:
    return rows.read().with_columns(pl.col("a", "b").cast(pl.Float32))


@step
def train(rows: pl.DataFrame, *, slope: float, month_to: int) -> Model:
    """A sigmoid over `slope * a + 0.1 * b`; with a slope of nothing it knows nothing."""
    falaj.log(months=float(month_to), auc=0.9)
    falaj.keep("notes.txt", f"slope {slope}")
    weights = np.array([[slope], [0.1]], np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "w"], ["z"]),
            helper.make_node("Sigmoid", ["z"], ["probability"]),
        ],
        "small",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(weights, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    test = rows.filter(pl.col("held") == 1).select("a", "b", "y", "origin_airport")
    falaj.log(rows=float(len(test)))
    return Model(
        made.SerializeToString(),
        schema={"input": "features", "columns": ["a", "b"], "output": "probability"},
        threshold=0.5,
        reference=rows.select("a", "b"),
        test=test,
        parity={"rows": 1.0, "max_abs_diff": 0.0},
    )


@pipeline
def main(slope: float = 1.0, month_to: int = 3) -> Model:
    return train(load(), slope=slope, month_to=month_to)
'''


def write_project(root: Path, *, toml: str = TOML) -> Path:
    """Write the project; its 1,200 rows come from a formula, the same everywhere."""
    import numpy as np

    draw = np.random.default_rng(7)
    a, b = draw.normal(size=1200), draw.normal(size=1200)
    y = (a + 0.5 * draw.normal(size=1200) > 0).astype(int)
    held = np.arange(1200) % 2
    airport = np.where(np.arange(1200) % 60 < 2, "LGA", "JFK")  # 20 held-out rows of the small one
    columns = zip(a, b, y, held, airport, strict=True)
    lines = [
        "a,b,y,held,origin_airport",
        *(f"{one:.4f},{two:.4f},{late},{out},{at}" for one, two, late, out, at in columns),
    ]
    root.mkdir(parents=True, exist_ok=True)
    (root / "falaj.toml").write_text(toml)
    (root / "pipeline.py").write_text(PIPELINE)
    (root / "rows.csv").write_text("\n".join(lines) + "\n")
    return root
