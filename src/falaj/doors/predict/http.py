"""HTTP/1.1 on llhttp: one request in work a connection, answers in order, limits everywhere.

llhttp alone decides where a message ends. What it lets through and we do not is refused here;
tests/doors/predict/test_refusals.py holds the table.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Final

import httptools
import msgspec

__all__ = ["REASONS", "Connection", "Desk", "Limits", "Request", "error_body"]

REASONS: Final = {
    200: b"OK",
    202: b"Accepted",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    414: b"URI Too Long",
    415: b"Unsupported Media Type",
    417: b"Expectation Failed",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}
JSON: Final = b"application/json"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one server. Bytes, seconds, counts.

    peer: connections of one address; peer_here: of this machine's own, where a proxy may stand for
    everybody; 0 is no limit but `connections`.
    """

    head: int = 16 * 1024
    headers: int = 100
    target: int = 8 * 1024
    body: int = 16 * 1024 * 1024
    pipelined: int = 16
    connections: int = 1000
    peer: int = 128
    peer_here: int = 0
    head_s: float = 10.0
    body_s: float = 60.0
    body_rate: int = 1024  # bytes a second over ten seconds
    idle_s: float = 75.0
    write_s: float = 30.0
    write_buffer: int = 1024 * 1024
    discard: int = 64 * 1024
    discard_s: float = 1.0
    dawdle_s: float = 2.0
    age_s: float = 3600.0


