"""Names of facts and events: unique, and in the order in which a process made them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from falaj.base import ids


def test_names_of_one_millisecond_keep_the_order_in_which_they_were_made():
    made = [ids.new() for _ in range(5_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_a_clock_that_is_set_back_does_not_turn_the_order_back():
    ahead = ids.Last()
    first = ahead.next((2_000 << 80) | 7)
    assert ahead.next((1_000 << 80) | 9) > first


def test_threads_never_make_the_same_name():
    with ThreadPoolExecutor(8) as hands:
        made = [
            name
            for some in hands.map(lambda _: [ids.new() for _ in range(500)], range(16))
            for name in some
        ]
    assert len(set(made)) == len(made)


def test_a_forked_child_does_not_go_on_from_the_last_name_of_its_parent():
    ids.new()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, str(ids.LAST.number).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 100) == b"0"


def test_a_given_time_is_kept():
    assert ids.new(0).startswith("0000000000")
    assert ids.new(1) < ids.new(2)
