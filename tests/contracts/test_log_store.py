"""The contract of ports/log.py, and of what the integrator keeps there, over every adapter."""

from __future__ import annotations

import shutil
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import event as happenings

from falaj.base import ids, merkle, time
from falaj.base.errors import Conflict
from falaj.facts.access import Principal, Role
from falaj.facts.events import Event
from falaj.links.sql.store import SqlStore
from falaj.ports.log import Asked, Receipt, Signed

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """Migrating each store anew would take most of a test's time."""
    path = tmp_path_factory.mktemp("empty") / "store.db"
    SqlStore.open(path).close()
    return path


@pytest.fixture(params=["sqlite"])
def store(request, tmp_path, empty):
    shutil.copy(empty, tmp_path / "store.db")
    opened = SqlStore.open(tmp_path / "store.db")
    yield opened
    opened.close()


@pytest.fixture
def log(store):
    return store.log()


def tell(store, count=1, **other):
    told = [
        Event(
            **(
                {
                    "id": ids.new(),
                    "at": AT + timedelta(seconds=n),
                    "project": "p",
                    "type": "change.opened",
                    "actor": f"p-{n % 2}",
                    "subject": f"change/{n % 3}",
                    "data": {"n": n},
                }
                | other
            )
        )
        for n in range(count)
    ]
    with store.begin() as unit:
        for one in told:
            unit.append(one)
    return told


def test_nodes_are_those_of_the_whole_tree(store, log):
    for batch in (1, 2, 70, 100):
        tell(store, batch)
        store.integrate(limit=33)
    while store.integrate(limit=33) < 173:
        pass
    leaves = [merkle.leaf(leaf.body) for leaf in log.leaves()]
    _, made = merkle.grow(merkle.START, leaves)
    wanted = {(node.level, node.idx): node.hash for node in made}
    assert log.nodes(wanted) == wanted
    assert [pair for level in range(log.levels()) for pair in log.level(level)] == [
        (idx, wanted[level, idx]) for level, idx in sorted(wanted)
    ]
    assert log.size() == 173
    assert log.waiting() == 0


def test_a_node_that_is_not_there_is_left_out(store, log):
    tell(store, 3)
    store.integrate()
    assert set(log.nodes([(0, 2), (1, 0), (1, 1), (9, 9)])) == {(0, 2), (1, 0)}


def test_a_proof_needs_reads_as_the_tree_is_deep(store, log):
    tell(store, 1000)
    store.integrate()
    asked = []
    happenings.listen(log._engine, "before_cursor_execute", lambda *a: asked.append(a[2]))
    wanted = [p for part in merkle.inclusion_parts(700, 1000) for p in merkle.subtrees(*part)]
    log.nodes(wanted)
    assert len([sql for sql in asked if "log_node" in sql]) <= 2 * (1000).bit_length()


def test_an_event_that_was_committed_late_still_comes_into_the_log(store, log):
    """Its id is smaller than those that have their place already."""
    early = ids.new(1)
    tell(store, 3)
    store.integrate()
    tell(store, id=early)
    assert store.integrate() == 4
    assert log.place(early) == 3


def test_an_event_twice_is_refused_whole(store, log):
    (one,) = tell(store)
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        tell(store, id=one.id)
    assert store.integrate() == 1


def test_leaves_say_body_and_columns(store, log):
    told = tell(store, 4)
    store.integrate()
    found = list(log.leaves(1, 3))
    assert [leaf.idx for leaf in found] == [1, 2]
    assert found[0].id == sorted(e.id for e in told)[1]
    assert set(found[0].columns) == {"at", "project", "type", "actor", "subject"}
    assert all(merkle.leaf(leaf.body) == leaf.leaf for leaf in found)
    assert log.place("nobody") is None


SEARCHES = {
    "everything": (Asked(), 6),
    "one actor": (Asked(actor="p-1"), 3),
    "one subject": (Asked(subject="change/2"), 2),
    "one type": (Asked(type="change.opened"), 6),
    "a family of types": (Asked(type="change."), 6),
    "another type": (Asked(type="change"), 0),
    "a pattern is no wildcard": (Asked(type="%."), 0),
    "from a time on": (Asked(since=AT + timedelta(seconds=4)), 2),
    "before a time": (Asked(until=AT + timedelta(seconds=4)), 4),
    "all at once": (Asked("p-1", "change/2", "change.", AT, AT + timedelta(hours=1)), 1),
    "a quotation mark": (Asked(actor="' OR 1=1 --"), 0),
}


