"""A target on this machine: a folder an environment, server processes that outlive their caller.

Layout below the root: `<environment>/{plan.json, trust.json, releases/<12 hex>/, spool/}`, beside
them a card, a lock and a log for each server. A server holds its lock as long as it lives, so
"does it run?" has one answer, whoever asks and whatever was killed in between.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from falaj.base import dsse
from falaj.base import time as instants
from falaj.base.errors import FalajError
from falaj.facts.serving import ArmPlan, Counts, Desired, Observed, ObservedServer
from falaj.facts.trust import BadTrust, keys_for, open_trust
from falaj.links.local.placing import changed, place, remove, write

__all__ = ["LocalTarget"]

PLAN: Final = "application/vnd.falaj.plan+json"
DEATHS: Final = 5
WITHIN_S: Final = 60.0
FIRST_WAIT_S: Final = 0.5
ASK_S: Final = 2.0
STOP_S: Final = 15.0
MUTE_S: Final = 20.0
LOG_BYTES: Final = 1 << 20
KEPT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")


class LocalTarget:
    """Adapter of ports.target.Target. Killing its caller at any point leaves nothing half-done."""

    def __init__(self, root: Path, python: str = sys.executable) -> None:
        self.root = root.absolute()
        self.python = python
        self._children: list[subprocess.Popen[bytes]] = []
        self._read: dict[Path, int] = {}  # counts file -> bytes taken
        self._counts: dict[Path, dict[tuple[Any, ...], Counts]] = {}
        self._mute: dict[tuple[str, str, str], float] = {}  # a server that runs and does not answer

    def apply(self, desired: Desired) -> None:
        """Place folders, then trust, then the plan, then start what does not run."""
        here = self._folder(desired.environment)
        here.mkdir(parents=True, exist_ok=True)
        with _locked(here / ".apply.lock"):
            seq = _seq(here / "plan.json", desired.trust)
            if desired.plan.seq < seq:
                return
            for arm in _arms(desired):
                place(here, arm, desired.folders)
            write(here / "trust.json", desired.trust)
            # Also where somebody changed it by hand: nobody obeys what nobody signed.
            write(here / "plan.json", desired.envelope)
            port = self._port(here, desired)
            before = _json(here / "target.json").get("replicas", 0)
            told = {"replicas": desired.replicas, "port": port}
            write(here / "target.json", json.dumps(told, sort_keys=True))
            self._end_mute(here)
            for number in range(1, desired.replicas + 1):
                self._start(here, f"server-{number}", port, desired.plan.seq)
            for number in range(desired.replicas + 1, before + 1):
                _signal(here, f"server-{number}", signal.SIGTERM)

    def observe(self, environment: str) -> Observed:
        self._reap()
        here = self._folder(environment)
        replicas = _json(here / "target.json").get("replicas", 0)
        names = [f"server-{number}" for number in range(1, replicas + 1)]
        seen = tuple(_observe(here, name) for name in names)
        for server in seen:
            at = (str(here), server.name, server.boot)
            if server.pid and server.plan_seq < 0:
                self._mute.setdefault(at, time.monotonic())
            else:
                self._mute.pop(at, None)
        return Observed(environment=environment, servers=seen, changed=changed(here))

    def counts(self, environment: str, rollout: str) -> list[Counts]:
        newest: dict[tuple[Any, ...], Counts] = {}
        for path in sorted(self.spool(environment).glob("counts-*.jsonl")):
            self._follow(path)
            for key, line in self._counts.get(path, {}).items():
                old = newest.get(key)
                if line.rollout == rollout and (old is None or line.seq > old.seq):
                    newest[key] = line
        return list(newest.values())

    def prune(self, environment: str, keep: frozenset[str]) -> None:
        releases = self._folder(environment) / "releases"
        if not releases.is_dir():
            return
        with _locked(releases.parent / ".apply.lock"):
            idle = [
                path
                for path in releases.iterdir()
                if path.is_dir()
                and not path.name.startswith(".")
                and f"releases/{path.name}" not in keep
            ]
            idle.sort(key=lambda path: path.stat().st_mtime_ns)
            for path in idle[:-1]:  # the newest stays: the way to it is the shortest
                remove(path)

    def spool(self, environment: str) -> Path:
        return self._folder(environment) / "spool"

    def stop(self, environment: str) -> None:
        here = self._folder(environment)
        if not here.is_dir():
            return
        with _locked(here / ".apply.lock"):
            names = [path.stem for path in here.glob("server-*.lock")]
            told: set[str] = set()
            end = time.monotonic() + STOP_S
            while any(_runs(here, name) for name in names) and time.monotonic() < end:
                # One that is just starting has no card yet; it is told as soon as it has.
                told |= {
                    name
                    for name in names
                    if name not in told and _signal(here, name, signal.SIGTERM)
                }
                self._reap()
                time.sleep(0.05)
            for name in names:
                _signal(here, name, signal.SIGKILL)
            write(here / "target.json", json.dumps(_json(here / "target.json") | {"replicas": 0}))
        self._reap()

    def _folder(self, environment: str) -> Path:
        plain = environment.replace("-", "").replace("_", "")
        if not plain.isalnum() or not environment.isascii():
            raise FalajError(
                "target.environment",
                f"environment {environment[:60]!r} cannot be a folder",
                why="names are letters, digits, dash and underscore",
                fix="rename it in falaj.toml",
            )
        return self.root / environment

    def _end_mute(self, here: Path) -> None:
        """End servers that have not answered for `MUTE_S`: whoever hangs holds its lock for ever."""
        for (folder, name, boot), since in list(self._mute.items()):
            if folder != str(here) or time.monotonic() - since < MUTE_S:
                continue
            del self._mute[folder, name, boot]
            if _json(here / f"{name}.json").get("boot") == boot:
                _signal(here, name, signal.SIGKILL)

    def _port(self, here: Path, desired: Desired) -> int:
        """Choose once, keep for ever: clients know the address."""
        if desired.port:
            return desired.port
        kept = _json(here / "target.json").get("port", 0)
        if isinstance(kept, int) and 0 < kept < 65536:
            return kept
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
            return port

    def _start(self, here: Path, name: str, port: int, seq: int) -> None:
        """Start a server that does not run, unless it died too often under this plan."""
        self._reap()
        handle = os.open(here / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # it runs, or is about to
            starts = here / f"{name}.starts"
            now = time.time()
            told = _json(starts)
            recent = [at for at in told.get("at", []) if now - WITHIN_S < at <= now]
            if told.get("seq") != seq:
                recent = []
                (here / f"{name}.failed").unlink(missing_ok=True)  # said of the plan before
            elif told.get("given_up") or len(recent) >= DEATHS:
                write(starts, json.dumps({"seq": seq, "at": recent, "given_up": True}))
                return
            elif recent and now - recent[-1] < FIRST_WAIT_S * 2 ** (len(recent) - 1):
                return
            write(starts, json.dumps({"seq": seq, "at": [*recent, now]}))
            self._spawn(here, name, port, handle)
        finally:
            os.close(handle)

    def _spawn(self, here: Path, name: str, port: int, lock: int) -> None:
        """The child inherits the lock already taken: no moment is without an owner."""
        env = {key: os.environ[key] for key in KEPT if key in os.environ}
        env |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        log = here / f"{name}.log"
        with contextlib.suppress(FileNotFoundError):
            if log.stat().st_size > LOG_BYTES:
                log.replace(log.with_suffix(".log.1"))
        with log.open("ab") as words:
            child = subprocess.Popen(
                [
                    *(self.python, "-P", "-m", "falaj.doors.predict"),
                    *("--root", str(here), "--trust", str(here / "trust.json")),
                    *("--name", name, "--port", str(port), "--lock-fd", str(lock)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                cwd=here,
                env=env,
                pass_fds=(lock,),
                start_new_session=True,
            )
        self._children.append(child)

    def _reap(self) -> None:
        """Take leave of children that ended, so that they do not stay as zombies."""
        self._children = [child for child in self._children if child.poll() is None]

    def _follow(self, path: Path) -> None:
        """Read what was added. Files only grow; a new generation has a new name."""
        start = self._read.get(path, 0)
        try:
            with path.open("rb") as file:
                file.seek(start)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data[: data.rfind(b"\n") + 1]  # a last line without its end may still be written
        decoder = msgspec.json.Decoder(Counts)
        known = self._counts.setdefault(path, {})
        for text in whole.splitlines():
            try:
                line = decoder.decode(text)
            except msgspec.MsgspecError:
                continue
            key = (
                line.source,
                line.model,
                line.rollout,
                line.stratum,
                line.step,
                line.zone,
                line.metric,
            )
            old = known.get(key)
            if old is None or line.seq > old.seq:
                known[key] = line
        self._read[path] = start + len(whole)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _arms(desired: Desired) -> list[ArmPlan]:
    return [
        arm
        for model in desired.plan.models.values()
        for arm in (model.stable, model.canary, model.standby, model.shadow)
        if arm is not None
    ]


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _seq(path: Path, trust: str) -> int:
    """Number of the plan in place; -1 where there is none that a key of `trust` has signed."""
    try:
        now = instants.now()
        keys = keys_for(open_trust(trust.encode(), now=now, allow_expired=True), "plan", now)
        opened = dsse.open_envelope(_json(path), keys, kind=PLAN)
        return int(opened.payload["seq"])
    except (BadTrust, dsse.BadEnvelope, ValueError, TypeError, KeyError):
        return -1


def _ticks(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        return int(text.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _runs(here: Path, name: str) -> bool:
    """Tell whether somebody holds the server's lock."""
    try:
        handle = os.open(here / f"{name}.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _signal(here: Path, name: str, number: signal.Signals) -> bool:
    """Signal a server, and only it: its number may belong to another process by now."""
    card = _json(here / f"{name}.json")
    pid = card.get("pid")
    if not (isinstance(pid, int) and _runs(here, name) and _ticks(pid) == card.get("ticks")):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    return True


def _observe(here: Path, name: str) -> ObservedServer:
    card = _json(here / f"{name}.json")
    failed = _json(here / f"{name}.failed").get("problem", "")
    starts = _json(here / f"{name}.starts")
    url, boot = str(card.get("url", "")), str(card.get("boot", ""))
    pid = card.get("pid", 0)
    up = isinstance(pid, int) and _runs(here, name) and _ticks(pid) == card.get("ticks")
    if not up:
        problem = str(failed)
        if starts.get("given_up"):
            since = f"{name} died {DEATHS} times within {WITHIN_S:.0f} s and is not started again"
            problem = f"{since}: {problem}" if problem else since
        return ObservedServer(
            name=name, url=url, pid=0, boot=boot, ready=False, plan_seq=-1, live={}, problem=problem
        )
    told = _ask(str(card.get("own_url", url)))
    models = told.get("models", {})
    return ObservedServer(
        name=name,
        url=url,
        pid=pid,
        boot=boot,
        ready=told.get("ready") is True and told.get("boot") == boot,
        plan_seq=int(told.get("plan_seq", -1)),
        live={model: str(arms["stable"]) for model, arms in models.items()},
        canary={model: str(arms["canary"]) for model, arms in models.items() if arms["canary"]},
        problem=str(told.get("problem", "")),
    )


def _ask(url: str) -> dict[str, Any]:
    """Ask a server about itself; a server that does not answer is not ready, which is no error."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=ASK_S)
    try:
        connection.request("GET", "/v2/health/ready")
        found = json.loads(connection.getresponse().read(1 << 20))
    except (OSError, ValueError, http.client.HTTPException):
        return {}
    finally:
        connection.close()
    return found if isinstance(found, dict) else {}
