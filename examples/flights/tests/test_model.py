"""What a model of delays has to know, whichever months it was trained on."""

from __future__ import annotations

import polars as pl
import pytest
from prepare import WEATHER


@pytest.fixture(scope="module")
def flights(dataset_sample):
    return dataset_sample("flights", rows=20_000, seed=1)


@pytest.fixture
def small(pipeline_run, flights):
    """The whole pipeline on a sample, with few trees; nothing of it is recorded."""
    return pipeline_run(datasets={"flights": flights}, month_to=12, iterations=20)


def test_a_small_training_learns_something(small):
    assert small.metrics["auc"] > 0.62


def test_more_goes_wrong_in_the_evening(trained_model, small):
    """Directional expectation: delays pile up over the day."""
    morning = small.held_out().with_columns(hour=pl.lit(6, pl.Float32))
    trained_model.assert_rises(morning, {"hour": 20.0}, share=0.99)


def test_fog_makes_no_flight_punctual(trained_model, small):
    trained_model.assert_rises(small.held_out(), {"visib": 0.5}, share=0.9)


def test_an_unknown_plane_is_no_other_flight(trained_model, small):
    """Invariance: whether the register knows the age of the plane hardly matters."""
    trained_model.assert_invariant(small.held_out(), {"plane_age": float("nan")}, within=0.1)


def test_without_the_weather_feed_there_is_an_answer(trained_model, small):
    blind = small.held_out().with_columns(
        pl.lit(float("nan"), pl.Float32).alias(name) for name in WEATHER
    )
    assert trained_model.predict(blind).max() < 1
    assert 0.05 < trained_model.decide(blind).mean() < 0.5
