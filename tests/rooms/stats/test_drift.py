from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2, chi2_contingency, ks_2samp

from falaj.stats import drift
from falaj.stats.drift import BlockNull, Distance, fit_edges, fit_vocabulary
from falaj.stats.summaries import Cats, Unmergeable, Vocabulary

laws = settings(derandomize=True, deadline=None, max_examples=60)
rows = st.lists(st.integers(0, 500), min_size=2, max_size=30).filter(any)


# --- distances against scipy ---


@laws
@given(
    st.integers(2, 30).flatmap(
        lambda n: st.tuples(
            *[st.lists(st.integers(0, 500), min_size=n, max_size=n).filter(any)] * 2
        )
    )
)
def test_distances_equal_scipy_on_counts(pair):
    a, b = (np.array(one) for one in pair)
    p, q = a / a.sum(), b / b.sum()
    assert drift.jensen_shannon(a, b) == pytest.approx(jensenshannon(p, q) ** 2, abs=1e-9)
    some = a + b > 0
    if some.sum() > 1:
        expected = chi2_contingency([a[some], b[some]], correction=False).statistic
        assert drift.chi_square(a, b) == pytest.approx(expected, abs=1e-9)
    x, y = np.repeat(np.arange(len(a)), a), np.repeat(np.arange(len(b)), b)
    assert drift.kolmogorov_smirnov(a, b) == pytest.approx(ks_2samp(x, y).statistic, abs=1e-12)
    clipped = np.maximum(p, 1e-4), np.maximum(q, 1e-4)
    expected = sum((s - t) * math.log(s / t) for s, t in zip(*clipped, strict=True))
    assert drift.psi(a, b) == pytest.approx(expected, abs=1e-12)


@laws
@given(rows)
def test_equal_counts_have_no_distance(a):
    assert drift.psi(a, a) == drift.kolmogorov_smirnov(a, a) == drift.chi_square(a, a) == 0
    assert drift.jensen_shannon(a, a) == 0


@pytest.mark.parametrize("shift", [0.0, 0.1, 1.0])
def test_ks_on_edges_misses_at_most_the_largest_bin(shift):
    rng = np.random.default_rng(0)
    x, y = rng.gamma(2, size=20_000), rng.gamma(2, size=5_000) + shift
    edges = fit_edges(x, "x")
    found = drift.distance(edges.hist(), edges.count(y))
    exact = ks_2samp(x, y).statistic
    largest = max(max(one.counts) / one.n for one in (edges.hist(), edges.count(y)))
    assert exact - largest <= found.ks <= exact + 1e-12
    if shift < 1:
        assert abs(found.ks - exact) < 0.005


# --- edges ---


def test_edges_are_equal_in_mass_and_deciles_merge_exactly():
    x = np.random.default_rng(1).normal(size=50_000)
    edges = fit_edges(x, "x")
    assert len(edges.reference) == 250
    assert set(edges.reference) == {200}
    cells = drift.merged_cells(edges.reference)
    assert len(cells) == 10
    assert {stop - start for start, stop in cells} == {25}


def test_a_large_reference_is_fitted_on_a_sample_but_counted_whole():
    x = np.random.default_rng(2).normal(size=450_000)
    edges = fit_edges(x, "x")
    assert sum(edges.reference) == 450_000
    assert max(edges.reference) < 1.2 * 450_000 / 250


def test_an_atom_has_a_bin_of_its_own():
    rng = np.random.default_rng(3)
    x = np.concatenate([np.zeros(3000), np.full(100, 1.0), rng.normal(size=6900)])
    edges = fit_edges(x, "x")
    for value, mass in ((0.0, 3000), (1.0, 100)):
        place = edges.edges.index(value)
        assert edges.edges[place - 1] == np.nextafter(value, -np.inf)
        assert edges.reference[place] == mass
    cells = drift.merged_cells(edges.reference)
    place = edges.edges.index(0.0)
    assert (place, place + 1) in cells
    assert 8 <= len(cells) <= 14


COLUMNS = {  # values -> bins
    "constant": ([5.0] * 100, 3),
    "nothing but NaN": ([math.nan] * 100, 1),
    "empty": ([], 1),
    "infinities": ([-math.inf] * 10 + [0.0, 1.0, 2.0] * 30 + [math.inf] * 10, 8),
    "two values": ([0, 1] * 50, 5),
    "the largest float": ([1.7976931348623157e308] * 5 + [0.0] * 5, 5),
}


