"""Walk (a), last part: measure a model, decide with intervals, keep the evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from falaj.base import digests, ids
from falaj.base.errors import FalajError
from falaj.changes import service as changes
from falaj.evaluation import rules as gate_rules
from falaj.evaluation import scans, security, service
from falaj.evaluation.sets import EvaluationSet, Reference, Scorer
from falaj.facts.access import Permit
from falaj.facts.checks import CheckResult, GateReport, Verdict, Waiver
from falaj.facts.data import ContractReport, Label, SuiteReport
from falaj.facts.formats import RUNTIMES
from falaj.facts.models import AliasMove, ModelVersion
from falaj.facts.releases import Release
from falaj.facts.runs import Code, Run
from falaj.facts.scans import Scan
from falaj.facts.testing import TestReport
from falaj.facts.wire import decode, digest
from falaj.ports.ground import Ground
from falaj.ports.prober import Timing
from falaj.releases import build, sign
from falaj.serving.runtimes import scoring
from falaj.stats.metrics import BINARY, MULTICLASS

if TYPE_CHECKING:
    import polars as pl

__all__ = ["check", "waive"]

CHAMPION: Final = "champion"
MEMO: Final = "contract-report/1"
CHECKS: Final = "gate-checks/1"
OWN: Final = "own-checks/1"


def check(ground: Ground, permit: Permit, run_name: str, environment: str) -> GateReport:
    """Make every check that the environment requires; the report is kept whatever it says.

    New evidence on a model voids the approvals of its open changes.
    """
    run, model = ground.made_by(run_name)
    table = ground.project.environments[environment]
    rows, x = evaluation_rows(ground, model)
    release, champion = champion_of(ground, model.model)
    ground.tell(f"gate: {len(x.y):,} held-out rows, {len(table.requires)} gates")
    served: Timing | None = None
    broken: tuple[CheckResult, ...] = ()
    if "latency" in table.requires:
        served, broken = timed(ground, run, model, rows)
    looked = scanned(ground, permit, run, table.requires)
    report = service.measure(
        candidate=x,
        score=scorer_of(ground, model),
        threshold=model.threshold,
        champion=champion,
        champion_release=release.id if release else "",
        gates=ground.project.gates,
        required=table.requires,
        contracts=contract_reports(ground, run),
        security=security_checks(ground, model),
        latencies_us=served.us if served else None,
        memory_mb=memory_of(served),
        reference=reference_rows(ground, run, model),
        kept=remembered(ground, run, model, release),
        own=lambda: own_checks(ground, model),
        reuse=reuse(ground, model.evaluation),
        subject=model.tree,
        policy=gate_rules.policy_digest(ground.project.gates, table.requires),
        now=ground.now(),
        on_check=lambda result: ground.tell(f"{result.check}: {result.verdict}"),
        suites=suite_checks(ground, run),
        tests=checks_of_tests(ground, run, model, required="tests" in table.requires),
        scans=looked.results if looked else (),
    )
    report = _named(replace(report, results=(*report.results, *broken)), run, model)
    with ground.store.begin() as unit:
        unit.add(report)
        if looked is not None:
            unit.add(looked)
        unit.append(
            ground.event(
                "gate.checked",
                permit.person,
                f"model/{model.id}",
                {
                    "report": report.id,
                    "digest": digest(report),
                    "verdict": str(report.verdict),
                    "policy": report.policy,
                    "subject": report.subject,
                },
            )
        )
    tell_changes(ground, permit, report)
    return report


def scanned(ground: Ground, permit: Permit, run: Run, requires: Sequence[str]) -> Scan | None:
    """Lock and code, as far as the project has rules for them."""
    gates = ground.project.gates
    tables = {scans.DEPENDENCIES: gates.dependencies, scans.CODE: gates.code}
    what = [name for name, table in tables.items() if table is not None or name in requires]
    return scans.scan(ground, permit.person, what, tree=run.code.tree) if what else None


def waive(
    ground: Ground, permit: Permit, report_id: str, check: str, reason: str, life: timedelta
) -> GateReport:
    """Let one inconclusive check of a report through, for a while: a new report, new evidence.

    Refused: a check that failed or passed, an own model, no reason, more than a year.
    """
    kept = ground.store.get(GateReport, report_id).fact
    run = ground.store.get(Run, kept.run).fact
    gate_rules.may_waive(kept, check, reason, life, is_author=run.principal == permit.person)
    now = ground.now()
    waiver = Waiver(check=check, owner=permit.person, reason=reason, expires=now + life)
    report = replace(kept, id=ids.new(), at=now, waivers=(*kept.waivers, waiver))
    with ground.store.begin() as unit:
        unit.add(report)
        unit.append(
            ground.event(
                "gate.waived",
                permit.person,
                f"model/{kept.model_version}",
                {
                    "report": report.id,
                    "digest": digest(report),
                    "check": check,
                    "expires": waiver.expires,
                    "subject": report.subject,
                },
                remark=reason,
            )
        )
    tell_changes(ground, permit, report)
    return report


def tell_changes(ground: Ground, permit: Permit, report: GateReport) -> None:
    """New evidence on a model voids the approvals of its open changes."""
    for known in ground.store.find(Release):
        if known.tree == report.subject:
            changes.new_evidence(ground, permit.person, known.id, digest(report), report)


def _named(report: GateReport, run: Run, model: ModelVersion) -> GateReport:
    return replace(report, id=ids.new(), run=run.id, model_version=model.id)


def evaluation_rows(
    ground: Ground, model: ModelVersion
) -> tuple[NDArray[np.float32], EvaluationSet]:
    """Held-out rows as the model takes them, with labels and the columns to group by."""
    import polars as pl

    frame = pl.read_parquet(ground.blobs.get(model.evaluation))
    columns = tuple(column.name for column in model.schema.inputs[0].columns)
    x = frame.select(columns).to_numpy().astype(np.float32, order="C")
    groups = {
        name: frame[name].cast(pl.String).fill_null("(none)").to_numpy().astype(str)
        for name in frame.columns
        if name not in {*columns, "y"}
    }
    classes = classes_of(model)
    return x, EvaluationSet(
        x=x,
        y=targets(frame["y"], model.task, classes),
        task=model.task,
        classes=classes,
        groups=groups,
        digest=model.evaluation,
        columns=columns,
        at=times(frame),
        limits={
            column.name: (column.minimum, column.maximum)
            for column in model.schema.inputs[0].columns
        },
    )


def classes_of(model: ModelVersion) -> tuple[str, ...]:
    """Names of the classes: of the output's columns, else their places."""
    if model.task == BINARY:
        return ("0", "1")
    if model.task != MULTICLASS:
        return ()
    wide = next(tensor for tensor in model.schema.outputs if tensor.shape[-1] > 1)
    names = tuple(column.name for column in wide.columns)
    return names or tuple(str(place) for place in range(wide.shape[-1]))


