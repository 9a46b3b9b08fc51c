"""Run a pipeline of a project folder: load, plan, execute, and say what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from falaj.base.errors import FalajError
from falaj.base.time import now
from falaj.facts.data import DatasetVersion
from falaj.facts.runs import Artifact, Environment, Origin, StepRun, StepStatus
from falaj.pipelines.attempt import Around, Bench, Here
from falaj.pipelines.closure import Scanner
from falaj.pipelines.codecs import BytesCodec, JsonCodec, PathCodec, choose
from falaj.pipelines.execute import Engine, OnStep
from falaj.pipelines.loading import load_pipeline, project
from falaj.pipelines.model import ModelCodec
from falaj.pipelines.pictures import PictureCodec
from falaj.pipelines.plan import Plan, make_plan, narrowed
from falaj.ports.blobs import Blobs
from falaj.ports.cache import StepCache
from falaj.ports.codecs import Codec
from falaj.ports.datasets import Dataset
from falaj.ports.evidence import EvidenceReader
from falaj.ports.executor import Executor, Hear

__all__ = ["PipelineOutcome", "all_codecs", "code_roots", "run_pipeline"]


@dataclass(frozen=True, kw_only=True)
class PipelineOutcome:
    """What a run made. error: the failure of a step, told from the user's line; None when all ran.

    result: the artifact that the pipeline returned. datasets: versions that steps were bound to.
    origin: of a model that was imported, and not made here.
    """

    pipeline: str
    parameters: dict[str, Any]
    steps: tuple[StepRun, ...]
    result: Artifact | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    datasets: tuple[DatasetVersion, ...] = ()
    error: FalajError | None = None
    origin: Origin | None = None

    @property
    def executed(self) -> int:
        return sum(step.status is StepStatus.EXECUTED for step in self.steps)


def code_roots(root: Path) -> tuple[Path, ...]:
    """Where a project's modules lie: its folder, and `src` below it."""
    return tuple(folder for folder in (root / "src", root) if folder.is_dir())


def all_codecs(frames: Sequence[Codec]) -> tuple[Codec, ...]:
    """The codecs of a run: those of frames, which come first, then values, bytes and models."""
    tables = _Chosen(tuple(frames))
    own = (PictureCodec(), PathCodec(), JsonCodec(), BytesCodec(), ModelCodec(tables))
    return (*frames, *own)


class _Chosen:
    """Several codecs as one: the first that takes the kind."""

    def __init__(self, codecs: tuple[Codec, ...]) -> None:
        self._codecs = codecs

    def takes(self, kind: Any) -> bool:
        return choose(self._codecs, kind) is not None

    def write(self, value: Any, kind: Any, name: str, blobs: Blobs) -> Artifact:
        return self._one(kind).write(value, kind, name, blobs)

    def read(self, artifact: Artifact, kind: Any, blobs: Blobs) -> Any:
        return self._one(kind).read(artifact, kind, blobs)

    def _one(self, kind: Any) -> Codec:
        found = choose(self._codecs, kind)
        if found is None:
            raise TypeError(f"no codec takes {kind}")
        return found


def run_pipeline(
    pipeline_ref: str,
    *,
    root: Path,
    parameters: Mapping[str, Any],
    seed: int,
    datasets: Mapping[str, Dataset],
    blobs: Blobs,
    cache: StepCache,
    codecs: Sequence[Codec],
    lock: Environment,
    on_step: OnStep | None = None,
    explain: bool = False,
    project_name: str = "",
    run: str = "",
    executor: Executor | None = None,
    parallel: int = 1,
    only: str = "",
    fail_fast: bool = False,
    on_said: Hear | None = None,
    around: Around | None = None,
    clock: Callable[[], datetime] = now,
    evidence: tuple[EvidenceReader, ...] = (),
) -> PipelineOutcome:
    """Run `module:function` of the project at `root`.

    Args:
        pipeline_ref: the pipeline, as `module:function`.
        root: the project's folder; `root/src` counts too.
        parameters: of the pipeline; texts are parsed by its annotations.
        seed: of the run; each step gets its own from it.
        datasets: declared datasets by name. Only those that a step asks for are read.
        blobs: where artifacts go.
        cache: what steps have already made.
        codecs: of frames and arrays; values, bytes and models are added.
        lock: the environment as it is part of every key.
        on_step: called as (step, `planned | running | executed | cached | failed | skipped`,
            seconds); all steps are planned before the first one runs.
        explain: plan and compare only; steps that would run are `skipped`, `why` says the reason.
        project_name: no entry is shared between projects.
        run: id that cached steps will point to as their origin.
        executor: where steps run; this process when left out. It is closed at the end.
        parallel: most steps at once, where the executor allows it.
        only: a step; the others run only as far as it needs them.
        fail_fast: the first failure ends the steps that run; otherwise independent ones finish.
        clock: tells the time to steps with `fresh`.
        evidence: readers of other tools' results, for steps that run in this process.
        on_said: hears metrics and points of a step while it runs, about each second.
        around: entered around each step that runs in this process.

    Raises FalajError when nothing was run: the plan does not hold. A step that fails is told in
    the outcome's `error`.
    """
    root = root.resolve()
    roots = code_roots(root)
    codecs = all_codecs(codecs)
    with project(roots), closing(executor) if executor else nullcontext():
        made = load_pipeline(pipeline_ref, root)
        plan = make_plan(
            made,
            parameters,
            root=root,
            datasets=tuple(datasets),
            storable=lambda kind: choose(codecs, kind) is not None,
        )
        if only:
            plan = narrowed(plan, only)
        scanner = Scanner(roots, base=root, memo=cache)
        bench = Bench(
            plan,
            root=root,
            roots=roots,
            scanner=scanner,
            blobs=blobs,
            codecs=codecs,
            datasets=datasets,
            evidence=evidence,
            around=around,
            declared=tuple(datasets),
        )
        engine = Engine(
            root=root,
            roots=roots,
            scanner=scanner,
            blobs=blobs,
            cache=cache,
            codecs=codecs,
            environment=lock,
            datasets=datasets,
            executor=executor or Here(bench),
            pipeline=pipeline_ref,
            given=msgspec.to_builtins(dict(parameters)),
            project=project_name,
            run=run,
            seed=seed,
            at_once=parallel,
            clock=clock,
            on_step=on_step,
            fail_fast=fail_fast,
            on_said=on_said,
        )
        done = engine.explain(plan) if explain else engine.execute(plan)
    return PipelineOutcome(
        pipeline=plan.pipeline,
        parameters=plan.parameters,
        steps=tuple(done.steps),
        result=_result(plan, done.artifacts),
        metrics=done.metrics,
        datasets=tuple(datasets[name].version for name in plan.datasets),
        error=done.error,
    )


def _result(plan: Plan, artifacts: Mapping[str, Mapping[str, Artifact]]) -> Artifact | None:
    wanted = plan.result
    if wanted is None or wanted.call not in artifacts:
        return None
    return artifacts[wanted.call][wanted.part or "result"]
