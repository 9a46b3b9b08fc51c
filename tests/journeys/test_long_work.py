"""A worker that trains for minutes keeps its lease, so that nobody does the same beside it."""

from __future__ import annotations

import time

from small_project import write_project

from falaj.app import Works


def test_a_lease_lasts_as_long_as_the_work_and_no_longer(tmp_path):
    write_project(tmp_path)
    one, other = Works.open(tmp_path), Works.open(tmp_path)
    store = one.ground.store
    assert store.take("learning", one.name, 0.3) is not None
    with one.holding("learning", 0.3):
        for _ in range(10):
            time.sleep(0.1)
            assert other.ground.store.take("learning", other.name, 0.3) is None
    time.sleep(0.35)
    assert other.ground.store.take("learning", other.name, 0.3) is not None
    one.close()
    other.close()
