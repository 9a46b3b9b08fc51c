from __future__ import annotations

import json
import math
from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falaj.monitoring import guard

laws = settings(derandomize=True, deadline=None, max_examples=60)


def walk(limit, windows):
    seen = guard.start(limit)
    for wrong, n in windows:
        seen = guard.step(seen, wrong, n)
    return seen


def test_no_window_is_no_evidence():
    assert guard.start(0.2).log_e == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("limit", [0.05, 0.3, 0.5])
def test_at_the_limit_the_expected_evidence_is_exactly_one(limit):
    """Summed over every outcome of three windows of 4, 1 and 3 rows."""
    sizes = (4, 1, 3)
    total = 0.0
    for outcome in product(*(range(n + 1) for n in sizes)):
        chance = math.prod(
            comb(n, x) * limit**x * (1 - limit) ** (n - x)
            for x, n in zip(outcome, sizes, strict=True)
        )
        total += chance * math.exp(walk(limit, zip(outcome, sizes, strict=True)).log_e)
    assert total == pytest.approx(1, abs=1e-9)


def test_below_the_limit_nobody_is_accused():
    """300 monitors of 120 windows each, exactly at the limit: 1 in 1000 may cross."""
    rng = np.random.default_rng(11)
    crossed = 0
    for _ in range(300):
        seen = guard.start(0.1)
        for wrong in rng.binomial(200, 0.1, 120):
            seen = guard.step(seen, int(wrong), 200)
            if seen.crossed:
                crossed += 1
                break
    assert crossed <= 2


@pytest.mark.parametrize("good", [0, 10, 300])
def test_a_change_is_found_soon_however_long_it_went_well(good):
    rng = np.random.default_rng(good)
    seen = walk(0.2, ((int(wrong), 400) for wrong in rng.binomial(400, 0.1, good)))
    assert not seen.crossed
    days = 0
    while not seen.crossed:
        seen = guard.step(seen, int(rng.binomial(400, 0.3)), 400)
        days += 1
    assert days <= 3


counts = st.lists(
    st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), max_size=10
)


@laws
@given(counts, st.sampled_from([0.0, 0.01, 0.3, 1.0]))
def test_a_guard_survives_the_store(windows, limit):
    seen = walk(limit, windows)
    stored = json.loads(json.dumps(guard.plain(seen), allow_nan=False))
    assert guard.of_plain(stored, limit) == seen
    assert (seen.windows, seen.n) == (len(windows), sum(n for _, n in windows))


def test_another_limit_starts_anew():
    stored = guard.plain(walk(0.2, [(300, 300)]))
    assert guard.of_plain(stored, 0.3) == guard.start(0.3)
    assert guard.of_plain({}, 0.3) == guard.start(0.3)


def test_the_extreme_limits_have_numbers():
    assert walk(0.0, [(1, 300)]).log_e > 0
    assert not walk(0.0, [(0, 100_000)]).crossed
    assert not walk(1.0, [(300, 300)]).crossed
