"""Training, the baseline, the export to ONNX and the proof that both models agree."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from export import export_onnx
from numpy.typing import NDArray
from prepare import FEATURES, WEATHER
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import falaj
from falaj import Model, step

# Called late above it: one missed late flight then weighs as much as 2.3 false calls.
THRESHOLD = 0.3
LOST_FEED = 0.05  # share of training rows without weather, so that the model knows a lost feed
AGREE = 1e-5
RANGES = {"hour": (0, 23), "minute": (0, 59), "weekday": (1, 7), "carrier": (0, 15)}
UNITS = {"distance": "mi", "plane_age": "a", "humid": "%"}


class Trained(NamedTuple):
    """The exported model, and a batch of rows with the scores that the trained one gave them."""

    onnx: bytes
    batch: pl.DataFrame


@step(timeout="10m", retries=1, resources={"cpu": 1, "memory_mb": 2000})
def train(rows: pl.DataFrame, *, iterations: int, leaves: int) -> Trained:
    """Histogram gradient boosting, exported; the trained model itself is never stored."""
    model = HistGradientBoostingClassifier(
        max_iter=iterations,
        learning_rate=0.06,
        max_leaf_nodes=leaves,
        min_samples_leaf=400,
        early_stopping=False,
        random_state=falaj.seed() % 2**32,
    )
    # Threads that spin for each other cost 20 times the time on a machine that is busy.
    with threadpool_limits(limits=1, user_api="openmp"):
        model.fit(matrix(blinded(rows)), labels(rows), sample_weight=balanced(rows))
    few = rows.sample(min(len(rows), 4000), seed=0)
    for number, probability in enumerate(model.staged_predict_proba(matrix(few)), 1):
        if number % 10 == 0:
            falaj.log(step=number, loss=float(log_loss(labels(few), probability[:, 1])))
    batch = rows.select(FEATURES).sample(20_000, seed=0, with_replacement=True)
    return Trained(
        export_onnx(model),
        batch.with_columns(score=pl.Series(model.predict_proba(matrix(batch))[:, 1])),
    )


@step
def baseline(rows: pl.DataFrame, test: pl.DataFrame) -> float:
    """AUC of a logistic regression on the same rows: what the trees have to beat."""
    model = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=200))
    model.fit(matrix(blinded(rows)), labels(rows), logisticregression__sample_weight=balanced(rows))
    auc = float(roc_auc_score(labels(test), model.predict_proba(matrix(test))[:, 1]))
    falaj.log(baseline_auc=auc)
    return auc


@step
def prove(onnx: bytes, batch: pl.DataFrame) -> dict[str, float]:
    """Refuse an export whose answers are not those of the trained model."""
    difference = np.abs(scored(onnx, batch) - batch["score"].to_numpy())
    if difference.max() > AGREE:
        raise ValueError(f"ONNX differs from the trained model by up to {difference.max():.2g}")
    return {"rows": float(len(batch)), "max_abs_diff": float(difference.max())}


@step
def evaluate(onnx: bytes, test: pl.DataFrame) -> dict[str, float]:
    """Measure on held-out days what the gates will decide about with intervals."""
    score, y = scored(onnx, test), labels(test)
    called = score > THRESHOLD
    found = {
        "auc": float(roc_auc_score(y, score)),
        "wrong": float((called != y).mean()),
        "called_late": float(called.mean()),
        "late": float(y.mean()),
    }
    falaj.log(**found)
    return found


@step
def pack(onnx: bytes, proof: dict[str, float], rows: pl.DataFrame, test: pl.DataFrame) -> Model:
    """The model with all that its gates and monitors need."""
    return Model(
        onnx,
        schema={
            "input": "features",
            "columns": {
                name: {
                    "nullable": name in (*WEATHER, "plane_age", "seats", "dest_lat", "dest_lon"),
                    "minimum": RANGES.get(name, (None, None))[0],
                    "maximum": RANGES.get(name, (None, None))[1],
                    "unit": UNITS.get(name, ""),
                }
                for name in FEATURES
            },
            "output": "probability",
        },
        task="binary-classification",
        threshold=THRESHOLD,
        reference=rows.select("at", *FEATURES),
        test=test.select(*FEATURES, "y", "origin_airport"),
        parity=proof,
    )


def matrix(rows: pl.DataFrame) -> NDArray[np.float32]:
    return rows.select(FEATURES).to_numpy().astype(np.float32, order="C")


def labels(rows: pl.DataFrame) -> NDArray[np.int64]:
    return rows["y"].to_numpy().astype(np.int64)


def blinded(rows: pl.DataFrame) -> pl.DataFrame:
    """Take the weather from a small share of the rows."""
    lost = pl.Series(np.random.default_rng(0).random(len(rows)) < LOST_FEED)
    return rows.with_columns(
        pl.when(lost).then(float("nan")).otherwise(pl.col(name)).cast(pl.Float32).alias(name)
        for name in WEATHER
    )


def balanced(rows: pl.DataFrame) -> NDArray[np.float64]:
    """Weights that make lateness independent of the airport (Kamiran and Calders 2012)."""
    # Counts are u32 in Polars, and the product of two of them overflows without a word.
    size = pl.len().cast(pl.Float64)
    group = "origin_airport"
    weight = size.over(group) * size.over("y") / (size.over(group, "y") * len(rows))
    return rows.select(weight).to_series().to_numpy()


def scored(onnx: bytes, rows: pl.DataFrame) -> NDArray[np.float64]:
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    (found,) = session.run(["probability"], {"features": matrix(rows)})
    return np.asarray(found[:, 0], np.float64)
