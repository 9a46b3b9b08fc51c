"""Look into models: what moves the answers of one, how two differ. Asked again, the same question is read from the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from falaj.base import digests
from falaj.base.errors import FalajError, NotFound
from falaj.evaluation import comparison, explanation
from falaj.facts.checks import GateReport
from falaj.facts.explanations import Comparison, Explanation, Served
from falaj.facts.models import AliasMove, ModelVersion
from falaj.facts.releases import Release
from falaj.facts.wire import decode, encode
from falaj.ports.ground import Ground
from falaj.serving.runtimes.scoring import scorer_of

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Question", "compare", "explain", "explained"]

KEPT: Final = "explanation/1"
NEWEST: Final = "explanation-of/1"
HALF: Final = 0.5
CHAMPION: Final = "champion"


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
        x, y, columns = held_out(rows_of(ground, model), model)
        found = explanation.explain(
            x,
            y,
            columns,
            scorer_of(ground.blobs, model),
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


def compare(ground: Ground, run: str, other: str) -> Comparison:
    """The model of a run against another on the first one's rows. other: nothing is what is live."""
    model = model_of(ground, run)
    name, live = other_of(ground, model, other)
    frame = rows_of(ground, model)
    x, y, columns = held_out(frame, model)
    scores = []
    for one in (model, live):
        theirs = tuple(column.name for column in one.schema.inputs[0].columns)
        lacking = [column for column in theirs if column not in columns]
        if lacking:
            raise FalajError(
                "compare.columns",
                f"{one.id} asks for {lacking[0]!r}, which the candidate's rows do not have",
                why="two models are compared on the same held-out rows",
                fix="compare with a model of the same columns",
            )
        ground.tell(f"compare: {len(y):,} rows through {one.id}")
        score = scorer_of(ground.blobs, one)
        scores.append(score(np.ascontiguousarray(x[:, [columns.index(c) for c in theirs]])))
    found = comparison.compare(
        y,
        scores[0],
        scores[1],
        names=(model.id, name),
        thresholds=(
            HALF if model.threshold is None else model.threshold,
            HALF if live.threshold is None else live.threshold,
        ),
        groups=groups_of(frame, columns),
        evaluation=model.evaluation,
    )
    timed = tuple(served(ground, n, m.tree) for n, m in ((model.id, model), (name, live)))
    return replace(found, served=timed)


def other_of(ground: Ground, model: ModelVersion, other: str) -> tuple[str, ModelVersion]:
    """A release by its version, a run's model, or the champion."""
    if not other:
        moves = ground.store.find(AliasMove, model=model.model, alias=CHAMPION, limit=1)
        if not moves:
            raise NotFound(
                "compare.nothing-live",
                f"no release of {model.model} is live",
                why="without --with, a model is compared with what is live",
                fix="name one: --with VERSION or --with RUN",
            )
        release = ground.store.get(Release, moves[0].release).fact
    else:
        released = ground.store.find(Release, model=model.model, version=other, limit=1)
        if not released:
            return other_run(ground, other)
        release = released[0]
    version = ground.store.get(ModelVersion, release.model_version).fact
    return f"{release.model} {release.version}", version


def other_run(ground: Ground, run: str) -> tuple[str, ModelVersion]:
    found = model_of(ground, run)
    return found.id, found


def groups_of(frame: pl.DataFrame, columns: tuple[str, ...]) -> dict[str, NDArray[np.str_]]:
    """Columns beside the model's inputs, as words."""
    import polars as pl

    return {
        name: frame[name].cast(pl.String).fill_null("(none)").to_numpy().astype(str)
        for name in frame.columns
        if name not in {*columns, "y"}
    }


def served(ground: Ground, name: str, tree: str) -> Served:
    """What the newest report on these files says of its served draft."""
    for report in ground.store.find(GateReport, subject=tree, limit=1):
        for result in report.results:
            if result.check == "latency.p99" and result.value is not None:
                peak = result.details.get("memory_mb", {}).get("peak")
                return Served(
                    name=name,
                    p99_ms=result.value,
                    low=result.low,
                    high=result.high,
                    peak_mb=peak,
                    n=result.n,
                )
    return Served(name=name)


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


def rows_of(ground: Ground, model: ModelVersion) -> pl.DataFrame:
    """The held-out rows that judge it."""
    import polars as pl

    return pl.read_parquet(ground.blobs.get(model.evaluation))


def held_out(
    frame: pl.DataFrame, model: ModelVersion
) -> tuple[NDArray[np.float32], NDArray[np.float64], tuple[str, ...]]:
    columns = tuple(column.name for column in model.schema.inputs[0].columns)
    x = frame.select(columns).to_numpy().astype(np.float32, order="C")
    return x, frame["y"].to_numpy().astype(np.float64), columns
