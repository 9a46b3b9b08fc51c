from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from falaj.serving.plan import is_canary

SALTS = st.binary(min_size=16, max_size=64)
KEYS = st.binary(max_size=40)
WEIGHTS = st.integers(0, 10_000)


@pytest.mark.parametrize("weight", [0, 1, 500, 2500, 5000, 9999, 10_000])
@pytest.mark.parametrize("keys", ["counted", "chosen"])
def test_the_share_is_the_weight(weight, keys):
    salt, n = os.urandom(32), 20_000
    chosen = (b"%d" % i if keys == "counted" else b"user-%d" % (i * 1000) for i in range(n))
    k = sum(is_canary(salt, key, 28_934_401, weight) for key in chosen)
    assert binomtest(k, n, weight / 10_000).pvalue > 1e-6 if 0 < weight < 10_000 else k in (0, n)


@given(SALTS, KEYS, st.integers(0, 2**40), WEIGHTS, WEIGHTS, st.booleans())
def test_a_growing_weight_only_adds(salt, key, stratum, a, b, sticky):
    low, high = sorted((a, b))
    if is_canary(salt, key, stratum, low, sticky=sticky):
        assert is_canary(salt, key, stratum, high, sticky=sticky)


@given(SALTS, KEYS, st.integers(0, 2**40), st.integers(0, 2**40), WEIGHTS)
def test_sticky_forgets_the_stratum(salt, key, one, other, weight):
    assert is_canary(salt, key, one, weight, sticky=True) == is_canary(
        salt, key, other, weight, sticky=True
    )


def test_arms_are_drawn_anew_each_stratum():
    salt = os.urandom(32)
    both = sum(
        is_canary(salt, b"%d" % i, 1, 5000) and is_canary(salt, b"%d" % i, 2, 5000)
        for i in range(8000)
    )
    assert binomtest(both, 8000, 0.25).pvalue > 1e-6


def test_another_salt_is_another_draw():
    one, other = os.urandom(32), os.urandom(32)
    same = sum(
        is_canary(one, b"%d" % i, 1, 5000) == is_canary(other, b"%d" % i, 1, 5000)
        for i in range(8000)
    )
    assert binomtest(same, 8000, 0.5).pvalue > 1e-6
