"""Models of each runtime as files, made by the real libraries, with the answers expected of them.

Imported by the contract of runtimes, beside the tests and inside the environments of the parts.
"""

from __future__ import annotations

import numpy as np

from falaj.facts.models import Column, Datatype, Schema, Tensor
from falaj.pipelines.packing import packed, scored

WIDTH = 6


def rows(n=3000, width=WIDTH, gaps=True):
    draw = np.random.default_rng(3)
    x = draw.normal(size=(n, width)) * np.array([1, 10, 0.1, 1000, 1, 1])
    y = (x[:, 0] + 0.1 * x[:, 1] + 0.5 * draw.normal(size=n) > 0).astype(int)
    if gaps:
        x[draw.random(x.shape) < 0.1] = np.nan
    return x.astype(np.float32).astype(np.float64), y


def schema(datatype="FP32", outputs=1, width=WIDTH):
    columns = tuple(Column(name=f"c{i}", nullable=True) for i in range(width))
    given = Tensor(name="x", datatype=Datatype(datatype), shape=(-1, width), columns=columns)
    return Schema(
        inputs=(given,),
        outputs=(Tensor(name="p", datatype=Datatype.FP32, shape=(-1, outputs)),),
    )


def linear_pipeline(many=False):
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = rows()
    y = y + (x[:, 4] > 0.5) if many else y
    return make_pipeline(
        SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression()
    ).fit(x, y)


def onnx_of_linear():
    """The same pipeline by way of ONNX: another engine, for the same contract."""
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType

    fitted = linear_pipeline()
    proto = skl2onnx.to_onnx(
        fitted,
        initial_types=[("x", FloatTensorType([None, WIDTH]))],
        options={id(fitted): {"zipmap": False}},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    kept = [value for value in proto.graph.output if value.name == "probabilities"]
    del proto.graph.output[:]
    proto.graph.output.extend(kept)
    return fitted, {"model.onnx": proto.SerializeToString()}


CODE = b"""# falaj: code of a model
import json
import numpy as np


def load(folder):
    return np.array(json.loads((folder / "weights.json").read_text()))


def predict(weights, inputs):
    print("what a model prints is no answer")
    x = np.nan_to_num(inputs["x"].astype(np.float64))
    return 1 / (1 + np.exp(-np.clip((x * weights).sum(axis=1), -500, 500)))
"""
WEIGHTS = [0.5, 0.05, 0.0, 0.001, -0.25, 0.125]


class Hand:
    """The same function outside the sandbox."""

    def predict(self, x):
        x = np.nan_to_num(np.asarray(x, np.float64))
        return 1 / (1 + np.exp(-np.clip((x * np.array(WEIGHTS)).sum(axis=1), -500, 500)))


def made(name):
    """runtime, files, schema, expected answers of (x) -> (n, k)."""
    import json

    x, y = rows()
    if name == "onnx":
        fitted, files = onnx_of_linear()
        return "onnx", files, renamed(schema(outputs=2)), lambda z: scored(fitted, z)
    if name == "python":
        files = {"model.py": CODE, "weights.json": json.dumps(WEIGHTS).encode()}
        return "python", files, schema(), lambda z: Hand().predict(z)
    fitted, outputs = None, 1
    if name == "linear":
        fitted = linear_pipeline()
    elif name == "linear, three classes":
        fitted, outputs = linear_pipeline(many=True), 3
    elif name == "xgboost":
        from xgboost import XGBClassifier

        fitted = XGBClassifier(n_estimators=20, max_depth=4, n_jobs=1).fit(x, y)
    elif name == "xgboost, stopped early":
        from xgboost import XGBClassifier

        fitted = XGBClassifier(
            n_estimators=60, max_depth=6, learning_rate=1.0, early_stopping_rounds=2, n_jobs=1
        )
        fitted.fit(x[:2000], y[:2000], eval_set=[(x[2000:], y[2000:])], verbose=False)
    elif name == "lightgbm":
        from lightgbm import LGBMClassifier

        fitted = LGBMClassifier(n_estimators=20, verbose=-1, n_jobs=1).fit(x, y)
    elif name == "skops":
        from sklearn.ensemble import HistGradientBoostingClassifier

        fitted = HistGradientBoostingClassifier(max_iter=10).fit(x, y)
    given = packed(fitted, [f"c{i}" for i in range(WIDTH)], "skops" if name == "skops" else "")
    return given.runtime, given.files, schema(outputs=outputs), lambda z: scored(fitted, z)


def renamed(given):
    from msgspec.structs import replace

    (one,) = given.outputs
    return replace(given, outputs=(replace(one, name="probabilities"),))


def loaded(folder, name):
    """The runtime over a model folder, and its expected answers."""
    from falaj.serving.runtimes.choice import maker

    runtime, files, given, expected = made(name)
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in files.items():
        (folder / file).write_bytes(data)
    return maker(runtime)(folder, given), given, expected


def one_column(found):
    found = np.asarray(found, np.float64)
    found = found.reshape(len(found), -1)
    return found[:, 1:] if found.shape[1] == 2 else found
