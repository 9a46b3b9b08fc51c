"""The raw rows and what becomes of them. `falaj test` runs this; fixtures come from Falaj."""

from __future__ import annotations

import polars as pl
import pytest
from polars.testing import assert_series_equal
from prepare import FEATURES, WEATHER, beside, features, in_units, split

DATASETS = ("flights", "weather", "planes", "airports")


@pytest.fixture(scope="module")
def joined(dataset_sample):
    others = (dataset_sample(name, 30_000) for name in DATASETS[1:])
    return beside(dataset_sample("flights", 10_000, seed=1), *others)


@pytest.mark.parametrize("name", DATASETS)
def test_a_sample_keeps_its_contract(name, dataset_sample, contract_check):
    assert contract_check(name, dataset_sample(name, rows=5000, seed=1)) == {}


def test_the_contract_sees_an_hour_that_is_none(dataset_sample, contract_check):
    rows = dataset_sample("flights", rows=100).with_columns(hour=pl.lit(24))
    assert "hour.range" in contract_check("flights", rows)


def test_both_units_of_the_feed_say_the_same(dataset_sample):
    weather = dataset_sample("weather")
    us, si = (in_units(weather, units) for units in ("us", "si"))
    assert (si["wind_speed"] / us["wind_speed"]).drop_nans().drop_nulls().round(
        5
    ).unique().to_list() == [0.44704]
    assert si["humid"].equals(us["humid"])


def test_the_weather_is_that_of_the_hour_before(joined, dataset_sample):
    """An hour's row may be read late in that hour: with it the model would see the future."""
    weather = dataset_sample("weather", 30_000).select("origin", "time_hour", "humid")
    before = pl.col("at").dt.offset_by("-1h").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    both = joined.with_columns(time_hour=before).join(
        weather, on=("origin", "time_hour"), suffix="_before"
    )
    assert both.height > 9000
    assert_series_equal(both["humid"], both["humid_before"], check_names=False)


def test_what_never_arrived_has_no_label(joined):
    assert features(joined).filter(joined["arr_delay"].is_null())["y"].null_count() > 100


def test_no_day_stands_on_both_sides(joined):
    parts = split(features(joined))
    assert not set(parts.train["date"]) & set(parts.test["date"])
    assert set(FEATURES) | set(WEATHER) <= set(parts.test.columns)