class Refused(Exception):
    """The message cannot be taken; the connection ends with this answer."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status = status
        self.code = code
        self.message = message
        super().__init__(message)


class Request:
    """A complete message. at_ns: perf_counter when its last byte was parsed.

    rights: what who sent it may do, where identities are asked for.
    """

    __slots__ = ("at_ns", "body", "close", "headers", "method", "old", "rights", "target")

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: dict[bytes, bytes],
        body: bytes,
        close: bool,
        old: bool,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.close = close
        self.old = old
        self.rights: Any = None
        self.at_ns = time.perf_counter_ns()


class Desk:
    """What all connections of a process share: the application, limits, one clock."""

    def __init__(
        self, application: Callable[[Request, Connection], None], limits: Limits | None = None
    ) -> None:
        self.application = application
        self.limits = limits or Limits()
        self.connections: set[Connection] = set()
        self.admin = False  # the listener of those who run this server, on this machine alone
        self.draining = False
        self.refused: dict[int, int] = {}
        self.turned_away: dict[str, int] = {}  # reason -> connections that were closed at accept
        self.last_turned_away = ""
        self.addresses: dict[str, int] = {}
        self.handshakes = 0  # in work
        self.later: Callable[[Callable[[], None]], Any] | None = None  # the loop's `call_soon`
        self.tasks: set[Any] = set()  # of handshakes: a loop keeps no tasks alive
        self.date = b""
        self.now = 0.0
        self.tick()

    def tick(self) -> None:
        """Once a second: the date, and every deadline of every connection. No other timer."""
        self.date = b"date: " + formatdate(usegmt=True).encode() + b"\r\n"
        self.now = time.monotonic()
        for connection in list(self.connections):
            connection.check(self.now)

    @staticmethod
    def address_of(transport: Any) -> str:
        """Address of the other end; empty for a unix socket."""
        name = transport.get_extra_info("peername")
        return str(name[0]) if isinstance(name, tuple) and name else ""

    def room(self, address: str) -> bool:
        """Tell whether one more connection may come; one that may not is counted."""
        limits = self.limits
        full = len(self.connections) + self.handshakes >= limits.connections
        if full and not self.make_room():
            self.turn_away("connections")
            return False
        here = not address or address.startswith("127.") or address == "::1"
        most = limits.peer_here if here else limits.peer
        if most and self.addresses.get(address, 0) >= most:
            self.turn_away("peer")
            return False
        return True

    def make_room(self) -> bool:
        """End the connection that has dawdled longest: a thousand slow clients shut out nobody.

        Half-sent messages and answers that nobody reads go first, then idle ones; never one that is
        worked for, and none that was quick within the last two seconds.
        """
        now = self.now
        slow = [
            (connection.phase == IDLE and not connection.full_since, connection.since, number)
            for number, connection in enumerate(self.connections)
            if (connection.full_since or not connection.is_busy)
            and now - connection.since > self.limits.dawdle_s
        ]
        if not slow:
            return False
        worst = min(slow)[2]
        connection = next(c for number, c in enumerate(self.connections) if number == worst)
        self.turn_away("dawdling")
        connection.transport.abort()
        connection.depart()
        return True

    def enter(self, address: str) -> None:
        self.addresses[address] = self.addresses.get(address, 0) + 1

    def leave(self, address: str) -> None:
        left = self.addresses.get(address, 0) - 1
        if left > 0:
            self.addresses[address] = left
        else:
            self.addresses.pop(address, None)

    def turn_away(self, reason: str, words: str = "") -> None:
        self.turned_away[reason] = self.turned_away.get(reason, 0) + 1
        self.last_turned_away = words or reason

    def drain(self) -> None:
        """Answers say close from now on; idle connections go."""
        self.draining = True
        for connection in list(self.connections):
            connection.leave_if_idle()

    @property
    def busy(self) -> int:
        return sum(connection.is_busy for connection in self.connections)


IDLE, HEAD, BODY = 0, 1, 2


class Connection(asyncio.Protocol):
    """One client. Calls `desk.application(request, self)`, which calls `answer` exactly once."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.limits = desk.limits
        self.transport: Any = None
        self.parser: Any = httptools.HttpRequestParser(self)
        self.queue: deque[Request | Refused] = deque()
        self.work: Request | None = None
        self.phase = IDLE
        self.url = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.headers: dict[bytes, bytes] = {}
        self.chunked = False
        self.old = False
        self.body: list[bytes] = []
        self.body_size = 0
        self.fed = 0  # bytes since the last message ended
        self.explained = 0  # of these: head and body as the callbacks have shown them
        self.pumping = False
        self.closing = False  # nothing more is read as a message
        self.gone = False
        self.ended = False  # the client will send no more
        self.reading = True
        self.full_since = 0.0
        self.since = desk.now  # of the phase
        self.born = desk.now
        self.mark = (desk.now, 0)
        self.discarded = -1
        self.discard_until = 0.0
        self.lingering = False  # the transport cannot half-close
        self.address: str | None = None  # counted under it
        self.peer: Any = None  # of a client certificate
        self.grant: Any = None  # the newest decision about who asks here, and on what words
        self.credential = b""

    # asyncio calls these

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        desk = self.desk
        address = desk.address_of(transport)
        if not desk.room(address):
            self.closing = True
            transport.abort()
            return
        self.address = address
        desk.enter(address)
        desk.connections.add(self)
        transport.set_write_buffer_limits(high=self.limits.write_buffer)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.gone = True
        self.closing = True
        self.queue.clear()
        self.depart()

    def depart(self) -> None:
        """Give the place free, once."""
        self.desk.connections.discard(self)
        if self.address is not None:
            self.desk.leave(self.address)
            self.address = None

    def data_received(self, data: bytes) -> None:
        if self.closing:
            self._discard(len(data))
            return
        # Never below zero: content seen before is no credit for bytes that come later.
        self.explained = min(self.explained, self.fed)
        self.fed += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, "serving.upgrade", "this server does not change protocols")
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, Refused):
                self._stop(cause)
            else:
                raise
        except httptools.HttpParserError as error:
            self._refuse(400, "serving.http", f"not a request of HTTP/1.1: {error}")
        else:
            if self.fed > 1024:
                self._explain()
            if self.phase == IDLE and self.url:
                self.fed = self.explained = 0
                self.url = b""
        if self.work is None and self.queue:
            self._pump()
        if len(self.queue) >= self.limits.pipelined and self.reading and not self.gone:
            self.reading = False
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self.ended = True
        return self.is_busy  # half a connection is enough for the answers

    def pause_writing(self) -> None:
        self.full_since = self.desk.now or 1e-9
        if self.reading and not self.gone:
            self.reading = False
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.full_since = 0.0
        self._resume_reading()
        if self.work is None and self.queue:
            self._pump()

    # llhttp calls these

    def on_message_begin(self) -> None:
        self.phase = HEAD
        self.since = self.desk.now
        self.url = b""
        self.fields = []
        self.body = []
        self.body_size = 0

    def on_url(self, part: bytes) -> None:
        self.url = self.url + part if self.url else part

    def on_header(self, name: bytes, value: bytes | None) -> None:
        # After the head this is a trailer: a forged header must not come in by the back door.
        if self.phase == HEAD:
            self.fields.append((name, value or b""))

    def on_headers_complete(self) -> None:
        limits, parser = self.limits, self.parser
        if len(self.url) > limits.target:
            raise Refused(414, "serving.target", f"target: more than {limits.target} bytes")
        if len(self.fields) > limits.headers:
            raise Refused(431, "serving.head", f"head: more than {limits.headers} headers")
        headers: dict[bytes, bytes] = {}
        size = len(self.url) + 32
        more_hosts = 0
        chunked = False
        for name, value in self.fields:
            size += len(name) + len(value) + 4
            name = name.lower()  # noqa: PLW2901
            if name not in headers:
                headers[name] = value
            elif name == b"transfer-encoding":
                raise Refused(400, "serving.framing", "transfer-encoding: given twice")
            else:
                headers[name] += b", " + value
                if name == b"host":
                    more_hosts += 1
        if size > limits.head:
            raise Refused(431, "serving.head", f"head: more than {limits.head} bytes")
        self.explained += size
        version = parser.get_http_version()
        self.old = version == "1.0"
        if not self.old and version != "1.1":
            raise Refused(505, "serving.version", f"HTTP/{version}: expected 1.1 or 1.0")
        hosts = more_hosts + (b"host" in headers)
        if hosts != 1 and not (self.old and hosts == 0):
            raise Refused(400, "serving.host", f"got {hosts} Host headers, expected one")
        coding = headers.get(b"transfer-encoding")
        if coding is not None:
            if coding.strip().lower() != b"chunked":
                raise Refused(400, "serving.framing", "transfer-encoding: expected chunked alone")
            if self.old:
                raise Refused(400, "serving.framing", "chunked does not exist in HTTP/1.0")
            chunked = True
        if parser.should_upgrade():
            raise Refused(400, "serving.upgrade", "this server does not change protocols")
        length = headers.get(b"content-length")
        if length is not None and int(length) > limits.body:
            words = f"body: got {int(length)} bytes, expected at most {limits.body}"
            raise Refused(413, "serving.body-size", words)
        coding = headers.get(b"content-encoding")
        if coding is not None and coding.strip().lower() != b"identity":
            raise Refused(415, "serving.coding", "content-encoding: this server reads plain bodies")
        expect = headers.get(b"expect")
        if expect is not None:
            if expect.strip().lower() != b"100-continue":
                raise Refused(417, "serving.expect", "expect: only 100-continue is understood")
            if not self.old and self.work is None and not self.queue:
                self.transport.write(CONTINUE)
        self.headers = headers
        self.chunked = chunked
        self.phase = BODY
        self.mark = (self.desk.now, 0)

    def on_body(self, part: bytes) -> None:
        self.explained += len(part)
        self.body_size += len(part)
        if self.body_size > self.limits.body:
            words = f"body: more than {self.limits.body} bytes"
            raise Refused(413, "serving.body-size", words)
        self.body.append(part)

    def on_message_complete(self) -> None:
        parts = self.body
        self.queue.append(
            Request(
                self.parser.get_method(),
                self.url,
                self.headers,
                parts[0] if len(parts) == 1 else b"".join(parts),
                not self.parser.should_keep_alive(),
                self.old,
            )
        )
        self.phase = IDLE
        self.since = self.desk.now
        self.body = []

    # the application calls these

    @property
    def is_admin(self) -> bool:
        return self.desk.admin

    def answer(self, status: int, body: bytes, *, kind: bytes = JSON, headers: bytes = b"") -> None:
        """Answer the request in work. headers: complete lines."""
        self.send(
            b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\n%b"
            % (status, REASONS.get(status, b"Unknown"), kind, headers),
            body,
        )

    def send(self, head: bytes, body: bytes) -> None:
        """Answer with a head that lacks length, date and connection."""
        request = self.work
        if request is None or self.gone:
            self.work = None
            return
        self.work = None
        desk = self.desk
        last = request.close or desk.draining or desk.now - self.born > self.limits.age_s
        if last:
            tail = b"connection: close\r\n"
        elif request.old:
            tail = b"connection: keep-alive\r\n"
        else:
            tail = b""
        self.transport.write(
            b"%b%b%bcontent-length: %d\r\n\r\n%b"
            % (head, desk.date, tail, len(body), b"" if request.method == b"HEAD" else body)
        )
        self.since = desk.now
        if last:
            self._end()
        elif not self.pumping:
            self._resume_reading()
            if self.queue:
                self._pump()
            elif self.ended:
                self._end()

    @property
    def is_busy(self) -> bool:
        return self.work is not None or bool(self.queue)

    def leave_if_idle(self) -> None:
        if not self.is_busy and self.phase == IDLE and not self.closing:
            self._end()

    def check(self, now: float) -> None:
        """Enforce the deadlines of this connection."""
        limits = self.limits
        if self.discarded >= 0:
            if now > self.discard_until:
                (self.transport.close if self.lingering else self.transport.abort)()
        elif self.full_since and now - self.full_since > limits.write_s:
            self.transport.abort()
        elif self.closing or not self.reading:
            return
        elif self.phase == HEAD:
            if now - self.since > limits.head_s:
                self._late("head")
        elif self.phase == BODY:
            at, size = self.mark
            if now - self.since > limits.body_s:
                self._late("body")
            elif now - at >= 10:
                if self.body_size - size < limits.body_rate * 10:
                    self._late("body")
                self.mark = (now, self.body_size)
        elif not self.is_busy and now - self.since > limits.idle_s:
            self._end()

    # inside

    def _pump(self) -> None:
        """Hand out waiting requests until one is in work; the loop replaces recursion."""
        self.pumping = True
        left = self.limits.pipelined
        try:
            while self.queue and self.work is None and not self.gone and not self.full_since:
                if not left and self.desk.later is not None:
                    # Others have their turn before the next ones of this connection.
                    self.desk.later(self._go_on)
                    return
                left -= 1
                item = self.queue.popleft()
                if isinstance(item, Refused):
                    self._say(item)
                    return
                self.work = item
                self.desk.application(item, self)
                if self.closing and not self.queue:
                    return
        finally:
            self.pumping = False
        if self.work is None:
            self._resume_reading()
            if self.ended and not self.queue:
                self._end()

    def _go_on(self) -> None:
        if self.work is None and self.queue and not self.pumping:
            self._pump()

    def _resume_reading(self) -> None:
        if (
            not self.reading
            and not self.gone
            and not self.full_since
            and len(self.queue) < self.limits.pipelined
        ):
            self.reading = True
            self.transport.resume_reading()

    def _explain(self) -> None:
        """Bound what callbacks never see: endless header values, chunk extensions, blank lines."""
        limits = self.limits
        hidden = self.fed - self.explained
        if self.phase == HEAD or not self.url:
            hidden -= sum(len(name) + len(value) for name, value in self.fields)
            if hidden > limits.head or len(self.url) > limits.target:
                self._refuse(431, "serving.head", f"head: more than {limits.head} bytes")
            return
        framing = max(1024, self.body_size) + 8 * len(self.fields) if self.chunked else limits.head
        if hidden > framing:
            if self.phase == IDLE and self.queue:
                self.queue.pop()  # complete, but most of it was not content
            self._refuse(400, "serving.framing", "far more bytes than the message has content")

    def _late(self, what: str) -> None:
        if self.is_busy:
            return  # its answer comes first; the next tick looks again
        self._refuse(408, "serving.slow", f"{what}: sent too slowly")
        self._pump()

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._stop(Refused(status, code, message))

    def _stop(self, refused: Refused) -> None:
        """Read no further message; the refusal goes out behind the answers still due."""
        self.closing = True
        self.phase = IDLE
        self.body = []
        self.queue.append(refused)

    def _say(self, refused: Refused) -> None:
        """Answer and half-close: closing with unread bytes would reset, and the answer be lost."""
        self.desk.refused[refused.status] = self.desk.refused.get(refused.status, 0) + 1
        body = error_body(refused.code, refused.message)
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\n%bconnection: close\r\n"
            b"content-length: %d\r\n\r\n%b"
            % (refused.status, REASONS[refused.status], self.desk.date, len(body), body)
        )
        self._end(linger=True)

    def _end(self, *, linger: bool = False) -> None:
        """Say good-bye: nothing follows what was written. linger: the client may still be sending."""
        self.closing = True
        self.queue.clear()
        if self.gone or self.discarded >= 0:
            return
        half = self.transport.can_write_eof()  # TLS has no half of a connection
        if self.ended or not (half or linger):
            self.transport.close()
            return
        self.discarded = 0
        self.discard_until = time.monotonic() + self.limits.discard_s
        self.lingering = not half
        if half:
            try:
                self.transport.write_eof()
            except OSError:  # the client is gone already
                self.transport.abort()
                return
        if not self.reading:
            self.reading = True
            self.transport.resume_reading()

    def _discard(self, size: int) -> None:
        if self.discarded < 0:
            if self.reading:
                self.reading = False
                self.transport.pause_reading()
            return
        self.discarded += size
        if self.discarded > self.limits.discard:
            self.transport.abort()


def error_body(code: str, message: str, **more: Any) -> bytes:
    """V2's form of an error: clients read `error`."""
    return msgspec.json.encode({"error": message, "code": code, **more})
