from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gammaln
from scipy.special import logsumexp as scipy_logsumexp
from scipy.stats import binom, nchypergeom_fisher

from falaj.stats import eproc
from falaj.stats.eproc import GRID, State, mixture
from falaj.stats.special import log_beta, ndtr
from falaj.stats.summaries import Counts2x2, Pairs, Stratum

laws = settings(derandomize=True, deadline=None, max_examples=60)


def counts(x_c, n_c, x_s, n_s, t=1, zone="a", step=0, metric="errors"):
    stratum = Stratum(t, zone, step)
    return Counts2x2(metric=metric, stratum=stratum, n_c=n_c, x_c=x_c, n_s=n_s, x_s=x_s)


@st.composite
def tables(draw, most=400):
    n_c, n_s = draw(st.integers(0, most)), draw(st.integers(0, most))
    return draw(st.integers(0, n_c)), n_c, draw(st.integers(0, n_s)), n_s


# --- oracle numbers of the design ---

ORACLES = {
    "errors, psi0 1": (
        (6, 300, 28, 5700), 1.0,
        (0.402329, 0.916766, 1.816527, 3.047456, 3.506666, -1.494529), 2.379082,
    ),
    "errors, psi0 1.25": (
        (6, 300, 28, 5700), 1.25,
        (0.362960, 0.819234, 1.587269, 2.502964, 2.229666, -4.538365), 1.613523,
    ),
    "large rates, psi0 1": (
        (40, 100, 60, 300), 1.0,
        (1.365119, 2.989903, 5.437581, 7.461154, 4.297502, -15.784825), 5.841782,
    ),
    "large rates, psi0 1.25": (
        (40, 100, 60, 300), 1.25,
        (1.054224, 2.252806, 3.852738, 4.292651, -1.328723, -24.887184), 3.098071,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("table", "psi0", "expected", "mixed"), ORACLES.values(), ids=ORACLES)
def test_increments_equal_the_oracle(table, psi0, expected, mixed):
    found = eproc.log_increment(*table, psi0 * GRID, psi0)
    assert found == pytest.approx(expected, abs=1e-6)
    assert mixture(found) == pytest.approx(mixed, abs=1e-6)


def test_fast_and_paired_increments_equal_the_oracle():
    fast = (0.402285, 0.916496, 1.815022, 3.038842, 3.457695, -1.793059)
    assert eproc.fast_log_increment(6, 300, 28, 5700) == pytest.approx(fast, abs=1e-6)
    paired = (0.321100, 0.712679, 1.344026, 2.090843, 2.400206, 1.498595)
    assert eproc.paired_log_increment(9, 2) == pytest.approx(paired, abs=1e-6)


def test_mixtures_of_the_literature_with_our_special_functions():
    """Values of confseq 0.0.11's own tests, "from a reference implementation in R"."""

    def best_rho(v, alpha):
        return v / (2 * math.log(1 / alpha) + math.log(1 + 2 * math.log(1 / alpha)))

    s, v = 10, 100
    rho = best_rho(100, 0.05)
    two = 0.5 * math.log(rho / (v + rho)) + s * s / (2 * (v + rho))
    assert two == pytest.approx(-0.6510052, abs=1e-7)
    rho = best_rho(100, 0.10)
    one = 0.5 * math.log(4 * rho / (v + rho)) + s * s / (2 * (v + rho))
    one += math.log(float(ndtr(s / math.sqrt(v + rho))))
    assert one == pytest.approx(-0.06502391, abs=1e-7)
    g, h = 0.2, 0.8
    r = best_rho(100, 0.05) - g * h
    mixed = (
        v / (g * h) * math.log(g + h)
        - (v / h + s) / (g + h) * math.log(g)
        - (v / g - s) / (g + h) * math.log(h)
        + float(log_beta((r + v - g * s) / (g * (g + h)), (r + v + h * s) / (h * (g + h))))
        - float(log_beta(r / (g * (g + h)), r / (h * (g + h))))
    )
    assert mixed == pytest.approx(-0.6941012, abs=1e-7)


# --- the kernel ---


def random_tables(number, seed, most=400):
    rng = np.random.default_rng(seed)
    for _ in range(number):
        n_c, n_s = (int(10 ** rng.uniform(0.3, math.log10(most))) for _ in range(2))
        k = int(rng.integers(1, n_c + n_s))
        yield n_c, n_s, k, np.arange(max(0, k - n_s), min(n_c, k) + 1)


@pytest.mark.parametrize("psi0", [1.0, 1.1, 1.25, 1.5])
def test_the_expectation_is_one_at_the_boundary_and_less_inside_the_null(psi0):
    psi = np.concatenate([GRID * psi0, eproc.promotion_grid(psi0 + 0.01) * psi0])
    above = psi > psi0
    for n_c, n_s, k, x in random_tables(20, seed=int(100 * psi0)):
        e = np.exp([eproc.log_increment(int(i), n_c, k - int(i), n_s, psi, psi0) for i in x])

        def expected(odds, n_c=n_c, n_s=n_s, k=k, x=x, e=e):
            return nchypergeom_fisher(n_c + n_s, n_c, k, odds).pmf(x) @ e

        assert expected(psi0) == pytest.approx(1, abs=1e-9)
        assert np.all(expected(psi0 * 0.8)[above] <= 1 + 1e-9)
        down = psi < psi0
        assert np.all(expected(psi0 * 1.2)[down] <= 1 + 1e-9)


def test_no_fast_form_is_too_bold_and_each_of_the_four_is_met():
    met = set()
    for n_c, n_s, k, x in random_tables(150, seed=3):
        margins = (k, n_c, n_c + n_s - k, n_s)
        met.add(margins.index(min(margins)))
        e = np.exp([eproc.fast_log_increment(int(i), n_c, k - int(i), n_s) for i in x])
        for odds in (1.0, 0.7):
            pmf = nchypergeom_fisher(n_c + n_s, n_c, k, odds).pmf(x)
            assert np.all(pmf @ e <= 1 + 1e-9)
    assert met == {0, 1, 2, 3}


def full_log_increment(x_c, n_c, x_s, n_s, psi, psi0):
    k = x_c + x_s
    x = np.arange(max(0, k - n_s), min(n_c, k) + 1.0)
    w = -gammaln(x + 1) - gammaln(n_c - x + 1) - gammaln(k - x + 1) - gammaln(n_s - k + x + 1)
    z = [scipy_logsumexp(w + (x - x_c) * math.log(odds)) for odds in (*psi, psi0)]
    return z[-1] - np.array(z[:-1])


def test_the_window_equals_the_full_sum():
    rng = np.random.default_rng(5)
    for _ in range(120):
        n_c, n_s = (int(10 ** rng.uniform(0.5, math.log10(20_000))) for _ in range(2))
        base = 10 ** rng.uniform(-3, -0.01)
        x_c, x_s = int(rng.binomial(n_c, min(1, base * 1.5))), int(rng.binomial(n_s, base))
        psi0 = float(rng.choice([1.0, 1.25]))
        psi = np.append(GRID, [0.5, 0.8]) * psi0
        expected = full_log_increment(x_c, n_c, x_s, n_s, psi, psi0)
        found = eproc.log_increment(x_c, n_c, x_s, n_s, psi, psi0)
        assert found == pytest.approx(expected, abs=1e-9)


def test_separate_windows_equal_one_window():
    table = (250_000, 500_000, 250_100, 500_000)
    psi = np.array([1.1, 15.0])
    together = eproc.log_increment(*table, psi)
    alone = [eproc.log_increment(*table, [one])[0] for one in psi]
    # here the likelihood is concave enough for Stirling's own approximation to be a check
    assert together == pytest.approx(alone, rel=1e-9)
    assert together[0] == pytest.approx(full_log_increment(*table, psi[:1], 1.0)[0], abs=1e-5)


@pytest.mark.parametrize(
    "table", [(0, 5, 0, 7), (5, 5, 7, 7), (0, 0, 3, 9), (2, 4, 0, 0), (0, 0, 0, 0)]
)
def test_totals_that_leave_nothing_to_learn_give_exactly_zero(table):
    assert eproc.log_increment(*table).tolist() == [0.0] * 6
    assert eproc.log_increment(*table, [0.5], 1.25).tolist() == [0.0]
    assert np.all(np.abs(eproc.fast_log_increment(*table)) <= 1e-12)


@laws
@given(tables(), st.sampled_from([1.0, 1.1, 1.25]))
def test_swapped_arms_and_swapped_outcomes_turn_the_odds_ratio(table, psi0):
    x_c, n_c, x_s, n_s = table
    psi = psi0 * GRID
    found = eproc.log_increment(x_c, n_c, x_s, n_s, psi, psi0)
    swapped = eproc.log_increment(x_s, n_s, x_c, n_c, 1 / psi, 1 / psi0)
    turned = eproc.log_increment(n_c - x_c, n_c, n_s - x_s, n_s, 1 / psi, 1 / psi0)
    assert found == pytest.approx(swapped, abs=1e-9)
    assert found == pytest.approx(turned, abs=1e-9)


@laws
@given(tables())
def test_more_bad_events_of_the_canary_are_more_evidence(table):
    x_c, n_c, x_s, n_s = table
    if x_s == 0 or x_c == n_c:
        return
    for form in (eproc.log_increment, eproc.fast_log_increment, eproc.usual_log_increment):
        fewer = form(x_c, n_c, x_s, n_s)
        more = form(x_c + 1, n_c, x_s - 1, n_s)
        assert np.all(more >= fewer - 1e-12)


@laws
@given(tables())
def test_the_usual_form_chooses_without_looking_at_the_canary(table):
    x_c, n_c, x_s, n_s = table
    k, total = x_c + x_s, n_c + n_s
    fast = min(k, n_c, total - k, n_s) <= total / 20
    form = eproc.fast_log_increment if fast else eproc.log_increment
    assert eproc.usual_log_increment(*table).tolist() == form(*table).tolist()
    exact = eproc.log_increment(*table, 1.1 * GRID, 1.1)
    assert eproc.usual_log_increment(*table, 1.1 * GRID, 1.1).tolist() == exact.tolist()


def test_stopping_on_a_function_of_the_past_keeps_the_expectation():
    """Whole tree of two strata: the second is taken only after a bad first one, and its split
    depends on what was seen."""
    first = (12, 30, 9)
    whole = 0.0
    for x, p in hypergeometric(*first):
        e = math.exp(mixture(eproc.log_increment(x, first[0], first[2] - x, first[1])))
        if e < 1:
            whole += p * e
            continue
        second = (5 + x, 40, 11)
        psi = eproc.log_increment(x, first[0], first[2] - x, first[1])
        for y, q in hypergeometric(*second):
            more = eproc.log_increment(y, second[0], second[2] - y, second[1])
            whole += p * q * math.exp(mixture(psi + more))
    assert whole == pytest.approx(1, abs=1e-12)


def hypergeometric(n_c, n_s, k):
    x = np.arange(max(0, k - n_s), min(n_c, k) + 1)
    return list(zip(x.tolist(), nchypergeom_fisher(n_c + n_s, n_c, k, 1.0).pmf(x), strict=True))


def test_scaling_both_rates_keeps_the_expectation():
    """The base rate of a minute is free: for every rate the e-value has mean 1."""
    n_c, n_s = 12, 20
    values = {
        (a, b): math.exp(mixture(eproc.log_increment(a, n_c, b, n_s)))
        for a, b in itertools.product(range(n_c + 1), range(n_s + 1))
    }
    for rate in (0.001, 0.05, 0.4, 0.9):
        p_c, p_s = binom(n_c, rate).pmf(range(n_c + 1)), binom(n_s, rate).pmf(range(n_s + 1))
        whole = sum(p_c[a] * p_s[b] * e for (a, b), e in values.items())
        assert whole == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("slo", [0.001, 0.01, 0.3])
def test_the_slo_guard_is_fair_at_the_slo_and_careful_inside_the_null(slo):
    n, x = 200, np.arange(201)
    for factors, inside in ((GRID, 0.5), (1 / GRID, 2.0)):
        e = np.exp([eproc.slo_log_increment(int(i), n, slo, factors) for i in x])
        assert binom(n, slo).pmf(x) @ e == pytest.approx(1, abs=1e-9)
        assert np.all(binom(n, slo * inside).pmf(x) @ e <= 1 + 1e-9)


@pytest.mark.parametrize("psi0", [1.0, 1.25])
def test_the_paired_form_is_fair(psi0):
    pairs, b = 60, np.arange(61)
    for psi, inside in ((psi0 * GRID, psi0 * 0.8), (psi0 / GRID, psi0 * 1.2)):
        e = np.exp([eproc.paired_log_increment(int(i), pairs - int(i), psi, psi0) for i in b])
        assert binom(pairs, psi0 / (1 + psi0)).pmf(b) @ e == pytest.approx(1, abs=1e-9)
        assert np.all(binom(pairs, inside / (1 + inside)).pmf(b) @ e <= 1 + 1e-9)


# --- the state ---

streams = st.lists(tables(most=300), min_size=1, max_size=8).map(
    lambda rows: [counts(*row, t=t, step=t // 3) for t, row in enumerate(rows)]
)


@laws
@given(streams, st.randoms(use_true_random=False), st.sampled_from([1.0, 1.1]))
def test_replay_of_any_permutation_gives_the_same_bits(stream, random, tolerate):
    start = eproc.start("errors", tolerate=tolerate, slo=0.02)
    phi = {0: 1.0, 1: 1.3, 2: 1.7}
    state = start
    for one in stream:
        state = eproc.step_metric(state, one, phi[one.stratum.step])
    shuffled = random.sample(stream, len(stream))
    assert eproc.replay(shuffled, start, phi) == state
    text = json.dumps(state.to_json())
    assert State.from_json(json.loads(text)) == state


@laws
@given(streams)
def test_a_state_is_the_sum_of_its_increments(stream):
    state = eproc.replay(stream, eproc.start("errors", margin=1.5, slo=0.05))
    exact = sum(eproc.usual_log_increment(one.x_c, one.n_c, one.x_s, one.n_s) for one in stream)
    down = eproc.promotion_grid(1.5)
    promote = sum(
        eproc.log_increment(one.x_c, one.n_c, one.x_s, one.n_s, down, 1.5) for one in stream
    )
    better = sum(
        eproc.log_increment(one.x_c, one.n_c, one.x_s, one.n_s, down[:3], 1.0) for one in stream
    )
    assert state.rollback == pytest.approx(exact, abs=1e-9)
    assert state.promote == pytest.approx(promote, abs=1e-9)
    assert state.log_e_better == pytest.approx(mixture(better), abs=1e-9)
    assert state.peak >= state.log_e
    assert 0 < state.p_anytime <= 1
    assert state.n_c == sum(one.n_c for one in stream)
    n, x = state.n_s, state.x_s
    assert state.guard_s == pytest.approx(eproc.slo_log_increment(x, n, 0.05), abs=1e-9)
    below = mixture(eproc.slo_log_increment(state.x_c, state.n_c, 0.05, 1 / GRID))
    assert state.log_e_below_slo == pytest.approx(below, abs=1e-9)
    expected = mixture([state.log_e_margin, below])
    assert state.log_e_promote == pytest.approx(expected, abs=1e-9)


@laws
@given(streams, st.floats(1, 5))
def test_dispersion_divides_every_increment(stream, phi):
    start = eproc.start("errors", slo=0.1)
    plain, tempered = eproc.replay(stream, start), eproc.replay(stream, start, phi)
    for name in ("rollback", "promote", "guard_c", "guard_s", "below"):
        scaled = np.array(getattr(plain, name)) / phi
        assert getattr(tempered, name) == pytest.approx(scaled.tolist(), abs=1e-9)


def test_without_an_slo_there_is_no_guard():
    state = eproc.step_metric(eproc.start("errors"), counts(6, 300, 28, 5700))
    assert state.log_e_guard is None
    assert state.log_e_below_slo is None
    assert state.log_e_promote == state.log_e_margin
    assert state.log_e == pytest.approx(mixture(eproc.fast_log_increment(6, 300, 28, 5700)))


REFUSALS = {
    "the same stratum again": (counts(0, 5, 0, 5, t=7), 1.0),
    "an older stratum": (counts(0, 5, 0, 5, t=6, zone="z"), 1.0),
    "another metric": (counts(0, 5, 0, 5, t=8, metric="latency"), 1.0),
    "phi below 1": (counts(0, 5, 0, 5, t=8), 0.9),
    "phi is not a number": (counts(0, 5, 0, 5, t=8), math.nan),
}


@pytest.mark.parametrize(("late", "phi"), REFUSALS.values(), ids=REFUSALS)
def test_a_state_refuses(late, phi):
    state = eproc.step_metric(eproc.start("errors"), counts(0, 5, 1, 5, t=7))
    with pytest.raises(ValueError, match=r"phi|expected|late"):
        eproc.step_metric(state, late, phi)


def test_a_weight_change_inside_a_minute_makes_two_strata():
    strata = [counts(0, 5, 1, 5, t=7, zone="b"), counts(1, 5, 1, 5, t=7, zone="a", step=1)]
    assert eproc.replay(strata, eproc.start("errors")).strata == 2


@pytest.mark.parametrize(
    "bad", [{"margin": 1.0}, {"tolerate": 1.3}, {"slo": 0.0}, {"tolerate": 0.0}]
)
def test_start_refuses_nonsense(bad):
    with pytest.raises(ValueError, match="got"):
        eproc.start("errors", **bad)


def test_a_stored_state_of_another_shape_is_refused():
    plain = eproc.start("errors").to_json()
    for broken in (
        {**plain, "v": 2},
        {**plain, "rollback": []},
        {**plain, "promote": None},
        {**plain, "margin": "x"},
        {k: v for k, v in plain.items() if k != "peak"},
    ):
        with pytest.raises(ValueError, match=r"version|expected|not a state|hex"):
            State.from_json(broken)


def test_pairs_feed_the_same_state():
    pairs = Pairs(
        metric="wrong", stratum=Stratum(1, "", 0), right_right=80, right_wrong=9, wrong_right=2,
        wrong_wrong=5,
    )  # fmt: skip
    state = eproc.replay([pairs], eproc.start("wrong"))
    assert state.rollback == pytest.approx(eproc.paired_log_increment(9, 2))
    assert (state.n_c, state.x_c, state.n_s, state.x_s) == (96, 14, 96, 7)


def test_splitting_a_stratum_keeps_the_paired_evidence():
    parts = [
        Pairs(metric="wrong", stratum=Stratum(t, "", 0), right_wrong=b, wrong_right=c)
        for t, (b, c) in enumerate([(4, 1), (5, 1)])
    ]
    state = eproc.replay(parts, eproc.start("wrong"))
    assert state.rollback == pytest.approx(eproc.paired_log_increment(9, 2))


# --- dispersion ---


def noisy_strata(cv, minutes, seed, rate=0.01, n=3000):
    rng = np.random.default_rng(seed)
    noise = rng.gamma(1 / cv**2, cv**2, (2, minutes)) if cv else np.ones((2, minutes))
    x = rng.binomial(n, np.minimum(rate * noise, 1))
    return [counts(int(a), n, int(b), n, t=t) for t, (a, b) in enumerate(x.T)]


def test_phi_is_one_for_random_arms_and_grows_with_noise():
    quiet = eproc.dispersion(noisy_strata(0, 400, seed=1))
    loud = eproc.dispersion(noisy_strata(0.5, 400, seed=2))
    assert quiet.measured
    assert quiet.share == pytest.approx(0.5)
    assert quiet.phi < 1.15
    assert quiet.upper == pytest.approx(quiet.phi * (1 + 2.33 * math.sqrt(2 / 400)))
    # variance of x_A given the totals: k/4 plus the noise of two arms of mean 30
    assert loud.phi == pytest.approx(1 + 30 * 0.25, rel=0.25)


def test_phi_is_scaled_by_the_configured_weight():
    found = eproc.Dispersion(phi=3.0, upper=4.0, share=0.5, strata=360, measured=True)
    assert found.at(0.5) == 4.0
    assert found.at(0.05) == pytest.approx(1 + 3 * 0.0475 / 0.25)


def test_the_worst_block_of_six_hours_counts():
    calm = noisy_strata(0, 720, seed=3)
    storm = noisy_strata(1.0, 360, seed=4)
    moved = [
        Counts2x2(metric=o.metric, stratum=Stratum(o.stratum.t + 720, "a", 0), n_c=o.n_c, x_c=o.x_c,
                  n_s=o.n_s, x_s=o.x_s)
        for o in storm
    ]  # fmt: skip
    found = eproc.dispersion(calm + moved)
    assert 350 <= found.strata <= 360
    assert found.phi == pytest.approx(eproc.dispersion(storm).phi)


def test_a_night_without_information_is_no_noise():
    evening, morning = noisy_strata(0, 300, seed=9), noisy_strata(0, 420, seed=10)
    gap = [replace(one, stratum=one.stratum._replace(t=one.stratum.t + 2000)) for one in morning]
    found = eproc.dispersion(evening + gap)
    assert found.measured
    assert found.phi < 1.2


@pytest.mark.parametrize(
    "strata",
    [
        [],
        noisy_strata(0, 300, seed=5),
        [counts(0, 5, 0, 5, t=t) for t in range(500)],
        [counts(0, 0, 1, 1, t=t) for t in range(500)],
    ],
)
def test_without_history_two_is_assumed(strata):
    found = eproc.dispersion(strata)
    assert not found.measured
    assert found.at(0.05) == found.at(0.5) == eproc.ASSUMED_PHI == 2.0


@given(st.sets(st.text(max_size=5), max_size=9))
@laws
def test_sources_fall_into_two_stable_halves(names):
    a, b = eproc.aa_halves(names)
    assert sorted((*a, *b)) == sorted(names)
    assert 0 <= len(b) - len(a) <= 1
    assert eproc.aa_halves(sorted(names, reverse=True)) == (a, b)
    one, rest = eproc.aa_halves(names, one_against_rest=True)
    assert len(one) == min(1, len(names))
    assert sorted((*one, *rest)) == sorted(names)


def test_two_halves_that_differ_are_found():
    same = eproc.two_sided(noisy_strata(0, 120, seed=6))
    assert same.peak < math.log(1000)
    rng = np.random.default_rng(7)
    for flip in (False, True):
        rows = [(int(rng.binomial(3000, 0.01)), int(rng.binomial(3000, 0.02))) for _ in range(60)]
        strata = [
            counts(*((b, 3000, a, 3000) if flip else (a, 3000, b, 3000)), t=t)
            for t, (a, b) in enumerate(rows)
        ]
        assert eproc.two_sided(strata).log_e > math.log(1000)


# --- split, interval, plan ---


def test_the_split_test_has_mean_one():
    for weight in (0.05, 0.5):
        e = [math.exp(eproc.srm_log_e(weight, x, 300)) for x in range(301)]
        assert binom(300, weight).pmf(range(301)) @ e == pytest.approx(1, abs=1e-9)
    assert eproc.srm_log_e(0.0, 0, 100) == eproc.srm_log_e(1.0, 100, 100) == 0.0


def test_a_new_weight_step_restarts_and_multiplies():
    state = eproc.Srm()
    for minute in range(6):
        step, weight = (0, 0.05) if minute < 3 else (1, 0.25)
        state = eproc.step_srm(state, step, weight, int(6000 * weight), int(6000 * (1 - weight)))
    expected = eproc.srm_log_e(0.05, 900, 18_000) + eproc.srm_log_e(0.25, 4500, 18_000)
    assert state.log_e == pytest.approx(expected)
    assert state.peak <= 0.0
    assert eproc.Srm(*json.loads(json.dumps(state))) == state


def test_the_odds_ratio_interval_covers_and_shrinks():
    rng = np.random.default_rng(8)
    strata = []
    for t in range(200):
        base = 0.02 * (1 + 0.5 * math.sin(t / 10))
        odds = 2 * base / (1 - base)
        x_c, x_s = rng.binomial(300, odds / (1 + odds)), rng.binomial(2700, base)
        strata.append(counts(int(x_c), 300, int(x_s), 2700, t=t))
    few, many = (eproc.odds_ratio_interval(strata[:n]) for n in (20, 200))
    assert few.low < 2 < few.high
    assert many.low < 2 < many.high
    assert many.high - many.low < few.high - few.low
    assert many.estimate == pytest.approx(2, rel=0.15)
    wide = eproc.odds_ratio_interval(strata, phi=3.0)
    assert wide.low <= many.low
    assert wide.high >= many.high


def test_strata_of_opposite_effects_meet_in_the_middle():
    strata = [counts(200, 1000, 20, 1000, t=1), counts(20, 1000, 200, 1000, t=2)]
    found = eproc.odds_ratio_interval(strata)
    assert found.low < found.estimate < found.high
    assert found.estimate == pytest.approx(1)


def test_an_interval_without_data_excludes_nothing():
    found = eproc.odds_ratio_interval([])
    assert (found.low, found.high) == (0.0, math.inf)
    assert math.isnan(found.estimate)


PLANS = {  # odds ratio, weight -> minutes at 6000 requests a minute and .5 % bad ones
    "1.2 at 5 %": (1.2, 0.05, 243),
    "1.5 at 5 %": (1.5, 0.05, 42),
    "2 at 5 %": (2.0, 0.05, 12),
    "5 at 5 %": (5.0, 0.05, 1.2),
}


@pytest.mark.parametrize(("psi", "weight", "minutes"), PLANS.values(), ids=PLANS)
def test_the_plan_of_a_regression(psi, weight, minutes):
    plan = eproc.plan_rollback(psi, weight=weight, bad_rate=0.005, per_minute=6000)
    assert plan.minutes == pytest.approx(minutes, rel=0.05)
    assert plan.requests_canary == pytest.approx(plan.minutes * 6000 * weight)


def test_the_plan_in_words_of_the_design():
    plan = eproc.plan_rollback(2, weight=0.05, bad_rate=0.005, per_minute=6000)
    assert plan.requests_canary == pytest.approx(3600, rel=0.03)
    assert plan.bad_canary == pytest.approx(36, rel=0.03)


@pytest.mark.parametrize(
    ("margin", "weight", "minutes"),
    [(1.25, 0.25, 21), (1.5, 0.25, 6), (1.25, 0.05, 79), (1.5, 0.05, 23)],
)
def test_the_plan_of_a_promotion(margin, weight, minutes):
    plan = eproc.plan_promotion(margin, weight=weight, bad_rate=0.005, per_minute=6000)
    assert plan.minutes == pytest.approx(minutes, rel=0.06)
