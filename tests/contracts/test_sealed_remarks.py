"""Remarks under a scope key: bound to their event, altered ones are found, erased ones are gone."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

import pytest

from falaj.base import ids
from falaj.facts.events import Event
from falaj.links.keyring.kek import LocalKms
from falaj.links.keyring.scopes import ScopeKeys
from falaj.links.sql.store import SqlStore

AT = datetime(2026, 3, 1, tzinfo=UTC)
WORDS = "Aisha said: fine"


class House:
    """A store whose remarks are sealed under a scope key, or not yet."""

    def __init__(self, folder):
        self.folder = folder
        self.store = SqlStore.open(folder / "store.db")
        self.log = self.store.log()
        kms = LocalKms(folder / "kek", country="ae")
        self.keys = ScopeKeys(self.store.scopes(), kms, residency=("ae",), now=lambda: AT)

    def seal(self):
        self.store.seal_remarks(self.keys.cells("remarks"))
        return self

    def tell(self, words=WORDS):
        event = Event(
            id=ids.new(), at=AT, project="p", type="a.b", actor="x", subject="s", data={},
            remark=words,
        )  # fmt: skip
        with self.store.begin() as unit:
            unit.append(event)
        self.store.integrate()
        return event.id

    def run(self, statement, *words):
        base = sqlite3.connect(self.folder / "store.db")
        with base:
            found = base.execute(statement, words).fetchall()
        base.close()
        return found


@pytest.fixture
def house(tmp_path):
    made = House(tmp_path).seal()
    yield made
    made.store.close()


def test_words_are_read_back_and_neither_they_nor_their_salt_lie_there(house):
    told = house.tell()
    assert house.log.remark(told) == WORDS
    assert list(house.log.remarks_that_differ()) == []
    ((salt, sealed),) = house.run("SELECT salt, sealed FROM remark")
    assert salt == b""
    assert b"Aisha" not in sealed
    assert not (house.folder / "remarks.key").exists()


def test_what_was_written_before_the_project_sealed_is_read_still(tmp_path):
    house = House(tmp_path)
    old = house.tell("before")
    new = house.seal().tell("after")
    assert [house.log.remark(one) for one in (old, new)] == ["before", "after"]
    assert list(house.log.remarks_that_differ()) == []
    house.store.close()


ALTERED = {
    "a byte of the words": "UPDATE remark SET sealed = CAST(substr(sealed, 1, 60) || x'00' || substr(sealed, 62) AS BLOB)",
    "cut": "UPDATE remark SET sealed = substr(sealed, 1, length(sealed) - 1)",
    "nothing behind the mark": "UPDATE remark SET sealed = substr(sealed, 1, 8)",
    "no mark": "UPDATE remark SET sealed = substr(sealed, 9)",
    "a version that never was": "UPDATE remark SET sealed = CAST(substr(sealed, 1, 8) || x'00000063' || substr(sealed, 13) AS BLOB)",
}  # fmt: skip


@pytest.mark.parametrize("statement", ALTERED.values(), ids=ALTERED)
def test_an_altered_remark_is_found(house, statement):
    told = house.tell()
    house.run(statement)
    assert list(house.log.remarks_that_differ()) == [told]


def test_remarks_that_changed_places_are_found(house):
    one, two = house.tell("one"), house.tell("two")
    house.run("UPDATE remark SET event_id = 'x' WHERE event_id = ?", one)
    house.run("UPDATE remark SET event_id = ? WHERE event_id = ?", one, two)
    house.run("UPDATE remark SET event_id = ? WHERE event_id = 'x'", two)
    assert sorted(house.log.remarks_that_differ()) == sorted([one, two])


def test_other_words_of_the_same_event_are_found(house):
    """Who has the key still cannot change what the leaf binds."""
    told = house.tell()
    cell = house.keys.cells("remarks").seal(
        bytes(32) + b"other words", table="remark", column="sealed", row=told
    )
    house.run("UPDATE remark SET sealed = ?", b"FCELL\0\x01\n" + cell)
    assert list(house.log.remarks_that_differ()) == [told]


def test_after_the_erasure_they_are_gone_and_the_log_is_whole(house):
    root = house.store.root()
    told = house.tell()
    root = house.store.root()
    house.keys.erase("remarks")
    assert house.log.remark(told) is None
    assert list(house.log.remarks_that_differ()) == []
    assert house.store.root() == root
    again = house.tell("under a new key")
    assert house.log.remark(again) == "under a new key"
    assert house.log.remark(told) is None


def test_without_the_keys_nothing_is_read(house):
    told = house.tell()
    with_none = House(house.folder)
    assert with_none.log.remark(told) is None
    with_none.store.close()
