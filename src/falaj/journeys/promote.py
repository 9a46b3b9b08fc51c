"""Walk (b), first half: evidence becomes a signed release, a release becomes a change."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from falaj.base import bundle, canonical, digests, dsse
from falaj.base.errors import Conflict, FalajError, NotFound
from falaj.base.locks import read_lock
from falaj.changes import preapproving, risk, templates
from falaj.changes import rules as change_rules
from falaj.changes import service as changes
from falaj.changes.beginning import may_go_there, shown_before
from falaj.changes.record import on_record
from falaj.changes.starting import refuse
from falaj.compliance.rules import joined, may_be_in
from falaj.evaluation import licences, pages, scans
from falaj.evaluation.comparison import sketch
from falaj.facts.access import Permit
from falaj.facts.changes import Change, ChangeKind, ChangeState
from falaj.facts.checks import GateReport
from falaj.facts.data import Label
from falaj.facts.explanations import Explanation, Sketch
from falaj.facts.models import ModelVersion
from falaj.facts.releases import DatasetRef, Manifest, Release, ReleaseDiff
from falaj.facts.rollouts import LiveMove, Mode, Strategy
from falaj.facts.runs import Run
from falaj.facts.scans import Licence, Scan
from falaj.facts.trust import keys_for
from falaj.facts.wire import decode
from falaj.ports.ground import Ground
from falaj.releases import build, diff, evidence, sign, verify, witnessed
from falaj.releases.card import card
from falaj.releases.cardpage import LANGUAGES, card_page, speaker
from falaj.releases.mlbom import mlbom, trouble
from falaj.serving.runtimes.scoring import scorer_of

__all__ = [
    "CARDS",
    "card_of",
    "difference",
    "look_at",
    "open_change",
    "release",
    "release_named",
    "report_of",
    "take_up",
]

RELEASE_SIGNER: Final = "release-signer"
CARDS: Final = {"markdown": "card.md", "en": "card.html", "ar": "card.ar.html"}
EXPLAINED: Final = "explanation-of/1"
GATE_SIGNER: Final = "gate-runner"
BUILD_SIGNER: Final = "builder"


def release(ground: Ground, permit: Permit, run_name: str, version: str) -> Release:
    """Build and sign the release of a run's model with its newest evidence."""
    run, model = ground.made_by(run_name)
    version = version or next_version(ground, model.model)
    taken = ground.store.find(Release, model=model.model, version=version)
    if taken:
        raise Conflict(
            "releases.version-taken",
            f"{model.model} {version} exists already",
            fix="give it its own --version",
        )
    reports = ground.store.find(GateReport, subject=model.tree, limit=1)
    if not reports:
        raise FalajError(
            "releases.evidence-missing",
            f"run {run.id} has no gate report",
            why="a release carries the verdict of every gate",
            fix="run `falaj gate`",
        )
    report = reports[0]
    looked = scan_of(ground, permit, report, run.code.tree)
    folder = ground.state / "releases" / model.model / version
    manifest = written(ground, folder, version, run, model, report, looked)
    ground.keys.create(RELEASE_SIGNER, ("release",))
    sign.sign_release(folder, ground.keys.signer(RELEASE_SIGNER))
    made = Release(
        id=build.release_id(manifest),
        model=model.model,
        version=version,
        model_version=model.id,
        run=run.id,
        tree=manifest.tree,
        folder=folder.relative_to(ground.root).as_posix(),
        evidence=build.evidence_digest(manifest),
        authors=tuple(sorted({run.principal, permit.person})),
        created=manifest.created,
    )
    with ground.store.begin() as unit:
        unit.add(made)
        if looked is not None and looked.database:
            # Where later scans of this release begin: what is known now opens no alert.
            unit.add(
                replace(
                    looked,
                    id=scans.scan_id(made.id, looked.database),
                    release=made.id,
                    results=(),
                    findings=(),
                    licences=(),
                )
            )
        unit.append(
            ground.event(
                "release.created",
                permit.person,
                f"release/{made.id}",
                {
                    "model": made.model,
                    "version": made.version,
                    "tree": made.tree,
                    "evidence": made.evidence,
                    "run": made.run,
                    "report": report.id,
                    "signatures": witnessed.signatures_of(folder),
                },
            )
        )
    return made


