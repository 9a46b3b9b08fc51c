"""The wiring: configuration -> adapters -> journeys. The one place that names concrete adapters."""

from __future__ import annotations

import os
import secrets
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from falaj.access.service import WORKER, Access
from falaj.base import ids, time
from falaj.base.errors import Conflict, FalajError
from falaj.base.files import write_atomic
from falaj.facts.access import Action, Resource, ResourceKind
from falaj.facts.changes import Change
from falaj.facts.releases import Release
from falaj.links.duckdb.engine import duckdb_engine
from falaj.links.files.project import read_project
from falaj.links.frames.codecs import codecs
from falaj.links.git.code import changed_files, read_code
from falaj.links.keyring.keys import KeyRing
from falaj.links.local.checks import own_checks
from falaj.links.local.probe import LocalProber
from falaj.links.local.target import LocalTarget
from falaj.links.osv.shelf import OsvShelf
from falaj.links.python.environment import read_environment
from falaj.links.sql.store import SqlStore
from falaj.links.stepcache.cache import FileStepCache
from falaj.links.stepworker.pool import StepWorkers
from falaj.ports.executor import Executor
from falaj.ports.ground import Ground
from falaj.ports.scanners import CodeScanner
from falaj.ports.store import Lease
from falaj.ports.tester import Tester
from falaj.readers import artifacts, evidence_readers, table_readers

if TYPE_CHECKING:
    from falaj.audit.service import Log
    from falaj.facts.access import Permit
    from falaj.facts.governance import Freeze
    from falaj.facts.project import Project, RemoteTable, WitnessTable
    from falaj.facts.runs import Run
    from falaj.facts.scans import Declared
    from falaj.journeys.advisories import Rescan
    from falaj.journeys.imports import Asked
    from falaj.journeys.measures import OwnMetrics
    from falaj.journeys.retrain import Due
    from falaj.journeys.score import Tasks
    from falaj.journeys.watch import Watch
    from falaj.links.s3.client import Bucket
    from falaj.links.s3.tables import S3Tables
    from falaj.ports.measures import Measures
    from falaj.ports.mirrors import Converter, Mirror, Registry
    from falaj.ports.remotes import Remote
    from falaj.ports.rows import RowFormats
    from falaj.ports.sandbox import Sandbox
    from falaj.ports.signer import PrivateKeys
    from falaj.ports.witness import Witness

__all__ = ["DUTIES", "STATE", "Works", "find_root", "remote", "sandbox_of"]

OnStep = Callable[[str, str, float], None]
STATE: Final = ".falaj"
FILE: Final = "falaj.toml"
DUTIES: Final = frozenset({"rollouts", "monitors", "learning", "advisories", "mirror", "witnesses"})
WATCH_EVERY_S: Final = 2.0
LEASE_S: Final = 5.0  # what is written is fenced by revisions; the lease only saves double work


def find_root(start: Path) -> Path:
    """The folder with falaj.toml, here or above. Raises FalajError when there is none."""
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / FILE).is_file():
            return folder
    raise FalajError(
        "config.no-project",
        f"there is no {FILE} in {start} or above",
        why="every command but `init`, `demo`, `verify` and `explain` works inside a project",
        fix="go to your project, or make one: falaj init my-model",
    )


def silent(_line: str) -> None:
    """Nobody listens."""


def unwatched(_step: str, _status: str, _seconds: float) -> None:
    """Nobody watches the steps."""


def step_workers(at_once: int, seed: int) -> StepWorkers:
    """Processes for the steps of one run; none is started before a step has to run.

    The order of sets, and with it a model, follows PYTHONHASHSEED. at_once: 0 is one a core.
    """
    return StepWorkers(
        (sys.executable, "-m", "falaj.doors.worker.steps"),
        at_once=at_once or os.cpu_count() or 1,
        environment={"PYTHONHASHSEED": str(seed % 2**32)},
    )


