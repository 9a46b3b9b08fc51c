"""The worker: turn after turn over everything that waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from falaj.base import time as instants
from falaj.base.errors import Conflict, FalajError

if TYPE_CHECKING:
    from falaj.app import Works

__all__ = ["work"]

Say = Callable[[str], object]
LONGEST_WAIT_S = 30.0


def work(
    works: Works,
    *,
    every: float,
    once: bool = False,
    duties: frozenset[str],
    say: Say,
    stop: threading.Event | None = None,
) -> None:
    """Turn until stopped. An error of one turn is said, waited out and tried again."""
    wait = every
    while not (stop and stop.is_set()):
        try:
            for line in works.turn(duties, wait=once):
                say(f"{instants.text(instants.now())} {line}")
            wait = every
        except Conflict:
            wait = every  # somebody else was quicker; what they stored is read next turn
        except FalajError as error:
            say(f"{instants.text(instants.now())} error[{error.code}]: {error}")
            wait = min(wait * 2, LONGEST_WAIT_S)
        if once:
            return
        if stop:
            stop.wait(wait)
        else:
            time.sleep(wait)
