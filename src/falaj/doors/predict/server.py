"""The life of one server process: start, watch the plan, write the spool, drain, leave."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec

from falaj.base import time as clock
from falaj.base.errors import FalajError, NotFound
from falaj.base.files import write_atomic
from falaj.base.tls import BadFiles, Contexts, TlsFiles
from falaj.doors.predict.ballot import NEWER
from falaj.doors.predict.control import Control
from falaj.doors.predict.http import Desk, Limits
from falaj.doors.predict.listen import door
from falaj.doors.predict.loads import keep_seen, read_trust, seen_version
from falaj.doors.predict.remote import Remote
from falaj.doors.predict.routes import Predict
from falaj.doors.predict.rpc import Rpc, RpcSettings
from falaj.doors.predict.staging import Prepared, Stage, Trouble
from falaj.doors.predict.tables import Tables
from falaj.doors.predict.ticks import start_ticks
from falaj.facts.releases import Trust
from falaj.facts.serving import TrafficPlan
from falaj.serving.counts import Tally
from falaj.serving.journal import CountsFile, LogFile, write_latencies
from falaj.serving.labels import LabelFile
from falaj.serving.plan import open_plan, succeed
from falaj.serving.requests import RequestIds

__all__ = ["PlanFile", "Server", "Settings"]

TICK_S: Final = 0.25
ACCEPTED_S: Final = 0.05  # until the last accepted connection has its protocol
WITHDRAWN: Final = "releases.withdrawn"
ADMIN_HOST: Final = "127.0.0.1"
PLAN_S: Final = 0.1


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How one server process runs. Seconds."""

    root: Path
    spool: Path
    trust: Path
    host: str = "127.0.0.1"
    port: int = 0
    name: str = ""
    shared_port: bool = False
    drain_s: float = 0.3
    leave_s: float = 10.0
    idle_s: float = 5.0  # what a client has for its next request, before its connection ends
    reverify_s: float = 3600.0
    max_queue_ms: float = 50.0
    listen_fd: int = -1  # a listener that somebody else owns
    control_fd: int = -1  # the line to that somebody
    limits: Limits = Limits()
    rpc: RpcSettings | None = None
    tls: TlsFiles | None = None
    known_only: bool = False