def targets(y: pl.Series, task: str, classes: tuple[str, ...]) -> NDArray[Any]:
    """Raises FalajError where a class is not one of the model's."""
    if task == BINARY:
        return y.to_numpy().astype(np.int8)
    if task != MULTICLASS:
        return y.to_numpy().astype(np.float64)
    if y.dtype.is_numeric():
        return y.to_numpy().astype(np.int64)
    place = {name: number for number, name in enumerate(classes)}
    words = [str(value) for value in y.to_list()]
    unknown = sorted(set(words) - set(place))
    if unknown:
        raise FalajError(
            "gate.unknown-class",
            f"the held-out rows have a class {unknown[0]!r}",
            why=f"the model answers {', '.join(classes)}",
            fix="name all classes in the schema of falaj.Model, or leave such rows out",
        )
    return np.array([place[word] for word in words], np.int64)


def reference_rows(ground: Ground, run: Run, model: ModelVersion) -> Reference | None:
    """The training rows that the model brought along."""
    import polars as pl

    digest_ = run.result.files.get("reference.parquet", "") if run.result else ""
    if not digest_:
        return None
    frame = pl.read_parquet(ground.blobs.get(digest_))
    columns = [column.name for column in model.schema.inputs[0].columns]
    return Reference(
        x=frame.select(columns).to_numpy().astype(np.float32, order="C"),
        at=times(frame),
        digest=digest_,
    )


def times(frame: pl.DataFrame) -> NDArray[np.datetime64] | None:
    """The column `at`, where it holds times in every row."""
    import polars as pl

    if "at" not in frame.columns or frame["at"].null_count():
        return None
    dtype = frame["at"].dtype
    if dtype != pl.Date and not isinstance(dtype, pl.Datetime):
        return None
    found: NDArray[np.datetime64] = frame["at"].cast(pl.Datetime("us")).to_numpy()
    return found


