"""N workers behind one address, each replaced when it dies or when its code changes.

The supervisor holds no model and answers no request. It owns one listener a slot (SO_REUSEPORT) and
hands it to each generation of that slot: a listener that nobody closes loses no connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from falaj.base import time as clock
from falaj.base.errors import FalajError
from falaj.base.files import write_atomic
from falaj.doors.predict.ballot import Ballot
from falaj.doors.predict.control import Line
from falaj.doors.predict.http import Connection, Desk
from falaj.doors.predict.ticks import start_ticks
from falaj.doors.predict.together import Together

__all__ = ["Supervised", "Supervisor"]

BEAT_S: Final = 5.0  # silence that means a blocked loop
START_S: Final = 120.0
DEATHS: Final = 5
WITHIN_S: Final = 60.0
FIRST_S: Final = 0.2
LONGEST_S: Final = 30.0
TICK_S: Final = 0.25
ADMIN_HOST: Final = "127.0.0.1"


class Supervised(NamedTuple):
    """How workers are started. arguments: of the worker, without its listener and its line."""

    root: Path
    name: str
    host: str
    port: int
    workers: int
    arguments: Sequence[str]
    leave_s: float = 30.0
    secure: bool = False  # workers speak TLS


class Worker:
    """One process of a slot. draining: another generation has its place, or nobody will."""

    def __init__(self, process: subprocess.Popen[bytes], number: int) -> None:
        self.process = process
        self.number = number
        self.line: Line | None = None
        self.began = self.beat = time.monotonic()
        self.told: dict[str, Any] = {}
        self.own_url = ""
        self.ready = asyncio.Event()
        self.draining = False
        self.over = asyncio.Event()

    def drain(self) -> None:
        self.draining = True
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)


class Slot:
    """A listener and whoever answers on it."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.worker: Worker | None = None
        self.deaths: deque[float] = deque(maxlen=DEATHS)
        self.wait_s = FIRST_S


