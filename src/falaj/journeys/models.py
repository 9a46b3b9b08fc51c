"""Look into a model: what moves its answers. Asked again, the same question is read from the cache."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from falaj.base import digests
from falaj.base.errors import NotFound
from falaj.evaluation import explanation
from falaj.facts.explanations import Explanation
from falaj.facts.models import ModelVersion
from falaj.facts.wire import decode, encode
from falaj.ports.ground import Ground
from falaj.serving.runtimes.scoring import scorer

__all__ = ["Question", "explain", "explained"]

KEPT: Final = "explanation/1"
NEWEST: Final = "explanation-of/1"
HALF: Final = 0.5


class Question(NamedTuple):
    """How an explanation is asked for. metric: nothing takes the one of the quality gate."""

    metric: str = ""
    together: tuple[str, ...] = ()
    seed: int = 0
    repeats: int = 5
    rows: int = 2000


def explain(ground: Ground, run: str, question: Question) -> Explanation:
    """What moves the model of a run, on its held-out rows; of the newest run, when not said."""
    model = model_of(ground, run)
    question = question._replace(metric=question.metric or metric_of(ground, model))
    asked = digests.of_bytes(f"{model.tree} {model.evaluation} {question!r}".encode())
    kept = ground.cache.memo(KEPT, asked)
    if kept is not None:
        ground.tell("explain: asked before, read from the cache")
        found = decode(Explanation, kept.encode())
    else:
        x, y, columns = held_out(ground, model)
        found = explanation.explain(
            x,
            y,
            columns,
            scorer(ground.blobs.get(model.files["model.onnx"]), model.schema),
            metric=question.metric,
            threshold=HALF if model.threshold is None else model.threshold,
            subject=model.tree,
            evaluation=model.evaluation,
            together=question.together,
            seed=question.seed,
            repeats=question.repeats,
            most_rows=question.rows,
            heard=lambda done, of, name: ground.tell(f"explain: {done} of {of}, {name}"),
        )
        ground.cache.remember(KEPT, asked, encode(found).decode())
    found = replace(found, model_version=model.id, run=model.run)
    ground.cache.remember(NEWEST, model.tree, encode(found).decode())
    return found


def explained(ground: Ground, tree: str) -> Explanation | None:
    """The newest explanation of these model files, when there is one."""
    kept = ground.cache.memo(NEWEST, tree)
    return None if kept is None else decode(Explanation, kept.encode())


def metric_of(ground: Ground, model: ModelVersion) -> str:
    quality = ground.project.gates.quality
    if quality is not None and quality.metric in explanation.METRICS:
        return quality.metric
    return "roc_auc" if model.task == "binary-classification" else "neg_mean_absolute_error"


def model_of(ground: Ground, run: str) -> ModelVersion:
    where = {"run": run} if run else {"model": ground.project.model.name}
    found = ground.store.find(ModelVersion, limit=1, **where)
    if found:
        return found[0]
    raise NotFound(
        "runs.no-model" if run else "runs.none",
        f"run {run} made no model" if run else "no run has made a model yet",
        fix="its pipeline must return a falaj.Model" if run else "falaj run",
    )


def held_out(
    ground: Ground, model: ModelVersion
) -> tuple[NDArray[np.float32], NDArray[np.float64], tuple[str, ...]]:
    import polars as pl

    frame = pl.read_parquet(ground.blobs.get(model.evaluation))
    columns = tuple(column.name for column in model.schema.inputs[0].columns)
    x = frame.select(columns).to_numpy().astype(np.float32, order="C")
    return x, frame["y"].to_numpy().astype(np.float64), columns
