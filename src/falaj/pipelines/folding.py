"""A pipeline of scikit-learn as one linear model, where it is one: x -> link(x' W + b), exactly.

Known are imputers, scalers, selections, projections, and linear estimators at the end; whatever else
stands in it raises NotLinear. Nothing of scikit-learn is imported: objects say what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from falaj.stats.linear import Linear, Link

__all__ = ["NotLinear", "fold"]

Array = NDArray[np.float64]


class NotLinear(ValueError):
    """What in it is no linear step."""


class Stage(NamedTuple):
    """What has become of k inputs so far: x' @ a + c, where gaps of x were filled."""

    a: Array
    c: Array
    fill: Array


def fold(fitted: Any, names: Sequence[str]) -> Linear:
    """names: of the input columns, in their order. Raises NotLinear."""
    k = len(names)
    stage = Stage(np.eye(k), np.zeros(k), np.full(k, np.nan))
    *steps, last = steps_of(fitted)
    for step in steps:
        stage = moved(stage, step, names)
    weights, bias, link = ending(last)
    if len(weights) != stage.a.shape[1]:
        raise NotLinear(f"{kind_of(last)} takes {len(weights)} columns")
    # A gap in a column that nothing looks at is no gap of the answer: 0 * NaN would be one.
    fill = np.where(stage.a.any(axis=1), stage.fill, 0.0)
    return Linear(stage.a @ weights, stage.c @ weights + bias, fill, link)


def kind_of(step: Any) -> str:
    return type(step).__name__


def steps_of(fitted: Any) -> list[Any]:
    if kind_of(fitted) == "Pipeline":
        return [inner for _, step in fitted.steps for inner in steps_of(step)]
    return [fitted]


def moved(stage: Stage, step: Any, names: Sequence[str]) -> Stage:
    if step is None or isinstance(step, str):
        if step in (None, "passthrough"):
            return stage
        raise NotLinear(f"a step {step!r}")
    change = STEPS.get(kind_of(step))
    if change is not None:
        return change(stage, step)
    if kind_of(step) == "ColumnTransformer":
        return branched(stage, step, names)
    raise NotLinear(f"{kind_of(step)} is no linear step")


def affine(stage: Stage, times: Any, plus: Any) -> Stage:
    """Columns one by one: x * times + plus."""
    times = np.broadcast_to(np.asarray(times, np.float64), stage.c.shape)
    plus = np.broadcast_to(np.asarray(plus, np.float64), stage.c.shape)
    return Stage(stage.a * times, stage.c * times + plus, stage.fill)


def imputed(stage: Stage, step: Any) -> Stage:
    if getattr(step, "add_indicator", False):
        raise NotLinear("an imputer that adds columns of gaps")
    missing = step.missing_values
    if not (isinstance(missing, float) and np.isnan(missing)):
        raise NotLinear(f"an imputer of {missing!r}")
    statistics = np.asarray(step.statistics_, np.float64)
    fill = stage.fill.copy()
    for at, value in enumerate(statistics):
        sources = np.flatnonzero(stage.a[:, at])
        if len(sources) != 1:
            raise NotLinear("an imputer behind columns that were added up")
        (one,) = sources
        if np.isnan(fill[one]) and not np.isnan(value):
            # Said in the units of the input: gaps are filled before anything else is done.
            fill[one] = (value - stage.c[at]) / stage.a[one, at]
    kept = ~np.isnan(statistics)
    return Stage(stage.a[:, kept], stage.c[kept], fill)


def standardised(stage: Stage, step: Any) -> Stage:
    scale = 1.0 if step.scale_ is None else step.scale_
    mean = 0.0 if step.mean_ is None else step.mean_
    return affine(stage, 1.0 / np.asarray(scale), -np.asarray(mean) / np.asarray(scale))


def squeezed(stage: Stage, step: Any) -> Stage:
    if step.clip:
        raise NotLinear("a scaler that clips")
    return affine(stage, step.scale_, step.min_)


def largest(stage: Stage, step: Any) -> Stage:
    if getattr(step, "clip", False):
        raise NotLinear("a scaler that clips")
    return affine(stage, 1.0 / step.scale_, 0.0)


def robust(stage: Stage, step: Any) -> Stage:
    scale = 1.0 if step.scale_ is None else np.asarray(step.scale_)
    center = 0.0 if step.center_ is None else np.asarray(step.center_)
    return affine(stage, 1.0 / scale, -center / scale)