class Supervisor:
    """Runs until SIGTERM. SIGHUP replaces all workers, one after the other."""

    def __init__(self, how: Supervised) -> None:
        self.how = how
        self.boot = os.urandom(8).hex()
        self.slots: list[Slot] = []
        self.workers: dict[int, Worker] = {}  # by number, those that drain included
        self.number = 0
        self.ballot = Ballot()
        self.stopping = asyncio.Event()
        self.restarts: set[asyncio.Task[None]] = set()
        self.rolling = asyncio.Lock()
        self.rolled = 0
        self.respawned = 0
        self.url = ""

    async def run(self) -> int:
        """Serve. Raises FalajError; returns the exit code of a first worker that cannot start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self.restart)
        self._listen()
        first = await self._begin(self.slots[0])
        await self._settled(first)
        if not first.ready.is_set():
            return first.process.wait() or 1
        others = [await self._begin(slot) for slot in self.slots[1:]]
        for worker in others:
            await self._settled(worker)
        admin = await self._admin(loop)
        self._tell(admin)
        watching = loop.create_task(self._watch())
        try:
            await self.stopping.wait()
        finally:
            watching.cancel()
            await self._leave()
            admin.close()
            for slot in self.slots:
                slot.listener.close()
        return 0

    def restart(self) -> None:
        """Replace every worker, without a lost connection."""
        task = asyncio.get_running_loop().create_task(self._roll())
        self.restarts.add(task)
        task.add_done_callback(self.restarts.discard)

    # start

    def _listen(self) -> None:
        how = self.how
        family = socket.AF_INET6 if ":" in how.host else socket.AF_INET
        port = how.port
        try:
            for _ in range(how.workers):
                listener = socket.socket(family, socket.SOCK_STREAM)
                self.slots.append(Slot(listener))
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                listener.bind((how.host, port))
                port = listener.getsockname()[1]
        except OSError as error:
            raise FalajError(
                "serving.port",
                f"port {how.port} on {how.host}: {error.strerror}",
                fix="choose another port, or 0 for a free one",
            ) from None
        # Only now: what one of them accepted before its worker is there would wait for it.
        for slot in self.slots:
            slot.listener.listen(1024)
        host = f"[{how.host}]" if ":" in how.host else how.host
        self.url = f"{'https' if how.secure else 'http'}://{host}:{port}"

    async def _begin(self, slot: Slot) -> Worker:
        """Start the next generation of a slot."""
        ours, theirs = socket.socketpair()
        self.number += 1
        try:
            process = self._spawn(slot, theirs)
        finally:
            theirs.close()
        worker = Worker(process, self.number)
        self.workers[worker.number] = worker
        worker.line = await Line.on(
            ours,
            lambda message: self._heard(worker, message),
            lambda: self._gone(slot, worker),
        )
        if slot.worker is None:
            slot.worker = worker
        return worker

    def _spawn(self, slot: Slot, line: socket.socket) -> subprocess.Popen[bytes]:
        """One worker, with the slot's listener and the other end of its line."""
        return subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "falaj.doors.predict", *self.how.arguments),
                *("--listen-fd", str(slot.listener.fileno())),
                *("--control-fd", str(line.fileno())),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(slot.listener.fileno(), line.fileno()),
        )

    async def _settled(self, worker: Worker) -> None:
        """Wait until a worker is ready, or is over."""
        waits = [asyncio.ensure_future(event.wait()) for event in (worker.ready, worker.over)]
        await asyncio.wait(waits, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if not worker.ready.is_set() and not worker.over.is_set():
            worker.process.kill()
            await worker.over.wait()

    async def _admin(self, loop: asyncio.AbstractEventLoop) -> asyncio.Server:
        """Answer for all: a shared port would ask one worker by chance."""
        self.desk = Desk(Together(self))
        self.desk.admin = True
        return await loop.create_server(lambda: Connection(self.desk), ADMIN_HOST, 0)

    def _tell(self, admin: asyncio.Server) -> None:
        how = self.how
        own_url = f"http://{ADMIN_HOST}:{admin.sockets[0].getsockname()[1]}"
        workers = [slot.worker for slot in self.slots if slot.worker]
        told = workers[0].told if workers else {}
        card = {
            "pid": os.getpid(),
            "url": self.url,
            "own_url": own_url,
            "boot": self.boot,
            "grpc": told.get("grpc", ""),
            "started": clock.text(clock.now()),
            "ticks": start_ticks(os.getpid()),
        }
        write_atomic(how.root / f"{how.name}.json", msgspec.json.encode(card))
        (how.root / f"{how.name}.failed").unlink(missing_ok=True)
        ready = {"ready": True, "url": self.url, "own_url": own_url, "boot": self.boot}
        ready["live"] = told.get("summary", "")
        print(msgspec.json.encode(ready).decode(), flush=True)

    # life

    @property
    def everybody(self) -> list[Worker]:
        """Workers, those that drain included."""
        return list(self.workers.values())

    @property
    def serving(self) -> list[Worker]:
        """Workers that answer and will go on doing so."""
        found = [slot.worker for slot in self.slots if slot.worker is not None]
        return [worker for worker in found if worker.ready.is_set() and not worker.draining]

    @property
    def troubled(self) -> bool:
        """Five deaths in a minute: something is wrong with this place, not with one process."""
        now = time.monotonic()
        return any(
            len(slot.deaths) == DEATHS and now - slot.deaths[0] < WITHIN_S for slot in self.slots
        )

    def _heard(self, worker: Worker, message: dict[str, Any]) -> None:
        worker.beat = time.monotonic()
        if "vote" in message:
            voters = [one.number for one in self.serving]
            why = str(message.get("why", ""))
            self._say(self.ballot.cast(int(message["vote"]), worker.number, why, voters))
        elif "url" in message:
            worker.own_url = str(message["url"])
            worker.told = message["about"]
            worker.ready.set()
        elif "told" in message:
            worker.told |= message["told"]

    def _say(self, verdicts: Sequence[Any]) -> None:
        for verdict in verdicts:
            for number in verdict.workers:
                worker = self.workers.get(number)
                if worker is not None and worker.line is not None:
                    worker.line.say(plan=verdict.seq, why=verdict.why)

    def _gone(self, slot: Slot, worker: Worker) -> None:
        """The line of a worker ended: it is over, or nearly."""
        task = asyncio.get_running_loop().create_task(self._bury(slot, worker))
        self.restarts.add(task)
        task.add_done_callback(self.restarts.discard)

    async def _bury(self, slot: Slot, worker: Worker) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, worker.process.wait, 10.0)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            await loop.run_in_executor(None, worker.process.wait)
        self.workers.pop(worker.number, None)
        worker.over.set()
        self._say(self.ballot.count([one.number for one in self.serving]))
        if slot.worker is not worker or worker.draining or not worker.ready.is_set():
            if slot.worker is worker:
                slot.worker = None
            return
        code = worker.process.returncode
        print(f"falaj: worker {worker.process.pid} ended: {code}", file=sys.stderr, flush=True)
        slot.deaths.append(time.monotonic())
        slot.worker = None
        await self._refill(slot)

    async def _refill(self, slot: Slot) -> None:
        """Start a worker until one is ready; wait longer each time."""
        slot.wait_s = FIRST_S if not self.troubled else slot.wait_s
        while not self.stopping.is_set() and slot.worker is None:
            await asyncio.sleep(slot.wait_s)
            if self.stopping.is_set():
                return
            slot.wait_s = min(2 * slot.wait_s, LONGEST_S)
            worker = await self._begin(slot)
            await self._settled(worker)
            if worker.ready.is_set():
                self.respawned += 1
                return
            slot.worker = None

    async def _roll(self) -> None:
        """New generation first, then the old one drains; a new one that cannot start changes nothing."""
        async with self.rolling:
            for slot in self.slots:
                old = slot.worker
                if old is None or self.stopping.is_set():
                    continue
                new = await self._begin(slot)
                await self._settled(new)
                if not new.ready.is_set():
                    words = "falaj: the new worker cannot start; the old ones go on"
                    print(words, file=sys.stderr, flush=True)
                    return
                if slot.worker is old or slot.worker is None:
                    slot.worker = new
                    old.drain()
                else:
                    new.drain()  # the old one died meanwhile, and its place was filled
            self.rolled += 1

    async def _watch(self) -> None:
        """See what no process can say of itself: that it is stuck."""
        seen = time.monotonic()
        second = 0.0
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            if now - seen > BEAT_S / 2:  # it was this process that slept
                for worker in self.workers.values():
                    worker.beat = now
            seen = now
            for worker in list(self.workers.values()):
                if worker.ready.is_set() and now - worker.beat > BEAT_S and not worker.draining:
                    words = f"falaj: worker {worker.process.pid} is stuck and was killed"
                    print(words, file=sys.stderr, flush=True)
                    worker.beat = now
                    worker.process.kill()
            if now - second >= 1.0:
                second = now
                self.desk.tick()

    # end

    async def _leave(self) -> None:
        for worker in self.workers.values():
            worker.drain()
        overs = [asyncio.ensure_future(worker.over.wait()) for worker in self.workers.values()]
        if overs:
            _, late = await asyncio.wait(overs, timeout=self.how.leave_s)
            for wait in late:
                wait.cancel()
        for worker in self.workers.values():
            worker.process.kill()
        card = self.how.root / f"{self.how.name}.json"
        with contextlib.suppress(OSError, msgspec.MsgspecError, KeyError):
            if msgspec.json.decode(card.read_bytes())["boot"] == self.boot:
                card.unlink()