def own_checks(ground: Ground, model: ModelVersion) -> Sequence[CheckResult]:
    """The project's own checks, in a process of their own.

    Kept by the digests of the model, the rows, the project's code and its packages, each check by
    itself; errors are made anew, and what says `cache=False`.
    """
    gates = ground.project.gates
    if ground.own_checks is None:
        return ()
    environment, _ = ground.environment()
    about = {
        "tree": model.tree,
        "schema": model.schema,
        "rows": model.evaluation,
        "code": ground.code().tree,
        "environment": (environment.lock, environment.python, environment.platform),
    }
    keys = {name: digest({**about, "check": name}) for name in gates.checks}
    found = {name: ground.cache.memo(OWN, key) for name, key in keys.items()}
    kept = {name: decode(CheckResult, text.encode()) for name, text in found.items() if text}
    wanted = [name for name in gates.checks if name not in kept]
    if wanted:
        ground.tell(f"checks: {len(wanted)} of the project, {len(kept)} are kept")
        for name, result in zip(wanted, made_checks(ground, model, wanted), strict=True):
            kept[name] = result
            if result.verdict is not Verdict.ERROR and result.details.get("cache", True):
                ground.cache.remember(OWN, keys[name], msgspec.json.encode(result).decode())
    return [kept[name] for name in gates.checks]


def made_checks(
    ground: Ground, model: ModelVersion, checks: Sequence[str]
) -> Sequence[CheckResult]:
    assert ground.own_checks is not None  # noqa: S101 the caller looked
    with TemporaryDirectory(dir=ground.state) as scratch:
        folder = Path(scratch)
        for name, digest in model.files.items():
            path = folder / "model" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            ground.blobs.copy(digest, path)
        ground.blobs.copy(model.evaluation, folder / "rows.parquet")
        order = {
            "root": str(ground.root),
            "checks": checks,
            "schema": model.schema,
            "many": model.task == MULTICLASS,
            "runtime": model.runtime,
        }
        (folder / "order.json").write_bytes(msgspec.json.encode(order))
        return ground.own_checks(folder, checks, ground.project.gates.checks_timeout_s)


def remembered(
    ground: Ground, run: Run, model: ModelVersion, champion: Release | None
) -> service.Kept:
    """Results of dear checks, by the digests of all that they depend on; errors are made anew."""
    about = {
        "tree": model.tree,
        "schema": model.schema,
        "rows": model.evaluation,
        "reference": run.result.files.get("reference.parquet", "") if run.result else "",
        "champion": champion.tree if champion else "",
    }

    def kept(
        gate: str, rules: tuple[object, ...], check: Callable[[], Sequence[CheckResult]]
    ) -> Sequence[CheckResult]:
        key = digest({**about, "gate": gate, "rules": rules})
        known = ground.cache.memo(CHECKS, key)
        if known is not None:
            return decode(list[CheckResult], known.encode())
        ground.tell(f"gate {gate}: measuring")
        made = check()
        if all(result.verdict is not Verdict.ERROR for result in made):
            ground.cache.remember(CHECKS, key, msgspec.json.encode(list(made)).decode())
        return made

    return kept


def champion_of(ground: Ground, model: str) -> tuple[Release | None, Any]:
    """The live model's release and its scorer, to be compared on the candidate's rows."""
    moves = ground.store.find(AliasMove, model=model, alias=CHAMPION, limit=1)
    if not moves:
        return None, None
    release = ground.store.get(Release, moves[0].release).fact
    version = ground.store.get(ModelVersion, release.model_version).fact
    return release, scorer_of(ground, version)


def scorer_of(ground: Ground, model: ModelVersion) -> Scorer:
    return scoring.scorer_of(ground.blobs, model, many=model.task == MULTICLASS)


def contract_reports(ground: Ground, run: Run) -> tuple[ContractReport, ...]:
    """The reports on the very versions that the run was made from."""
    found = []
    for version in run.datasets:
        if not version.contract:
            continue
        asked = f"{version.bytes} {version.contract} {version.dataset}"
        kept = ground.cache.memo(MEMO, digests.of_bytes(asked.encode()))
        if kept is not None:
            found.append(decode(ContractReport, kept.encode()))
    return tuple(found)


