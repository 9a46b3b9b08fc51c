"""Linear pipelines become one product, exactly; what is no linear pipeline is named."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    SGDClassifier,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)

from falaj.pipelines.folding import NotLinear, fold
from falaj.pipelines.model import Model
from falaj.ports.codecs import BadValue
from falaj.stats.linear import Linear, Link, answers, as_npz, from_npz

NAMES = ["a", "b", "c", "d"]
DRAW = np.random.default_rng(5)
X = DRAW.normal(size=(600, 4)) * [1, 100, 0.01, 5] + [0, 50, 3, 0]
Y = (X[:, 0] + 0.02 * X[:, 1] + 0.3 * DRAW.normal(size=600) > 1).astype(int)
THREE = Y + (X[:, 3] > 0)
HOLED = np.where(DRAW.random(X.shape) < 0.15, np.nan, X)

PIPELINES = {
    "logistic": (LogisticRegression(), X, Y),
    "three classes": (make_pipeline(StandardScaler(), LogisticRegression()), X, THREE),
    "imputed, scaled": (make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()), HOLED, Y),
    "scaled, then imputed": (
        make_pipeline(StandardScaler(), SimpleImputer(strategy="median"), LogisticRegression()), HOLED, Y),
    "constant, robust, ridge": (
        make_pipeline(SimpleImputer(strategy="constant", fill_value=-1), RobustScaler(), Ridge()), HOLED, Y),
    "min max, lasso": (make_pipeline(MinMaxScaler(), Lasso(alpha=0.001)), X, Y),
    "max abs, elastic": (make_pipeline(MaxAbsScaler(), ElasticNet(alpha=0.001)), X, Y),
    "selected": (make_pipeline(VarianceThreshold(1e-3), SelectKBest(k=2), LogisticRegression()), X, Y),
    "projected": (make_pipeline(StandardScaler(), PCA(2, whiten=True), LogisticRegression()), X, Y),
    "projected without a mean": (make_pipeline(TruncatedSVD(2), LinearRegression()), X, Y),
    "stochastic": (make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)), X, Y),
    "counts": (make_pipeline(StandardScaler(), PoissonRegressor()), X, Y),
    "nested": (make_pipeline(make_pipeline(SimpleImputer(), "passthrough"), make_pipeline(StandardScaler(), LogisticRegression())), HOLED, Y),
    "two outputs": (LinearRegression(), X, np.stack([Y, THREE], 1)),
}  # fmt: skip


@pytest.mark.parametrize(("pipeline", "x", "y"), PIPELINES.values(), ids=PIPELINES)
def test_folded_it_answers_the_same(pipeline, x, y):
    fitted = pipeline.fit(x, y)
    made = from_npz(as_npz(fold(fitted, NAMES)))
    far = np.vstack([x, x * 1e6, np.zeros((1, 4))])
    was = fitted.predict_proba(far) if hasattr(fitted, "predict_proba") else fitted.predict(far)
    was = was.reshape(len(far), -1)
    was = was[:, 1:] if hasattr(fitted, "predict_proba") and was.shape[1] == 2 else was
    apart = np.abs(answers(made, far) - was) / np.maximum(1, np.abs(was))
    assert apart[np.isfinite(was)].max() < 1e-9


def test_columns_by_name_and_place_in_branches():
    frame = pl.DataFrame(HOLED, schema=NAMES)
    branches = ColumnTransformer(
        [
            ("filled", make_pipeline(SimpleImputer(), StandardScaler()), ["d", "a"]),
            ("other", SimpleImputer(strategy="median"), ["b"]),
        ],
        remainder="drop",
    )
    fitted = make_pipeline(branches, LogisticRegression()).fit(frame, Y)
    found = answers(fold(fitted, NAMES), HOLED)
    assert np.abs(found[:, 0] - fitted.predict_proba(frame)[:, 1]).max() < 1e-12


def test_a_column_that_was_always_empty_is_left_out():
    empty = HOLED.copy()
    empty[:, 2] = np.nan
    fitted = make_pipeline(SimpleImputer(), LogisticRegression()).fit(empty, Y)
    assert (
        np.abs(answers(fold(fitted, NAMES), HOLED)[:, 0] - fitted.predict_proba(HOLED)[:, 1]).max()
        < 1e-12
    )


OTHERS = {
    "a forest": (RandomForestClassifier(2), "RandomForestClassifier"),
    "polynomials": (make_pipeline(PolynomialFeatures(), LogisticRegression()), "PolynomialFeatures"),
    "a scaler that clips": (make_pipeline(MinMaxScaler(clip=True), Ridge()), "clips"),
    "gaps as columns": (make_pipeline(SimpleImputer(add_indicator=True), Ridge()), "columns of gaps"),
    "zeros as gaps": (make_pipeline(SimpleImputer(missing_values=0), Ridge()), "imputer of 0"),
    "an imputer behind sums": (make_pipeline(PCA(2), SimpleImputer(), Ridge()), "added up"),
    "a hinge": (SGDClassifier(random_state=0), "SGDClassifier"),
    "one column, filled in two ways": (
        make_pipeline(ColumnTransformer([("x", SimpleImputer(), [0]), ("y", SimpleImputer(strategy="constant", fill_value=9), [0])]), Ridge()),
        "two ways",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("pipeline", "words"), OTHERS.values(), ids=OTHERS)
def test_what_is_no_linear_pipeline_is_named(pipeline, words):
    fitted = pipeline.fit(X, Y)
    with pytest.raises(NotLinear, match=words):
        fold(fitted, NAMES)


@given(
    rows=st.integers(1, 40), outputs=st.integers(1, 3), link=st.sampled_from(Link),
    seed=st.integers(0, 1000),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_batch_is_its_rows_and_no_row_overflows(rows, outputs, link, seed):
    draw = np.random.default_rng(seed)
    made = Linear(
        draw.normal(size=(4, outputs)) * 1e3, draw.normal(size=outputs), np.zeros(4), link
    )
    x = draw.normal(size=(rows, 4)) * 10.0 ** draw.integers(-3, 6)
    x[draw.random(x.shape) < 0.2] = np.nan
    with np.errstate(over="raise", invalid="raise"):
        whole = answers(made, x)
        single = np.concatenate([answers(made, row[None]) for row in x])
    assert np.allclose(whole, single, rtol=1e-9)
    assert np.isfinite(whole).all()


BAD = {
    "another member": {"weights": np.eye(2), "bias": np.zeros(2), "fill": np.zeros(2), "more": 1},
    "shapes": {"weights": np.eye(2), "bias": np.zeros(3), "fill": np.zeros(2), "link": np.int8(0)},
    "infinite": {"weights": np.eye(2) * np.inf, "bias": np.zeros(2), "fill": np.zeros(2), "link": np.int8(0)},
    "an unknown link": {"weights": np.eye(2), "bias": np.zeros(2), "fill": np.zeros(2), "link": np.int8(9)},
    "small numbers": {"weights": np.eye(2, dtype="f4"), "bias": np.zeros(2), "fill": np.zeros(2), "link": np.int8(0)},
}  # fmt: skip


@pytest.mark.parametrize("members", BAD.values(), ids=BAD)
def test_files_that_are_no_linear_model_are_refused(members):
    import io

    file = io.BytesIO()
    np.savez(file, **members)
    with pytest.raises(ValueError):
        from_npz(file.getvalue())


# --- falaj.Model.of ---


def frames(x=HOLED):
    frame = pl.DataFrame(x.astype(np.float32), schema=NAMES)
    return {"reference": frame[:300], "test": frame[300:].with_columns(pl.Series("y", Y[300:]))}


SCHEMA = {"input": "x", "columns": {name: {"nullable": True} for name in NAMES}, "output": "p"}


def test_a_fitted_model_is_packed_with_proof():
    fitted = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(HOLED, Y)
    made = Model.of(fitted, schema=SCHEMA, threshold=0.4, **frames())
    assert (made.runtime, list(made.files)) == ("linear", ["linear.npz"])
    assert made.parity["max_abs_diff"] < 1e-6
    assert made.parity["rows"] == 600 + 4 * 20  # rows with gaps beside


def test_without_its_imputer_it_would_answer_otherwise():
    """The trap: a fused model that forgets the imputer passes on rows without gaps."""
    fitted = make_pipeline(SimpleImputer(), LogisticRegression()).fit(HOLED, Y)
    forgotten = make_pipeline(fitted[-1])
    from falaj.pipelines.packing import packed, repeated

    names = frames(X)["reference"].select(NAMES)
    assert repeated(fitted, packed(forgotten, NAMES), [names], [])["max_abs_diff"] < 1e-6
    with pytest.raises(BadValue, match="answers otherwise"):
        repeated(fitted, packed(forgotten, NAMES), [names], [0, 1])


REFUSED = {
    "a forest": (RandomForestClassifier(2), {}, "RandomForestClassifier is no linear.*ONNX"),
    "a runtime of others": (
        LogisticRegression(),
        {"runtime": "xgboost"},
        "expected linear or skops",
    ),
}


@pytest.mark.parametrize(("fitted", "more", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_packed_is_refused_with_the_way_out(fitted, more, words):
    with pytest.raises(BadValue, match=words):
        Model.of(fitted.fit(X, Y), schema=SCHEMA, **frames(X), **more)


def test_something_of_nobody_is_refused():
    with pytest.raises(BadValue, match="export it to ONNX"):
        Model.of(object(), schema=SCHEMA, **frames(X))
