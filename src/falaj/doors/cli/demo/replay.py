"""Callers as they are in life: real HTTP requests, and the truth that arrives a day later."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple

__all__ = ["Flight", "Replay", "flights"]

CONNECTIONS: Final = 8
DAY: Final = timedelta(days=1)
REPORT_HOUR: Final = 4  # yesterday's arrivals are known at four in the morning
LARGEST_REPORT: Final = 5_000


class Flight(NamedTuple):
    """at: when the prediction is asked for. late: what happened; None where it never arrived."""

    at: datetime
    x: tuple[float | None, ...]
    late: int | None


def flights(parquet: bytes, columns: Sequence[str]) -> Iterator[Flight]:
    """Rows in the order of time."""
    import polars as pl

    frame = pl.read_parquet(parquet).sort("at", maintain_order=True)
    x = frame.select(pl.col(name).fill_nan(None) for name in columns).rows()
    for at, row, late in zip(frame["at"], x, frame["y"], strict=True):
        yield Flight(at, row, late)


@dataclass
class Replay:
    """Sends flights to a server and reports the truth of each day on the next morning.

    sent, refused: answers 200 and others. reported: labels that were taken. lost: requests without
    an answer (a server that was just restarted), sent again once.
    """

    host: str
    port: int
    model: str
    rows: Iterator[Flight]
    columns: int
    per_second: float = 1500.0
    sent: int = 0
    refused: int = 0
    lost: int = 0
    reported: int = 0
    last: datetime | None = None
    releases: dict[str, int] = field(default_factory=dict)
    _pending: list[tuple[datetime, str, int]] = field(default_factory=list)

    def go(self, *, until: datetime | None = None, seconds: float = 0.0) -> bool:
        """Replay up to a time in the data, or for some seconds; False when no flight is left."""
        return asyncio.run(self._go(until, seconds))

    async def _go(self, until: datetime | None, seconds: float) -> bool:
        end = time.monotonic() + seconds if seconds else float("inf")
        started, queue = time.monotonic(), self._due(until)
        begun = self.sent
        left = True

        async def caller() -> None:
            nonlocal left
            wire = Wire(self.host, self.port)
            try:
                while time.monotonic() < end:
                    ahead = (self.sent - begun) / self.per_second - (time.monotonic() - started)
                    if ahead > 0.002:
                        await asyncio.sleep(ahead)
                    flight = next(queue, None)
                    if flight is None:
                        left = False
                        return
                    await self._ask(wire, flight)
            finally:
                wire.close()

        await asyncio.gather(*(caller() for _ in range(CONNECTIONS)))
        await self._report(self.last)
        return left

    def _due(self, until: datetime | None) -> Iterator[Flight]:
        """Flights up to a time; the first one behind it stays for the next call."""
        for flight in self.rows:
            if until is not None and flight.at >= until:
                self.rows = chain_one(flight, self.rows)
                return
            if self.last is None or flight.at > self.last:
                self.last = flight.at
            yield flight

    async def _ask(self, wire: Wire, flight: Flight) -> None:
        body = json.dumps(
            {
                "inputs": [
                    {
                        "name": "features",
                        "shape": [1, self.columns],
                        "datatype": "FP32",
                        "data": list(flight.x),
                    }
                ],
                "parameters": {"event_time": flight.at.strftime("%Y-%m-%dT%H:%M:%SZ")},
            }
        ).encode()
        answer = await wire.post(f"/v2/models/{self.model}/infer", body)
        if answer is None:
            self.lost += 1
            answer = await wire.post(f"/v2/models/{self.model}/infer", body)
        if answer is None or answer.status != 200:
            self.refused += 1
            return
        self.sent += 1
        self.releases[answer.release] = self.releases.get(answer.release, 0) + 1
        if flight.late is not None:
            self._pending.append((flight.at, answer.request, flight.late))
        if self.sent % 200 == 0:
            await self._report(self.last)

    async def _report(self, now: datetime | None) -> None:
        """Yesterday's arrivals, once the clock of the data has passed the morning's report."""
        if now is None:
            return
        morning = now.replace(hour=REPORT_HOUR, minute=0, second=0, microsecond=0)
        known = morning if now >= morning else morning - DAY
        due = [item for item in self._pending if item[0] < known]
        self._pending = [item for item in self._pending if item[0] >= known]
        wire = Wire(self.host, self.port)
        try:
            for first in range(0, len(due), LARGEST_REPORT):
                part = due[first : first + LARGEST_REPORT]
                rows = [{"request": request, "row": 0, "value": late} for _, request, late in part]
                body = json.dumps({"rows": rows}).encode()
                answer = await wire.post(f"/ground-truth/{self.model}", body)
                if answer is None or answer.status != 202:
                    self._pending += part  # reported again with the next morning's
                else:
                    self.reported += len(part)
        finally:
            wire.close()


def chain_one(first: Flight, rest: Iterator[Flight]) -> Iterator[Flight]:
    yield first
    yield from rest


class Answer(NamedTuple):
    status: int
    release: str
    request: str


class Wire:
    """One keep-alive connection; reopened after a failure."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes) -> Answer | None:
        """The answer, or None when there was none: the connection is closed then."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(self._host, self._port)
            reader, writer = self._streams
            writer.write(
                b"POST %b HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n"
                % (path.encode(), self._host.encode(), len(body))
                + body
            )
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            headers = parsed(head)
            await reader.readexactly(int(headers.get("content-length", "0")))
            if headers.get("connection", "").lower() == "close":
                self.close()
            return Answer(
                int(head[9:12]), headers.get("falaj-release", ""), headers.get("falaj-request", "")
            )
        except (OSError, asyncio.IncompleteReadError, TimeoutError, asyncio.LimitOverrunError):
            self.close()
            await asyncio.sleep(0.05)
            return None

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def parsed(head: bytes) -> dict[str, str]:
    found = {}
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        found[name.strip().lower()] = value.strip()
    return found