def scan_of(ground: Ground, permit: Permit, report: GateReport, tree: str) -> Scan | None:
    """What is known of the very lock that goes into the release, and of the code of that tree.

    Where no gate has looked the lock up it is done now, when advisories are here. Raises Conflict when the lock is
    not the one that was gated.
    """
    _, lock = ground.environment()
    name = digests.of_bytes(lock)
    gated = {
        str(r.details["lock"])
        for r in report.results
        if "lock" in r.details and r.gate.startswith("dependencies")
    }
    if gated - {name}:
        raise Conflict(
            "releases.other-lock",
            "the lock is not the one that the gate `dependencies` looked at",
            why=f"gated was {digests.short(min(gated))}, here lies {digests.short(name)}",
            fix="run `falaj gate` again, or put the lock back",
        )
    known = [one for one in ground.store.find(Scan, lock=name, release="") if one.at <= report.at]
    looked = next((one for one in known if one.database), None) if gated else None
    if looked is None and scans.newest_database(ground) is not None:
        looked = scans.scan(ground, permit.person, (scans.DEPENDENCIES,))
    code = next((one for one in known if one.tools and one.tree == tree), None)
    if code is None or looked is None or looked.tools:
        return looked or code
    of_code = tuple(result for result in code.results if result.gate == scans.CODE)
    return replace(
        looked,
        tools=code.tools,
        findings=code.findings,
        tree=code.tree,
        commit=code.commit,
        results=(*looked.results, *of_code),
    )


def licences_of(ground: Ground, lock: bytes) -> dict[str, Licence]:
    """What the ML-BOM says of the pinned packages: name==version -> licence."""
    if ground.licences is None:
        return {}
    pinned = read_lock(lock)
    declared = ground.licences([pin.name for pin in pinned.pins])
    found = licences.licences_of(pinned, declared)
    return {f"{one.package}=={one.version}": one for one in found}


def written(
    ground: Ground,
    folder: Path,
    version: str,
    run: Run,
    model: ModelVersion,
    report: GateReport,
    looked: Scan | None = None,
) -> Manifest:
    """The folder, unsigned. Model files come from the blobs, verified while they are copied."""
    from tempfile import TemporaryDirectory

    _, lock = ground.environment()
    label = label_of(ground, run)
    threshold = None if model.threshold is None else repr(model.threshold)
    datasets = tuple(
        DatasetRef(dataset=d.dataset, content=d.content, bytes=d.bytes, rows=d.rows)
        for d in run.datasets
    )
    created = ground.now()
    shared: dict[str, Any] = {
        "model": model.model,
        "version": version,
        "task": model.task,
        "runtime": model.runtime,
        "schema": model.schema,
        "threshold": threshold,
        "report": report,
        "datasets": datasets,
        "label": label,
        "notes": {
            "summary": ground.project.model.purpose,
            "intended_use": ground.project.model.intended_use,
        },
    }
    kept = ground.cache.memo(EXPLAINED, model.tree)
    found = decode(Explanation, kept.encode()) if kept else None
    sketches = sketches_of(ground, model)
    known = licences_of(ground, lock)
    bill = mlbom(
        **{name: value for name, value in shared.items() if name != "threshold"},
        tree=model.tree,
        files=model.files,
        environment_lock=lock,
        created=created,
        licences={name: one.expression or one.why for name, one in known.items() if one.expression},
    )
    refuse_bad_bill(ground, bill)
    with TemporaryDirectory(dir=ground.state) as scratch:
        files = {}
        for name, digest in model.files.items():
            files[name] = Path(scratch) / digests.short(digest)
            ground.blobs.copy(digest, files[name])
        return build.build(
            folder,
            model=model.model,
            version=version,
            runtime=model.runtime,
            task=model.task,
            schema=model.schema,
            threshold=threshold,
            code=run.code,
            run=run.id,
            datasets=datasets,
            label=label,
            created=created,
            model_files=files,
            environment_lock=lock,
            reference={name: ground.blobs.get(d) for name, d in model.reference.items()}
            | latency_file(report),
            card=card(**shared, run=run, explained=found is not None),
            pages={
                CARDS[language]: card_page(
                    **shared,
                    run=run,
                    language=language,
                    pictures=pages.pictures(sketches, say) if sketches else (),
                    moved=pages.explanation_parts(found, say) if found else (),
                )
                for language, say in ((one, speaker(one)) for one in LANGUAGES)
            },
            mlbom=bill,
            evidence=sealed(ground, run, model, report, looked),
        )


