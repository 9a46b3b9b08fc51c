"""Runs of pipelines: what was executed, from which code, with which result."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from falaj.base.time import Instant
from falaj.facts.checks import CheckResult
from falaj.facts.data import DatasetVersion, SetAside
from falaj.facts.wire import Fact

__all__ = [
    "Artifact",
    "Attempt",
    "Code",
    "Ending",
    "Environment",
    "Image",
    "KeptFile",
    "Origin",
    "Plot",
    "Run",
    "RunStatus",
    "StepRun",
    "StepStatus",
]


class RunStatus(enum.StrEnum):
    RUNNING = "running"
    OK = "ok"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class StepStatus(enum.StrEnum):
    EXECUTED = "executed"
    CACHED = "cached"
    FAILED = "failed"
    SKIPPED = "skipped"


class Ending(enum.StrEnum):
    """How one attempt of a step ended."""

    DONE = "done"
    RAISED = "raised"
    TIMEOUT = "timeout"
    LOST = "lost"  # its process went away without an answer
    BAD_ANSWER = "bad answer"


class Artifact(Fact, frozen=True, kw_only=True):
    """An output of a step, by content address.

    digest: of the bytes (a file) or of the file tree (a folder). schema: of frames. content: of frames
    that were streamed, whose bytes may differ where their values do not.
    files: relative path -> digest of each file, so that any of them can be fetched by address.
    """

    name: str
    kind: str  # parquet | json | npy | model | picture | bytes | file | tree
    digest: str
    files: dict[str, str]
    size: int
    content: str = ""
    schema: str = ""
    rows: int | None = None


class Attempt(Fact, frozen=True, kw_only=True):
    """One try of a step. log: digest of what it printed; nothing when it printed nothing."""

    number: int
    ending: Ending
    started: Instant
    seconds: float
    cpu_s: float = 0.0
    log: str = ""
    reason: str = ""


class Plot(Fact, frozen=True, kw_only=True):
    """A small table that is drawn: data, so that two runs can be compared.

    x, y: names of two columns. mark: how it is drawn.
    """

    name: str
    x: str
    y: str
    columns: dict[str, tuple[float | str, ...]]
    mark: str = "line"  # line | bars | points

    def _repr_html_(self) -> str:
        from falaj.base.drawing import plot_svg

        return plot_svg(msgspec.to_builtins(self))


class Image(Fact, frozen=True, kw_only=True):
    """A picture of a run. data: base64 of the bytes."""

    step: str
    name: str
    media: str  # image/png | image/svg+xml
    data: str


class KeptFile(Fact, frozen=True, kw_only=True):
    """A file that a step kept beside its answer. size: bytes; 0 when it is no longer kept."""

    step: str
    name: str
    digest: str
    size: int


class StepRun(Fact, frozen=True, kw_only=True):
    """One step of a run. A cached one points to the run that made the artifacts.

    files: what the step kept beside its answer, name -> digest. params, tags: what it said about
    itself. checks: results of other tools' suites that it took in. peak_mb: most memory that its
    process held while it ran, whatever else the process keeps.
    """

    step: str
    key: str
    parts: dict[str, Any]  # the parts of the key, compared by `falaj run --explain`
    status: StepStatus
    why: str  # "cached", or the first part that differs
    outputs: tuple[Artifact, ...] = ()
    origin: str = ""
    started: Instant
    seconds: float = 0.0
    cpu_s: float = 0.0
    log: str = ""  # digest of the captured output
    attempts: tuple[Attempt, ...] = ()
    metrics: dict[str, float] = {}
    points: str = ""  # digest of the packed points of `falaj.log(step=..)`
    plots: dict[str, str] = {}  # name -> digest of a Plot
    resources: dict[str, float] = {}
    files: dict[str, str] = {}
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    checks: tuple[CheckResult, ...] = ()
    peak_mb: float = 0.0


class Code(Fact, frozen=True, kw_only=True):
    commit: str = ""
    branch: str = ""
    dirty: bool = False
    diff: str = ""  # digest of `git diff HEAD --binary`
    tree: str = ""  # digest of the project's code files, also outside a repository; tests apart


class Environment(Fact, frozen=True, kw_only=True):
    lock: str = ""  # digest of the lock file, or of the installed distributions
    locked: bool = False
    python: str = ""
    platform: str = ""


class Origin(Fact, frozen=True, kw_only=True):
    """Where an imported model came from, and what was said of it there: claims, never evidence.

    files: path -> digest at first sight; the other server keeps none. claimed: metrics.
    said: parameters and source as the other server has them.
    """

    server: str
    name: str
    version: str
    model_id: str = ""
    run_id: str = ""
    mlflow_version: str = ""
    flavor: str = ""
    files: dict[str, str] = {}
    claimed: dict[str, float] = {}
    said: dict[str, str] = {}


class Run(Fact, frozen=True, kw_only=True):
    id: str
    project: str
    pipeline: str
    model: str = ""
    parameters: dict[str, Any]
    seed: int
    principal: str
    trigger: str = "person"
    status: RunStatus
    started: Instant
    ended: Instant | None = None
    code: Code = Code()
    environment: Environment = Environment()
    datasets: tuple[DatasetVersion, ...] = ()
    steps: tuple[StepRun, ...] = ()
    metrics: dict[str, float] = {}
    result: Artifact | None = None
    error: str = ""
    parent: str = ""  # the run whose parameters and seed it took (`falaj run --from`)
    process: str = ""  # that runs it: where it is gone, the run was interrupted
    origin: Origin | None = None  # of an imported model; such a run trained nothing
    set_aside: tuple[SetAside, ...] = ()  # rows that no step read, as they broke a contract

    def _repr_html_(self) -> str:
        """What a notebook shows: at most 20 KB, without script."""
        from falaj.base.runpage import brief

        return brief(msgspec.to_builtins(self))
