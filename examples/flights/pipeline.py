"""The pipeline: plain functions; a step whose code and inputs did not change is not run again."""

from __future__ import annotations

from typing import Literal

import polars as pl
from judge import airports, at_airport, beats, curves, habit, importance
from learn import baseline, evaluate, pack, prove, train
from prepare import features, join, load, split

import falaj
from falaj import Model, pipeline


@pipeline
def delay(
    month_from: int = 1,
    month_to: int = 3,
    iterations: int = 150,
    leaves: int = 8,
    weather_units: Literal["us", "si"] = "us",
) -> Model:
    joined = join(load(month_from, month_to), units=weather_units)
    rows = features(joined)
    parts = split(rows)
    trained = train(parts.train, iterations=iterations, leaves=leaves)
    proof = prove(trained.onnx, trained.batch)
    found = evaluate(trained.onnx, parts.test)
    simple = baseline(parts.train, parts.test)
    habit(joined)
    curves(trained.onnx, parts.test)
    falaj.map(at_airport, airports(parts.test), trained.onnx, parts.test)
    falaj.when(beats(found, simple), importance, trained.onnx, parts.test)
    return pack(trained.onnx, proof, parts.train, parts.test)


@pipeline
def live(month_from: int = 4, month_to: int = 7) -> pl.DataFrame:
    """What callers will ask and what really happened: the rows that `falaj demo` replays."""
    return features(join(load(month_from, month_to), units="us"))
