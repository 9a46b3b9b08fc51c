from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falaj.learning.join import Join, strata

laws = settings(derandomize=True, deadline=None, max_examples=100)
AT = datetime(2026, 3, 1, tzinfo=UTC)
AT_MS = int(AT.timestamp() * 1000)


def answer(request="r1", row=0, score=0.7, **more):
    said = {
        "at": AT,
        "request": request,
        "row": row,
        "model": "delay",
        "release": "sha256:a",
        "assigned": "canary",
        "arm": "canary",
        "outcome": "ok",
        "latency_us": 900,
        "stratum": 29_000_000,
        "step": 1,
        "rollout": "RO-0001",
        "event_time": "2013-04-01T08:00:00Z",
        "x": [1.0],
        "y": [score],
        "score": score,
    }
    return said | more


def truth(request="r1", row=0, value=1.0, seconds=5, **more):
    said = {
        "request": request,
        "row": row,
        "value": value,
        "at": "2013-04-01T10:00:00Z",
        "source": "ops",
        "received": AT + timedelta(seconds=seconds),
    }
    return said | more


def test_an_answer_meets_its_truth():
    join = Join()
    assert join.answers([answer()]) == []
    assert join.waiting == (1, 0)
    (found,) = join.truths([truth(value=0)])
    assert join.waiting == (0, 0)
    assert found == (
        "r1",
        0,
        "sha256:a",
        "canary",
        "RO-0001",
        1,
        29_000_000,
        AT_MS + 5000,
        datetime(2013, 4, 1, 8, tzinfo=UTC),
        0.7,
        1,
        0.0,
        True,
    )


def test_the_truth_may_come_before_the_answer_is_read():
    join = Join()
    assert join.truths([truth(seconds=-9)]) == []
    (found,) = join.answers([answer()])
    assert not found.wrong
    assert found.arrival_ms == AT_MS, "both are here only when the later one is"


def test_a_truth_told_twice_or_corrected_counts_once():
    join = Join()
    join.answers([answer()])
    told = [truth(), truth(), truth(value=0), truth(value=0, source="audit")]
    assert [one.value for one in join.truths(told)] == [1.0]
    assert join.truths([truth(value=0)]) == []
    assert join.answers([answer()]) == []
    assert join.counts["repeated"] == 5
    assert join.counts["joined"] == 1


def test_a_truth_of_an_unknown_request_waits_and_joins_nothing():
    join = Join()
    assert join.truths([truth("stranger")]) == []
    assert join.answers([answer("r1"), answer("stranger", row=1)]) == []
    assert join.waiting == (2, 1)


WRONG = {
    "above the threshold is yes": (0.5001, 1, False),
    "on it is no, as the server says": (0.5, 1, True),
    "yes and no": (0.9, 0, True),
    "no and no": (0.1, 0, False),
    "true is yes": (0.9, True, False),
}


@pytest.mark.parametrize(("score", "value", "wrong"), WRONG.values(), ids=WRONG)
def test_the_class_is_told_by_the_threshold(score, value, wrong):
    join = Join()
    join.answers([answer(score=score)])
    assert [one.wrong for one in join.truths([truth(value=value)])] == [wrong]


def test_another_threshold():
    join = Join(threshold=0.8)
    join.answers([answer(score=0.7)])
    assert [one.predicted for one in join.truths([truth()])] == [0]
    join.thresholds = {"sha256:own": 0.6}
    join.answers([answer("r2"), answer("r3", release="sha256:own")])
    told = join.truths([truth("r2"), truth("r3")])
    assert [one.predicted for one in told] == [0, 1], "a release may have one of its own"


LEFT_OUT = {
    "an error has no score": (answer(score=None, y=[]), truth(), "no_score"),
    "a score that is no number": (answer(score=float("nan")), truth(), "no_score"),
    "a truth that is no class": (answer(), truth(value=0.5), "no_class"),
    "a truth in words": (answer(), truth(value="late"), "no_class"),
}


