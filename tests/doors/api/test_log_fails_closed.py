"""When the log cannot go on, nothing that must be seen is done; reading goes on."""

from __future__ import annotations

import shutil
import sqlite3

import pytest

from falaj.app import Works
from falaj.facts.access import Principal
from falaj.facts.changes import Approval, Change, ChangeState
from falaj.ports.log import Asked

APPROVE = ("POST", "/changes/CHG-0001/approve", {"comment": "read the evidence"})
ADD = ("POST", "/identities", {"name": "mallory", "roles": ["owner"]})


@pytest.fixture
def world(prepared, tmp_path, asking_of):
    """A workspace with a signed log, that can be changed behind its back."""

    class World:
        root = shutil.copytree(prepared, tmp_path / "project")
        works = None

        def open(self):
            self.works = Works.open(self.root)
            return asking_of(self.works, embedded=True)

        def close(self):
            if self.works is not None:
                self.works.close()

        def sql(self, *statements):
            raw = sqlite3.connect(self.root / ".falaj" / "store.db")
            for words in statements:
                raw.execute(words)
            raw.commit()
            raw.close()

    made = World()
    asking = made.open()
    made.works.log.cover()
    made.close()
    del asking
    yield made
    made.close()


def by(asking, name, method, path, body):
    return asking(method, path, body, headers={"falaj-as": name}.items())


def untouched(world):
    store = world.works.ground.store
    assert store.get(Change, "CHG-0001").fact.state is ChangeState.AWAITING_APPROVAL
    assert store.find(Approval, change="CHG-0001") == []
    assert "mallory" not in {p.name for p in store.find(Principal)}


BROKEN = {
    "its last node is changed": "UPDATE log_node SET hash = zeroblob(32) WHERE level = 3",
    "its checkpoint is changed": "UPDATE checkpoint SET root = zeroblob(32)",
    "its last event is gone": "DELETE FROM log_leaf WHERE idx = (SELECT max(idx) FROM log_leaf)",
}


@pytest.mark.parametrize("statement", BROKEN.values(), ids=BROKEN)
def test_a_log_that_is_no_continuation_lets_nothing_through(world, statement):
    world.sql(statement)
    asking = world.open()
    for name, asked in (("layla", APPROVE), ("owner", ADD)):
        heard = by(asking, name, *asked)
        assert heard.status == 503, heard.body
        assert heard.json()["code"] in ("audit.log-forked", "audit.log-damaged")
        assert heard.json()["fix"]
    untouched(world)
    assert by(asking, "owner", "GET", "/changes", None).status == 200
    assert by(asking, "owner", "GET", "/log/verification", None).json()["findings"]


def test_a_memory_of_another_log_lets_nothing_through(world):
    (world.root / ".falaj" / "log.checkpoint").write_text("hello\n")
    asking = world.open()
    assert by(asking, "layla", *APPROVE).status == 503
    untouched(world)


NO_EVENTS = (
    "CREATE TRIGGER closed BEFORE INSERT ON event BEGIN SELECT RAISE(ABORT, 'no more events'); END"
)


def test_without_its_event_an_action_is_not_kept(world):
    world.sql(NO_EVENTS)
    asking = world.open()
    for name, asked in (("layla", APPROVE), ("owner", ADD)):
        with pytest.raises(Exception, match="no more events"):
            by(asking, name, *asked)
    untouched(world)


def test_without_a_place_an_action_is_not_kept(world):
    world.sql(NO_EVENTS.replace("ON event", "ON log_waiting"))
    asking = world.open()
    with pytest.raises(Exception, match="no more events"):
        by(asking, "layla", *APPROVE)
    untouched(world)


def test_without_the_key_of_the_log_nothing_is_let_through(world):
    (path,) = (world.root / ".falaj" / "keys").glob("log%2F*.pem")
    path.write_bytes(b"hello")
    path.chmod(0o600)
    asking = world.open()
    heard = by(asking, "layla", *APPROVE)
    assert heard.status >= 400
    assert heard.json()["code"] == "keys.damaged"
    untouched(world)


def test_what_was_let_through_is_covered_by_a_checkpoint(world):
    asking = world.open()
    heard = by(asking, "layla", *APPROVE)
    assert heard.status == 200, heard.body
    log = world.works.ground.log
    last = log.last()
    assert last.size == log.size()
    assert log.waiting() == 0
    newest = log.search(Asked(), limit=1)[0]
    assert newest[1].subject == "change/CHG-0001"