def refuse_bad_bill(ground: Ground, bill: dict[str, Any]) -> None:
    """Our own mistake, found before it is signed."""
    found = [*trouble(bill)]
    if not found and ground.bill_trouble is not None:
        found += ground.bill_trouble(canonical.dumps(bill))
    if found:
        raise FalajError(
            "releases.bad-bill",
            "the ML-BOM that was made is no CycloneDX 1.6",
            why=found[0],
            fix="report it with the model's schema and the names of its datasets",
        )


def sketches_of(ground: Ground, model: ModelVersion) -> tuple[Sketch, ...]:
    """ROC, reliability and scores on the held-out rows; nothing where there is no yes and no."""
    import numpy as np
    import polars as pl

    if model.task != "binary-classification":
        return ()
    frame = pl.read_parquet(ground.blobs.get(model.evaluation))
    y = frame["y"].to_numpy().astype(np.float64)
    if len(np.unique(y)) != 2 or not np.isin(y, (0, 1)).all():
        return ()
    columns = [column.name for column in model.schema.inputs[0].columns]
    x = frame.select(columns).to_numpy().astype(np.float32, order="C")
    score = scorer_of(ground.blobs, model)(x)
    if score.shape != y.shape or not np.isfinite(score).all():
        return ()
    return (sketch(y, score, model.id),)


def card_of(ground: Ground, known: Release, form: str) -> bytes:
    """The card as it was signed. Raises when anything in the release's folder differs."""
    if form not in CARDS:
        raise NotFound("api.no-such-form", f"got {form!r}, expected {', '.join(CARDS)}")
    found = verify.verify_release(
        ground.root / known.folder, ground.keys.trust(), release_id=known.id, now=ground.now()
    )
    if not found.holds or found.manifest is None:
        raise verify.refusal(found.findings, known.version)
    if CARDS[form] not in found.manifest.files:
        raise NotFound(
            "releases.no-card",
            f"{known.version} has no {CARDS[form]}",
            why="it was made before cards had this form",
            fix="falaj release card VERSION shows its card in Markdown",
        )
    return (ground.root / known.folder / CARDS[form]).read_bytes()


def sealed(
    ground: Ground, run: Run, model: ModelVersion, report: GateReport, looked: Scan | None = None
) -> list[dict[str, Any]]:
    """Statements: two a gate, how the model was made, scans. Signed by separate roles."""
    ground.keys.create(GATE_SIGNER, ("gate",))
    ground.keys.create(BUILD_SIGNER, ("build",))
    gate, builder = ground.keys.signer(GATE_SIGNER), ground.keys.signer(BUILD_SIGNER)
    made = evidence.provenance_statement(
        run, name=model.model, tree=model.tree, builder="falaj:embedded"
    )
    gates = evidence.gate_statements(report, name=model.model)
    said = (
        evidence.scan_statements(looked, version=installed("falaj"), tree=run.code.tree)
        if looked is not None
        else []
    )
    return [
        dsse.seal(made, builder),
        *(dsse.seal(s, gate) for s in (*gates, *evidence.result_statements(gates))),
        *(dsse.seal(s, gate) for s in said),
    ]


def latency_file(report: GateReport) -> dict[str, bytes]:
    """Thresholds that canaries are held against, frozen from the served release."""
    for result in report.results:
        if result.gate == "latency" and "thresholds_us" in result.details:
            frozen = {
                "v": 1,
                "quantiles": ["0.5", "0.9", "0.95", "0.99"],
                "thresholds_us": [int(value) for value in result.details["thresholds_us"]],
                "requests": result.n,
            }
            return {"latency.json": canonical.dumps(frozen)}
    return {}


