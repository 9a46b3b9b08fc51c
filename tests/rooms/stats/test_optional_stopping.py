"""Error rates of the kernel under continuous peeking, by simulation with fixed seeds.

Modest sizes, so that every build runs them: a share of false alarms passes if it lies inside the
99 % binomial range of its promise. Negative controls must leave it, else the harness is blind.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from falaj.stats import eproc
from falaj.stats.eproc import GRID
from falaj.stats.summaries import Counts2x2, Stratum

RUNS = 2000


def keeps(hits, alpha):
    """The number of false alarms does not contradict probability alpha."""
    return hits.sum() <= binom(hits.size, alpha).ppf(0.99)


def exceeds(hits, alpha):
    """The number of false alarms proves a probability above alpha."""
    return hits.sum() > binom(hits.size, alpha).ppf(0.99)


def fast(x_c, n_c, x_s, n_s):
    """eproc.fast_log_increment for arrays (its own loop would take minutes): shape (..., 6)."""
    x, a, b, k = (np.asarray(v, float)[..., None] for v in (x_c, n_c, n_s, x_c + x_s))
    total = np.maximum(a + b, 1)
    log, up, down = np.log(GRID), GRID - 1, 1 / GRID - 1
    forms = [
        x * log - k * np.log1p(a / total * up),
        x * log - a * np.log1p(k / total * up),
        (x - a) * log - (total - k) * np.log1p(a / total * down),
        (x - k) * log - b * np.log1p(k / total * down),
    ]
    smallest = np.argmin(np.concatenate([k, a, total - k, b], axis=-1), axis=-1)[..., None]
    return np.choose(smallest, forms)


def usual(x_c, n_c, x_s, n_s):
    """eproc.usual_log_increment for arrays of shape (runs,)."""
    k, total = x_c + x_s, n_c + n_s
    found = fast(x_c, n_c, x_s, n_s)
    smallest = np.minimum(np.minimum(k, total - k), np.minimum(n_c, n_s))
    for i in np.flatnonzero(smallest > total / 20):
        found[i] = eproc.log_increment(int(x_c[i]), int(n_c[i]), int(x_s[i]), int(n_s[i]))
    return found


def peak(increments):
    """Largest mixture over the day; increments has shape (strata, runs, 6)."""
    sums = np.cumsum(increments, axis=0)
    top = sums.max(axis=-1, keepdims=True)
    return (top[..., 0] + np.log(np.exp(sums - top).mean(axis=-1))).max(axis=0)


def draw(rng, weight, base, runs, rpm=6000, noise=0.0, share=1.0):
    """One stratum without regression: n_c, x_c, n_s, x_s, shape (runs,) each."""
    n_c = rng.poisson(rpm * weight * share, runs)
    n_s = rng.poisson(rpm * (1 - weight) * share, runs)
    p_c = p_s = np.full(runs, base)
    if noise:
        p_c, p_s = np.minimum(base * rng.gamma(noise**-2, noise**2, (2, runs)), 1)
    return n_c, rng.binomial(n_c, p_c), n_s, rng.binomial(n_s, p_s)


def day(
    rng,
    minutes,
    runs,
    weights=(0.05,),
    rpm=6000,
    rate=0.005,
    diurnal=False,
    incident=False,
    noise=0.0,
):
    """Tables of one day, with load and error rate by the hour, and an incident of both arms."""
    for t in range(minutes):
        hour = 2 * math.pi * t / minutes
        base = rate * (1 + 0.5 * math.sin(hour - 2)) if diurnal else rate
        share = 1 + 0.6 * math.sin(hour) if diurnal else 1.0
        if incident and 0.48 < t / minutes < 0.51:
            base = min(20 * base, 0.5)
        weight = weights[t * len(weights) // minutes]
        yield weight, draw(rng, weight, base, runs, rpm, noise, share)


def test_the_helpers_are_the_kernel():
    rng = np.random.default_rng(1)
    for weight in (0.05, 0.5):
        table = draw(rng, weight, 0.01, 50)
        rows = [tuple(int(v) for v in row) for row in zip(*table, strict=True)]
        x = [(x_c, n_c, x_s, n_s) for n_c, x_c, n_s, x_s in rows]
        arrays = table[1], table[0], table[3], table[2]
        assert fast(*arrays) == pytest.approx(
            np.array([eproc.fast_log_increment(*r) for r in x]), abs=1e-9
        )
        assert usual(*arrays) == pytest.approx(
            np.array([eproc.usual_log_increment(*r) for r in x]), abs=1e-9
        )


@pytest.fixture(scope="module")
def plain_day():
    rng = np.random.default_rng(2)
    return np.array([(n_c, x_c, n_s, x_s) for _, (n_c, x_c, n_s, x_s) in day(rng, 1440, RUNS)])


@pytest.fixture(scope="module")
def plain_peak(plain_day):
    n_c, x_c, n_s, x_s = plain_day.swapaxes(0, 1)
    return peak(fast(x_c, n_c, x_s, n_s).reshape(1440, RUNS, 6))


@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.001])
def test_a_plain_day_of_1440_looks(plain_peak, alpha):
    assert keeps(plain_peak >= math.log(1 / alpha), alpha)


def test_a_regression_is_found_in_minutes():
    rng = np.random.default_rng(3)
    sums, minutes = np.zeros((200, 6)), np.full(200, 999)
    for t in range(60):
        n_c, _, n_s, x_s = draw(rng, 0.05, 0.005, 200)
        sums += fast(rng.binomial(n_c, 0.01), n_c, x_s, n_s)
        found = np.log(np.exp(sums).mean(axis=1)) >= math.log(100)
        minutes = np.where(found & (minutes == 999), t + 1, minutes)
    assert 9 <= np.median(minutes) <= 14


RAMPS = {  # requests a minute, rate, runs; large rates take the exact form
    "rare errors": (6000, 0.005, 1000),
    "frequent errors": (600, 0.1, 150),
}


@pytest.mark.parametrize("incident", [False, True])
@pytest.mark.parametrize(("rpm", "rate", "runs"), RAMPS.values(), ids=RAMPS)
def test_ramp_with_the_load_of_a_day_and_a_shared_incident(rpm, rate, runs, incident):
    rng, weights = np.random.default_rng(4), (0.05, 0.05, 0.25, 0.5)
    stream = day(rng, 96, runs, weights, rpm, rate, diurnal=True, incident=incident)
    found = peak(np.array([usual(x_c, n_c, x_s, n_s) for _, (n_c, x_c, n_s, x_s) in stream]))
    for alpha in (0.05, 0.01):
        assert keeps(found >= math.log(1 / alpha), alpha)


def two_zones(rng, minutes, runs):
    """Zone a: many errors and much canary; zone b: few of both. No regression."""
    for _ in range(minutes):
        yield draw(rng, 0.2, 0.02, runs, rpm=1000), draw(rng, 0.02, 0.002, runs, rpm=5000)


def test_two_zones_are_strata():
    rng = np.random.default_rng(5)
    zones = [
        fast(x_c, n_c, x_s, n_s) for pair in two_zones(rng, 120, 300) for n_c, x_c, n_s, x_s in pair
    ]
    assert keeps(peak(np.array(zones)) >= math.log(100), 0.01)


# --- negative controls: what the kernel must not be ---


def test_control_pooled_zones_are_too_bold():
    rng = np.random.default_rng(5)
    pooled = [
        fast(a[1] + b[1], a[0] + b[0], a[3] + b[3], a[2] + b[2])
        for a, b in two_zones(rng, 120, 300)
    ]
    assert exceeds(peak(np.array(pooled)) >= math.log(100), 0.01)


def test_control_a_z_test_each_minute_is_too_bold(plain_day):
    n_c, x_c, n_s, x_s = np.cumsum(plain_day, axis=0).swapaxes(0, 1).astype(float)
    rate = (x_c + x_s) / (n_c + n_s)
    spread = np.sqrt(rate * (1 - rate) * (1 / n_c + 1 / n_s))
    z = (x_c / n_c - x_s / n_s) / np.maximum(spread, 1e-12)
    assert exceeds((z > norm.isf(0.01)).any(axis=0), 0.01)


def test_control_tempering_by_the_stratums_own_counts_is_too_bold():
    rng = np.random.default_rng(6)
    parts = []
    for weight, (n_c, x_c, n_s, x_s) in day(rng, 400, 100, (0.05, 0.25), noise=1.0):
        k, total = x_c + x_s, n_c + n_s
        v = k * weight * (1 - weight) * (total - k) / (total - 1)
        parts.append(fast(x_c, n_c, x_s, n_s) / (1 + 2.0 * v)[:, None])
    assert exceeds(peak(np.array(parts)) >= math.log(100), 0.01)


def test_control_a_sticky_split_counted_by_request_is_too_bold():
    rng, users, runs = np.random.default_rng(7), 1000, 150
    rates = np.minimum(0.005 * rng.gamma(0.25, 4, (runs, users)), 1)  # users differ, CV 2
    canary = rng.random((runs, users)) < 0.05
    size = canary.sum(axis=1)
    p_c = (rates * canary).sum(axis=1) / size
    p_s = (rates * ~canary).sum(axis=1) / (users - size)
    parts = []
    for _ in range(300):
        n_c, n_s = rng.poisson(6 * size), rng.poisson(6 * (users - size))
        parts.append(fast(rng.binomial(n_c, p_c), n_c, rng.binomial(n_s, p_s), n_s))
    assert exceeds(peak(np.array(parts)) >= math.log(100), 0.01)


# --- dispersion ---


def halves(rng, minutes, noise):
    """A/A strata of one run: two halves of stable with noise of their own."""
    n = rng.poisson(2850, (2, minutes))
    p = np.minimum(0.005 * rng.gamma(noise**-2, noise**2, (2, minutes)), 1)
    x = rng.binomial(n, p)
    return [
        Counts2x2(metric="errors", stratum=Stratum(t, "a", 0), n_c=int(n[0, t]), x_c=int(x[0, t]),
                  n_s=int(n[1, t]), x_s=int(x[1, t]))
        for t in range(minutes)
    ]  # fmt: skip


def test_tempered_by_step_keeps_alpha_under_noise_and_ramp():
    rng, runs, noise = np.random.default_rng(8), 200, 0.5
    found = [eproc.dispersion(halves(rng, 360, noise)) for _ in range(runs)]
    parts, raw = [], []
    for weight, (n_c, x_c, n_s, x_s) in day(rng, 160, runs, (0.05, 0.05, 0.25, 0.5), noise=noise):
        phi = np.array([one.at(weight) for one in found])
        raw.append(usual(x_c, n_c, x_s, n_s))
        parts.append(raw[-1] / phi[:, None])
    assert keeps(peak(np.array(parts)) >= math.log(100), 0.01)
    assert exceeds(peak(np.array(raw)) >= math.log(100), 0.01)


def test_a_split_drawn_anew_each_minute_survives_heavy_users():
    """1000 users of very different rates and six requests a minute: clusters that phi sees."""
    rng, users, runs = np.random.default_rng(9), 1000, 30

    def minute(rates, share):
        canary = rng.random((len(rates), users)) < share
        n = rng.poisson(6, (len(rates), users))
        x = rng.binomial(n, rates)
        c = canary.astype(int)
        return [v.sum(axis=1) for v in (n * c, x * c, n * (1 - c), x * (1 - c))]

    rates = np.minimum(0.005 * rng.gamma(1 / 9, 9, (runs, users)), 1)
    history = np.array([minute(rates, 0.5) for _ in range(360)])
    phi = []
    for run in range(runs):
        strata = [
            Counts2x2(metric="errors", stratum=Stratum(t, "a", 0), n_c=int(a), x_c=int(b), n_s=int(c),
                      x_s=int(d))
            for t, (a, b, c, d) in enumerate(history[:, :, run])
        ]  # fmt: skip
        phi.append(eproc.dispersion(strata).at(0.05))
    tables = [minute(rates, 0.05) for _ in range(300)]
    parts = [fast(x_c, n_c, x_s, n_s) / np.array(phi)[:, None] for n_c, x_c, n_s, x_s in tables]
    assert min(phi) > 1
    assert keeps(peak(np.array(parts)) >= math.log(20), 0.05)


# --- promotion, split, absolute limits ---


@pytest.mark.parametrize(("base", "rpm"), [(0.005, 6000), (0.1, 400), (0.3, 200), (0.5, 200)])
def test_a_release_at_the_margin_is_rarely_promoted(base, rpm):
    rng, runs, margin, weight = np.random.default_rng(10), 120, 1.25, 0.25
    odds = margin * base / (1 - base)
    sums, promoted = np.zeros((runs, 5)), np.zeros(runs, dtype=bool)
    for _ in range(60):
        n_c, n_s = rng.poisson(rpm * weight, runs), rng.poisson(rpm * (1 - weight), runs)
        x_c, x_s = rng.binomial(n_c, odds / (1 + odds)), rng.binomial(n_s, base)
        for i in np.flatnonzero(~promoted):
            table = (int(x_c[i]), int(n_c[i]), int(x_s[i]), int(n_s[i]))
            sums[i] += eproc.log_increment(*table, eproc.promotion_grid(margin), margin)
            promoted[i] = eproc.mixture(sums[i]) >= math.log(20)
    assert keeps(promoted, 0.05)


def test_below_the_slo_is_rarely_claimed_at_the_slo():
    rng, runs, slo = np.random.default_rng(11), 2000, 0.01
    sums, best = np.zeros((runs, 6)), np.full(runs, -np.inf)
    for _ in range(300):
        x = rng.binomial(300, slo, runs)[:, None]
        step = (
            eproc.slo_log_increment(1, 0, slo, 1 / GRID),
            eproc.slo_log_increment(0, 300, slo, 1 / GRID),
        )
        sums += x * step[0] + step[1]
        best = np.maximum(best, np.log(np.exp(sums).mean(axis=1)))
    assert keeps(best >= math.log(20), 0.05)


def srm_peak(rng, runs, minutes, thin=1.0):
    best = np.full(runs, -np.inf)
    for run in range(runs):
        state = eproc.Srm()
        for minute in range(minutes):
            step = minute * 3 // minutes
            weight = (0.05, 0.25, 0.5)[step]
            n_c, n_s = rng.poisson(6000 * weight * thin), rng.poisson(6000 * (1 - weight))
            state = eproc.step_srm(state, step, weight, int(n_c), int(n_s))
        best[run] = state.peak
    return best


def test_weight_changes_do_not_alarm_the_split_test_and_missing_requests_do():
    rng = np.random.default_rng(12)
    assert not (srm_peak(rng, 60, 60) >= math.log(1000)).any()
    assert (srm_peak(rng, 20, 60, thin=0.9) >= math.log(1000)).all()


@pytest.mark.parametrize(("rate", "found_by"), [(0.01, None), (0.015, 6)])
def test_the_slo_guard_is_quiet_at_the_slo_and_finds_half_as_much_again(rate, found_by):
    rng, runs = np.random.default_rng(13), 1000
    one, none = (eproc.slo_log_increment(x, n, 0.01) for x, n in ((1, 0), (0, 1)))
    sums, hit = np.zeros((runs, 6)), np.full(runs, 9999)
    for t in range(120 if found_by is None else 20):
        n = rng.poisson(6000, runs)
        sums += rng.binomial(n, rate)[:, None] * one + n[:, None] * none
        loud = np.log(np.exp(np.clip(sums, -700, 600)).mean(axis=1)) >= math.log(1000)
        hit = np.where(loud & (hit == 9999), t + 1, hit)
    if found_by is None:
        assert keeps(hit < 9999, 0.001)
    else:
        assert np.median(hit) <= found_by
