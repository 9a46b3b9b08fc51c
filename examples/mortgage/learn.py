"""Training by folds, the proof of the export, and the rows that judge the model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from export import INPUT, OUTPUT, export_onnx
from features import FEATURES, FOLD, FOLD_SEED, FOLDS, NULLABLE, UNITS
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import falaj
from falaj import Dataset, Model, step

AGREE = 1e-5


class Fitted(NamedTuple):
    """scored: the rows with their fold, and the score of the model that has not seen them."""

    onnx: bytes
    scored: pl.DataFrame
    threshold: float


@step
def load(*, applications: Dataset) -> pl.DataFrame:
    """Features as float32, NaN where unknown; `y` is the bank's own decision."""
    return applications.read().select(
        "id",
        *(pl.col(name).cast(pl.Float32).fill_null(float("nan")) for name in FEATURES),
        pl.col("approve").cast(pl.Int8).alias("y"),
    )


@step
def fit(rows: pl.DataFrame) -> Fitted:
    """Five logistic regressions on four fifths each; so every row has a judge that is new to it.

    The threshold lets the model approve as many applications as the bank did.
    """
    x, y = matrix(rows, FEATURES), labels(rows)
    fold, score, models = np.empty(len(y)), np.empty(len(y)), []
    parts = StratifiedKFold(FOLDS, shuffle=True, random_state=FOLD_SEED)
    for number, (known, new) in enumerate(parts.split(x, y)):
        model = make_pipeline(
            SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression(max_iter=2000)
        ).fit(x[known], y[known])
        models.append(model)
        fold[new], score[new] = number, model.predict_proba(x[new])[:, 1]
    return Fitted(
        export_onnx(models),
        rows.with_columns(pl.Series(FOLD, fold, pl.Float32), pl.Series("score", score)),
        float(np.quantile(score, 1 - y.mean())),
    )


@step
def prove(onnx: bytes, scored: pl.DataFrame) -> dict[str, float]:
    """Refuse an export whose answers are not those of the trained models."""
    difference = np.abs(answers(onnx, scored) - scored["score"].to_numpy())
    if difference.max() > AGREE:
        raise ValueError(f"ONNX differs from the trained models by up to {difference.max():.2g}")
    return {"rows": float(len(scored)), "max_abs_diff": float(difference.max())}


@step
def group(scored: pl.DataFrame, *, applicants: Dataset) -> pl.DataFrame:
    """Put who asked beside the rows that judge the model; no model reads this step's result."""
    who = applicants.read().select(
        "id",
        pl.when(pl.col("black") == 1)
        .then(pl.lit("black"))
        .when(pl.col("hispan") == 1)
        .then(pl.lit("Hispanic"))
        .otherwise(pl.lit("white"))
        .alias("race"),
        pl.when(pl.col("male") == 0).then(pl.lit("women")).otherwise(pl.lit("men")).alias("sex"),
    )
    return (
        scored.drop("score")
        .join(who, on="id", how="left", validate="1:1", maintain_order="left")
        .with_columns(race_sex=pl.concat_str("race", pl.lit(" "), "sex"))
        .drop("id", "sex")
    )


@step
def evaluate(onnx: bytes, test: pl.DataFrame, threshold: float) -> dict[str, float]:
    """Measure what the gates will decide about with intervals."""
    score, y = answers(onnx, test), labels(test)
    found = {
        "auc": float(roc_auc_score(y, score)),
        "approved": float((score > threshold).mean()),
        "approved_by_the_bank": float(y.mean()),
    }
    falaj.log(**found)
    return found


@step
def pack(onnx: bytes, threshold: float, proof: dict[str, float], test: pl.DataFrame) -> Model:
    """The model with all that its gates need. The groups stand beside `y`, not in the schema."""
    columns = (*FEATURES, FOLD)
    return Model(
        onnx,
        schema={
            "input": INPUT,
            "columns": {
                name: {
                    "nullable": name in NULLABLE,
                    "minimum": 0 if name == FOLD else None,
                    "maximum": FOLDS - 1 if name == FOLD else None,
                    "unit": UNITS.get(name, ""),
                }
                for name in columns
            },
            "output": OUTPUT,
        },
        task="binary-classification",
        threshold=threshold,
        reference=test.select(columns),
        test=test,
        parity=proof,
    )


def matrix(rows: pl.DataFrame, columns: tuple[str, ...]) -> NDArray[np.float32]:
    return rows.select(columns).to_numpy().astype(np.float32, order="C")


def labels(rows: pl.DataFrame) -> NDArray[np.int64]:
    return rows["y"].to_numpy().astype(np.int64)


def answers(onnx: bytes, rows: pl.DataFrame) -> NDArray[np.float64]:
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    (found,) = session.run([OUTPUT], {INPUT: matrix(rows, (*FEATURES, FOLD))})
    return np.asarray(found[:, 0], np.float64)