@pytest.mark.parametrize(("values", "bins"), COLUMNS.values(), ids=COLUMNS)
def test_odd_columns_have_edges_and_no_drift_from_themselves(values, bins):
    edges = fit_edges(values, "x", null=7)
    assert len(edges.reference) == bins
    assert sum(edges.reference) + edges.nan == len(values)
    found = drift.distance(edges.hist(), edges.count(values, null=7))
    assert found.psi == 0
    assert not math.isnan(drift.psi_null(found.bins, 500, 500))


def test_a_column_that_turns_null_is_drift():
    x = np.random.default_rng(4).normal(size=5000)
    edges = fit_edges(x, "x")
    found = drift.distance(edges.hist(), edges.count(x[:4000], null=1000))
    assert found.psi > 1
    assert drift.judge({"x": found})["x"].verdict == "violation"


def test_words_that_were_never_seen_are_other():
    words = fit_vocabulary(["a"] * 60 + ["b"] * 39 + ["rare"] + [None] * 5, "city", most=2)
    assert (words.words, words.reference, words.other, words.null) == (("a", "b"), (60, 39), 1, 5)
    found = drift.distance(words.cats(), words.count(["new"] * 50 + ["a"] * 50))
    assert found.psi > 1
    assert math.isnan(found.ks)
    assert fit_vocabulary([], "city").words == ()
    assert fit_vocabulary(["b", "a"], "city", most=1).words == ("a",)


def test_rare_words_are_merged_before_psi():
    counts = (500, 400, *([1] * 48))
    words = Vocabulary(column="c", words=tuple(map(str, range(50))), reference=counts)
    found = drift.distance(words.cats(), words.count(["0"] * 500 + ["1"] * 400 + ["2"] * 48))
    assert found.bins == 3
    assert found.psi == 0
    assert found.js > 0


@laws
@given(rows)
def test_merged_cells_cover_every_bin_once(counts):
    cells = drift.merged_cells(counts)
    assert [i for start, stop in cells for i in range(start, stop)] == list(range(len(counts)))
    if len(cells) > 1:
        shares = [sum(counts[start:stop]) / sum(counts) for start, stop in cells]
        assert min(shares) >= 0.02


def test_windows_on_other_edges_are_refused():
    one, two = fit_edges([0.0, 1.0, 2.0], "x"), fit_edges([0.0, 1.0, 3.0], "x")
    words = fit_vocabulary(["a"], "c")
    for a, b in (
        (one.hist(), two.hist()),
        (words.cats(), fit_vocabulary(["b"], "c").cats()),
        (one.hist(), words.cats()),
    ):
        with pytest.raises(Unmergeable):
            drift.distance(a, b)


def test_counts_of_another_length_are_refused():
    edges, words = fit_edges([0.0, 1.0, 2.0], "x").hist(), fit_vocabulary(["a", "b"], "c").cats()
    for one in (edges, words):
        with pytest.raises(Unmergeable, match="different number"):
            drift.distance(one, replace(one, counts=(*one.counts, 0)))


def test_an_empty_side_has_no_distance():
    assert math.isnan(drift.kolmogorov_smirnov([0, 0], [1, 2]))
    assert math.isnan(drift.chi_square([1, 2], [0, 0]))


def test_an_empty_window_is_inconclusive():
    edges = fit_edges(np.arange(1000.0), "x")
    found = drift.distance(edges.hist(), edges.count([]))
    assert math.isnan(found.psi)
    assert drift.judge({"x": found})["x"].verdict == "inconclusive"


# --- the null ---


@pytest.mark.parametrize(
    ("n", "m"), [(500, 100_000), (2000, 100_000), (20_000, 100_000), (1000, 1000)]
)
def test_no_drift_exceeds_the_null_quantile_in_one_percent(n, m):
    rng, runs = np.random.default_rng(n), 6000
    a, b = (rng.multinomial(size, [0.1] * 10, runs) / size for size in (n, m))
    found = ((a - b) * np.log(a / b)).sum(axis=1)
    share = np.mean(found > drift.psi_null(10, n, m))
    assert share == pytest.approx(0.01, abs=0.006)


def test_the_null_quantile_equals_scipy():
    assert drift.psi_null(10, 500, 2000) == pytest.approx(chi2.isf(0.01, 9) * (1 / 500 + 1 / 2000))
    assert drift.psi_null(1, 500, 500) == 0.0


def test_control_small_windows_would_alarm_without_drift():
    rng = np.random.default_rng(5)
    a, b = rng.multinomial(100, [0.1] * 10, 500), rng.multinomial(100_000, [0.1] * 10, 500)
    alarms = np.mean([drift.psi(y, x) > 0.1 for x, y in zip(a, b, strict=True)])
    assert alarms == pytest.approx(0.39, abs=0.07)


# --- the rule ---


