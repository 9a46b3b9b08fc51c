"""Walk (a): contracts first, then the pipeline, then a run, a model version, what it was made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from falaj.base import digests, ids, process
from falaj.base.errors import FalajError, NotFound, Problem
from falaj.base.points import Series, unpack
from falaj.compliance.rules import may_be_in
from falaj.facts.access import Permit
from falaj.facts.checks import CheckResult, Verdict, of_dataset
from falaj.facts.data import PROTECTED, ContractReport, Label, SetAside
from falaj.facts.models import ModelVersion
from falaj.facts.project import Project
from falaj.facts.runs import Run, RunStatus
from falaj.facts.wire import decode, encode
from falaj.pipelines import interrupted
from falaj.pipelines.model import describe
from falaj.pipelines.rules import differences
from falaj.pipelines.service import PipelineOutcome, run_pipeline
from falaj.ports.cache import Memo
from falaj.ports.ground import Ground
from falaj.ports.tables import TableReader

if TYPE_CHECKING:
    from falaj.data.datasets import DatasetHandle

__all__ = ["contracts", "explain", "named", "recorded", "run"]

FOLDER: Final = "model/"
MEMO: Final = "contract-report/1"
PROBES: Final = 64


def run(
    ground: Ground,
    permit: Permit,
    parameters: Mapping[str, Any],
    *,
    pipeline: str = "",
    seed: int | None = None,
    trigger: str = "person",
    parent: str = "",
    only: str = "",
    fail_fast: bool = False,
) -> Run:
    """Run the pipeline and record all of it, whatever the end. Raises the failure of a step."""
    interrupted.mark(ground, permit.person)
    environment, _ = ground.environment()
    started = Run(
        id=ids.new(),
        project=ground.name,
        pipeline=pipeline or ground.project.model.pipeline,
        model=ground.project.model.name,
        parameters=dict(parameters),
        seed=ground.project.pipelines.seed if seed is None else seed,
        principal=permit.person,
        trigger=trigger,
        status=RunStatus.RUNNING,
        started=ground.now(),
        code=ground.code(),
        environment=environment,
        process=process.owner_here(),
        parent=parent,
    )
    return recorded(
        ground,
        permit,
        started,
        lambda datasets: executed(
            ground, started, datasets=datasets, only=only, fail_fast=fail_fast
        ),
    )


def recorded(
    ground: Ground,
    permit: Permit,
    started: Run,
    make: Callable[[Mapping[str, DatasetHandle]], PipelineOutcome],
) -> Run:
    """Write a run down, hold the contracts, let `make` do the work, write down how it ended.

    A model in its outcome becomes a model version in the same transaction. Raises the failure.
    """
    with ground.store.begin() as unit:
        unit.add(started)
        unit.append(ground.event("run.started", permit.person, f"run/{started.id}", {}))
    try:
        datasets = opened(ground, fresh=True)
        started = replace(started, set_aside=set_aside(ground, datasets))
        must_hold(ground, datasets)
        outcome = make(datasets)
    except FalajError as error:
        ended(ground, permit, started, None, error)
        raise
    return ended(ground, permit, started, outcome, outcome.error)


def set_aside(ground: Ground, datasets: Mapping[str, DatasetHandle]) -> tuple[SetAside, ...]:
    """Rows in quarantine, kept as they may be shown."""
    found = []
    for handle in datasets.values():
        if handle.quarantine_pct is None or handle.broken.is_empty():
            continue
        from io import BytesIO

        from falaj.data.quarantine import counts, rejected

        file = BytesIO()
        rejected(handle, ground.mask_key).write_parquet(file)
        version = handle.version
        ground.tell(f"dataset {handle.name}: {len(handle.broken):,} rows are set aside")
        found.append(
            SetAside(
                dataset=handle.name,
                version=version.content,
                contract=version.contract,
                rows=len(handle.broken),
                of=handle.rows_in_all,
                checks=counts(handle.broken),
                artifact=ground.blobs.put(file.getvalue()),
            )
        )
    return tuple(found)


def must_hold(ground: Ground, datasets: Mapping[str, DatasetHandle]) -> None:
    """Every contract before the first step. Raises with each broken promise."""
    broken = [
        result
        for report in contracts(ground, datasets)
        for result in of_dataset(report.results, report.dataset)
        if result.verdict in (Verdict.FAIL, Verdict.ERROR) and is_promise(result)
    ]
    if broken:
        raise FalajError.of(tuple(told(result) for result in broken[:20]))


def is_promise(result: CheckResult) -> bool:
    return bool(result.details.get("severity", "error") == "error")


def told(result: CheckResult) -> Any:
    from falaj.base.errors import Place

    place = result.details.get("place")
    return Problem(
        code=result.details.get("code", "data.contract-broken"),
        message=f"{result.check}: {result.reason}",
        place=Place(file=place["file"], line=place["line"], column=place.get("column", 1))
        if isinstance(place, dict)
        else None,
        why=shown_rows(result)
        or "the contract promises it, and the pipeline is not run on data that breaks it",
        fix=result.details.get("fix", "mend the data or the contract: `falaj run` checks again"),
    )


def shown_rows(result: CheckResult) -> str:
    """The first rows that break it, numbered from 1 as in a file; masked by class."""
    rows = result.details.get("sample", [])[:3]
    return "for example " + ", ".join(f"row {r['row']}: {r['value']}" for r in rows) if rows else ""


def contracts(ground: Ground, datasets: Mapping[str, DatasetHandle]) -> tuple[ContractReport, ...]:
    """A report for each dataset with a contract; remembered by the digests of all that it read."""
    reports = []
    for handle in datasets.values():
        if handle.contract is None:
            continue
        table = handle.contract.table(handle.name)
        others = [datasets[r.dataset] for r in table.references if r.dataset in datasets]
        asked = f"{handle.version.bytes} {handle.contract.digest} {handle.name}"
        engine = ground.sql.version if ground.sql else ""
        looked = (handle.quarantine_pct, handle.sample_pct, handle.sample_tolerance_pct)
        whole = " ".join(
            [asked, *(other.version.bytes for other in others), engine, *map(str, looked)]
        )
        # The gate asks for the report by the first, which is all that a run records.
        for_gate, key = (digests.of_bytes(text.encode()) for text in (asked, whole))
        # An age is another one every time.
        kept = None if table.freshness else ground.cache.memo(MEMO, key)
        report = decode(ContractReport, kept.encode()) if kept else None
        # What took too long or too much may have more of both now.
        if report is None or any(r.verdict is Verdict.ERROR for r in report.results):
            from falaj.data.service import validate

            ground.tell(f"contract {handle.name}: {handle.version.rows:,} rows")
            report = validate(
                handle,
                references=datasets,
                mask_key=ground.mask_key,
                at=ground.now(),
                sql=ground.sql,
            )
        for name in {key, for_gate}:
            ground.cache.remember(MEMO, name, encode(report).decode())
        reports.append(report)
    return tuple(reports)


def opened(ground: Ground, *, fresh: bool = False) -> dict[str, DatasetHandle]:
    return handles(
        ground.project,
        root=ground.root,
        memo=ground.cache,
        clock=ground.now,
        tables=ground.tables,
        fresh=fresh,
    )


def handles(
    project: Project,
    *,
    root: Path,
    memo: Memo,
    clock: Callable[[], datetime],
    tables: Sequence[TableReader] = (),
    fresh: bool = False,
) -> dict[str, DatasetHandle]:
    """Every declared dataset with its contract; nothing is read before it is asked for.

    fresh: ask lakes and databases again; otherwise their newest snapshots are read.
    """
    if not project.datasets:
        return {}
    from falaj.data.datasets import open_dataset
    from falaj.data.odcs import read_contract

    region = project.project.region.split("-")[0]
    made: dict[str, DatasetHandle] = {}
    for table in project.datasets:
        made[table.name] = open_dataset(
            table.name,
            table.source,
            root=root,
            contract=read_contract(root / table.contract, root=root) if table.contract else None,
            label=Label(
                classification=table.classification,
                countries=tuple(c.lower() for c in table.countries) or (region,),
                purposes=table.purpose,
            ),
            memo=memo,
            clock=clock,
            tables=tables,
            fresh=fresh,
            others=made,
            quarantine_pct=table.quarantine_pct,
            sample_pct=table.sample_pct,
            sample_tolerance_pct=table.sample_tolerance_pct,
        )
    return made


def executed(
    ground: Ground,
    started: Run,
    *,
    datasets: Mapping[str, DatasetHandle] | None = None,
    explain_only: bool = False,
    only: str = "",
    fail_fast: bool = False,
) -> PipelineOutcome:
    settings = ground.project.pipelines
    apart = settings.executor != "in-process" and not explain_only
    datasets = datasets or opened(ground)
    if apart:
        must_be_allowed_there(ground.project, datasets)
    executor = ground.workers(settings.parallel, started.seed) if apart and ground.workers else None
    parallel = executor.at_once if executor else 1

    def on_step(name: str, status: str, seconds: float) -> None:
        ground.on_step(name, status, seconds)
        if status not in ("planned", "running"):
            ground.tell(f"step {name}: {status}" + (f", {seconds:.1f} s" if seconds else ""))

    return run_pipeline(
        started.pipeline,
        root=ground.root,
        parameters=started.parameters,
        seed=started.seed,
        datasets=datasets,
        blobs=ground.blobs,
        cache=ground.cache,
        codecs=ground.codecs,
        lock=started.environment,
        on_step=None if explain_only else on_step,
        explain=explain_only,
        project_name=ground.name,
        run=started.id,
        executor=executor,
        parallel=parallel,
        only=only,
        fail_fast=fail_fast,
        clock=ground.now,
        evidence=ground.evidence(),
        on_said=None if ground.runs is None else partial(ground.runs.append, started.id),
        around=ground.around(is_protected(ground)) if executor is None and ground.around else None,
    )


def is_protected(ground: Ground) -> bool:
    return any(table.classification in PROTECTED for table in ground.project.datasets)


def must_be_allowed_there(project: Project, datasets: Mapping[str, DatasetHandle]) -> None:
    """Steps on a cluster read their data where it stands. Raises with each one that may not be there."""
    table = project.links.ray
    if project.pipelines.executor != "ray" or table is None:
        return
    refused = [
        Problem(
            code="pipelines.not-allowed-there",
            message=f"steps on the Ray cluster would read dataset {name}: {why}",
            why="`countries` of the dataset, or the project's region, say where it may be",
            fix='take a cluster that stands there, or set executor = "worker" in [pipelines]',
        )
        for name, handle in datasets.items()
        if (why := may_be_in(handle.label, table.region))
    ]
    if refused:
        raise FalajError.of(tuple(refused))


def ended(
    ground: Ground,
    permit: Permit,
    started: Run,
    outcome: PipelineOutcome | None,
    error: FalajError | None,
) -> Run:
    """Record the end; a run that made a model makes a model version in the same transaction."""
    after = replace(
        started,
        status=RunStatus.FAILED if error else RunStatus.OK,
        ended=ground.now(),
        error=in_words(error) if error else "",
    )
    if outcome is not None:
        after = replace(
            after,
            parameters=outcome.parameters,
            datasets=outcome.datasets,
            steps=outcome.steps,
            metrics=outcome.metrics,
            result=outcome.result,
            origin=outcome.origin,
        )
    if ground.runs is not None:
        # First: rows of a run that never got here would only be found by nobody.
        ground.runs.record(after, points_of(ground, after))
    frozen = None if error else frozen_reference(ground, after)
    with ground.store.begin() as unit:
        unit.replace(unit.get(Run, started.id), after)
        unit.append(
            ground.event(
                f"run.{after.status}",
                permit.person,
                f"run/{after.id}",
                {
                    "commit": after.code.commit,
                    "datasets": {d.dataset: d.content for d in after.datasets},
                },
            )
        )
        if frozen is not None:
            number = unit.number(f"model/{after.model}")
            model = model_version(ground, after, number, frozen)
            unit.add(model)
            unit.append(
                ground.event(
                    "model-version.made",
                    permit.person,
                    f"model/{model.id}",
                    {"tree": model.tree, "run": after.id},
                )
            )
    if error is not None:
        raise error
    return after


def in_words(error: FalajError) -> str:
    """At most 20 lines: the code and the message, the user's line, what led there."""
    first = error.problems[0]
    lines = [f"{error.code}: {error}"]
    if first.place is not None:
        text = first.place.excerpt[0][1] if first.place.excerpt else ""
        lines.append(
            f"  --> {first.place.file}:{first.place.line} {first.place.note}  {text}".rstrip()
        )
    lines += [f"      {line}" for line in first.why.splitlines()]
    if len(error.problems) > 1:
        others = ", ".join(problem.message for problem in error.problems[1:4])
        lines.append(f"  and {len(error.problems) - 1} more: {others}")
    return "\n".join(line[:300] for line in lines[:20])


