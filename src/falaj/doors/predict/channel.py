"""The server's end of a model process: its start, and a socket that never blocks the loop."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from falaj.base.errors import FalajError, Problem, Unverified
from falaj.serving.wire.frames import BadFrame, Frame, Frames, Kind, text_of

__all__ = ["Channel", "Started", "start"]

CHUNK: Final = 1 << 18
START_S: Final = 60.0
MOST_A_TURN: Final = 16  # reads: a process that floods must not keep the loop


class Started(NamedTuple):
    """A model process that has verified, loaded and probed its release."""

    process: subprocess.Popen[bytes]
    sock: socket.socket
    cost_us: tuple[float, float]

    def end(self) -> None:
        self.sock.close()
        self.process.kill()
        self.process.wait()


def start(command: Sequence[str], into: Path) -> Started:
    """Start a process and wait until its model is ready. Raises Unverified or FalajError.

    The two ends of an unnamed pair of sockets: nobody else can connect, whatever his rights.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "falaj.doors.predict.model"),
                *("--fd", str(theirs.fileno()), "--parent", str(os.getpid())),
                *("--into", str(into), *command),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
        )
    except OSError as error:
        ours.close()
        raise failed(f"cannot be started: {error.strerror}") from None
    finally:
        theirs.close()
    try:
        frame = first(ours, time.monotonic() + START_S)
        told = msgspec.json.decode(text_of(frame.tensors[0]))
        if frame.kind is Kind.ERROR:
            raise refused(told)
        first_us, each_us = told["cost_us"]
        ours.setblocking(False)
        return Started(process, ours, (float(first_us), float(each_us)))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        end(process, ours)
        raise failed(str(error) or type(error).__name__) from None
    except FalajError:
        end(process, ours)
        raise
    finally:
        shutil.rmtree(into, ignore_errors=True)


def end(process: subprocess.Popen[bytes], sock: socket.socket) -> None:
    sock.close()
    process.send_signal(signal.SIGKILL)
    process.wait()


def first(sock: socket.socket, until: float) -> Frame:
    """Wait for the first frame. Raises OSError or ValueError."""
    frames = Frames(1 << 20)
    while (left := until - time.monotonic()) > 0:
        sock.settimeout(left)
        data = sock.recv(CHUNK)
        if not data:
            raise ConnectionError("it ended before it was ready")
        for frame in frames.feed(data):
            if frame.kind not in (Kind.HELLO, Kind.ERROR):
                raise BadFrame(f"got {frame.kind.name}, expected HELLO")
            return frame
    raise TimeoutError(f"it was not ready after {START_S:g} s")


def refused(told: dict[str, Any]) -> FalajError:
    """What the process found out about its release, as if it had been found here."""
    told.pop("place", None)
    problem = msgspec.convert(told, Problem)
    return Unverified(problem.code, problem.message, why=problem.why, fix=problem.fix)


def failed(words: str) -> FalajError:
    return FalajError(
        "serving.model-process",
        f"the process of the model: {words}",
        why="a canary and a shadow run in processes of their own",
        fix="look at the server's log, and at its limits of memory and processes",
    )


class Channel:
    """Frames in both directions. `lost` is called once, unless `close` came first."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        heard: Callable[[Frame], None],
        lost: Callable[[str], None],
    ) -> None:
        self.loop = loop
        self.sock = sock
        self.heard = heard
        self.lost = lost
        self.frames = Frames()
        self.rest = bytearray()
        self.open = True
        loop.add_reader(sock.fileno(), self._read)

    @property
    def unsent(self) -> int:
        return len(self.rest)

    def send(self, data: bytes) -> None:
        """Send now what the socket takes, the rest when it can."""
        if not self.open:
            return
        if self.rest:
            self.rest += data
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lose(error.strerror or "broken")
            return
        if sent < len(data):
            self.rest += memoryview(data)[sent:]
            self.loop.add_writer(self.sock.fileno(), self._write)

    def close(self) -> None:
        if self.open:
            self.open = False
            self.loop.remove_reader(self.sock.fileno())
            self.loop.remove_writer(self.sock.fileno())
            self.sock.close()

    def _read(self) -> None:
        try:
            for _ in range(MOST_A_TURN):
                data = self.sock.recv(CHUNK)
                if not data:
                    self._lose("it closed its socket")
                    return
                for frame in self.frames.feed(data):
                    self.heard(frame)
                    if not self.open:
                        return
                if len(data) < CHUNK:
                    return
        except BlockingIOError:
            return
        except BadFrame as error:
            self._lose(f"what it sent is no frame: {error}")
        except OSError as error:
            self._lose(error.strerror or "broken")

    def _write(self) -> None:
        try:
            sent = self.sock.send(memoryview(self.rest)[: 1 << 20])
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error.strerror or "broken")
            return
        del self.rest[:sent]
        if not self.rest:
            self.loop.remove_writer(self.sock.fileno())

    def _lose(self, why: str) -> None:
        if self.open:
            self.close()
            # Later: whoever sends or reads right now must not find itself inside its own failure.
            self.loop.call_soon(self.lost, why)
