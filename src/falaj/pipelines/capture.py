"""What a step prints: kept, bounded, never lost in between."""

from __future__ import annotations

import contextlib
import io
import signal
import threading
from collections import deque
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

__all__ = ["Log", "Peak", "StepTimeout", "captured", "limited"]

HALF: Final = 5 * 1024 * 1024  # characters kept of the beginning, and of the end


class StepTimeout(BaseException):
    """Raised into a step whose time is up; no `except Exception` of the step swallows it."""


class Log(io.TextIOBase):
    """Collects text: the first and the last 5 MiB; what is between is counted, not kept."""

    def __init__(self) -> None:
        self._head: list[str] = []
        self._head_size = 0
        self._tail: deque[str] = deque()
        self._tail_size = 0
        self._lost = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        room = HALF - self._head_size
        if room > 0:
            self._head.append(text[:room])
            self._head_size += len(self._head[-1])
        rest = text[max(room, 0) :]
        if rest:
            self._tail.append(rest)
            self._tail_size += len(rest)
            while self._tail_size - len(self._tail[0]) > HALF:
                gone = len(self._tail.popleft())
                self._tail_size -= gone
                self._lost += gone
        return len(text)

    def text(self) -> str:
        between = f"\n... {self._lost} characters left out ...\n" if self._lost else ""
        return "".join(self._head) + between + "".join(self._tail)


class Peak:
    """The most memory that this process holds from now on, whatever it held before."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError):  # where the kernel has no such mark
            Path("/proc/self/clear_refs").write_bytes(b"5")

    def peak_mb(self) -> float:
        """MB; 0 where the system does not tell."""
        try:
            status = Path("/proc/self/status").read_bytes()
        except OSError:
            return 0.0
        _, _, rest = status.partition(b"VmHWM:")
        return int(rest.split(None, 1)[0]) / 1024 if rest else 0.0


@contextlib.contextmanager
def captured(log: Log) -> Iterator[None]:
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        yield


@contextlib.contextmanager
def limited(span: timedelta | None) -> Iterator[None]:
    """Raise StepTimeout when the time is up: only the main thread can be interrupted."""
    if span is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(*_: object) -> None:
        raise StepTimeout

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, span.total_seconds())
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
