"""A store that cannot be written says so in words: a worker waits and tries again, it does not die."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from falaj.links.sql.connect import StoreUnavailable, connect
from falaj.links.sql.store import SqlStore


@pytest.fixture
def store(tmp_path):
    opened = SqlStore(connect(tmp_path / "store.db", wait_s=0.1))
    yield opened
    opened.close()


def test_another_writer_that_was_stopped_in_the_middle(store, tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable) as refusal:
            store.take("monitors", "one", 5.0)
        assert (refusal.value.code, refusal.value.status) == ("store.busy", 503)
        assert store.root()[0] == 0, "reading goes on"
        other.execute("ROLLBACK")
    assert store.take("monitors", "one", 5.0) is not None


def test_a_full_disk(store, tmp_path):
    with store.begin() as unit:
        pages = unit._connection.exec_driver_sql("PRAGMA page_count").scalar()
        unit._connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreUnavailable) as refusal:
        for number in range(10_000):
            store.take(f"lease-{number}", "one", 5.0)
    assert refusal.value.code == "store.disk"
    assert "full" in str(refusal.value)