def tester() -> Tester:
    from falaj.links.pytest.runner import PytestRunner

    return PytestRunner()


def workers_of(root: Path, state: Path, project: Project) -> Callable[[int, int], Executor]:
    """Where steps run, as the project says it."""
    table = project.links.ray
    if project.pipelines.executor != "ray" or table is None:
        return step_workers

    def expects() -> Mapping[str, Any]:
        return {"falaj": version("falaj"), **msgspec.to_builtins(read_environment(root)[0])}

    def on_ray(at_once: int, _seed: int) -> Executor:
        from falaj.links.ray.executor import RayExecutor

        return RayExecutor(
            address=table.address,
            token_file=root / table.token_file,
            entry="falaj.doors.worker.node:attempt",
            state=state,
            expects=expects,
            at_once=at_once,
        )

    return on_ray


def scanners() -> tuple[CodeScanner, ...]:
    from falaj.links.bandit.scanner import Bandit
    from falaj.links.detectsecrets.scanner import DetectSecrets

    return (Bandit(), DetectSecrets())


def licences(names: Sequence[str]) -> Mapping[str, Declared]:
    from falaj.links.python.licences import read_licences

    return read_licences(names)


def bill_trouble(bill: bytes) -> tuple[str, ...]:
    from falaj.links.cyclonedx.schema import trouble

    return trouble(bill)


def remote(address: str, table: RemoteTable) -> Remote:
    """A place of others that keeps releases. Nothing is connected yet."""
    if address.startswith("oci://"):
        from falaj.links.oci.registry import OciRemote

        return OciRemote(address, plain_http=table.plain_http or None)
    if address.startswith("s3://"):
        from falaj.links.s3.remote import S3Remote

        return S3Remote(
            address, table.endpoint, region=table.s3_region, plain_http=table.plain_http or None
        )
    raise FalajError(
        "remote.bad-address",
        f"{address.partition('://')[0][:40]!r} is no kind of place that keeps releases",
        fix="oci://HOST/REPOSITORY or s3://BUCKET/PREFIX, with :TAG or @sha256:DIGEST",
    )


def calendar(file: Path, timezone: str) -> Sequence[Freeze]:
    from falaj.links.files.calendar import read_calendar

    return read_calendar(file, timezone)


def row_formats() -> RowFormats:
    """Tables of any size: files of this machine, and lakes."""
    from falaj.links.arrow.formats import ArrowFormats

    return ArrowFormats()


def bucket_tables(address: str, project: Project | None) -> S3Tables:
    """Tables in a bucket, where the project says that it lies; outside of one AWS_ENDPOINT_URL does."""
    from falaj.links.s3.tables import S3Tables

    for table in project.links.remotes if project is not None else ():
        if address == table.address or address.startswith(table.address.rstrip("/") + "/"):
            return S3Tables(table.endpoint, region=table.s3_region, plain_http=table.plain_http)
    return S3Tables()


def cluster_tasks(project: Project, root: Path) -> Tasks:
    """Parts of a batch job on the nodes of the project's Ray cluster."""
    table = project.links.ray
    if table is None:
        raise FalajError(
            "score.no-cluster",
            "falaj.toml names no cluster",
            why="--engine ray makes parts on the nodes of a Ray cluster",
            fix="write its address, region and token_file into [links.ray], or leave --engine out",
        )
    from falaj.links.ray.parts import RayTasks

    return RayTasks(
        address=table.address,
        token_file=root / table.token_file,
        entry="falaj.doors.worker.scoring:piece",
    )


def secret(path: Path) -> bytes:
    """32 random bytes that stay, readable by this user only."""
    if not path.exists():
        write_atomic(path, secrets.token_bytes(32), mode=0o600)
    return path.read_bytes()


