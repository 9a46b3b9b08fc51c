from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from falaj.serving.batching import Turn, parts
from falaj.serving.loading import EngineFailed, Outputs
from falaj.serving.schema import Rows


class Doubler:
    """Answers twice the value; a negative value fails the whole call, as a crash would."""

    away = False

    def __init__(self):
        self.calls = []

    def run(self, given):
        values = [value for part in given for value in part.values]
        self.calls.append(len(values))
        if min(values) < 0:
            raise EngineFailed("negative")
        return Outputs(len(values), [[2 * value for value in values]], [1], [b""])


class Job:
    def __init__(self, engine, values):
        self.engine = engine
        self.rows = Rows(len(values), 1, values, b"")
        self.answers = []

    def settle(self, outputs, first, waited_ns):
        self.answers.append(outputs.part(first, self.rows.n).flats[0])

    def fail(self, error, waited_ns):
        self.answers.append(str(error))


VALUES = st.lists(st.integers(-1, 9), min_size=1, max_size=40)
TURNS = st.lists(st.lists(st.tuples(st.integers(0, 1), VALUES), max_size=12), max_size=4)


@given(TURNS)
def test_each_request_is_answered_once_as_if_alone(turns):
    later = []
    turn = Turn(later.append)
    engines = [Doubler(), Doubler()]
    for wanted in turns:
        jobs = [Job(engines[which], values) for which, values in wanted]
        for job in jobs:
            turn.add(job)
        assert len(later) == (1 if jobs else 0)
        while later:
            later.pop()()
        for job in jobs:
            bad = min(job.rows.values) < 0
            assert job.answers == (["negative"] if bad else [[2 * v for v in job.rows.values]])


@given(st.lists(st.integers(1, 100), max_size=50))
def test_parts_keep_the_order_and_the_bound(sizes):
    jobs = [Job(None, [0] * size) for size in sizes]
    cut = parts(jobs)
    assert [job for part in cut for job in part] == jobs
    for part in cut:
        assert len(part) == 1 or sum(job.rows.n for job in part) <= 64


def test_single_rows_of_one_turn_are_one_call():
    later = []
    turn = Turn(later.append)
    engine = Doubler()
    for value in range(64):
        turn.add(Job(engine, [value]))
    later.pop()()
    assert engine.calls == [64]


def test_a_bad_row_hurts_its_own_request_only():
    later = []
    turn = Turn(later.append)
    engine = Doubler()
    jobs = [Job(engine, [value]) for value in (1, -1, 3)]
    for job in jobs:
        turn.add(job)
    later.pop()()
    assert [job.answers for job in jobs] == [[[2]], ["negative"], [[6]]]