@pytest.mark.parametrize(("asked", "count"), SEARCHES.values(), ids=SEARCHES)
def test_search(store, log, asked, count):
    tell(store, 6)
    store.integrate()
    found = log.search(asked)
    assert len(found) == count
    assert [idx for idx, _ in found] == sorted((idx for idx, _ in found), reverse=True)


def test_search_goes_on_below_a_place(store, log):
    tell(store, 6)
    store.integrate()
    first = log.search(Asked(), limit=4)
    rest = log.search(Asked(), before=first[-1][0])
    assert [idx for idx, _ in (*first, *rest)] == [5, 4, 3, 2, 1, 0]


def signed(size, word=b"a"):
    return Signed(size, word * 32, b"note of " + word)


def test_one_checkpoint_a_size(log):
    assert log.last() is None
    for size in (3, 9, 5):
        log.keep(signed(size))
    log.keep(signed(9)._replace(note=b"signed anew"))
    assert log.last().note == b"signed anew"
    log.keep(signed(9))
    with pytest.raises(Conflict) as caught:
        log.keep(signed(9, b"b"))
    assert caught.value.code == "audit.log-forked"
    assert log.last() == signed(9)
    assert [one.size for one in log.checkpoints()] == [3, 5, 9]
    assert log.signed(4) == signed(5)
    assert log.signed(10) is None


def test_the_first_receipt_of_a_witness_stays(log):
    for receipt in (Receipt(3, "w", "one", 1), Receipt(3, "w", "two", 2), Receipt(5, "w", "x", 3)):
        log.receive(receipt)
    log.receive(Receipt(3, "v", "three", 4))
    assert log.receipts(3) == [Receipt(3, "v", "three", 4), Receipt(3, "w", "one", 1)]
    assert log.newest("w") == Receipt(5, "w", "x", 3)
    assert log.newest("nobody") is None
    assert log.witnesses() == ["v", "w"]


def test_what_was_seen_of_another_log_moves_on_from_where_it_was_alone(log):
    assert log.seen("log/x/1") is None
    assert not log.see("log/x/1", 3, signed(5))
    assert log.see("log/x/1", 0, signed(5))
    assert not log.see("log/x/1", 0, signed(6))
    assert log.see("log/x/1", 5, signed(9, b"c"))
    assert log.seen("log/x/1") == signed(9, b"c")


# --- remarks ---


def test_words_stand_beside_the_event_and_not_in_it(store, log):
    (one,) = tell(store, remark="Aisha said: fine")
    store.integrate()
    (leaf,) = log.leaves()
    assert b"Aisha" not in leaf.body
    assert b'"remark":"' in leaf.body
    assert log.remark(one.id) == "Aisha said: fine"
    (other,) = tell(store)
    assert log.remark(other.id) is None
    assert list(log.remarks_that_differ()) == []
    store.close()
    for path in Path(str(store._engine.url.database)).parent.glob("store.db*"):
        assert b"Aisha" not in path.read_bytes(), path.name


def test_the_same_words_twice_bind_nothing_that_can_be_compared(store, log):
    tell(store, 2, remark="fine")
    store.integrate()
    bodies = [leaf.body for leaf in log.leaves()]
    assert len({body[body.index(b'"remark":') :][:70] for body in bodies}) == 2


ALTERED = {
    "the words": "UPDATE remark SET sealed = zeroblob(60)",
    "the salt": "UPDATE remark SET salt = zeroblob(32)",
    "the event": "UPDATE remark SET event_id = 'other'",
    "too short": "UPDATE remark SET sealed = ''",
}


@pytest.mark.parametrize("statement", ALTERED.values(), ids=ALTERED)
def test_a_remark_that_was_altered_is_found(store, log, statement):
    tell(store, remark="fine")
    store.integrate()
    with store._writer.begin() as connection:
        connection.exec_driver_sql(statement)
    assert len(list(log.remarks_that_differ())) == 1