def at(psi, n=20_000, m=100_000, bins=10):
    return Distance(
        psi=psi, bins=bins, ks=0.1, js=0.1, chi2=1.0, n=n, m=m, edges="sha256:" + "0" * 64
    )


CALM, WILD = BlockNull(0.02, 12, known=True), BlockNull(0.30, 12, known=True)
RULE = {  # distance, block null -> verdict
    "large and real": (at(0.2), None, "violation"),
    "real but small": (at(0.05), None, "none"),
    "on the practical limit": (at(0.10), None, "violation"),
    "large but not real": (at(0.2, n=500, m=500, bins=40), None, "none"),
    "large by chance": (at(0.06, n=600, m=600), None, "none"),
    "few rows": (at(0.9, n=499), None, "inconclusive"),
    "few reference rows": (at(0.9, m=499), None, "inconclusive"),
    "weeks that move more": (at(0.2), WILD, "none"),
    "weeks that move less": (at(0.2), CALM, "violation"),
    "one cell only": (at(0.0, bins=1), None, "none"),
}


@pytest.mark.parametrize(("distance", "block", "verdict"), RULE.values(), ids=RULE)
def test_the_rule(distance, block, verdict):
    found = drift.judge({"x": distance}, {"x": block} if block else None)["x"]
    assert found.verdict == verdict
    if verdict != "inconclusive":
        for number in (distance.psi, found.psi_null, found.practical):
            assert f"{number:.4f}" in found.reason


def test_many_features_are_corrected_together():
    """One feature just beyond its own null, among many without drift."""
    just = drift.psi_null(10, 500, 500) * 1.001
    many = {str(i): at(0.001, n=500, m=500) for i in range(30)}
    alone = drift.judge({"x": at(just, n=500, m=500)})["x"]
    among = drift.judge({"x": at(just, n=500, m=500), **many})["x"]
    assert alone.p == among.p == pytest.approx(0.01, rel=0.02)
    assert among.p_adjusted == pytest.approx(31 * among.p)


def test_inconclusive_features_do_not_count_in_the_family():
    found = drift.judge({"x": at(0.2), "y": at(0.9, n=10)})
    assert found["x"].p_adjusted == found["x"].p
    assert math.isnan(found["y"].p)


def test_no_drift_is_quiet_and_drift_is_found():
    rng = np.random.default_rng(6)
    edges = fit_edges(rng.normal(size=50_000), "x")
    verdicts = {"same": [], "moved": []}
    for _ in range(100):
        for name, shift in (("same", 0.0), ("moved", 0.6)):
            found = drift.distance(edges.hist(), edges.count(rng.normal(size=700) + shift))
            verdicts[name].append(drift.judge({"x": found})["x"].verdict)
    assert set(verdicts["same"]) == {"none"}
    assert set(verdicts["moved"]) == {"violation"}


def test_the_block_null_is_the_reference_against_itself():
    rng = np.random.default_rng(7)
    edges = fit_edges(rng.normal(size=20_000), "x")
    weeks = [edges.count(rng.normal(size=2000) + 0.3 * (i % 2)) for i in range(12)]
    found = drift.block_null(weeks)
    assert found.known
    assert found.psi > 0.06
    assert not drift.block_null(weeks[:7]).known
    cats = [Cats(vocabulary="sha256:" + "0" * 64, counts=(50 + i, 50)) for i in range(8)]
    assert drift.block_null(cats).psi < 0.01


# --- CBPE ---


def test_cbpe_equals_the_rows():
    rng = np.random.default_rng(8)
    bins = rng.integers(0, 1000, 20_000)
    calibrated = np.sort(rng.uniform(0, 1, 1000))
    counts = np.bincount(bins, minlength=1000)
    found = drift.cbpe(counts, calibrated, threshold_bin=400)
    p = calibrated[bins]
    assert found.accuracy == pytest.approx(np.mean(np.where(bins >= 400, p, 1 - p)))
    # expected AUC: each row is positive with weight p and negative with weight 1 - p
    below = np.bincount(bins, weights=1 - p, minlength=1000)
    mass = (np.cumsum(below) - below / 2)[bins]
    assert found.auc == pytest.approx((p * mass).sum() / (p.sum() * (1 - p).sum()))
    assert "p(y|x)" in found.caveat


def test_cbpe_of_nothing_and_nonsense():
    assert math.isnan(drift.cbpe([0, 0], [0.1, 0.9], threshold_bin=1).accuracy)
    assert math.isnan(drift.cbpe([5, 5], [0.0, 0.0], threshold_bin=1).auc)
    for bad in ([0.1], [0.1, 1.5]):
        with pytest.raises(ValueError, match="calibrated"):
            drift.cbpe([1, 1], bad, threshold_bin=1)
