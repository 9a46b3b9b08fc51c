"""When an arm is asked, and when it is let be. Pure: the caller says what time it is."""

from __future__ import annotations

import enum
from collections import deque
from typing import Final

__all__ = ["Breaker", "Way"]

FAILURES: Final = 5
WITHIN_S: Final = 10.0
FIRST_S: Final = 0.5
LONGEST_S: Final = 30.0


class Way(enum.StrEnum):
    CLOSED = "closed"  # everything passes
    OPEN = "open"  # nothing does
    HALF = "half-open"  # one request shows whether it would


class Breaker:
    """Five failures in ten seconds, or a death, open it; the wait doubles from 0.5 s to 30 s.

    After the wait one request passes: its answer closes the breaker, its failure opens it again for
    twice as long. Seconds on any clock that only goes forward.
    """

    __slots__ = ("failures", "tried", "until", "wait_s", "way")

    def __init__(self) -> None:
        self.way = Way.CLOSED
        self.failures: deque[float] = deque(maxlen=FAILURES)
        self.until = 0.0
        self.wait_s = 0.0
        self.tried = 0.0

    def passes(self, now: float) -> bool:
        """Tell whether a request may go to this arm; the one that half open lets by counts."""
        if self.way is Way.CLOSED:
            return True
        if now < self.until:
            return False
        # One at a time; a trial without an outcome does not keep the door shut for ever.
        if self.way is Way.HALF and now - self.tried < WITHIN_S:
            return False
        self.way = Way.HALF
        self.tried = now
        return True

    def answered(self) -> None:
        """Note an answer of this arm. One that comes while open was asked before: it tells nothing."""
        if self.way is Way.HALF:
            self.way = Way.CLOSED
            self.wait_s = 0.0
            self.failures.clear()

    def failed(self, now: float) -> bool:
        """Note a failure; True when it opened the breaker."""
        if self.way is Way.OPEN:
            return False
        self.failures.append(now)
        if self.way is Way.HALF:
            return self.open(now)
        full = len(self.failures) == FAILURES
        return full and now - self.failures[0] <= WITHIN_S and self.open(now)

    def open(self, now: float) -> bool:
        """Let nothing by for a while; a death does this at once."""
        self.wait_s = min(max(FIRST_S, 2 * self.wait_s), LONGEST_S)
        self.until = now + self.wait_s
        self.way = Way.OPEN
        self.failures.clear()
        return True
