"""When an arm is let be, and how it comes back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from falaj.serving.breaker import Breaker, Way


def test_five_failures_in_ten_seconds_open_it():
    breaker = Breaker()
    assert [breaker.failed(at) for at in (0.0, 1.0, 2.0, 3.0)] == [False] * 4
    assert breaker.failed(9.9)
    assert not breaker.passes(10.0)


def test_five_failures_in_a_minute_do_not():
    breaker = Breaker()
    assert not any(breaker.failed(at) for at in range(0, 600, 3))
    assert breaker.passes(600.0)


def test_one_request_shows_whether_it_is_well_again():
    breaker = Breaker()
    breaker.open(0.0)
    assert not breaker.passes(0.49)
    assert breaker.passes(0.5)
    assert not breaker.passes(0.6), "one at a time"
    breaker.answered()
    assert breaker.way is Way.CLOSED
    assert breaker.passes(0.7)


def test_a_failed_trial_waits_twice_as_long_and_never_more_than_half_a_minute():
    breaker = Breaker()
    now, waits = 0.0, []
    breaker.open(now)
    for _ in range(9):
        waits.append(breaker.until - now)
        now = breaker.until
        assert breaker.passes(now)
        assert breaker.failed(now)
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_an_answer_that_was_asked_for_before_says_nothing():
    breaker = Breaker()
    breaker.open(0.0)
    breaker.answered()
    assert breaker.way is Way.OPEN


def test_a_trial_without_an_outcome_does_not_lock_it():
    breaker = Breaker()
    breaker.open(0.0)
    assert breaker.passes(1.0)
    assert not breaker.passes(5.0)
    assert breaker.passes(11.0)


@given(st.lists(st.tuples(st.floats(0, 5), st.sampled_from("pafo")), max_size=60))
def test_it_always_comes_back_when_the_arm_does(story):
    """Whatever happened: half a minute of quiet and one good answer, and requests pass."""
    breaker, now = Breaker(), 0.0
    for step, what in story:
        now += step
        match what:
            case "p":
                breaker.passes(now)
            case "a":
                breaker.answered()
            case "f":
                breaker.failed(now)
            case _:
                breaker.open(now)
        assert breaker.wait_s <= 30
    now += 31
    assert breaker.passes(now)
    breaker.answered()
    assert breaker.passes(now)