def label_of(ground: Ground, run: Run) -> Label:
    """The strictest label of what it was made from; where nothing is said, the project's region."""
    return joined([d.label for d in run.datasets], ground.project.project.region)


def next_version(ground: Ground, model: str) -> str:
    """1.0.0, then the next minor one; a version that people chose counts as well."""
    numbers = []
    for known in ground.store.find(Release, model=model):
        parts = known.version.split(".")
        if len(parts) == 3 and all(part.isdigit() for part in parts):
            numbers.append(tuple(int(part) for part in parts))
    if not numbers:
        return "1.0.0"
    major, minor, _ = max(numbers)
    return f"{major}.{minor + 1}.0"


def release_named(ground: Ground, name: str) -> Release:
    """By id, the first digits of it, or by version; the newest one when not said."""
    found = ground.store.find(Release)
    if not name and found:
        return found[0]
    digits = name.removeprefix("sha256:")
    for known in found:
        if known.version == name or (
            len(digits) >= 8 and known.id.removeprefix("sha256:").startswith(digits)
        ):
            return known
    raise NotFound(
        "releases.unknown",
        f"there is no release {name!r}" if name else "there is no release yet",
        why="known: " + (", ".join(known.version for known in found) or "none"),
        fix="falaj release create",
    )


def look_at(ground: Ground, known: Release) -> tuple[Manifest, list[str]]:
    """The manifest, and every finding of a verification that is made now."""
    folder = ground.root / known.folder
    found = verify.verify_release(
        folder, ground.keys.trust(), release_id=known.id, now=ground.now()
    )
    if found.manifest is None:
        raise verify.refusal(found.findings, known.version)
    return found.manifest, [finding.message for finding in found.findings]


def difference(ground: Ground, one: str, other: str) -> ReleaseDiff:
    """What differs from one release to another, by what is signed; both are verified now."""
    sides = [side_of(ground, release_named(ground, name)) for name in (one, other)]
    commits = [side.manifest.code.commit for side in sides]
    files: Sequence[tuple[str, str]] | None = None
    if commits[0] == commits[1]:
        files = ()
    elif all(commits) and ground.changed_files is not None:
        files = ground.changed_files(commits[0], commits[1])
    return diff.compare(sides[0], sides[1], files)


def side_of(ground: Ground, known: Release) -> diff.Side:
    manifest, findings = look_at(ground, known)
    folder, trust, now = ground.root / known.folder, ground.keys.trust(), ground.now()
    keys = {**keys_for(trust, "build", now), **keys_for(trust, "gate", now)}
    statements = {}
    for name in manifest.files:
        if not name.startswith("evidence/"):
            continue
        try:
            envelope = canonical.loads((folder / name).read_bytes())
            statements[name], _ = bundle.statement_of(envelope, keys)
        except (OSError, ValueError):
            continue  # the verification has named it
    try:
        lock = read_lock((folder / "environment.lock").read_bytes())
    except OSError:
        lock = read_lock(b"")
    run = ground.store.get(Run, known.run).fact
    return diff.Side(known, manifest, run, lock, statements, tuple(findings))


def report_of(ground: Ground, release_id: str) -> GateReport | None:
    known = ground.store.get(Release, release_id).fact
    return next(iter(ground.store.find(GateReport, subject=known.tree, limit=1)), None)


def open_change(
    ground: Ground,
    permit: Permit,
    release_name: str,
    environment: str,
    *,
    reason: str,
    proposed: bool = False,
    template: str = "",
    incident: str = "",
    not_before: datetime | None = None,
    not_after: datetime | None = None,
) -> Change:
    """Ask to bring a release to an environment: by a template, as an emergency, or as any other.

    Refused, and written down: gates that do not hold, a wrong region, an environment that was skipped,
    code that was not committed, a template that is over or whose bounds it leaves.
    """
    with on_record(ground, permit, f"environment/{environment}", "open"):
        if template and incident:
            raise FalajError(
                "changes.two-kinds",
                "a change is by a template or an emergency, not both",
                fix="leave out one of --template and --emergency",
            )
        kind = ChangeKind.STANDARD if template else ChangeKind.NORMAL
        kind = ChangeKind.EMERGENCY if incident else kind
        known = release_named(ground, release_name)
        asked = assessed(ground, known, environment, kind, proposed=proposed, template=template)
        asked = asked._replace(
            reason=reason or f"release {known.version}",
            proposed=proposed,
            incident=incident,
            not_before=not_before,
            not_after=not_after,
        )
        return changes.open_change(ground, permit, asked)


