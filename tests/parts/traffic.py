"""Callers in a thread: real requests, and the truth about each answer a moment later."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from loans import MODEL, draw

from falaj.doors.cli.demo.replay import Wire


class Call(NamedTuple):
    """One request: when it left, when its answer was here, and what it said (status 0: nothing)."""

    sent: datetime
    done: datetime
    status: int
    release: str
    request: str


class Traffic:
    """Callers in a thread: real requests, and the truth about each answer a moment later.

    events: the time that the n-th request is about; nothing where it is not said.
    """

    def __init__(self, url, *, seed=1, rate=400.0, shift=0.0, events=None, callers=4):
        self.host, _, port = url.removeprefix("http://").rpartition(":")
        self.port = int(port)
        self.rate, self.callers, self.events = rate, callers, events
        x, self.y = draw(20_000, seed, shift=shift)
        self.x = x.tolist()
        self.calls: list[Call] = []
        self.reported = 0
        self._pending: list[tuple[str, int]] = []
        self._number = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._go()), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join(timeout=20)
        assert not self._thread.is_alive()

    @property
    def answered(self):
        return [call for call in list(self.calls) if call.status == 200]

    def by_release(self):
        found: dict[str, int] = {}
        for call in self.answered:
            found[call.release] = found.get(call.release, 0) + 1
        return found

    async def _go(self):
        begun = time.monotonic()
        await asyncio.gather(*(self._call(begun) for _ in range(self.callers)), self._truths())
        await self._report()

    async def _call(self, begun):
        wire = Wire(self.host, self.port)
        while not self._stopping.is_set():
            number = self._number
            self._number += 1
            ahead = number / self.rate - (time.monotonic() - begun)
            if ahead > 0:
                await asyncio.sleep(ahead)
            row = number % len(self.x)
            sent = datetime.now(UTC)
            answer = await wire.post(f"/v2/models/{MODEL}/infer", self._body(number, row))
            done = datetime.now(UTC)
            if answer is None:
                self.calls.append(Call(sent, done, 0, "", ""))
                continue
            self.calls.append(Call(sent, done, answer.status, answer.release, answer.request))
            if answer.status == 200:
                self._pending.append((answer.request, int(self.y[row])))
        wire.close()

    def _body(self, number, row):
        one = {"name": "features", "datatype": "FP32", "shape": [1, 3], "data": self.x[row]}
        about = {}
        if self.events is not None:
            about = {"parameters": {"event_time": self.events(number)}}
        return json.dumps({"inputs": [one], **about}).encode()

    async def _truths(self):
        while not self._stopping.is_set():
            await asyncio.sleep(0.1)
            await self._report()

    async def _report(self):
        due, self._pending = self._pending, []
        if not due:
            return
        wire = Wire(self.host, self.port)
        rows = [{"request": request, "row": 0, "value": y} for request, y in due]
        answer = await wire.post(f"/ground-truth/{MODEL}", json.dumps({"rows": rows}).encode())
        wire.close()
        if answer is not None and answer.status == 202:
            self.reported += len(due)
        else:
            self._pending = due + self._pending


def hourly(per_hour, first=datetime(2026, 1, 1, tzinfo=UTC)):
    """Times of requests, so many an hour."""

    def at(number):
        moment = first + timedelta(seconds=3600 * number / per_hour)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    return at
