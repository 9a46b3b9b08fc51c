"""The port Converter over skops. Run inside the environment of the part mlflow."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import skops.io
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from falaj.base.errors import FalajError
from falaj.links.skops.convert import SkopsConverter

DICE = np.random.default_rng(3)
X = DICE.normal(size=(600, 2)).astype(np.float32)
Y = (X[:, 0] + 0.5 * DICE.normal(size=600) > 0).astype(int)
COLUMNS = ("a", "b")


def kept(model, folder):
    path = folder / "theirs.skops"
    skops.io.dump(model, path)
    return path


def converted(model, folder, *, columns=COLUMNS, trust=(), rows=X, **other):
    return SkopsConverter(**other).convert(kept(model, folder), rows, columns, trust)


MODELS = {
    "linear": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "trees": lambda: RandomForestClassifier(20, max_depth=4, random_state=0),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=20, random_state=0),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_the_converted_model_answers_as_the_original(tmp_path, make):
    model = make().fit(X, Y)
    trust = skops.io.get_untrusted_types(file=kept(model, tmp_path))
    made = converted(model, tmp_path, trust=trust)
    session = onnxruntime.InferenceSession(made.onnx, providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"features": X})
    assert np.abs(answer[:, 1] - made.scores).max() < 1e-5
    assert np.allclose(made.scores, model.predict_proba(X)[:, 1])


def refusal(model, folder, **other):
    with pytest.raises(FalajError) as caught:
        converted(model, folder, **other)
    assert caught.value.problems[0].fix
    return caught.value


def test_a_type_that_nobody_trusts_is_not_loaded(tmp_path):
    model = make_pipeline(FunctionTransformer(np.abs), LogisticRegression()).fit(X, Y)
    path = kept(model, tmp_path)
    evil = tmp_path / "evil.skops"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(evil, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "schema.json":
                data = data.replace(b'"LogisticRegression"', b'"system"')
                data = data.replace(b'"sklearn.linear_model._logistic"', b'"os"')
            new.writestr(name, data)
    with pytest.raises(FalajError) as caught:
        SkopsConverter().convert(evil, X, COLUMNS, [])
    assert caught.value.code == "imports.untrusted-type"
    assert "os.system" in str(caught.value)


WRONG = {
    "no classifier": (LinearRegression(), Y, {}, "imports.model-shape"),
    "three classes": (LogisticRegression(), np.arange(600) % 3, {}, "imports.model-shape"),
    "classes of words": (LogisticRegression(), np.where(Y, "yes", "no"), {}, "imports.model-shape"),
    "another number of columns": (
        LogisticRegression(), Y,
        {"columns": ("a", "b", "c"), "rows": np.zeros((2, 3), np.float32)}, "imports.model-shape",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("model", "truth", "other", "code"), WRONG.values(), ids=WRONG)
def test_models_that_do_not_fit(tmp_path, model, truth, other, code):
    assert refusal(model.fit(X, truth), tmp_path, **other).code == code


def test_columns_in_another_order_than_trained(tmp_path):
    import pandas as pd

    model = LogisticRegression().fit(pd.DataFrame(X, columns=["b", "a"]), Y)
    assert refusal(model, tmp_path).code == "imports.model-shape"
    made = converted(model, tmp_path, columns=("b", "a"))
    assert np.allclose(made.scores, model.predict_proba(pd.DataFrame(X, columns=["b", "a"]))[:, 1])


def test_garbage_and_time(tmp_path):
    (tmp_path / "x").write_bytes(b"PK garbage")
    with pytest.raises(FalajError) as caught:
        SkopsConverter().convert(Path(tmp_path / "x"), X, COLUMNS, [])
    assert caught.value.code == "imports.not-convertible"
    model = LogisticRegression().fit(X, Y)
    assert refusal(model, tmp_path, timeout_s=0.01).code == "imports.not-convertible"