def private_keys(project: Project, root: Path) -> PrivateKeys | None:
    """On a token, when the project says so. Nothing is opened yet but the file with the PIN."""
    table = project.keys
    if table.store == "files":
        return None
    from falaj.links.pkcs11.token import TokenKeys, read_pin

    pin = read_pin(root / table.pin_file)
    return TokenKeys(table.module, table.token, pin, prefix=f"falaj/{project.project.name}/")


def sandbox_of(*, seconds: float, memory_mb: int) -> Sandbox:
    """Where pickles of others are converted. Needs no project."""
    from falaj.base.sandbox import Limits
    from falaj.links.bubblewrap.sandbox import Bubblewrap

    return Bubblewrap(limits=Limits(seconds=seconds, memory_mb=memory_mb))


def tracking(
    project: Project, root: Path, ending: threading.Event
) -> tuple[Mirror | None, Registry | None, Converter | None]:
    """The tracking server of others, when the project names one. Nothing is connected yet."""
    table = project.links.mlflow
    if table is None:
        return None, None, None
    from falaj.links.mlflow.client import Client
    from falaj.links.mlflow.mirror import MlflowMirror
    from falaj.links.mlflow.registry import MlflowRegistry
    from falaj.links.skops.convert import SkopsConverter

    experiment = table.experiment or f"falaj/{project.project.name}"
    shown = Client(table, root, stop=ending.is_set)
    asked = Client(table, root)
    return MlflowMirror(shown, experiment), MlflowRegistry(asked), SkopsConverter()


def witnesses(project: Project, root: Path) -> tuple[Witness, ...]:
    """Who is shown the checkpoints of the log. Nothing is connected yet."""
    return tuple(witness(table, root) for table in project.audit.witnesses)


def witness(table: WitnessTable, root: Path) -> Witness:
    if table.kind == "file":
        from falaj.links.files.witness import FileWitness

        return FileWitness(table.name, root / table.place)
    if table.kind == "git":
        from falaj.links.git.witness import GitWitness

        return GitWitness(table.name, root / table.place, branch=table.branch, remote=table.remote)
    if table.kind == "s3":
        from falaj.links.s3.witness import S3Witness

        return S3Witness(table.name, lambda: bucket(table, root), table.prefix)
    from falaj.base import note
    from falaj.links.tlog.witness import HttpWitness

    try:
        key = note.read_key(table.key)
        if key.kind != note.COSIGNATURE:
            raise note.BadNote("it is the key of a log, not of a witness")
    except note.BadNote as error:
        raise FalajError(
            "audit.bad-key",
            f"audit.witnesses: the key of {table.name!r}: {error}",
            why="a cosignature counts only when it is verified with the key of its witness",
            fix="ask its operator for the line NAME+ID+KEY again",
        ) from None
    token = root / table.token_file if table.token_file else None
    return HttpWitness(table.name, table.place, key, token_file=token)


def bucket(table: WitnessTable, root: Path) -> Bucket:
    from falaj.links.s3.client import Bucket, Credentials
    from falaj.ports.witness import Refused

    try:
        lines = (root / table.credentials_file).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        lines = []
    if len(lines) != 2:
        raise Refused(
            "audit.witness-token",
            f"witness {table.name!r}: {table.credentials_file} holds no credentials",
            why="expected are two lines, key and secret",
            fix="write them there, readable by this user only",
        )
    return Bucket(table.place, table.bucket, Credentials(*lines), region=table.s3_region)


def prometheus(url: str) -> Measures:
    """A server of others that counts. Nothing is connected yet."""
    from falaj.links.prometheus.client import Prometheus

    return Prometheus(url)


class Rounds(Protocol):
    """What is done beside everything else, because somebody else's server may be slow."""

    @property
    def wait_s(self) -> float:
        """Seconds until the next turn makes sense."""

    def turn(self, stop: Callable[[], bool]) -> list[str]:
        """One turn; what happened, in words."""


