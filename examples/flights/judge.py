"""What people want to see of a model before the gates decide: where it is good, and what it looks at."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
from learn import labels, scored
from prepare import FEATURES, WEATHER, known_by
from sklearn.metrics import roc_auc_score, roc_curve

import falaj
from falaj import step

POINTS = 200  # of a drawn curve
FEWEST = 500  # rows below which an airport is not judged on its own


@step
def airports(test: pl.DataFrame) -> list[str]:
    """Airports with enough flights on held-out days; each is judged by a step run of its own."""
    sizes = test.group_by("origin_airport").len().filter(pl.col("len") >= FEWEST)
    return sorted(sizes["origin_airport"].to_list())


@step
def at_airport(airport: str, onnx: bytes, test: pl.DataFrame) -> dict[str, float]:
    rows = test.filter(pl.col("origin_airport") == airport)
    auc = float(roc_auc_score(labels(rows), scored(onnx, rows)))
    falaj.log(**{f"auc_{airport}": auc})
    return {"rows": float(len(rows)), "auc": auc}


@step
def curves(onnx: bytes, test: pl.DataFrame) -> None:
    """Draw the ROC, and how often flights were late that were given such a probability."""
    score, y = scored(onnx, test), labels(test)
    false, true, _ = roc_curve(y, score)
    some = np.linspace(0, len(false) - 1, POINTS).astype(int)
    falaj.plot("roc", {"false calls": false[some], "found": true[some]}, x="false calls", y="found")
    tenth = np.minimum((score * 10).astype(int), 9)
    held = [i for i in range(10) if (tenth == i).sum() >= FEWEST]
    falaj.plot(
        "calibration",
        {
            "given": [score[tenth == i].mean() for i in held],
            "late": [y[tenth == i].mean() for i in held],
        },
        x="given",
        y="late",
        mark="points",
    )


@step
def habit(joined: pl.DataFrame) -> float:
    """AUC of asking only how late the same plane arrived last, as it was known at departure."""
    flown = joined.filter(pl.col("arr_delay").is_not_null())
    before = flown.select("tailnum", known_by().alias("known"), pl.col("arr_delay").alias("last"))
    asked = falaj.features.as_of(
        flown.select("tailnum", "at", "day", "arr_delay"),
        before,
        entity="tailnum",
        at="at",
        available_at="known",
        tolerance=timedelta(hours=18),
    ).filter(pl.col("last").is_not_null() & (pl.col("day") % 5 == 0))
    auc = float(roc_auc_score(asked["arr_delay"] > 15, asked["last"]))
    falaj.log(habit_auc=auc)
    return auc


@step
def beats(found: dict[str, float], baseline: float) -> bool:
    return found["auc"] > baseline


@step(timeout="5m", resources={"cpu": 1})
def importance(onnx: bytes, test: pl.DataFrame) -> dict[str, float]:
    """Loss of AUC when one column is shuffled; the weather comes and goes together."""
    groups = {name: [name] for name in FEATURES if name not in WEATHER} | {"weather": [*WEATHER]}
    y, whole = labels(test), roc_auc_score(labels(test), scored(onnx, test))
    order = np.random.default_rng(falaj.seed()).permutation(len(test))
    lost = {
        name: float(whole - roc_auc_score(y, scored(onnx, shuffled(test, columns, order))))
        for name, columns in groups.items()
    }
    ranked = dict(sorted(lost.items(), key=lambda item: -item[1]))
    falaj.plot(
        "importance", {"column": [*ranked], "loss": [*ranked.values()]},
        x="column", y="loss", mark="bars",
    )  # fmt: skip
    falaj.keep(
        "importance.csv", "column,loss\n" + "".join(f"{n},{v:.6f}\n" for n, v in ranked.items())
    )
    return ranked


def shuffled(rows: pl.DataFrame, columns: list[str], order: np.ndarray) -> pl.DataFrame:
    return rows.with_columns(rows[name].gather(order).alias(name) for name in columns)
