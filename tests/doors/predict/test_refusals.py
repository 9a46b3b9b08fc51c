"""What llhttp refuses, and what it does not and we do. Real sockets, bytes as they are."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time

import pytest
from fuzzing import Sink
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import infer_body, read_all

from falaj.doors.predict.http import Connection, Desk, Limits

BODY = json.dumps(infer_body((30.0, 733.0, 14.0))).encode()
POST = b"POST /v2/models/delay/infer HTTP/1.1\r\n"
HOST = b"host: a\r\n"
LENGTH = b"content-length: %d\r\n" % len(BODY)
GET = b"GET /v2/health/live HTTP/1.1\r\n"
END = b"\r\n"


def chunk(data, extension=b""):
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


def statuses(answer):
    return [int(code) for code in re.findall(rb"(?:^|(?<=\}))HTTP/1\.1 (\d{3}) ", answer)]


CHUNKED = POST + HOST + b"transfer-encoding: chunked\r\n"
REFUSED = {  # bytes -> status
    # llhttp by itself
    "length and chunked": (POST + HOST + LENGTH + b"transfer-encoding: chunked\r\n\r\n" + BODY, 400),
    "length twice": (POST + HOST + LENGTH + LENGTH + END + BODY, 400),
    "a signed length": (POST + HOST + b"content-length: +5\r\n\r\nhello", 400),
    "a list of lengths": (POST + HOST + b"content-length: 5, 5\r\n\r\nhello", 400),
    "an overflowing length": (POST + HOST + b"content-length: 99999999999999999999999\r\n\r\n", 400),
    "xchunked": (POST + HOST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "a bare line feed": (b"GET / HTTP/1.1\nhost: a\n\n", 400),
    "a bare carriage return": (GET + b"host: a\rx: b\r\n\r\n", 400),
    "a space before the colon": (GET + b"host : a\r\n\r\n", 400),
    "a folded line": (GET + HOST + b"x: a\r\n b\r\n\r\n", 400),
    "a zero byte": (GET + HOST + b"x: a\0b\r\n\r\n", 400),
    "a control character": (GET + HOST + b"x: a\x01b\r\n\r\n", 400),
    "an unknown method": (b"FLY / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nhost: a\r\n\r\n", 400),
    "no HTTP at all": (b"\x16\x03\x01\x02\x00\x01", 400),
    "a chunk size that is none": (CHUNKED + END + b"zz\r\n", 400),
    # what it lets through
    "a header of 1 MB": (GET + HOST + b"x: " + b"a" * 1_000_000 + b"\r\n\r\n", 431),
    "10,000 headers": (GET + HOST + b"".join(b"x%d: a\r\n" % i for i in range(10_000)) + END, 431),
    "101 headers": (GET + HOST + b"".join(b"x%d: a\r\n" % i for i in range(100)) + END, 431),
    "an endless header value": (GET + HOST + b"x: " + b"a" * 40_000, 431),
    "an endless header name": (GET + HOST + b"a" * 40_000, 431),
    "a target of 9 kB": (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 414),
    "endless blank lines": (b"\r\n" * 20_000, 431),
    "a chunk extension of 200 kB": (CHUNKED + END + chunk(BODY, b";" + b"x" * 200_000) + b"0\r\n\r\n", 400),
    "gzip, chunked": (POST + HOST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked twice": (CHUNKED + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked in HTTP/1.0": (CHUNKED.replace(b"1.1", b"1.0") + END + b"0\r\n\r\n", 400),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nhost: a\r\n\r\n", 505),
    "HTTP/0.9": (b"GET / HTTP/0.9\r\nhost: a\r\n\r\n", 505),
    "no host": (GET + END, 400),
    "two hosts": (GET + HOST + HOST + END, 400),
    "an upgrade": (GET + HOST + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n", 400),
    "HTTP/2 by upgrade": (GET + HOST + b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AA\r\n\r\n", 400),
    "CONNECT": (b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    "HTTP/2 by preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "a body of 17 MB, said": (POST + HOST + b"content-length: 17825792\r\n\r\n", 413),
    "a body of 17 MB, chunked": (CHUNKED + END + chunk(bytes(1 << 20)) * 17, 413),
    "a compressed body": (POST + HOST + b"content-encoding: gzip\r\n" + LENGTH + END + BODY, 415),
    "another expectation": (POST + HOST + b"expect: 200-maybe\r\n" + LENGTH + END + BODY, 417),
}  # fmt: skip


@pytest.mark.parametrize(("data", "status"), REFUSED.values(), ids=REFUSED)
def test_refused_with_an_answer_and_the_connection_ends(running, data, status):
    answer = running.raw(data)
    assert statuses(answer) == [status]
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head
    told = json.loads(body)
    assert told["code"].startswith("serving.")
    assert told["error"]


TAKEN = {
    "HTTP/1.0 without host": b"GET /v2/health/live HTTP/1.0\r\n\r\n",
    "chunked": CHUNKED + END + chunk(BODY[:9]) + chunk(BODY[9:]) + b"0\r\n\r\n",
    "a short chunk extension": CHUNKED + END + chunk(BODY, b";a=b") + b"0\r\n\r\n",
    "plain coding": POST + HOST + b"content-encoding: identity\r\n" + LENGTH + END + BODY,
    "blank lines before": b"\r\n\r\n" + GET + HOST + END,
    "100 headers": GET + HOST + b"".join(b"x%d: a\r\n" % i for i in range(99)) + END,
}


@pytest.mark.parametrize("data", TAKEN.values(), ids=TAKEN)
def test_what_is_odd_but_right_is_taken(running, data):
    assert statuses(running.raw(data, half=True)) == [200]


def test_a_body_in_chunks_of_one_byte_is_mostly_framing_and_refused(running):
    # By the same rule as chunk extensions: far more bytes than content.
    data = CHUNKED + END + b"".join(chunk(b" ") for _ in range(3000)) + b"0\r\n\r\n"
    assert statuses(running.raw(data)) == [400]


@pytest.mark.parametrize("data", [TAKEN["chunked"], POST + HOST + LENGTH + END + BODY])
def test_byte_by_byte_is_the_same_request(running, data):
    assert statuses(running.raw(data, half=True, step=1)) == [200]


def test_a_forged_trailer_is_ignored(running):
    trailer = b"0\r\nhost: b\r\nx-request-id: forged\r\n\r\n"
    answer = running.raw(CHUNKED + END + chunk(BODY) + trailer, half=True)
    assert statuses(answer) == [200]
    assert b"forged" not in answer


def test_data_after_close_is_not_a_request(running):
    answer = running.raw((GET + HOST + b"connection: close\r\n\r\n") * 2)
    assert statuses(answer) == [200]


def test_the_413_arrives_though_the_client_goes_on_sending(running):
    with socket.create_connection((running.host, running.port), timeout=5) as sock:
        sock.sendall(POST + HOST + b"content-length: 33554432\r\n\r\n")
        try:
            for _ in range(64):
                sock.sendall(bytes(65536))
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            assert statuses(sock.recv(65536)) == [413]
        except ConnectionResetError:
            pytest.fail("a reset came before the answer")


def test_a_small_overdraft_gets_the_answer_and_a_clean_end(running):
    answer = running.raw(POST + HOST + b"content-length: 33554432\r\n\r\n" + bytes(60_000))
    assert statuses(answer) == [413]


def test_100_continue_comes_before_the_body(running):
    with socket.create_connection((running.host, running.port), timeout=5) as sock:
        sock.sendall(POST + HOST + LENGTH + b"expect: 100-continue\r\n\r\n")
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(BODY)
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK")


def test_no_100_for_a_body_that_will_not_be_taken(running):
    data = POST + HOST + b"content-length: 33554432\r\nexpect: 100-continue\r\n\r\n"
    assert statuses(running.raw(data)) == [413]


def test_answers_leave_in_the_order_of_their_requests(running):
    """Large requests go to a thread; small ones behind them must wait."""
    large = json.dumps(infer_body(*[(1.0, 2.0, 3.0)] * 3000, id="0")).encode()
    data = POST + HOST + b"content-length: %d\r\n\r\n%b" % (len(large), large)
    for number in range(1, 40):
        body = json.dumps(infer_body((1.0, 2.0, 3.0), id=str(number))).encode()
        data += POST + HOST + b"content-length: %d\r\n\r\n%b" % (len(body), body)
        if number % 5 == 0:
            data += GET + HOST + END
    answer = running.raw(data, half=True, wait=10)
    found = re.findall(rb'"id":"(\d+)"|"(live)"', answer)
    order = [int(number) if number else "live" for number, _ in found]
    wanted = [0]
    for number in range(1, 40):
        wanted += [number, "live"] if number % 5 == 0 else [number]
    assert order == wanted


def test_a_bad_request_is_refused_behind_the_answers_before_it(running):
    good = POST + HOST + LENGTH + END + BODY
    assert statuses(running.raw(good * 3 + b"NONSENSE\r\n\r\n" + good)) == [200, 200, 200, 400]


PIECES = st.sampled_from(
    [GET, POST, HOST, LENGTH, END, BODY, b"transfer-encoding: chunked\r\n", b"5\r\nhello\r\n",
     b"0\r\n\r\n", b"connection: close\r\n", b"\n", b"\0", b"upgrade: x\r\n", b"HTTP/1.1"]
)  # fmt: skip


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(PIECES | st.binary(max_size=30), max_size=25),
    st.lists(st.integers(1, 400), max_size=9),
)
def test_any_bytes_in_any_pieces_get_well_formed_answers(parts, cuts):
    data = b"".join(parts)
    answers = []
    for pieces in (cuts, [1]):
        desk = Desk(lambda request, connection: connection.answer(200, b"{}"))
        connection, sink = Connection(desk), Sink()
        connection.connection_made(sink)
        at = 0
        sizes = list(pieces)
        while at < len(data) and not sink.closed:
            size = sizes.pop(0) if len(sizes) > 1 else (sizes[0] if sizes else len(data))
            connection.data_received(data[at : at + size])
            at += size
        answers.append(statuses(re.sub(rb"\{[^{}]*\}", b"{}", sink.written)))
        assert sink.written == b"" or answers[-1]
    assert answers[0] == answers[1]


@pytest.fixture
def quick():
    """A door with short patience and an application that answers when told."""
    limits = Limits(
        head_s=0.3, body_s=0.6, idle_s=0.4, write_s=0.5, discard_s=0.3, write_buffer=10_000
    )
    held = []
    started = threading.Event()
    told = {}

    def application(request, connection):
        if request.target == b"/hold":
            held.append(connection)
        elif request.target == b"/large":
            connection.answer(200, bytes(5_000_000))
        else:
            connection.answer(200, b"{}")

    async def serve():
        desk = told["desk"] = Desk(application, limits)
        loop = asyncio.get_running_loop()
        desk.later = loop.call_soon
        server = await loop.create_server(lambda: Connection(desk), "127.0.0.1", 0)
        told["address"] = server.sockets[0].getsockname()
        told["stop"] = asyncio.Event()
        told["loop"] = loop
        started.set()
        while not told["stop"].is_set():
            desk.tick()
            await asyncio.sleep(0.05)
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(5)
    told["held"] = held
    yield told
    told["loop"].call_soon_threadsafe(told["stop"].set)
    thread.join(5)


SLOW = {
    "a head that never ends": (b"GET / HTTP/1.1\r\nho", [408]),
    "a body that never comes": (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n", [408]),
    "idle after an answer": (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", [200]),
    "idle from the start": (b"", []),
}


@pytest.mark.parametrize(("data", "wanted"), SLOW.values(), ids=SLOW)
def test_slow_and_idle_clients_are_let_go(quick, data, wanted):
    begun = time.monotonic()
    with socket.create_connection(quick["address"], timeout=5) as sock:
        sock.sendall(data)
        assert statuses(read_all(sock)) == wanted
    assert time.monotonic() - begun < 3


def test_a_drip_does_not_keep_a_head_alive(quick):
    with socket.create_connection(quick["address"], timeout=5) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n")
        begun = time.monotonic()
        try:
            while time.monotonic() - begun < 3:
                sock.sendall(b"x: a\r\n")
                time.sleep(0.05)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert time.monotonic() - begun < 2


def test_a_client_that_does_not_read_is_dropped(quick):
    with socket.create_connection(quick["address"], timeout=5) as sock:
        sock.sendall(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n" * 8)
        end = time.monotonic() + 4
        while quick["desk"].connections and time.monotonic() < end:
            time.sleep(0.05)
        assert not quick["desk"].connections


def test_a_request_in_work_is_not_idle(quick):
    with socket.create_connection(quick["address"], timeout=5) as sock:
        sock.sendall(b"GET /hold HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n")
        time.sleep(0.8)
        (connection,) = quick["held"]
        quick["loop"].call_soon_threadsafe(connection.answer, 202, b"{}")
        assert statuses(read_all(sock)) == [202, 200]


def test_reading_pauses_while_many_requests_wait(quick):
    with socket.create_connection(quick["address"], timeout=5) as sock:
        sock.sendall(b"GET /hold HTTP/1.1\r\nhost: a\r\n\r\n")
        time.sleep(0.1)
        (connection,) = quick["held"]
        one = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 60000\r\n\r\n" + bytes(60_000)
        sock.setblocking(False)
        sent = 0
        end = time.monotonic() + 1
        while time.monotonic() < end:
            try:
                sent += sock.send(one * 4)
            except BlockingIOError:
                time.sleep(0.01)
        assert 16 <= len(connection.queue) <= 40


def test_a_client_that_leaves_takes_nothing_with_it(quick):
    with socket.create_connection(quick["address"], timeout=5) as sock:
        sock.sendall(b"GET /hold HTTP/1.1\r\nhost: a\r\n\r\n")
        time.sleep(0.1)
    time.sleep(0.1)
    (connection,) = quick["held"]
    quick["loop"].call_soon_threadsafe(connection.answer, 200, b"{}")
    with socket.create_connection(quick["address"], timeout=5) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert statuses(read_all(sock)) == [200]
