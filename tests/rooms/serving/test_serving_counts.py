from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from falaj.serving.counts import BUCKETS, CANARY, STABLE, Histogram, Tally, bucket, upper_us
from falaj.serving.spool import newest

EDGES = (10, 20, 30, 40)
OUTCOMES = st.tuples(st.sampled_from((STABLE, CANARY)), st.integers(-1, 60), st.integers(0, 3))


@given(st.lists(st.lists(OUTCOMES, max_size=30), max_size=5), st.sampled_from((0, 7)))
def test_counts_are_the_truth_however_they_are_flushed(flushes, margin):
    """Of the canary, slow is what lies above a threshold by more than the margin."""
    tally = Tally("boot")
    lines = []
    for flush in flushes:
        for arm, us, stratum in flush:
            tally.count(tally.cell("m", "r", 1, stratum, "z", EDGES, margin), arm, us)
        lines += tally.changes()
    found = {(c.stratum, c.metric): c for c in newest(iter(lines)).values()}
    everything = [outcome for flush in flushes for outcome in flush]
    for stratum in {s for _, _, s in everything}:
        of = [(arm, us) for arm, us, s in everything if s == stratum]
        for arm, n, x in ((STABLE, "n_s", "x_s"), (CANARY, "n_c", "x_c")):
            mine = [us for a, us in of if a == arm]
            assert getattr(found[stratum, "requests"], n) == len(mine)
            assert getattr(found[stratum, "errors"], n) == len(mine)
            assert getattr(found[stratum, "errors"], x) == sum(us < 0 for us in mine)
            for at, edge in enumerate(EDGES):
                line = found[stratum, f"latency.{at}"]
                assert getattr(line, n) == sum(us >= 0 for us in mine)
                assert getattr(line, x) == sum(us > edge + margin * arm for us in mine)


def test_nothing_new_writes_nothing():
    tally = Tally("boot")
    tally.count(tally.cell("m", "r", 1, 5, "z", EDGES), STABLE, 1)
    first = tally.changes()
    assert {line.seq for line in first} == {1}
    assert tally.changes() == []


def test_a_late_outcome_counts_where_it_was_assigned():
    tally = Tally("boot")
    old = tally.cell("m", "r", 1, 1, "z", EDGES)
    for stratum in range(2, 600):
        tally.count(tally.cell("m", "r", 1, stratum, "z", EDGES), STABLE, 1)
    tally.count(old, CANARY, -1)
    late = [line for line in tally.changes() if line.stratum == 1]
    assert {(line.metric, line.n_c, line.x_c) for line in late} >= {("errors", 1, 1)}


def test_buckets_cover_every_latency_without_gap():
    edges = [upper_us(at) for at in range(BUCKETS)]
    assert edges == sorted(set(edges))
    for at, edge in enumerate(edges[:-1]):
        assert bucket(edge) == at
        assert bucket(edge + 1) == at + 1
    assert bucket(10**12) == BUCKETS - 1


@given(st.integers(16, 10**8))
def test_a_bucket_is_narrower_than_an_eighth(us):
    assert us <= upper_us(bucket(us)) <= us * 9 / 8


@given(st.lists(st.integers(0, 10**7), max_size=50))
def test_a_histogram_tells_all_it_took(values):
    histogram = Histogram("r")
    for us in values:
        histogram.add(us)
    told = histogram.told()
    assert sum(told["counts"]) == len(values)
    assert len(told["counts"]) == len(told["edges_us"])
    for edge in told["edges_us"]:
        below = sum(c for c, e in zip(told["counts"], told["edges_us"], strict=True) if e <= edge)
        assert below == sum(us <= edge for us in values)
