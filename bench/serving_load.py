"""A load of exactly so many requests over so many kept connections, from bodies that all differ."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Load", "Took", "head_of", "load"]


class Took(NamedTuple):
    """us: of each answer, sorted. failed: answers that were no 2xx, and connections that broke."""

    requests: int
    failed: int
    wall_s: float
    us: Sequence[float]

    def quantile(self, share: float) -> float:
        return (
            self.us[min(int(len(self.us) * share), len(self.us) - 1)] if self.us else float("nan")
        )


class Load(NamedTuple):
    port: int
    requests: Sequence[bytes]  # whole requests, heads included


def head_of(path: str, body: bytes, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    more = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{more}"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


class Line:
    """One kept connection with one request under way."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.open()

    def open(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.got, self.wanted, self.begun = bytearray(), -1, 0.0

    def send(self, request: bytes) -> None:
        self.got, self.wanted, self.begun = bytearray(), -1, time.perf_counter()
        self.socket.sendall(request)

    def take(self) -> int:
        """Status when the answer is whole, 0 while it is not, -1 when the connection broke."""
        try:
            data = self.socket.recv(1 << 18)
        except OSError:
            return -1
        if not data:
            return -1
        self.got += data
        if self.wanted < 0:
            end = self.got.find(b"\r\n\r\n")
            if end < 0:
                return 0
            head = bytes(self.got[:end]).lower()
            at = head.find(b"content-length:")
            if at >= 0:
                self.wanted = end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])
            elif b"transfer-encoding: chunked" in head:
                self.wanted = 0
        if self.wanted == 0:
            return int(self.got[9:12]) if self.got.endswith(b"0\r\n\r\n") else 0
        return int(self.got[9:12]) if len(self.got) >= self.wanted else 0


def load(given: Load, *, requests: int, connections: int, seconds: float = 300.0) -> Took:
    """Closed loop: each connection asks again when it was answered, until all is asked."""
    lines = {
        line.socket.fileno(): line
        for line in (Line(given.port) for _ in range(min(connections, requests)))
    }
    poll = select.epoll()
    asked, done, failed = 0, 0, 0
    took: list[float] = []
    begun = time.perf_counter()
    try:
        for handle, line in lines.items():
            poll.register(handle, select.EPOLLIN)
            line.send(given.requests[asked % len(given.requests)])
            asked += 1
        while done + failed < requests and time.perf_counter() - begun < seconds:
            again = []
            for handle, _ in poll.poll(60):
                line = lines[handle]
                status = line.take()
                if status == 0:
                    continue
                if 200 <= status < 300:
                    took.append((time.perf_counter() - line.begun) * 1e6)
                    done += 1
                else:
                    failed += 1
                if status < 0:
                    poll.unregister(handle)
                    del lines[handle]
                    line.socket.close()
                    line.open()
                    lines[line.socket.fileno()] = line
                    poll.register(line.socket.fileno(), select.EPOLLIN)
                again.append(line)
            for line in again:  # as one burst: what is answered together is asked together
                if asked < requests:
                    line.send(given.requests[asked % len(given.requests)])
                    asked += 1
    finally:
        for line in lines.values():
            line.socket.close()
        poll.close()
    return Took(
        requests, failed + requests - done - failed, time.perf_counter() - begun, sorted(took)
    )