def assessed(
    ground: Ground,
    known: Release,
    environment: str,
    kind: ChangeKind,
    *,
    proposed: bool = False,
    template: str = "",
) -> changes.Asked:
    """What the change would be: its gates, its difference, its risk. Raises what forbids it.

    proposed: people decide later whether to take it up, and only then something forbids it.
    """
    now = ground.now()
    table = ground.project.environments[environment]
    report = report_of(ground, known.id)
    deferred: tuple[str, ...] = ()
    if kind is ChangeKind.EMERGENCY:
        deferred = change_rules.deferrable(report, table.requires, release=known.version, now=now)
    if report is None or not (proposed or kind is ChangeKind.EMERGENCY):
        change_rules.hold_gates(report, table.requires, release=known.version, now=now)
    if report is None:
        raise AssertionError("unreachable")
    manifest, findings = look_at(ground, known)
    shown = shown_before(ground, known, environment)
    region = table.region or ground.project.project.region
    if not proposed:
        trouble = may_be_in(manifest.label, region)
        refuse(may_go_there(ground, known, environment, manifest, trouble, shown, kind=kind))
    live = ground.store.find(LiveMove, environment=environment, model=known.model, limit=1)
    previous = ground.store.get(Release, live[0].stable).fact if live else None
    apart = difference_or_none(ground, previous, known)
    asked = changes.Asked(
        release=known,
        report=report,
        environment=environment,
        reason="",
        previous=previous,
        factors=risk.factors(
            known, previous, report, apart, classification=manifest.label.classification
        ),
        kind=kind,
        differences=diff.in_words(apart) if apart else "",
        carried=tuple(one for one in shown.values() if one is not None),
        deferred=deferred,
    )
    if findings and kind is ChangeKind.STANDARD:
        raise verify.refusal(look_again(ground, known), known.version)
    return by_template(ground, asked, apart, template) if template else asked


def by_template(
    ground: Ground, asked: changes.Asked, apart: ReleaseDiff | None, name: str
) -> changes.Asked:
    """A standard change, when the template is in force and nothing leaves its bounds."""
    state = preapproving.state_of(ground, name, asked.environment)
    table = ground.project.environments[asked.environment].rollout
    beyond = templates.outside(
        state.table.bounds,
        asked.release,
        asked.previous,
        apart,
        asked.report,
        report_of(ground, asked.previous.id) if asked.previous else None,
        returns=table.strategy is not Strategy.DIRECT and table.mode is Mode.ACT,
    )
    refuse([*state.problems, *beyond])
    return asked._replace(
        template=name,
        template_digest=state.digest,
        preapproval=tuple(one.envelope for one in state.signatures),
    )


def look_again(ground: Ground, known: Release) -> Sequence[bundle.Finding]:
    return verify.verify_release(
        ground.root / known.folder, ground.keys.trust(), release_id=known.id, now=ground.now()
    ).findings


def difference_or_none(
    ground: Ground, previous: Release | None, known: Release
) -> ReleaseDiff | None:
    """From the live release; None where there is none, or where its folder cannot be read."""
    if previous is None:
        return None
    try:
        return difference(ground, previous.id, known.id)
    except FalajError:
        return None


def take_up(ground: Ground, permit: Permit, change_id: str) -> Change:
    """A proposed change becomes one that waits for approval, when it might be asked for now."""
    change = ground.store.get(Change, change_id).fact
    with on_record(ground, permit, f"change/{change.id}", "take up"):
        change_rules.may_move(change, ChangeState.ASSESSING)
        known = ground.store.get(Release, change.release).fact
        assessed(ground, known, change.environment, change.kind)
        with ground.store.begin() as unit:
            changes.move(ground, unit, permit.person, change.id, ChangeState.ASSESSING)
            return changes.move(
                ground, unit, permit.person, change.id, ChangeState.AWAITING_APPROVAL
            )
