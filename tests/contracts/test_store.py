"""The contract of ports/store.py, over every adapter."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time as clock
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from falaj.base import ids, merkle, time
from falaj.base.errors import Conflict, NotFound
from falaj.facts.access import Principal, Role
from falaj.facts.events import Event
from falaj.links.sql.store import SqlStore


@pytest.fixture(params=["sqlite"])
def store(request, tmp_path):
    opened = SqlStore.open(tmp_path / "store.db")
    yield opened
    opened.close()


def principal(name: str) -> Principal:
    return Principal(name=name, person=ids.new(), roles=(Role.VIEWER,), created=time.now())


def event(subject: str = "principal/x") -> Event:
    return Event(
        id=ids.new(),
        at=time.now(),
        project="p",
        type="principal.added",
        actor="a",
        subject=subject,
        data={"n": 1},
    )


def keep(store, name: str) -> Principal:
    made = principal(name)
    with store.begin() as unit:
        unit.add(made)
        unit.append(event())
    return made


def test_what_was_added_is_read_back_equal(store):
    made = keep(store, "omar")
    assert store.get(Principal, "omar") == (made, 1)


def test_an_unknown_id_is_refused_by_name(store):
    with pytest.raises(NotFound, match="no principal 'nobody'"):
        store.get(Principal, "nobody")


def test_the_same_id_twice_is_a_conflict_and_changes_nothing(store):
    made = keep(store, "omar")
    with pytest.raises(Conflict):
        keep(store, "omar")
    assert store.get(Principal, "omar").fact == made


def test_a_fact_without_its_event_is_refused_and_not_kept(store):
    with pytest.raises(AssertionError), store.begin() as unit:
        unit.add(principal("omar"))
    with pytest.raises(NotFound):
        store.get(Principal, "omar")


def test_an_exception_in_the_unit_keeps_neither_fact_nor_event(store):
    with pytest.raises(ZeroDivisionError), store.begin() as unit:
        unit.add(principal("omar"))
        unit.append(event())
        raise ZeroDivisionError
    assert store.integrate() == 0
    with pytest.raises(NotFound):
        store.get(Principal, "omar")


def test_replacing_what_moved_on_is_a_conflict(store):
    made = keep(store, "omar")
    old = store.get(Principal, "omar")
    with store.begin() as unit:
        unit.replace(old, made)
        unit.append(event())
    with pytest.raises(Conflict, match="changed by someone else"), store.begin() as unit:
        unit.replace(old, made)
        unit.append(event())


def test_find_is_newest_first_and_continues_behind_an_id(store):
    for name in ("a", "b", "c"):
        keep(store, name)
    assert [p.name for p in store.find(Principal)] == ["c", "b", "a"]
    assert [p.name for p in store.find(Principal, limit=1, after="b")] == ["a"]


def test_numbers_have_no_gaps_even_when_a_unit_fails(store):
    with store.begin() as unit:
        assert unit.number("change") == 1
    with pytest.raises(ZeroDivisionError), store.begin() as unit:
        assert unit.number("change") == 2
        raise ZeroDivisionError
    with store.begin() as unit:
        assert unit.number("change") == 2


def test_a_lease_has_one_holder_and_a_growing_fence(store):
    first = store.take("rollout/1", "w1", 0.2)
    assert first is not None
    assert store.take("rollout/1", "w2", 5) is None
    renewed = store.take("rollout/1", "w1", 0.2)
    assert renewed is not None
    assert renewed.fence == first.fence
    clock.sleep(0.3)
    second = store.take("rollout/1", "w2", 5)
    assert second is not None
    assert second.fence == first.fence + 1


def test_a_thawed_holder_is_fenced(store):
    first = store.take("rollout/1", "w1", 0.01)
    clock.sleep(0.05)
    assert store.take("rollout/1", "w2", 5) is not None
    assert first is not None
    with pytest.raises(Conflict, match="taken over"), store.begin() as unit:
        unit.hold(first)


def test_a_lease_that_was_given_back_is_free(store):
    first = store.take("x", "w1", 60)
    assert first is not None
    store.release(first)
    assert store.take("x", "w2", 60) is not None


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_the_root_is_that_of_rfc_6962_over_the_bodies_whatever_the_batches(tmp_path, batches):
    store = SqlStore.open(tmp_path / f"{ids.new()}.db")
    for batch in batches:
        for _ in range(batch):
            with store.begin() as unit:
                unit.append(event())
        store.integrate(limit=2)
    while store.integrate(limit=3) < sum(batches):
        pass
    leaves = [merkle.leaf(body) for _, body in store.leaves()]
    assert store.root() == (sum(batches), merkle.root(leaves))
    store.close()


def test_events_come_in_the_logs_order_and_read_back_equal(store):
    told = [event(f"principal/{i}") for i in range(5)]
    for one in reversed(told):
        with store.begin() as unit:
            unit.append(one)
    store.integrate()
    found = store.events()
    assert [place for place, _ in found] == [0, 1, 2, 3, 4]
    assert [e.id for _, e in found] == sorted(e.id for e in told)
    assert {e.subject for _, e in found} == {e.subject for e in told}


def writer(path: Path, ready: multiprocessing.Queue) -> None:
    store = SqlStore.open(path)
    count = 0
    while True:
        keep(store, f"p{count}")
        count += 1
        ready.put(count)


def test_kill_9_in_the_middle_loses_no_committed_fact(tmp_path):
    path = tmp_path / "store.db"
    SqlStore.open(path).close()
    context = multiprocessing.get_context("spawn")
    ready: multiprocessing.Queue = context.Queue()
    child = context.Process(target=writer, args=(path, ready))
    child.start()
    committed = 0
    while committed < 20:
        committed = ready.get(timeout=30)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    store = SqlStore.open(path)
    facts = store.find(Principal)
    size = store.integrate()
    assert len(facts) >= committed
    assert size == len(facts)  # every fact has its event, no event without its fact
    store.close()


def test_two_writers_wait_for_each_other(tmp_path):
    one, two = SqlStore.open(tmp_path / "s.db"), SqlStore.open(tmp_path / "s.db")
    for at in range(10):
        keep(one, f"a{at}")
        keep(two, f"b{at}")
    assert len(one.find(Principal)) == 20
    one.close()
    two.close()


def test_the_tables_are_what_the_migrations_make(store):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from falaj.links.sql.tables import METADATA

    with store._engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, METADATA) == []


def test_head_names_the_newest_migration():
    from falaj.links.sql import connect

    folder = Path(connect.__file__).parent / "migrations" / "versions"
    newest = max(p.name[1:5] for p in folder.glob("v[0-9]*.py"))
    assert newest == connect.HEAD
