"""All workers switch to a plan, or none does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from falaj.doors.predict.ballot import NEWER, Ballot, Verdict
from falaj.doors.predict.sums import merged


def test_they_switch_when_the_last_one_is_ready():
    ballot = Ballot()
    assert ballot.cast(7, 1, "", [1, 2]) == []
    assert ballot.cast(7, 2, "", [1, 2]) == [Verdict(7, "", (1, 2))]
    assert ballot.votes == {}


def test_one_that_cannot_stops_all():
    ballot = Ballot()
    ballot.cast(7, 1, "", [1, 2])
    assert ballot.cast(7, 2, "no such file", [1, 2]) == [Verdict(7, "no such file", (1, 2))]


def test_a_newer_plan_lets_nobody_wait_for_the_old_one():
    ballot = Ballot()
    ballot.cast(7, 1, "", [1, 2])
    assert ballot.cast(8, 2, "", [1, 2]) == [Verdict(7, NEWER, (1,))]
    assert ballot.cast(8, 1, "", [1, 2]) == [Verdict(8, "", (2, 1))]


def test_the_dead_are_not_waited_for():
    ballot = Ballot()
    ballot.cast(7, 1, "", [1, 2])
    assert ballot.count([1]) == [Verdict(7, "", (1,))]


def test_one_that_drains_has_no_say_but_hears():
    ballot = Ballot()
    assert ballot.cast(7, 3, "I leave", [1]) == []
    assert ballot.cast(7, 1, "", [1]) == [Verdict(7, "", (3, 1))]


@given(st.permutations(range(5)), st.sets(st.integers(0, 4)))
def test_every_voter_hears_one_and_the_same(order, against):
    ballot, heard = Ballot(), []
    for worker in order:
        heard += ballot.cast(1, worker, "no" if worker in against else "", range(5))
    told = [(worker, verdict.why) for verdict in heard for worker in verdict.workers]
    assert {why for _, why in told} == ({"no"} if against else {""})
    if not against:
        assert sorted(worker for worker, _ in told) == list(range(5))


ONE = """# TYPE falaj_requests counter
# HELP falaj_requests Requests.
falaj_requests_total{code="ok"} 3
# TYPE falaj_ready gauge
# HELP falaj_ready Ready.
falaj_ready 1
# EOF
"""


def test_counters_are_added_and_of_everything_else_the_largest_is_taken():
    two = ONE.replace(" 3\n", ' 4\nfalaj_requests_total{code="late"} 1\n').replace(
        "ready 1", "ready 0"
    )
    told = merged([ONE.encode(), two.encode()]).decode().splitlines()
    assert told[:7] == [
        "# TYPE falaj_requests counter",
        "# HELP falaj_requests Requests.",
        'falaj_requests_total{code="ok"} 7',
        'falaj_requests_total{code="late"} 1',
        "# TYPE falaj_ready gauge",
        "# HELP falaj_ready Ready.",
        "falaj_ready 1",
    ]
