"""A target on this machine: a folder an environment, server processes that outlive their caller.

Layout below the root: `<environment>/{plan.json, trust.json, releases/<12 hex>/, spool/}`, beside
them a card, a lock and a log for each server. A server holds its lock as long as it lives, so
"does it run?" has one answer, whoever asks and whatever was killed in between.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

import msgspec

from falaj.base import files
from falaj.base.errors import FalajError
from falaj.facts.serving import ArmPlan, Counts, Desired, Observed, ObservedServer

__all__ = ["LocalTarget"]

DEATHS: Final = 5
WITHIN_S: Final = 60.0
FIRST_WAIT_S: Final = 0.5
ASK_S: Final = 2.0
STOP_S: Final = 15.0
SEEN: Final = ".seen"  # what witnesses say of a release lies beside its folder, by this name
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

    def apply(self, desired: Desired) -> None:
        """Place folders, then trust, then the plan, then start what does not run."""
        here = self._folder(desired.environment)
        here.mkdir(parents=True, exist_ok=True)
        with _locked(here / ".apply.lock"):
            seq = _seq(here / "plan.json")
            if desired.plan.seq < seq:
                return
            for arm in _arms(desired):
                _place(here, arm, desired.folders)
            _write(here / "trust.json", desired.trust)
            if desired.plan.seq > seq:
                files.write_atomic(here / "plan.json", desired.envelope.encode())
            port = self._port(here, desired)
            before = _json(here / "target.json").get("replicas", 0)
            told = {"replicas": desired.replicas, "port": port}
            _write(here / "target.json", json.dumps(told, sort_keys=True))
            for number in range(1, desired.replicas + 1):
                self._start(here, f"server-{number}", port, desired.plan.seq)
            for number in range(desired.replicas + 1, before + 1):
                _signal(here, f"server-{number}", signal.SIGTERM)

    def observe(self, environment: str) -> Observed:
        self._reap()
        here = self._folder(environment)
        replicas = _json(here / "target.json").get("replicas", 0)
        names = [f"server-{number}" for number in range(1, replicas + 1)]
        return Observed(
            environment=environment, servers=tuple(_observe(here, name) for name in names)
        )

    def counts(self, environment: str, rollout: str) -> list[Counts]:
        newest: dict[tuple[Any, ...], Counts] = {}
        for path in sorted(self.spool(environment).glob("counts-*.jsonl")):
            self._follow(path)
            for key, line in self._counts.get(path, {}).items():
                old = newest.get(key)
                if line.rollout == rollout and (old is None or line.seq > old.seq):
                    newest[key] = line
        return list(newest.values())

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
            _write(here / "target.json", json.dumps(_json(here / "target.json") | {"replicas": 0}))
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
                _write(starts, json.dumps({"seq": seq, "at": recent, "given_up": True}))
                return
            elif recent and now - recent[-1] < FIRST_WAIT_S * 2 ** (len(recent) - 1):
                return
            _write(starts, json.dumps({"seq": seq, "at": [*recent, now]}))
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


def _place(here: Path, arm: ArmPlan, folders: dict[str, str]) -> None:
    """Copy a release folder once, to a neighbour, then rename. Its server verifies it anyway."""
    path = PurePosixPath(arm.folder)
    if len(path.parts) != 2 or path.parts[0] != "releases" or path.parts[1] in (".", ".."):
        raise FalajError(
            "target.folder",
            f"folder: got {arm.folder[:80]!r}, expected releases/<name>",
            why="a plan cannot reach outside its environment",
            fix="plan the release again",
        )
    to = here / arm.folder
    if arm.release in folders:
        _bring_word(Path(folders[arm.release] + SEEN), to.with_name(to.name + SEEN))
    if to.exists():
        return
    if arm.release not in folders:
        raise FalajError(
            "target.release-missing",
            f"release {arm.release[:19]} is planned, but nobody said where it lies",
            fix="give its folder",
        )
    to.parent.mkdir(exist_ok=True)
    for left in to.parent.glob(f".{to.name}.*.part"):
        shutil.rmtree(left, ignore_errors=True)  # of a killed apply; ours is the only one now
    part = to.with_name(f".{to.name}.{os.getpid()}.part")
    try:
        shutil.copytree(folders[arm.release], part, symlinks=True)
        for path_ in files.walk(part).values():
            _sync(path_)
        part.replace(to)
        files.sync_folder(to.parent)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise FalajError(
            "target.copy",
            f"release {arm.release[:19]} cannot be copied: {error.strerror or error}",
            why=f"from {folders[arm.release]} to {to}",
            fix="look at the disk and the folder's permissions, then apply again",
        ) from None


def _bring_word(told: Path, to: Path) -> None:
    """What witnesses say of the time of signing lies beside a release; its server judges it."""
    with contextlib.suppress(FileNotFoundError):
        data = told.read_bytes()
        to.parent.mkdir(exist_ok=True)
        if not to.exists() or to.read_bytes() != data:
            files.write_atomic(to, data)


def _sync(path: Path) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _write(path: Path, text: str) -> None:
    try:
        if path.read_text("utf-8") == text:
            return
    except (OSError, UnicodeDecodeError):
        pass
    files.write_atomic(path, text.encode())


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _seq(path: Path) -> int:
    """Number of the plan in place; whether it holds is for its reader to say."""
    try:
        payload = json.loads(base64.b64decode(_json(path).get("payload", ""), validate=True))
        return int(payload["seq"])
    except (ValueError, TypeError, KeyError, binascii.Error):
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
