"""What every journey stands on: one project, its folder, and the adapters behind the ports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from falaj.base import ids
from falaj.base.errors import NotFound
from falaj.facts.checks import CheckResult
from falaj.facts.events import Event
from falaj.facts.models import ModelVersion
from falaj.facts.project import Project, RemoteTable
from falaj.facts.runs import Code, Environment, Run
from falaj.facts.scans import Declared
from falaj.ports.blobs import Blobs
from falaj.ports.cache import StepCache
from falaj.ports.codecs import Codec
from falaj.ports.evidence import EvidenceReader
from falaj.ports.executor import Executor
from falaj.ports.log import LogStore
from falaj.ports.mirrors import Converter, Mirror, Registry
from falaj.ports.prober import Prober
from falaj.ports.queries import SqlEngine
from falaj.ports.runs import Runs
from falaj.ports.signer import Keys
from falaj.ports.store import Store
from falaj.ports.tables import TableReader
from falaj.ports.target import Target
from falaj.ports.tester import Tester

if TYPE_CHECKING:  # most commands never meet them
    from falaj.facts.governance import Freeze
    from falaj.ports.advisories import AdvisoryShelf
    from falaj.ports.kms import Scopes
    from falaj.ports.remotes import Remote
    from falaj.ports.scanners import CodeScanner
    from falaj.ports.witness import Witness

__all__ = ["Ground"]


def _unheard(_step: str, _status: str, _seconds: float) -> None:
    """Nobody watches the steps."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """root: the project's folder. state: `.falaj` below it. now: the clock, given by the wiring.

    code, environment: what runs here, read when asked; the second one with the lock's text.
    mask_key: masks personal values in samples. throwaway_keys: a ring of its own in a
    folder that goes away. tell: says how far a long walk is, in words. workers: processes for
    steps, from (how many at once or 0, seed of the run); without them steps run in this process.
    on_step: hears of (step, `planned | running | retried | executed | cached | failed | skipped`, seconds).
    tables: readers of lakes and databases. runs: points and search; without it none are kept.
    own_checks: runs the order of a project's checks that lies in a folder, within seconds.
    evidence: readers of other tools' results. tester: runs the project's own tests.
    advisories: databases of known vulnerabilities. licences: what is declared by those of these
    packages that are installed here. scanners: programs that look at the project's code.
    bill_trouble: what a schema says against an ML-BOM. changed_files: between two commits, as
    (letter, path); None where the repository does not hold both.
    remote: one address in a place that keeps releases, which falaj.toml lists.
    scopes: keys of what is sealed at rest, where the project seals.
    around: what steps in this process find beside them; it is told whether data is protected.
    mirror, registry: a tracking server of others, where the project has one. converter: to ONNX.
    calendars: freezes of a calendar file, whose times without a zone are of the zone that is named.
    log: the tree over the events. witnesses: who is shown its checkpoints.
    """

    root: Path
    state: Path
    project: Project
    store: Store
    blobs: Blobs
    cache: StepCache
    keys: Keys
    targets: Mapping[str, Target]
    codecs: tuple[Codec, ...]
    prober: Prober
    code: Callable[[], Code]
    environment: Callable[[], tuple[Environment, bytes]]
    mask_key: bytes
    throwaway_keys: Callable[[Path], Keys]
    now: Callable[[], datetime]
    tell: Callable[[str], None]
    workers: Callable[[int, int], Executor] | None = None
    on_step: Callable[[str, str, float], None] = _unheard
    tables: tuple[TableReader, ...] = ()
    sql: SqlEngine | None = None
    runs: Runs | None = None
    own_checks: Callable[[Path, Sequence[str], float], tuple[CheckResult, ...]] | None = None
    evidence: Callable[[], tuple[EvidenceReader, ...]] = tuple
    tester: Callable[[], Tester] | None = None
    mirror: Mirror | None = None
    registry: Registry | None = None
    converter: Converter | None = None
    advisories: AdvisoryShelf | None = None
    licences: Callable[[Sequence[str]], Mapping[str, Declared]] | None = None
    scanners: Callable[[], tuple[CodeScanner, ...]] = tuple
    bill_trouble: Callable[[bytes], Sequence[str]] | None = None
    changed_files: Callable[[str, str], Sequence[tuple[str, str]] | None] | None = None
    remote: Callable[[str, RemoteTable], Remote] | None = None
    scopes: Scopes | None = None
    log: LogStore | None = None
    witnesses: tuple[Witness, ...] = ()
    around: Callable[[bool], Any] | None = None
    calendars: Callable[[str, str], Sequence[Freeze]] | None = None

    @property
    def name(self) -> str:
        return self.project.project.name

    def made_by(self, name: str) -> tuple[Run, ModelVersion]:
        """The model that the run made; of the newest run that made one, when not said."""
        where = {"run": name} if name else {"model": self.project.model.name}
        models = self.store.find(ModelVersion, limit=1, **where)
        if not models and not name:
            raise NotFound("runs.none", "no run has made a model yet", fix="falaj run")
        run = self.store.get(Run, models[0].run if models else name).fact
        if not models:
            raise NotFound(
                "runs.no-model",
                f"run {run.id} made no model",
                why=f"it ended {run.status}",
                fix="its pipeline must return a falaj.Model",
            )
        return run, models[0]

    def event(
        self, type: str, actor: str, subject: str, data: dict[str, Any], *, remark: str = ""
    ) -> Event:
        """An event of now. `actor`: a person's pseudonym or `worker:<id>`. remark: words of that person."""
        return Event(
            id=ids.new(),
            at=self.now(),
            project=self.name,
            type=type,
            actor=actor,
            subject=subject,
            data=data,
            remark=remark,
        )