class PlanFile:
    """plan.json as it was last seen: a change of time, size or inode is worth a look."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: tuple[int, int, int] | None = None

    def changed(self) -> bool:
        try:
            found = self.path.stat()
        except OSError:
            return False
        mark = (found.st_mtime_ns, found.st_size, found.st_ino)
        if mark == self.seen:
            return False
        self.seen = mark
        return True

    def read(self) -> bytes:
        """Raises NotFound."""
        try:
            with self.path.open("rb") as file:
                return file.read(2 * 1024 * 1024)
        except OSError as error:
            raise NotFound(
                "serving.plan-missing",
                f"{self.path.name}: {error.strerror}",
                why="a server does what its signed traffic plan says",
                fix="apply the environment from the control plane, or use `falaj serve FOLDER`",
            ) from None


class Server:
    """One process. `fixed`: a plan of its own making and where its releases lie."""

    def __init__(
        self, settings: Settings, fixed: tuple[TrafficPlan, dict[str, Path]] | None = None
    ) -> None:
        self.settings = settings
        self.fixed = fixed
        self.boot = os.urandom(8).hex()
        self.ids = RequestIds(self.boot)
        settings.spool.mkdir(parents=True, exist_ok=True)
        self.stage = Stage(settings.root, settings.spool, self.ids, settings.trust, settings.name)
        self.plan_file = PlanFile(settings.root / "plan.json")
        self.tally = Tally(self.boot)
        self.counts = CountsFile(settings.spool, self.boot)
        self.log = LogFile(settings.spool, self.boot)
        self.trust_version = seen_version(settings.root)
        self.loader = ThreadPoolExecutor(1, "loader")
        self.loading: asyncio.Task[None] | None = None
        self.told: dict[str, int] = {}
        self.refused_plan: bytes = b""
        self.url = ""
        self.rpc: Rpc | None = None
        self.control: Control | None = None
        self.contexts: Contexts | None = None
        self.tables = Tables(settings.root / "features")
        self.looking: asyncio.Future[None] | None = None
        self.admin_desk: Desk | None = None

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT. Raises FalajError when it cannot start."""
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        if self.settings.control_fd >= 0:
            self.control = Control(stopping.set)
            await self.control.open(self.settings.control_fd)
        truth = LabelFile(self.settings.spool, self.boot)
        app = Predict(loop, self.ids, self.tally, self.log, truth, _version(), self.settings.name)
        self.app = app
        app.max_queue_us = self.settings.max_queue_ms * 1000
        app.table = self.tables.get
        if self.control is None:  # a worker speaks for itself, its supervisor for all
            app.neighbours = self._neighbours
        app.known_only = self.settings.known_only
        self.contexts = contexts_of(self.settings.tls)
        self.plan_file.changed()
        prepared = self._first()
        app.switch(prepared)
        app.problem = prepared.problem
        self.tables.look(self._tables())
        gc.collect()
        gc.freeze()
        sys.setswitchinterval(0.001)  # a thread with a large request gives way sooner
        gc.set_threshold(20_000, 10, 20)  # requests leave no circles behind
        self.desk = Desk(app, self.settings.limits)
        self.desk.later = loop.call_soon
        servers = await self._listen(loop)
        if self.settings.rpc is not None:
            self.rpc = Rpc(app, self.settings.rpc)
            self.rpc.start()
        self._tell()
        ticking = loop.create_task(self._ticks())
        watching = loop.create_task(self._watch())
        reverifying = loop.create_task(self._reverify())
        try:
            await stopping.wait()
            await self._drain(servers)
        finally:
            for task in (ticking, watching, reverifying):
                task.cancel()
            self._flush(everything=True)
            self._leave()
        return 0

    # start

    def _first(self) -> Prepared:
        trust = self._trust()
        if self.fixed is not None:
            plan, folders = self.fixed
            return self.stage.prepare(plan, "", trust, None, folders=folders)
        plan, digest = open_plan(self.plan_file.read(), trust, now=clock.now())
        return self.stage.prepare(plan, digest, trust, None)

    def _trust(self) -> Trust:
        trust = read_trust(self.settings.trust, self.trust_version)
        if trust.version > self.trust_version:
            keep_seen(self.settings.root, trust.version)
        self.trust_version = self.stage.trust_version = trust.version
        return trust

    async def _listen(self, loop: asyncio.AbstractEventLoop) -> list[asyncio.Server]:
        """Public listener; and one of its own, because a shared port answers by chance."""
        settings = self.settings
        try:
            if settings.listen_fd >= 0:
                theirs = socket.socket(fileno=settings.listen_fd)
                public = await loop.create_server(
                    door(self.desk, self.contexts), sock=theirs, backlog=1024
                )
            else:
                public = await loop.create_server(
                    door(self.desk, self.contexts),
                    settings.host,
                    settings.port,
                    reuse_port=settings.shared_port or None,
                    backlog=1024,
                )
        except OSError as error:
            raise FalajError(
                "serving.port",
                f"port {settings.port} on {settings.host}: {error.strerror}",
                fix="choose another port, or 0 for a free one",
            ) from None
        servers = [public]
        port = public.sockets[0].getsockname()[1]
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        scheme = "https" if self.contexts else "http"
        self.url = self.own_url = f"{scheme}://{host}:{port}"
        if settings.shared_port:
            self.admin_desk = Desk(self.app, settings.limits)
            self.admin_desk.admin = True
            own = await loop.create_server(door(self.admin_desk), ADMIN_HOST, 0)
            servers.append(own)
            self.own_url = f"http://{ADMIN_HOST}:{own.sockets[0].getsockname()[1]}"
        return servers

    def _neighbours(self) -> list[str]:
        """Addresses of the admin listeners of the other servers of this environment."""
        found = []
        for card in self.settings.root.glob("*.json"):
            with contextlib.suppress(
                OSError, ValueError, msgspec.MsgspecError, KeyError, TypeError
            ):
                told = msgspec.json.decode(card.read_bytes())
                if told["boot"] != self.boot and told["ticks"] == start_ticks(told["pid"]):
                    found.append(str(told["own_url"]))
        return found

    def _tell(self) -> None:
        settings = self.settings
        if self.control is not None:
            about = {"summary": self.app.summary(), "grpc": self.grpc_address, **self.app.state()}
            self.control.say(url=self.own_url, about=about)
            return
        if settings.name:
            card = {
                "pid": os.getpid(),
                "url": self.url,
                "own_url": self.own_url,
                "boot": self.boot,
                "grpc": self.grpc_address,
                "started": clock.text(self.stage.began),
                "ticks": start_ticks(os.getpid()),
            }
            write_atomic(settings.root / f"{settings.name}.json", msgspec.json.encode(card))
            failed = settings.root / f"{settings.name}.failed"
            failed.unlink(missing_ok=True)
        ready = {"ready": True, "url": self.url, "boot": self.boot, "live": self.app.summary()}
        if self.rpc is not None:
            ready["grpc"] = self.grpc_address
        print(msgspec.json.encode(ready).decode(), flush=True)

    @property
    def grpc_address(self) -> str:
        return f"{self.rpc.settings.host}:{self.rpc.port}" if self.rpc else ""

    # life

    async def _ticks(self) -> None:
        """One clock for all: spool each quarter second, deadlines each second."""
        number = 0
        while True:
            begun = time.monotonic()
            await asyncio.sleep(TICK_S)
            number += 1
            late = time.monotonic() - begun - TICK_S
            self.app.loop_lag_s = max(self.app.loop_lag_s, late)
            try:
                self._flush()
                if number % 4 == 0:
                    self.desk.tick()
                    if self.admin_desk is not None:
                        self.admin_desk.tick()
                    self._renew()
                    self._look_up()
                if self.control is not None and number % 2 == 0:
                    self.control.say(told=self.app.state())
            except Exception as error:  # top of the door: the clock must not stop
                print(f"falaj: {type(error).__name__}: {error}", file=sys.stderr, flush=True)

    def _tables(self) -> set[str]:
        current = self.app.current
        models = current.plan.models.values() if current else ()
        return {model.features.table for model in models if model.features is not None}

    def _look_up(self) -> None:
        """Take up tables of features that have changed; one look at a time."""
        if (names := self._tables()) and (self.looking is None or self.looking.done()):
            loop = asyncio.get_running_loop()
            self.looking = loop.run_in_executor(self.loader, self.tables.look, names)

    def _renew(self) -> None:
        """Take up certificates that have changed; say so when they cannot be."""
        contexts = self.contexts
        if contexts is None:
            return
        before = contexts.problem
        contexts.renew()
        if contexts.problem and contexts.problem != before:
            words = f"certificate not taken up, the one before stays: {contexts.problem}"
            print(f"falaj: {words}", file=sys.stderr, flush=True)

    async def _watch(self) -> None:
        """Look for a new plan; how long a bad release still answers hangs on it."""
        while self.fixed is None:
            await asyncio.sleep(PLAN_S)
            self._look()

    def _flush(self, *, everything: bool = False) -> None:
        self.app.take_posted()
        if self.rpc is not None:
            self.rpc.tick()
        self.log.probe()
        self.counts.write(self.tally.changes())
        if everything:
            while self.log.flush(4096):
                pass
            self.log.rotate()
        elif self.log.waiting and not self.app.flushing:
            self.app.flush_log()
        current = self.app.current
        models = current.models if current else {}
        totals = {name: sum(live.latencies.counts) for name, live in models.items()}
        if totals != self.told:
            self.told = totals
            told = {name: live.latencies.told() for name, live in models.items()}
            with contextlib.suppress(OSError):  # a picture for people and edges; the next one comes
                write_latencies(self.settings.spool, self.boot, told)

    def _look(self) -> None:
        """Start on a new plan, if there is one; one at a time."""
        if (self.loading is None or self.loading.done()) and self.plan_file.changed():
            self.loading = asyncio.get_running_loop().create_task(self._replan())

    async def _replan(self) -> None:
        """Prepare all, then switch; a plan that cannot be prepared is refused whole."""
        app = self.app
        loop = asyncio.get_running_loop()
        current = app.current
        try:
            text = self.plan_file.read()
            trust = self._trust()
            plan, digest = open_plan(text, trust, now=clock.now())
            was = current.digest if current else ""
            if not succeed(plan, digest, current.plan if current else None, was):
                app.problem = current.problem if current else ""
                return
            try:
                prepared = await loop.run_in_executor(
                    self.loader, self.stage.prepare, plan, digest, trust, current
                )
            except FalajError as error:
                if self.control is not None:
                    self.control.refuse(plan.seq, str(error))
                raise
            if self.control is not None and (why := await self.control.agree(plan.seq)):
                prepared.forget(current)
                app.problem = f"plan refused: {why}"
                if why == NEWER:
                    self.plan_file.seen = None
                return
        except FalajError as error:
            app.problem = f"plan refused: {error}"
            print(f"falaj: {app.problem}", file=sys.stderr, flush=True)
            return
        except OSError as error:
            # Nothing wrong with the plan: the disk is; the next look tries again.
            app.problem = f"plan not applied: {error}"
            self.plan_file.seen = None
            return
        app.switch(prepared)
        app.problem = prepared.problem
        app.isolated = ""
        app.findings.clear()
        # What the old plan held is dropped in the loader's thread, not in the loop.
        del current
        await loop.run_in_executor(self.loader, gc.collect, 0)

    async def _reverify(self) -> None:
        """Hash again what runs: a finding takes this server out of service."""
        app = self.app
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.settings.reverify_s)
            current = app.current
            if current is None or self.fixed is not None:
                continue
            try:
                trust = self._trust()
                found = await loop.run_in_executor(self.loader, self.stage.verify, current, trust)
            except (FalajError, OSError) as error:
                print(f"falaj: not verified again: {error}", file=sys.stderr, flush=True)
                continue
            if not found:
                app.verified_at = time.time()
            if found and app.current is current:
                self._isolate(current, found)

    def _isolate(self, current: Prepared, found: dict[tuple[str, str], Trouble]) -> None:
        """Out of service what does not verify any more: an arm alone, or with stable this server.

        A release that was withdrawn gives way to the previous one, if that is warm and verifies.
        """
        app = self.app
        for (name, arm), (code, words) in found.items():
            live = current.models[name]
            remote = getattr(live, arm, None)
            if arm == live.answering:
                back = None
                if code == WITHDRAWN and arm == "stable" and (name, "standby") not in found:
                    back = current.without(name, f"{words}; the release before it answers")
                if back is not None:
                    app.switch(back)
                    app.problem = back.problem
                    current = back
                else:
                    app.isolated = f"isolated: {words}"
            elif isinstance(remote, Remote):
                remote.condemn(f"isolated: {words}")
            if words not in app.findings:
                app.findings.append(words)
                print(f"falaj: isolated: {arm}: {words}", file=sys.stderr, flush=True)

    # end

    async def _drain(self, servers: list[asyncio.Server]) -> None:
        """Not ready, then no new connection, then no open request, then gone."""
        settings = self.settings
        self.app.draining = True
        self.desk.draining = True  # answers say close from now on
        await asyncio.sleep(settings.drain_s)
        # First no more accepts, then the close: asyncio drops a connection that was accepted in the
        # turn of the close, and its client sees a reset.
        loop = asyncio.get_running_loop()
        for server in servers:
            for listener in server.sockets:
                loop.remove_reader(listener.fileno())
        await asyncio.sleep(ACCEPTED_S)
        for server in servers:
            server.close()
        stopped = self.rpc.stop(settings.leave_s) if self.rpc is not None else None
        now = time.monotonic()
        until, idle_until = now + settings.leave_s, now + settings.idle_s
        while now < until and (
            self.desk.busy
            or (now < idle_until and self.desk.connections)
            or (stopped is not None and not stopped.is_set())
        ):
            # A connection that is closed under a request in flight is a failed request.
            if now >= idle_until:
                self.desk.drain()
            await asyncio.sleep(0.02)
            now = time.monotonic()
        for desk in (self.desk, self.admin_desk):
            if desk is not None:
                desk.drain()
                for connection in list(desk.connections):
                    connection.transport.close()
        await asyncio.sleep(0)

    def _leave(self) -> None:
        for remote in self.app.remotes:
            remote.kill()
        self.app.away.shutdown(wait=False, cancel_futures=True)
        self.stage.starters.shutdown(wait=False, cancel_futures=True)
        self.app.bulk.shutdown(wait=False, cancel_futures=True)
        self.loader.shutdown(wait=False, cancel_futures=True)
        self.app.disk.shutdown(wait=True)
        if self.settings.name and self.control is None:
            card = self.settings.root / f"{self.settings.name}.json"
            with contextlib.suppress(OSError, msgspec.MsgspecError, KeyError):
                if msgspec.json.decode(card.read_bytes())["boot"] == self.boot:
                    card.unlink()


def contexts_of(files: TlsFiles | None) -> Contexts | None:
    """Make the first TLS context. Raises FalajError."""
    if files is None:
        return None
    try:
        return Contexts(files)
    except BadFiles as error:
        raise FalajError(
            "serving.tls-files",
            f"TLS: {error}",
            fix="give a PEM certificate, the key that belongs to it, and authorities of clients",
        ) from None


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("falaj")
    except PackageNotFoundError:
        return "0"


def serve(settings: Settings, fixed: tuple[TrafficPlan, dict[str, Path]] | None = None) -> Any:
    """Run one server to its end; returns its exit code. Raises FalajError."""
    return asyncio.run(Server(settings, fixed).run())
