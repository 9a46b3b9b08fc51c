"""What a step says while it runs: its metrics and new points, told each second."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from falaj.base.points import Series
from falaj.pipelines.context import Running
from falaj.ports.executor import Hear

__all__ = ["telling"]

EVERY_S: Final = 1.0


@contextmanager
def telling(running: Running, hear: Hear | None) -> Iterator[None]:
    """Tell `hear` from a thread beside the step; nothing is told after the step has ended."""
    if hear is None:
        yield
        return
    ended = threading.Event()
    told = _Told(running, hear)

    def tell() -> None:
        while not ended.wait(EVERY_S):
            told.tell()

    thread = threading.Thread(target=tell, name="falaj-telling", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class _Told:
    """How far each line was told. The step goes on meanwhile: only what is complete is taken."""

    def __init__(self, running: Running, hear: Hear) -> None:
        self._running, self._hear = running, hear
        self._metrics: dict[str, float] = {}
        self._at: dict[tuple[int, str], int] = {}

    def tell(self) -> None:
        sources = [list(self._running.lines.values()), *(lines() for lines in self._running.beside)]
        new = [
            part
            for number, lines in enumerate(sources)
            for line in lines
            if (part := self._new(number, line)).values
        ]
        metrics = dict(self._running.metrics.copy())
        changed = {n: v for n, v in metrics.items() if self._metrics.get(n) != v}
        if new or changed:
            self._metrics = metrics
            self._hear(changed, new)

    def _new(self, number: int, line: Series) -> Series:
        key = (number, line.name)
        start, end = self._at.get(key, 0), len(line.values)  # the column that is written last
        self._at[key] = end
        return Series(
            line.name, line.steps[start:end], line.times[start:end], line.values[start:end]
        )