class Beside:
    """Turns in a thread of their own, one at a time, with pauses while they fail."""

    def __init__(self, name: str, rounds: Rounds, ending: threading.Event) -> None:
        self._name, self._rounds, self._ending = name, rounds, ending
        self._thread: threading.Thread | None = None
        self._lines: list[str] = []
        self._error: Exception | None = None
        self._next = 0.0

    def turn(self, *, wait: bool) -> list[str]:
        """Begin one when it is time; what the last ones said. Raises what one of them raised."""
        if (self._thread is None or not self._thread.is_alive()) and monotonic() >= self._next:
            self.join()
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        if wait:
            self.join()
        error, self._error = self._error, None
        if error is not None:
            raise error
        lines, self._lines = self._lines, []
        return lines

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        try:
            self._lines += self._rounds.turn(self._ending.is_set)
        except FalajError as error:
            self._error = error
        self._next = monotonic() + self._rounds.wait_s


class Works:
    """One project, wired: what the doors call journeys with."""

    def __init__(
        self, ground: Ground, access: Access, store: SqlStore, ending: threading.Event
    ) -> None:
        self.ground, self.access, self._store, self._ending = ground, access, store, ending
        self.name = f"worker-{ids.new()}"
        self._mirror: Beside | None = None
        self._witnesses: Beside | None = None
        self._log: Log | None = None
        self._watch: Watch | None = None
        self._own: OwnMetrics | None = None
        self._watched = 0.0
        self._rescan: Rescan | None = None
        self._rescanned = 0.0
        self._overdue = 0.0

    @classmethod
    def open(
        cls,
        root: Path,
        *,
        tell: Callable[[str], None] = silent,
        on_step: OnStep = unwatched,
        around: Callable[[bool], Any] | None = None,
    ) -> Works:
        """Open the project in `root`; make its workspace on first use. tell: hears of progress.

        around: of steps that run in this process, as a door gives it.
        """
        project = read_project(root / FILE)
        ending = threading.Event()
        mirror, registry, converter = tracking(project, root, ending)
        state = root / STATE
        state.mkdir(mode=0o700, exist_ok=True)
        store = SqlStore.open(state / "store.db")
        keys = KeyRing(state / "keys", private=private_keys(project, root))
        blobs, scopes = artifacts(project, state, store.scopes)
        if scopes is not None:
            store.seal_remarks(scopes.cells("remarks"))
        ground = Ground(
            root=root,
            state=state,
            project=project,
            store=store,
            blobs=blobs,
            cache=FileStepCache(state / "cache.db"),
            keys=keys,
            targets={"local": LocalTarget(state / "targets")},
            codecs=codecs(),
            prober=LocalProber(),
            code=lambda: read_code(root, blobs, project.pipelines.code),
            environment=lambda: read_environment(root),
            mask_key=secret(state / "mask.key"),
            throwaway_keys=KeyRing,
            now=time.now,
            tell=tell,
            workers=workers_of(root, state, project),
            runs=store.runs(),
            on_step=on_step,
            tables=table_readers(state / "snapshots"),
            sql=duckdb_engine(project.links.duckdb),
            own_checks=own_checks,
            tester=tester,
            evidence=evidence_readers,
            mirror=mirror,
            registry=registry,
            converter=converter,
            advisories=OsvShelf(state / "advisories"),
            licences=licences,
            scanners=scanners,
            bill_trouble=bill_trouble,
            changed_files=lambda one, other: changed_files(root, one, other),
            remote=remote,
            scopes=scopes,
            log=store.log(),
            witnesses=witnesses(project, root),
            around=around,
            calendars=lambda file, timezone: calendar(root / file, timezone),
        )
        access = Access(store, keys, project.project.name, time.now)
        access.ensure_local()
        return cls(ground, access, store, ending)

    def close(self) -> None:
        """Leave the leases to others at once: whoever comes next need not wait until they run out."""
        self._ending.set()
        if self._mirror is not None:
            self._mirror.join()
            self._store.release(Lease("mirror", self.name, 0, 0))
        if self._witnesses is not None:
            self._witnesses.join()
            self._store.release(Lease("witnesses", self.name, 0, 0))
        if self._watch is not None:
            names = [f"environment/{name}" for name in self.ground.project.environments]
            for name in ("monitors", "learning", *names):
                self._store.release(Lease(name, self.name, 0, 0))
        if self._rescan is not None:
            self._store.release(Lease("advisories", self.name, 0, 0))
        self._store.close()

    def turn(self, duties: frozenset[str] = DUTIES, *, wait: bool = True) -> list[str]:
        """One turn over everything that waits. Whatever it leaves is found by the next turn.

        duties: training takes minutes, so a worker of its own can do `learning` while another one
        carries rollouts on. wait: for what is done beside it, too, where somebody else's server
        may be slow; otherwise the next turn says what came of it.
        """
        from falaj.journeys import reconcile
        from falaj.journeys.measures import OwnMetrics
        from falaj.journeys.watch import Watch

        watch = self._watch = self._watch or Watch(self.ground)
        own = self._own = self._own or OwnMetrics(self.ground, prometheus)
        done: list[str] = []
        if "rollouts" in duties:
            done += reconcile.reconcile(
                self.ground, self.name, lambda rollout: watch.strata(rollout) + own.strata(rollout)
            )
            done += own.trouble()
        if "monitors" in duties and monotonic() - self._watched >= WATCH_EVERY_S:
            if self.ground.store.take("monitors", self.name, LEASE_S) is not None:
                done += self._watch.turn()
                done += self._go_back()
            self._watched = monotonic()
        if "learning" in duties and self.ground.store.take("learning", self.name, LEASE_S):
            with self.holding("learning"):
                done += self.learn()
        if "monitors" in duties and monotonic() - self._overdue >= WATCH_EVERY_S:
            done += self._look_at_changes()
            self._overdue = monotonic()
        if "advisories" in duties and monotonic() - self._rescanned >= WATCH_EVERY_S:
            done += self._look_again()
            self._rescanned = monotonic()
        self.log.turn()
        if "mirror" in duties and self.ground.mirror is not None:
            done += self._mirrored(wait=wait)
        if "witnesses" in duties and self.ground.witnesses:
            done += self._witnessed(wait=wait)
        return done

    @property
    def log(self) -> Log:
        """The audit log: whatever must not happen unseen asks it first, and again afterwards."""
        if self._log is None:
            from falaj.audit.service import Log

            self._log = Log.of(self.ground)
        return self._log

    @contextmanager
    def holding(self, lease: str, seconds: float = LEASE_S) -> Iterator[None]:
        """Renew a lease that was taken while something longer than it goes on."""
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(seconds / 3):
                self.ground.store.take(lease, self.name, seconds)

        thread = threading.Thread(target=renew, name=f"falaj-{lease}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _go_back(self) -> list[str]:
        """Take back live releases that an alert speaks against, where the project says so."""
        from falaj.journeys import roll_out

        return roll_out.go_back_where_harmed(
            self.ground,
            lambda environment: self.access.permit(
                self.access.principal(WORKER),
                Action.ROLL_BACK,
                Resource(kind=ResourceKind.ENVIRONMENT, id=environment),
            ),
        )

    def _look_at_changes(self) -> list[str]:
        """Changes that nobody decided about, and what emergencies owe."""
        from falaj.journeys import overdue

        return overdue.look(self.ground)

    def _look_again(self) -> list[str]:
        """Released models against advisories that came since."""
        from falaj.journeys.advisories import Rescan

        self._rescan = self._rescan or Rescan(self.ground)
        if not self._rescan.is_due():
            return []
        if self.ground.store.take("advisories", self.name, LEASE_S) is None:
            return []
        with self.holding("advisories"):
            return self._rescan.turn()

    def _mirrored(self, *, wait: bool) -> list[str]:
        """Beside everything else: a server of others that hangs never holds a rollout up."""
        from falaj.journeys.mirror import Mirroring

        if self._mirror is None:
            self._mirror = Beside("mirror", Mirroring(self.ground, self.name), self._ending)
        return self._mirror.turn(wait=wait)

    def _witnessed(self, *, wait: bool) -> list[str]:
        from falaj.journeys.witness import Witnessing

        if self._witnesses is None:
            rounds = Witnessing(self.ground, self.name)
            self._witnesses = Beside("witnesses", rounds, self._ending)
        return self._witnesses.turn(wait=wait)

    def bring(self, permit: Permit, asked: Asked) -> Run:
        """A model of another registry, under the same governance as one of our own."""
        from falaj.journeys import imports, train

        ground = self.ground
        started = imports.started(ground, permit)
        return train.recorded(
            ground, permit, started, lambda datasets: imports.brought(ground, asked, datasets)
        )

    def learn(self) -> list[str]:
        """Propose a retraining where one is due, or bring one a step further."""
        from falaj.journeys import retrain

        if not self.ground.project.learning.retrain:
            return []
        proposal = retrain.propose(self.ground)
        if proposal is not None:
            return [f"retraining proposed: {proposal.reason}"]
        due = retrain.due(self.ground)
        if due is None:
            return []
        try:
            return [f"retraining: {self._step(due)}"]
        except Conflict:
            return []  # another worker was quicker: what it wrote stands, and is no failure
        except FalajError as error:
            retrain.record(self.ground, due.proposal, verdict="error", reason=str(error))
            return [f"retraining ended: {error}"]

    def _step(self, due: Due) -> str:
        """One step of a proposal, by the journey that it belongs to."""
        from falaj.journeys import gate, promote, retrain, testing, train

        ground, proposal = self.ground, due.proposal
        permit = self.access.permit(
            self.access.principal(WORKER),
            Action.RETRAIN,
            Resource(kind=ResourceKind.PROJECT, id=ground.name),
        )
        if due.step is retrain.Step.RUN:
            run = train.run(ground, permit, due.parameters, trigger=f"alert:{due.alert.id}")
            retrain.record(ground, proposal, run=run.id)
            return f"run {run.id}"
        if due.step is retrain.Step.GATE:
            if "tests" in ground.project.environments[due.alert.environment].requires:
                testing.run(ground, permit, of_run=proposal.run)
            report = gate.check(ground, permit, proposal.run, due.alert.environment)
            retrain.record(ground, proposal, verdict=str(report.verdict))
            return f"gates say {report.verdict}"
        if due.step is retrain.Step.RELEASE:
            release = promote.release(ground, permit, proposal.run, "")
            retrain.record(ground, proposal, release=release.id)
            return f"release {release.version}"
        change = promote.open_change(
            ground,
            permit,
            proposal.release,
            due.alert.environment,
            reason=due.alert.title,
            proposed=True,
        )
        retrain.record(ground, proposal, change=change.id)
        return f"{change.id} waits for people"

    def resource(self, kind: ResourceKind, id: str) -> Resource:
        """The resource with what the policy wants to know about it. Raises NotFound."""
        if kind is ResourceKind.CHANGE:
            return Resource(
                kind=kind, id=id, authors=self.ground.store.get(Change, id).fact.authors
            )
        if kind is ResourceKind.RELEASE:
            return Resource(
                kind=kind, id=id, authors=self.ground.store.get(Release, id).fact.authors
            )
        if kind is ResourceKind.ENVIRONMENT and id not in self.ground.project.environments:
            known = ", ".join(self.ground.project.environments) or "none"
            raise FalajError(
                "config.no-environment",
                f"there is no environment {id!r} in {FILE}",
                why=f"known: {known}",
                fix=f"add [environments.{id}] to {FILE}",
            )
        return Resource(kind=kind, id=id)
