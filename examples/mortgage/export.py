"""Five logistic models to one ONNX graph: `application` [n, k + 1] in, `probability` [n, 1] out.

The last column names the model that answers, by its fold. Missing, as in production, all five
answer and the mean counts. A missing feature is replaced by the median of each model's own rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.pipeline import Pipeline

INPUT, OUTPUT = "application", "probability"


def export_onnx(models: Sequence[Pipeline]) -> bytes:
    """models: imputer (median), scaler, logistic regression, in this order.

    z = sum of w (x or median - mean) / scale + b; so one product for what is known, one for what
    is missing.
    """
    fill, mean, scale = (
        np.array([getattr(one[step], name) for one in models])
        for step, name in ((0, "statistics_"), (1, "mean_"), (1, "scale_"))
    )
    slope = np.array([one[2].coef_[0] for one in models]) / scale
    shift = np.array([one[2].intercept_[0] for one in models]) - (slope * mean).sum(axis=1)
    folds, columns = slope.shape
    constants = {
        "features": np.arange(columns),
        "last": np.array([columns]),
        "slope": slope.T.astype(np.float32),
        "filled": (slope * fill).T.astype(np.float32),
        "shift": shift.astype(np.float32),
        "names": np.arange(folds, dtype=np.float32),
        "each": np.full(folds, 1 / folds, np.float32),
        "zero": np.array(0, np.float32),
        "over": np.array([1]),
    }
    steps = (
        ("Gather", "application features", "x"),
        ("IsNaN", "x", "missing"),
        ("Where", "missing zero x", "known"),
        ("Cast", "missing", "holes"),
        ("MatMul", "known slope", "a"),
        ("MatMul", "holes filled", "b"),
        ("Sum", "a b shift", "z"),
        ("Sigmoid", "z", "each_says"),
        ("Gather", "application last", "fold"),
        ("Equal", "fold names", "is_own"),
        ("Cast", "is_own", "own"),
        ("IsNaN", "fold", "is_new"),
        ("Cast", "is_new", "new"),
        ("Mul", "new each", "shared"),
        ("Add", "own shared", "weight"),
        ("Mul", "each_says weight", "weighted"),
        ("ReduceSum", "weighted over", OUTPUT),
    )
    extra = {"Gather": {"axis": 1}, "Cast": {"to": TensorProto.FLOAT}}
    graph = helper.make_graph(
        [helper.make_node(op, ins.split(), [out], **extra.get(op, {})) for op, ins, out in steps],
        "mortgage",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", columns + 1])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())