def suite_checks(ground: Ground, run: Run) -> list[CheckResult]:
    """What other tools found: in the run's own steps, and in reports taken in for its versions."""
    found = [check for step in run.steps for check in step.checks]
    for version in run.datasets:
        seen = set()
        for report in ground.store.find(
            SuiteReport, dataset=version.dataset, version=version.content
        ):
            if report.tool not in seen:  # newest first: it stands for those before it
                found += report.results
            seen.add(report.tool)
    return found


def checks_of_tests(
    ground: Ground, run: Run, model: ModelVersion, *, required: bool
) -> list[CheckResult]:
    """The project's own tests of the run's code; nothing where nobody asked and none were run."""
    tree = run.code.tree
    reports = ground.store.find(TestReport, tree=tree, limit=100) if tree else []
    if not reports and not required:
        return []
    return gate_rules.gate_of_tests(reports, tree=tree, model=model.tree, run=run.id)


def security_checks(ground: Ground, model: ModelVersion) -> list[CheckResult]:
    """Each file by its content, against what the model's runtime loads."""
    with TemporaryDirectory(dir=ground.state) as scratch:
        files = {}
        for name, digest_ in model.files.items():
            files[name] = Path(scratch, digests.short(digest_))
            ground.blobs.copy(digest_, files[name])
        loads = RUNTIMES.get(model.runtime, frozenset())
        return list(security.check_model_files(files, allow=loads))


def reuse(ground: Ground, evaluation: str) -> int:
    """How many candidates these rows have judged before."""
    return len(
        {
            report.subject
            for report in ground.store.find(GateReport)
            for version in ground.store.find(ModelVersion, run=report.run, limit=1)
            if version.evaluation == evaluation
        }
    )


def timed(
    ground: Ground, run: Run, model: ModelVersion, rows: NDArray[np.float32]
) -> tuple[Timing | None, tuple[CheckResult, ...]]:
    """Answer times, or the check that says why there are none: the other gates are still decided."""
    try:
        return served_latencies(ground, run, model, rows), ()
    except FalajError as error:
        reason = f"it could not be measured: {error}"
        return None, (
            CheckResult(check="latency.p99", gate="latency", verdict=Verdict.ERROR, reason=reason),
        )


def memory_of(served: Timing | None) -> dict[str, float]:
    told = {"ready": served.ready_mb, "peak": served.peak_mb} if served else {}
    return {name: round(mb, 1) for name, mb in told.items() if mb is not None}


def served_latencies(
    ground: Ground, run: Run, model: ModelVersion, rows: NDArray[np.float32]
) -> Timing:
    """Answer times of the model as it is really served: a draft release in a server of its own.

    The draft is signed by a key that lives as long as this measurement, so nobody else loads it.
    """
    table = ground.project.gates.latency
    assert table is not None  # noqa: S101 the project file demands it where it is required
    ground.tell(f"latency: {table.requests:,} requests to a served draft")
    _, lock = ground.environment()
    with TemporaryDirectory(dir=ground.state) as scratch:
        files = {}
        for name, digest_ in model.files.items():
            files[name] = Path(scratch, digests.short(digest_))
            ground.blobs.copy(digest_, files[name])
        folder = Path(scratch, "draft")
        build.build(
            folder,
            model=model.model,
            version="0.0.0-draft",
            runtime=model.runtime,
            task=model.task,
            schema=model.schema,
            threshold=None if model.threshold is None else repr(model.threshold),
            code=Code(),
            run=run.id,
            datasets=(),
            label=Label(),
            created=ground.now(),
            model_files=files,
            environment_lock=lock,
            reference={name: ground.blobs.get(d) for name, d in model.reference.items()},
            card="A draft for measuring, never released.\n",
            mlbom={},
            evidence=[],
        )
        ring = ground.throwaway_keys(Path(scratch, "keys"))
        ring.create("draft", ("release",))
        sign.sign_release(folder, ring.signer("draft"))
        trust = Path(scratch, "trust.json")
        trust.write_text(ring.trust_text())
        sample = rows[:: max(len(rows) // 1000, 1)][:1000]
        return ground.prober.time_answers(folder, trust, model.model, sample, table.requests)