def selected(stage: Stage, step: Any) -> Stage:
    kept = np.asarray(step.get_support())
    return Stage(stage.a[:, kept], stage.c[kept], stage.fill)


def projected(stage: Stage, step: Any) -> Stage:
    to = np.asarray(step.components_, np.float64).T
    mean = np.asarray(getattr(step, "mean_", None) if hasattr(step, "mean_") else 0.0, np.float64)
    a, c = stage.a @ to, (stage.c - mean) @ to
    if getattr(step, "whiten", False):
        scale = np.sqrt(step.explained_variance_)
        a, c = a / scale, c / scale
    return Stage(a, c, stage.fill)


STEPS: Final[dict[str, Callable[[Stage, Any], Stage]]] = {
    "SimpleImputer": imputed,
    "StandardScaler": standardised,
    "MinMaxScaler": squeezed,
    "MaxAbsScaler": largest,
    "RobustScaler": robust,
    "VarianceThreshold": selected,
    "SelectKBest": selected,
    "SelectPercentile": selected,
    "SelectFromModel": selected,
    "PCA": projected,
    "TruncatedSVD": projected,
}


def branched(stage: Stage, step: Any, names: Sequence[str]) -> Stage:
    """Branches over columns, side by side. Two that fill one column differently are no linear model."""
    if not np.array_equal(stage.a, np.eye(len(names))) or stage.c.any():
        raise NotLinear("a ColumnTransformer behind other steps")
    parts: list[Stage] = []
    fill = stage.fill.copy()
    for _, inner, columns in step.transformers_:
        places = places_of(columns, names)
        if inner == "drop" or not places:
            continue
        part = Stage(stage.a[:, places], stage.c[places], stage.fill)
        for one in steps_of(inner):
            part = moved(part, one, names)
        parts.append(part)
        for at in places:
            asked = part.fill[at]
            if not np.isnan(asked):
                if not np.isnan(fill[at]) and fill[at] != asked:
                    raise NotLinear(f"{names[at]} is filled in two ways")
                fill[at] = asked
    for part in parts:
        raw = np.isnan(part.fill) & ~np.isnan(fill) & part.a.any(axis=1)
        if raw.any():
            raise NotLinear(
                f"{names[int(raw.argmax())]} is filled in one branch and not in another"
            )
    if not parts:
        raise NotLinear("a ColumnTransformer without columns")
    return Stage(np.hstack([p.a for p in parts]), np.concatenate([p.c for p in parts]), fill)


def places_of(columns: Any, names: Sequence[str]) -> list[int]:
    if isinstance(columns, slice):
        return list(range(*columns.indices(len(names))))
    if isinstance(columns, str):
        return [list(names).index(columns)]
    found = np.asarray(columns)
    if found.dtype == np.bool_:
        return [int(at) for at in np.flatnonzero(found)]
    return [list(names).index(one) if isinstance(one, str) else int(one) for one in columns]


PLAIN: Final = frozenset(
    [
        "LinearRegression",
        "Ridge",
        "RidgeCV",
        "Lasso",
        "LassoCV",
        "ElasticNet",
        "ElasticNetCV",
        "BayesianRidge",
        "ARDRegression",
        "HuberRegressor",
        "QuantileRegressor",
        "SGDRegressor",
        "LinearSVR",
        "Lars",
        "LassoLars",
    ]
)
POSITIVE: Final = frozenset({"PoissonRegressor", "GammaRegressor"})
CLASSES: Final = frozenset({"LogisticRegression", "LogisticRegressionCV"})


def ending(last: Any) -> tuple[Array, Array, Link]:
    """Weights (k, m), bias (m,) and link of the estimator at the end."""
    name = kind_of(last)
    if name not in PLAIN | POSITIVE | CLASSES and not (
        name == "SGDClassifier" and last.loss == "log_loss" and len(last.classes_) == 2
    ):
        raise NotLinear(f"{name} is no linear model whose answers are known here")
    weights = np.atleast_2d(np.asarray(last.coef_, np.float64)).T
    bias = np.atleast_1d(np.asarray(last.intercept_, np.float64))
    bias = np.broadcast_to(bias, (weights.shape[1],)).copy()
    if name in PLAIN:
        return weights, bias, Link.IDENTITY
    if name in POSITIVE:
        return weights, bias, Link.EXP
    return weights, bias, Link.LOGISTIC if weights.shape[1] == 1 else Link.SOFTMAX
