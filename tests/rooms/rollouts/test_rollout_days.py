"""Whole rollouts through the real decision code: good ones stay, a doubling is caught in time.

`FALAJ_ROLLOUT_DAYS` sets how many days are simulated of each kind; `make bench NAME=rollouts` more.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from falaj.facts.rollouts import Phase

ROOT = Path(__file__).parents[3]
RUNS = int(os.environ.get("FALAJ_ROLLOUT_DAYS", "15"))
ALPHA = 0.05


@pytest.fixture(scope="module")
def cases():
    sys.path.insert(0, str(ROOT))
    try:
        yield importlib.import_module("bench.rollouts_cases")
    finally:
        sys.path.remove(str(ROOT))


NAMES = (
    "a ramp",
    "a ramp through a day",
    "a ramp through a day with an incident of both arms",
    "two zones of unlike rates",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("aa", [False, True], ids=["dispersion assumed", "dispersion measured"])
def test_a_release_that_is_no_worse_is_rarely_rolled_back(cases, name, aa):
    assert set(NAMES) == set(cases.DAYS)
    day = cases.DAYS[name]
    seeds = range(1000 * NAMES.index(name), 1000 * NAMES.index(name) + RUNS)
    ended = [cases.walk(day, np.random.default_rng(s), alpha=ALPHA, aa=aa) for s in seeds]
    back = sum(one.phase is Phase.ROLLING_BACK for one in ended)
    assert back <= int(binom(RUNS, ALPHA).ppf(0.99))
    assert {one.phase for one in ended} <= {Phase.PROGRESSING, Phase.ROLLING_BACK}


def test_the_control_a_worse_one_on_the_same_days_is_rolled_back(cases):
    day = cases.DAYS["a ramp through a day with an incident of both arms"]
    ended = [cases.walk(day, np.random.default_rng(s), alpha=ALPHA, ratio=2.0) for s in range(10)]
    assert all(one.phase is Phase.ROLLING_BACK for one in ended)


def test_a_doubling_at_5_percent_of_6000_requests_a_minute_is_caught_within_15_minutes(cases):
    day = cases.Day(per_minute=6000, minutes=1, strata=240, steps_pct=(5, 100))
    ended = [
        cases.walk(day, np.random.default_rng(seed), alpha=0.01, ratio=2.0, aa=True)
        for seed in range(max(RUNS // 2, 15))
    ]
    assert all(one.phase is Phase.ROLLING_BACK for one in ended)
    assert np.median([one.minutes for one in ended]) <= 15
