"""A fitted model as files that its runtime loads, and how well they repeat its answers."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from falaj.pipelines.folding import NotLinear, fold
from falaj.ports.codecs import BadValue
from falaj.stats.linear import answers, as_npz, from_npz

if TYPE_CHECKING:
    import polars as pl

__all__ = ["TOLERANCE", "Packed", "packed", "repeated"]

TOLERANCE: Final = 1e-5
MOST_ROWS: Final = 20_000
LIBRARIES: Final = {"xgboost": "xgboost", "lightgbm": "lightgbm"}

Scores = Callable[[NDArray[np.float32]], NDArray[Any]]


class Packed(NamedTuple):
    """score: answers of the files alone, as they will be served."""

    runtime: str
    files: dict[str, bytes]
    score: Scores


def packed(fitted: Any, features: Sequence[str], runtime: str = "") -> Packed:
    """runtime: the natural one of the model's library, when not said. Raises BadValue."""
    home = type(fitted).__module__.partition(".")[0]
    natural = LIBRARIES.get(home)
    allowed = (natural,) if natural else ("linear", "skops")
    if home not in {*LIBRARIES, "sklearn"}:
        raise BadValue(
            f"got a {type(fitted).__name__} of {home}; export it to ONNX: Model(onnx, ...)"
        )
    runtime = runtime or allowed[0]
    if runtime not in allowed:
        raise BadValue(f"runtime: got {runtime!r}, expected {' or '.join(allowed)}")
    return MAKERS[runtime](fitted, features)


def linear(fitted: Any, features: Sequence[str]) -> Packed:
    try:
        data = as_npz(fold(fitted, features))
    except NotLinear as error:
        raise BadValue(
            f"it is no linear model: {error}; export it to ONNX (falaj[sklearn]), or say runtime='skops'"
        ) from None
    model = from_npz(data)
    return Packed("linear", {"linear.npz": data}, lambda x: answers(model, x))


def boosted_x(fitted: Any, _: Sequence[str]) -> Packed:
    xgboost = importlib.import_module("xgboost")
    booster = fitted.get_booster() if hasattr(fitted, "get_booster") else fitted
    best = getattr(fitted, "best_iteration", None) if booster.attr("best_iteration") else None
    if best is not None:
        booster = booster[: int(best) + 1]  # a server knows nothing of early stopping
    data = bytes(booster.save_raw("ubj"))
    alone = xgboost.Booster({"nthread": 1}, model_file=bytearray(data))
    return Packed(
        "xgboost",
        {"model.ubj": data},
        lambda x: np.asarray(alone.inplace_predict(x, missing=np.nan, validate_features=False)),
    )


def boosted_l(fitted: Any, _: Sequence[str]) -> Packed:
    lightgbm = importlib.import_module("lightgbm")
    booster = getattr(fitted, "booster_", fitted)
    text = booster.model_to_string()
    alone = lightgbm.Booster(model_str=text)
    return Packed(
        "lightgbm",
        {"model.txt": text.encode()},
        lambda x: np.asarray(alone.predict(x, num_threads=1)),
    )


def skops(fitted: Any, _: Sequence[str]) -> Packed:
    import json

    library = importlib.import_module("skops.io")
    data: bytes = library.dumps(fitted)
    trusted = sorted(library.get_untrusted_types(data=data))
    alone = library.loads(data, trusted=trusted)
    files = {"model.skops": data}
    if trusted:
        files["trusted.json"] = json.dumps(trusted).encode()
    return Packed("skops", files, lambda x: np.asarray(scored(alone, x)))


MAKERS: Final[Mapping[str, Callable[[Any, Sequence[str]], Packed]]] = {
    "linear": linear,
    "xgboost": boosted_x,
    "lightgbm": boosted_l,
    "skops": skops,
}


def repeated(
    fitted: Any, made: Packed, frames: Sequence[pl.DataFrame], gaps: Sequence[int]
) -> dict[str, Any]:
    """Both answer the same rows, and rows with gaps where gaps are allowed. Raises BadValue.

    gaps: places of the columns that may be null.
    """
    x = np.vstack([frame.to_numpy().astype(np.float32) for frame in frames])[:MOST_ROWS]
    holed = x[: len(gaps) * 20].copy()
    for at, place in enumerate(gaps):
        holed[at :: len(gaps), place] = np.nan
    x = np.vstack([x, holed]) if gaps else x
    names = frames[0].columns
    was = one_column(scored(fitted, x, names))
    is_ = one_column(made.score(x))
    one_by_one = one_column(
        np.concatenate([made.score(x[at : at + 1]) for at in range(min(len(x), 64))])
    )
    if was.shape != is_.shape:
        raise BadValue(
            f"packed as {made.runtime} it answers with shape {is_.shape}, not {was.shape}"
        )
    apart = np.abs(was - is_) / np.maximum(1.0, np.abs(was))
    apart[np.isnan(was) & np.isnan(is_)] = 0.0
    most = float(apart.max()) if apart.size else 0.0
    if not most <= TOLERANCE:
        row = int(np.nanargmax(apart.max(axis=1)))
        raise BadValue(
            f"packed as {made.runtime} it answers otherwise: by up to {most:.3g}, first in row {row}"
        )
    single = float(np.nanmax(np.abs(one_by_one - is_[: len(one_by_one)]), initial=0.0))
    if not single <= TOLERANCE:
        raise BadValue(
            f"one row alone is answered otherwise than in a batch: by up to {single:.3g}"
        )
    return {
        "rows": float(len(x)),
        "max_abs_diff": most,
        "of": f"{made.runtime} repeats the fitted model",
    }


def one_column(found: NDArray[Any]) -> NDArray[np.float64]:
    """Two columns of a binary answer say one thing."""
    scores = np.asarray(found, np.float64)
    scores = scores.reshape(len(scores), -1)
    return scores[:, 1:] if scores.shape[1] == 2 else scores


def scored(fitted: Any, x: NDArray[np.float32], names: Sequence[str] = ()) -> NDArray[Any]:
    """What the fitted model itself answers: probabilities where there are any."""
    if hasattr(fitted, "inplace_predict"):
        return np.asarray(fitted.inplace_predict(x, missing=np.nan, validate_features=False))
    given: Any = x
    if hasattr(fitted, "feature_names_in_") and type(fitted).__module__.startswith("sklearn"):
        import polars as pl

        columns = list(names) or [str(name) for name in fitted.feature_names_in_]
        given = pl.DataFrame(x, schema=columns)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trained on a frame, asked by position
        if hasattr(fitted, "predict_proba"):
            return np.asarray(fitted.predict_proba(given))
        return np.asarray(fitted.predict(given))
