"""Clients that dawdle, beside clients that work. FALAJ_SLOW_CLIENTS=1000 is the full size."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time

import pytest
from servers import infer_body, read_all

from falaj.doors.predict.http import Connection, Desk, Limits

SLOW = int(os.environ.get("FALAJ_SLOW_CLIENTS", "120"))
REQUESTS = 4000 if SLOW >= 1000 else 600
BODY = json.dumps(infer_body((30.0, 733.0, 14.0))).encode()
POST = b"POST /v2/models/delay/infer HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(BODY)
MANY = json.dumps(infer_body(*[(30.0, 733.0, 14.0)] * 60)).encode()
WIDE = POST.replace(b": %d" % len(BODY), b": %d" % len(MANY)) + MANY


async def head_drip(reader, writer):
    for byte in b"GET /v2/health/live HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 600:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.5)


async def body_drip(reader, writer):
    writer.write(POST)
    for byte in BODY:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.5)


async def silent(reader, writer):
    await asyncio.sleep(600)


async def deaf(reader, writer):
    # Asks for more than the buffers between hold, and reads nothing.
    reader._transport.pause_reading()
    while True:
        writer.write(WIDE * 20)
        await writer.drain()
        await asyncio.sleep(0.1)


KINDS = (head_drip, body_drip, silent) * 20 + (deaf,)


async def slow(address, number):
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection(*address, limit=4096)
        try:
            await KINDS[number % len(KINDS)](reader, writer)
        finally:
            writer.close()


async def dawdle(address, count):
    await asyncio.gather(*(slow(address, number) for number in range(count)))
    await asyncio.sleep(600)


async def quick(address, requests, spent, failed):
    reader, writer = await asyncio.open_connection(*address)
    for _ in range(requests):
        begun = time.perf_counter()
        writer.write(POST + BODY)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(size)
        except (OSError, asyncio.IncompleteReadError) as error:
            failed.append(repr(error))
            reader, writer = await asyncio.open_connection(*address)
            continue
        spent.append(time.perf_counter() - begun)
        if not head.startswith(b"HTTP/1.1 200"):
            failed.append(head)
        await asyncio.sleep(0.001)
    writer.close()


async def load(address, clients=8):
    """p99 of a fixed number of requests in seconds, and what failed."""
    spent, failed = [], []
    await asyncio.gather(
        *(quick(address, REQUESTS // clients, spent, failed) for _ in range(clients))
    )
    return sorted(spent)[int(len(spent) * 0.99)], failed


def test_slow_clients_cost_the_others_nothing(running):
    address = running.host, running.port
    low, high = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(low, min(high, 4 * SLOW + 1000)), high))

    alone, failed = asyncio.run(load(address))
    # In a process of their own: here they would slow the clients that are measured.
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    command = [sys.executable, __file__, *map(str, address), str(SLOW)]
    child = subprocess.Popen(command, env=env)
    try:
        time.sleep(4.0 + SLOW / 100)  # those who dawdle are known by now
        beside, more = asyncio.run(load(address))
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()
    failed += more
    print(f"{SLOW} slow clients; p99 alone {alone * 1e3:.2f} ms, beside {beside * 1e3:.2f} ms")
    assert failed == []
    assert beside < max(20 * alone, 1.0)  # what the machine does besides is in it


@pytest.fixture
def small():
    """A door with room for eight connections."""
    told = {}
    started = threading.Event()
    limits = Limits(connections=8, dawdle_s=0.2)

    async def serve():
        desk = told["desk"] = Desk(lambda _, connection: connection.answer(200, b"{}"), limits)
        told["loop"], told["stop"] = asyncio.get_running_loop(), asyncio.Event()
        server = await told["loop"].create_server(lambda: Connection(desk), "127.0.0.1", 0)
        told["address"] = server.sockets[0].getsockname()
        started.set()
        while not told["stop"].is_set():
            desk.tick()
            await asyncio.sleep(0.05)
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(5)
    yield told
    told["loop"].call_soon_threadsafe(told["stop"].set)
    thread.join(5)


GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


def answered(address):
    with socket.create_connection(address, timeout=2) as sock:
        sock.sendall(GET)
        sock.shutdown(socket.SHUT_WR)
        return read_all(sock).startswith(b"HTTP/1.1 200")


def test_the_one_that_dawdled_longest_makes_room(small):
    half = [socket.create_connection(small["address"], timeout=2) for _ in range(8)]
    for sock in half:
        sock.sendall(GET[:9])
        time.sleep(0.06)
    time.sleep(0.3)
    assert answered(small["address"])
    assert small["desk"].turned_away == {"dawdling": 1}
    assert half[0].recv(1) == b"" if not reset(half[0]) else True
    half[1].sendall(GET[9:])
    assert half[1].recv(100).startswith(b"HTTP/1.1 200")
    for sock in half:
        sock.close()


def reset(sock):
    try:
        sock.recv(1, socket.MSG_PEEK)
    except ConnectionResetError:
        return True
    return False


def test_quick_ones_are_not_thrown_out_for_newcomers(small):
    half = [socket.create_connection(small["address"], timeout=2) for _ in range(8)]
    for sock in half:
        sock.sendall(GET)
        sock.recv(1000)
    assert not answered_or_closed(small["address"])
    assert small["desk"].turned_away == {"connections": 1}
    for sock in half:
        sock.close()


def answered_or_closed(address):
    try:
        return answered(address)
    except TimeoutError:
        raise
    except OSError:  # ended before, while or after we wrote
        return False


class Transport:
    """The other end is at `address`."""

    def __init__(self, address):
        self.address = address
        self.aborted = False

    def get_extra_info(self, name):
        return (self.address, 1) if name == "peername" else None

    def abort(self):
        self.aborted = True

    def set_write_buffer_limits(self, high):
        pass


def test_one_address_beyond_this_machine_has_its_own_limit():
    desk = Desk(lambda request, connection: None, Limits(peer=3))

    def came(address):
        connection, transport = Connection(desk), Transport(address)
        connection.connection_made(transport)
        return connection, transport.aborted

    first = [came("192.0.2.7") for _ in range(3)]
    assert [aborted for _, aborted in first] == [False, False, False]
    late, aborted = came("192.0.2.7")
    assert aborted
    late.connection_lost(None)
    assert not came("192.0.2.8")[1]
    assert not any(came("127.0.0.1")[1] for _ in range(20))  # a proxy stands for everybody
    assert desk.turned_away == {"peer": 1}
    first[0][0].connection_lost(None)
    assert not came("192.0.2.7")[1]
    assert came("192.0.2.7")[1]


if __name__ == "__main__":
    asyncio.run(dawdle((sys.argv[1], int(sys.argv[2])), int(sys.argv[3])))