@pytest.mark.parametrize(("said", "known", "why"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_is_left_out_is_told(said, known, why):
    join = Join()
    assert join.answers([said]) + join.truths([known]) == []
    assert join.counts[why] == 1


def test_without_a_score_the_last_output_is_it_and_without_a_time_the_answers_own():
    join = Join()
    join.answers([answer(score=None, y=[0.1, 0.9], event_time=None)])
    (found,) = join.truths([truth(received=None, at=None)])
    assert (found.score, found.event_time, found.arrival_ms) == (0.9, AT, AT_MS)


def test_memory_is_bounded_and_what_is_dropped_is_counted():
    join = Join(answers=3, truths=2)
    join.answers(answer(f"r{i}") for i in range(5))
    join.truths(truth(f"x{i}") for i in range(5))
    assert join.waiting == (3, 2)
    assert join.counts["dropped_answers"] == 2
    assert join.counts["dropped_truths"] == 3
    assert join.truths([truth("r0")]) == []
    assert len(join.truths(truth(f"r{i}") for i in (2, 3, 4))) == 3


keys = st.tuples(st.sampled_from("abc"), st.integers(0, 2))
told = st.lists(st.tuples(st.booleans(), keys, st.integers(0, 1)), max_size=40)


def feed(join, part):
    found = []
    for is_truth, (request, row), value in part:
        if is_truth:
            found += join.truths([truth(request, row, value)])
        else:
            found += join.answers([answer(request, row)])
    return found


@laws
@given(told)
def test_each_row_is_given_once_and_exactly_when_both_sides_are_there(lines):
    found = feed(Join(), lines)
    answered = {key for is_truth, key, _ in lines if not is_truth}
    known = {key for is_truth, key, _ in lines if is_truth}
    given = [(one.request, one.row) for one in found]
    assert sorted(given) == sorted(answered & known)
    first = {}
    for is_truth, key, value in lines:
        if is_truth:
            first.setdefault(key, value)
    assert all(one.value == first[one.request, one.row] for one in found)


@laws
@given(told, st.integers(0, 40))
def test_after_a_restart_nothing_is_given_twice_and_nothing_is_lost(lines, cut):
    whole = feed(Join(), lines)
    before = feed(Join(), lines[:cut])
    again = Join()
    # the spool is read by kind: all answers, then all truths
    dropped = feed(again, sorted(lines[:cut], key=lambda line: line[0]))
    assert {one[:2] for one in dropped} == {one[:2] for one in before}
    after = feed(again, lines[cut:])
    assert [one[:2] for one in before + after] == [one[:2] for one in whole]


def test_strata_count_wrong_answers_of_both_arms_by_arrival_and_step():
    join = Join()
    join.answers(
        answer(
            f"r{i}",
            score=0.9,
            assigned="canary" if i < 4 else "stable",
            arm="stable",
            step=i % 2,
            stratum=-1 if i == 9 else 5,
            rollout="RO-0002" if i == 8 else "RO-0001",
        )
        for i in range(10)
    )
    labelled = join.truths(
        truth(f"r{i}", value=int(i not in (0, 4)), seconds=0 if i < 6 else 60) for i in range(10)
    )
    minute = AT_MS // 60_000
    got = [
        (one.stratum - minute, one.step, one.n_c, one.x_c, one.n_s, one.x_s)
        for one in strata(labelled, 60_000, rollout="RO-0001", zone="ae")
    ]
    assert got == [(0, 0, 2, 1, 1, 1), (0, 1, 2, 0, 1, 0), (1, 0, 0, 0, 1, 0), (1, 1, 0, 0, 1, 0)]
    everything = strata(labelled, 60_000)
    assert sum(one.n_c + one.n_s for one in everything) == 9
    assert {one.metric for one in everything} == {"labels"}
    assert strata([], 60_000) == []


@laws
@given(told, st.randoms(use_true_random=False), st.integers(1, 10**7))
def test_strata_do_not_depend_on_the_order(lines, dice, stratum_ms):
    labelled = feed(Join(), lines)
    mixed = list(labelled)
    dice.shuffle(mixed)
    assert strata(mixed, stratum_ms) == strata(labelled, stratum_ms)
