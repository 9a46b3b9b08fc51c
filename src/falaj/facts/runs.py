"""Runs of pipelines: what was executed, from which code, with which result."""

from __future__ import annotations

import enum
from typing import Any

from falaj.base.time import Instant
from falaj.facts.data import DatasetVersion
from falaj.facts.wire import Fact

__all__ = ["Artifact", "Code", "Environment", "Run", "RunStatus", "StepRun", "StepStatus"]


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


class Artifact(Fact, frozen=True, kw_only=True):
    """An output of a step, by content address.

    digest: of the bytes (a file) or of the file tree (a folder). content, schema: for frames.
    files: relative path -> digest of each file, so that any of them can be fetched by address.
    """

    name: str
    kind: str  # parquet | json | npy | model | bytes | tree
    digest: str
    files: dict[str, str]
    size: int
    content: str = ""
    schema: str = ""
    rows: int | None = None


class StepRun(Fact, frozen=True, kw_only=True):
    """One step of a run. A cached one points to the run that made the artifacts."""

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


class Code(Fact, frozen=True, kw_only=True):
    commit: str = ""
    branch: str = ""
    dirty: bool = False
    diff: str = ""  # digest of `git diff HEAD --binary`


class Environment(Fact, frozen=True, kw_only=True):
    lock: str = ""  # digest of the lock file, or of the installed distributions
    locked: bool = False
    python: str = ""
    platform: str = ""


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