def points_of(ground: Ground, done: Run) -> list[Series]:
    """All points of a run; steps that log the same name follow each other."""
    found: dict[str, Series] = {}
    for step in done.steps:
        if not step.points:
            continue
        for part in unpack(ground.blobs.get(step.points)):
            whole = found.setdefault(part.name, Series(part.name))
            whole.extend(part)
    return list(found.values())


def frozen_reference(ground: Ground, done: Run) -> dict[str, str] | None:
    """Edges and probe rows, frozen when the model is made; None when it made no model."""
    if done.result is None or done.result.kind != "model":
        return None
    import polars as pl

    from falaj.monitoring import reference
    from falaj.serving.runtimes.scoring import scorer

    said = describe(done.result, ground.blobs)
    rows = pl.read_parquet(ground.blobs.get(done.result.files["reference.parquet"]))
    x = rows.select(said.features).to_numpy().astype("float32", order="C")
    files = {
        path.removeprefix(FOLDER): ground.blobs.get(digest)
        for path, digest in done.result.files.items()
        if path.startswith(FOLDER)
    }
    score = scorer(files, said.schema, runtime=said.runtime)
    many = said.task == "multiclass-classification"
    answers = scorer(files, said.schema, many=True, runtime=said.runtime) if many else score
    weeks = (
        rows["at"].dt.truncate("1w").rank("dense").to_numpy().astype("int64")
        if "at" in rows.columns
        else rows.with_row_index()["index"].to_numpy().astype("int64") * 12 // max(len(rows), 1)
    )
    columns = {name: x[:, i].astype("float64") for i, name in enumerate(said.features)}
    edges = reference.freeze(columns | {"score": score(x)}, weeks)
    probes = x[:: max(len(x) // PROBES, 1)][:PROBES]
    probe_file = {
        "inputs": [[None if v != v else float(v) for v in row] for row in probes],  # noqa: PLR0124 NaN
        "outputs": answers(probes).reshape(len(probes), -1).tolist(),
        "tolerance": 1e-5,
    }
    return {
        "edges.json": ground.blobs.put(edges),
        "probes.json": ground.blobs.put(json.dumps(probe_file).encode()),
    }


def model_version(ground: Ground, done: Run, number: int, frozen: dict[str, str]) -> ModelVersion:
    assert done.result is not None  # noqa: S101 frozen_reference made sure
    said = describe(done.result, ground.blobs)
    files = {
        path.removeprefix(FOLDER): digest
        for path, digest in done.result.files.items()
        if path.startswith(FOLDER)
    }
    return ModelVersion(
        id=f"{done.model}/{number}",
        model=done.model,
        number=number,
        run=done.id,
        tree=digests.of_tree(files),
        files=files,
        runtime=said.runtime,
        task=said.task,
        schema=said.schema,
        threshold=said.threshold,
        at=ground.now(),
        author=done.principal,
        evaluation=done.result.files["evaluation.parquet"],
        reference=frozen,
    )


def explain(
    ground: Ground,
    parameters: Mapping[str, Any],
    *,
    pipeline: str = "",
    seed: int | None = None,
    only: str = "",
    against: str = "",
) -> list[dict[str, Any]]:
    """For each step: would it run, and why. Nothing is run.

    against: a run; each step then says every part that differs from it.
    """
    old = ground.store.get(Run, against).fact.steps if against else ()
    before = {step.step: step for step in old}
    environment, _ = ground.environment()
    planned = Run(
        id="explain",
        project=ground.name,
        pipeline=pipeline or ground.project.model.pipeline,
        parameters=dict(parameters),
        seed=ground.project.pipelines.seed if seed is None else seed,
        principal="",
        status=RunStatus.RUNNING,
        started=ground.now(),
        environment=environment,
    )
    outcome = executed(ground, planned, explain_only=True, only=only)
    return [
        {
            "step": step.step,
            "would": "cached" if step.status == "cached" else "run",
            "why": step.why,
            "differs": differences({"parts": before[step.step].parts}, {"parts": step.parts})
            if step.step in before and before[step.step].parts
            else [],
        }
        for step in outcome.steps
    ]


def named(ground: Ground, name: str) -> str:
    """A run's id from itself, its first digits, or `latest`."""
    found = ground.store.find(Run)
    for known in found:
        if known.id == name or (len(name) >= 8 and known.id.startswith(name.upper())):
            return known.id
    if name == "latest" and found:
        return found[0].id
    raise NotFound("runs.unknown", f"there is no run {name!r}", fix="falaj run")
