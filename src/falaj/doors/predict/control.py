"""The line between a supervisor and one of its workers: JSON, one message a line, both ways.

A worker says that it is ready, that it is alive, and how it would like a new plan; the supervisor
says whether all like it. When the line ends, the other one is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any, Final

import msgspec

__all__ = ["AGREE_S", "Control", "Line"]

AGREE_S: Final = 60.0
MOST: Final = 4 << 20

encode: Final = msgspec.json.Encoder().encode


class Line(asyncio.Protocol):
    """One end. `heard` gets each message, `ended` is called once."""

    def __init__(self, heard: Callable[[dict[str, Any]], None], ended: Callable[[], None]) -> None:
        self.heard = heard
        self.ended = ended
        self.transport: Any = None
        self.rest = b""

    @classmethod
    async def on(
        cls,
        sock: socket.socket,
        heard: Callable[[dict[str, Any]], None],
        ended: Callable[[], None],
    ) -> Line:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        _, line = await loop.create_connection(lambda: cls(heard, ended), sock=sock)
        return line

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        *whole, self.rest = (self.rest + data).split(b"\n")
        if len(self.rest) > MOST:
            self.transport.abort()
            return
        for text in whole:
            with contextlib.suppress(msgspec.MsgspecError):
                self.heard(msgspec.json.decode(text, type=dict[str, Any]))

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.ended()

    def say(self, **message: Any) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(encode(message) + b"\n")


class Control:
    """A worker's end: alone it decides nothing about plans."""

    def __init__(self, gone: Callable[[], None]) -> None:
        self.gone = gone
        self.line: Line | None = None
        self.waiting: dict[int, asyncio.Future[str]] = {}

    async def open(self, handle: int) -> None:
        sock = socket.socket(fileno=handle)
        self.line = await Line.on(sock, self._heard, self.gone)

    def say(self, **message: Any) -> None:
        if self.line is not None:
            self.line.say(**message)

    async def agree(self, seq: int) -> str:
        """Wait until every worker has this plan ready; returns why not, or nothing."""
        verdict: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.waiting[seq] = verdict
        self.say(vote=seq, why="")
        try:
            return await asyncio.wait_for(verdict, AGREE_S)
        except TimeoutError:
            return f"another worker was not ready for it within {AGREE_S:g} s"
        finally:
            self.waiting.pop(seq, None)

    def refuse(self, seq: int, why: str) -> None:
        """Tell the others that this worker cannot follow a plan."""
        self.say(vote=seq, why=why)

    def _heard(self, message: dict[str, Any]) -> None:
        verdict = self.waiting.get(message.get("plan", -1))
        if verdict is not None and not verdict.done():
            verdict.set_result(str(message.get("why", "")))