def test_forgetting_takes_one_persons_remarks_and_accounts(store, log):
    mine = tell(store, remark="mine", actor="p-me")
    theirs = tell(store, remark="theirs", actor="p-they")
    for name, person in (("me", "p-me"), ("me-2", "p-me"), ("they", "p-they")):
        with store.begin() as unit:
            unit.add(Principal(name=name, person=person, roles=(Role.VIEWER,), created=AT))
            unit.append(event_of(name))
    store.integrate()
    root = store.root()
    with store.begin() as unit:
        assert unit.forget("p-me") == (("me", "me-2"), 1)
        unit.append(event_of("gone"))
    assert [p.name for p in store.find(Principal)] == ["they"]
    assert log.remark(mine[0].id) is None
    assert log.remark(theirs[0].id) == "theirs"
    leaves = [merkle.leaf(leaf.body) for leaf in log.leaves()]
    assert (len(leaves), merkle.root(leaves)) == root
    with pytest.raises(AssertionError), store.begin() as unit:
        unit.forget("p-they")
    assert log.remark(theirs[0].id) == "theirs", "forgetting without an event is not kept"


def event_of(name):
    return Event(
        id=ids.new(), at=AT, project="p", type="principal.added", actor="a", subject=name, data={}
    )


# --- killed at every statement ---


class Killed(BaseException):
    """As if the process had ended there."""


def dying(engine, at):
    """Raise at the at-th statement, before it is sent; commits count as statements."""
    left = [at]

    def look(*_):
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    happenings.listen(engine, "before_cursor_execute", look)
    happenings.listen(engine, "commit", look)

    def quiet():
        happenings.remove(engine, "before_cursor_execute", look)
        happenings.remove(engine, "commit", look)

    return quiet


def test_killed_at_every_statement_the_next_one_ends_the_same(tmp_path, empty):
    def fresh(name):
        shutil.copy(empty, tmp_path / name)
        opened = SqlStore.open(tmp_path / name)
        with opened.begin() as unit:
            for n in range(13):
                unit.append(
                    Event(
                        id=f"01H{n:02}",
                        at=AT,
                        project="p",
                        type="a.b",
                        actor="x",
                        subject="s",
                        data={},
                    )
                )
        return opened

    whole = fresh("whole.db")
    assert whole.integrate(limit=5) == 5
    assert whole.integrate() == 13
    wanted = whole.root()
    whole.close()
    deaths = 0
    for at in range(200):
        store = fresh(f"{at}.db")
        quiet = dying(store._engine, at)
        try:
            store.integrate(limit=5)
        except Killed:
            deaths += 1
        else:
            break
        finally:
            quiet()
        while store.integrate(limit=5) < 13:
            pass
        assert store.root() == wanted
        assert store.log().waiting() == 0
        store.close()
    assert deaths >= 8


def test_a_store_of_before_is_taken_over(tmp_path):
    """Events of the old tables that had no place yet are found."""
    path = tmp_path / "store.db"
    store = SqlStore.open(path)
    tell(store, 2)
    store.integrate()
    tell(store, 3)
    root = store.root()
    store.close()
    raw = sqlite3.connect(path)
    raw.executescript(
        "DROP TABLE log_waiting; DROP TABLE witnessed; DROP INDEX ix_event_actor; "
        "DROP INDEX ix_event_at; DROP TABLE preapproval; DROP TABLE review; "
        "DROP TRIGGER live_move_no_update; DROP TRIGGER live_move_no_delete; "
        "DROP TRIGGER rollout_decision_no_update; DROP TRIGGER rollout_decision_no_delete; "
        "UPDATE alembic_version SET version_num = '0006';"
    )
    raw.commit()
    raw.close()
    store = SqlStore.open(path)
    assert store.root() == root
    assert store.log().waiting() == 3
    assert store.integrate() == 5
    store.close()


def test_time_is_kept_as_it_is_compared(store, log):
    """Text order is time order: UTC, one width."""
    assert time.text(AT) < time.text(AT + timedelta(microseconds=1))
