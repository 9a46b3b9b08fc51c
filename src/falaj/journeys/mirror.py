"""Shows another tracking server what happened here: reads the river behind a cursor in the store.

Every item is found again there by our id, so a worker that dies anywhere is followed by one that
says it once more. The other server being away touches nothing here; it is told what it missed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from falaj.base import digests, paths, time
from falaj.base.drawing import plot_svg
from falaj.base.errors import Conflict, NotFound
from falaj.base.strangers import Away, Refused
from falaj.compliance.rules import joined, may_be_in, shows_rows
from falaj.facts.data import Label
from falaj.facts.events import Event
from falaj.facts.mirrors import MirrorState
from falaj.facts.models import ModelVersion
from falaj.facts.project import MlflowTable
from falaj.facts.releases import Release
from falaj.facts.runs import Plot, Run, RunStatus
from falaj.facts.wire import decode
from falaj.ports.blobs import BlobMissing
from falaj.ports.ground import Ground
from falaj.ports.mirrors import Mirror, ShownRelease, ShownRun
from falaj.ports.store import Kept

__all__ = ["Mirroring", "state_of", "waiting"]

LINK: Final = "mlflow"
LEASE: Final = "mirror"
LEASE_S: Final = 60.0
PAGE: Final = 200
RUNS: Final = ("run.ok", "run.failed", "run.interrupted")
ALIAS: Final = "alias.moved"
FIRST_WAIT_S: Final = 5.0
LONGEST_WAIT_S: Final = 300.0


class Mirroring:
    """A worker's memory of how far it has looked; what counts stands in the store."""

    def __init__(self, ground: Ground, owner: str) -> None:
        self._ground, self._owner = ground, owner
        self._seen = -1
        self._wait_s = 0.0

    @property
    def wait_s(self) -> float:
        """Seconds until it makes sense to try again; 0 while the server answers."""
        return self._wait_s

    def turn(self, stop: Callable[[], bool]) -> list[str]:
        """Show what is new, in the order of the log, until there is no more or `stop` says so."""
        ground, table = self._ground, self._ground.project.links.mlflow
        if table is None or ground.mirror is None or not table.what:
            return []
        done: list[str] = []
        lease = ground.store.take(LEASE, self._owner, LEASE_S)
        if lease is None:
            return []
        try:
            while not stop():
                after = max(self._seen, state_of(ground, table).cursor)
                page = ground.store.events(after=after, limit=PAGE)
                if not page:
                    break
                for place, event in page:
                    if is_shown(event, table):
                        if stop() or not ground.store.take(LEASE, self._owner, LEASE_S):
                            return done
                        done += self._bring(ground.mirror, table, place, event)
                        self._wait_s = 0.0
                    self._seen = place
        except Away as away:
            self._wait_s = min(max(self._wait_s * 2, FIRST_WAIT_S), LONGEST_WAIT_S)
            done += went_away(ground, table, away)
        finally:
            ground.store.release(lease)  # whoever looks next need not wait until it runs out
        return done

    def _bring(self, mirror: Mirror, table: MlflowTable, place: int, event: Event) -> list[str]:
        ground = self._ground
        try:
            why = (self._run if event.type in RUNS else self._alias)(mirror, table, event)
        except Refused as refused:
            why = str(refused)
        except BlobMissing:
            why = "bytes of it are gone or were altered, and are shown to nobody"
        except NotFound as gone:
            why = str(gone)
        now = state_of(ground, table)
        after = replace(now, cursor=place, trouble="", since=None)
        after = (
            replace(after, refused=now.refused + 1, refusal=f"{event.subject}: {why}")
            if why
            else replace(after, shown=now.shown + 1)
        )
        told = {"link": LINK, "server": table.url, "region": table.region, "of": event.type}
        verb = "mirror.refused" if why else "mirror.shown"
        keep(ground, after, verb, event.subject, told | ({"why": why} if why else {}))
        return [f"{LINK}: {event.subject} {'is left out: ' + why if why else 'is shown'}"]

    def _run(self, mirror: Mirror, table: MlflowTable, event: Event) -> str:
        run = self._ground.store.get(Run, event.subject.removeprefix("run/")).fact
        why = self._why_not(label_of(self._ground, run), table)
        if not why:
            mirror.show_run(shown(self._ground, table, run))
        return why

    def _alias(self, mirror: Mirror, table: MlflowTable, event: Event) -> str:
        ground = self._ground
        release = ground.store.get(Release, str(event.data["release"])).fact
        run = ground.store.get(Run, release.run).fact
        label = label_of(ground, run)
        why = self._why_not(label, table)
        if not why:
            mirror.move_alias(
                release.model,
                str(event.data["alias"]),
                ShownRelease(
                    release=release.id,
                    model=release.model,
                    version=release.version,
                    run=shown(ground, table, run),
                    tags=release_tags(release),
                    files=release_files(ground, release, with_model=shows_rows(label)),
                ),
            )
        return why

    def _why_not(self, label: Label, table: MlflowTable) -> str:
        return may_be_in(label, table.region, plain_http=urlsplit(table.url).scheme == "http")


def is_shown(event: Event, table: MlflowTable) -> bool:
    if event.type == ALIAS:
        return "models" in table.what
    return event.type in RUNS and set(table.what) != {"models"}


def state_of(ground: Ground, table: MlflowTable) -> MirrorState:
    """Of this server; another address is another server, which has seen nothing."""
    kept = _kept(ground)
    if kept is None or kept.fact.server != table.url:
        return MirrorState(id=LINK, server=table.url)
    return kept.fact


def waiting(ground: Ground, table: MlflowTable, *, most: int = 1000) -> int:
    """How many items the server has not been shown; at most as many as are looked at."""
    if not table.what:
        return 0
    page = ground.store.events(after=state_of(ground, table).cursor, limit=most)
    return sum(is_shown(event, table) for _, event in page)


def _kept(ground: Ground) -> Kept[MirrorState] | None:
    try:
        return ground.store.get(MirrorState, LINK)
    except NotFound:
        return None


def keep(ground: Ground, state: MirrorState, type: str, subject: str, data: dict[str, Any]) -> None:
    """Raises Conflict when another worker was further already."""
    with ground.store.begin() as unit:
        found = unit.find(MirrorState, limit=1)
        if not found:
            unit.add(state)
        else:
            kept = unit.get(MirrorState, LINK)
            if kept.fact.server == state.server and kept.fact.cursor > state.cursor:
                raise Conflict("tracking.moved-on", "another worker has shown more already")
            unit.replace(kept, state)
        unit.append(ground.event(type, f"worker:{LINK}", subject, data))


def went_away(ground: Ground, table: MlflowTable, away: Away) -> list[str]:
    """Once: it is written down when it goes, and struck out when something was shown again."""
    now = state_of(ground, table)
    why = f"{away} ({away.problems[0].why})" if away.problems[0].why else str(away)
    if now.trouble == why:
        return []
    after = replace(now, trouble=why, since=now.since or ground.now())
    if not now.trouble:
        told = {"link": LINK, "server": table.url, "code": away.code}
        keep(ground, after, "mirror.waits", f"project/{ground.name}", told)
    return [f"{LINK}: {why}; it is told later"]


def label_of(ground: Ground, run: Run) -> Label:
    """Of the data it was made from; of all declared data where it did not get that far."""
    project = ground.project
    region = project.project.region
    if run.datasets:
        return joined([version.label for version in run.datasets], region)
    declared = [
        Label(
            classification=table.classification,
            countries=tuple(c.lower() for c in table.countries) or (region.split("-")[0],),
        )
        for table in project.datasets
    ]
    return joined(declared, region)


def shown(ground: Ground, table: MlflowTable, run: Run) -> ShownRun:
    label = label_of(ground, run)
    what = table.what
    has_points = "metrics" in what and ground.runs is not None
    names = ground.runs.names(run.id) if has_points and ground.runs else ()
    return ShownRun(
        run=run.id,
        name=f"{run.model or run.pipeline}-{run.id[-8:]}",
        status=str(run.status),
        started=run.started,
        ended=run.ended or run.started,
        params=params(run) if "params" in what else {},
        metrics=run.metrics if "metrics" in what else {},
        series=[ground.runs.series(run.id, name) for name in names] if ground.runs else (),
        tags=tags(run, label) | (said(run) if "params" in what else {}),
        datasets=run.datasets,
        files=plots(ground, run) | files(ground, run)
        if "plots" in what and shows_rows(label)
        else {},
    )


def params(run: Run) -> dict[str, str]:
    """Of the run; and what its steps said, under the step's name where two said the same."""
    found = {name: in_words(value) for name, value in run.parameters.items()}
    for step in run.steps:
        for name, value in step.params.items():
            found[name if found.get(name, value) == value else f"{step.step}/{name}"] = value
    return found


def said(run: Run) -> dict[str, str]:
    """Tags of steps; those of the two systems themselves are nobody else's to write."""
    return {
        name: value
        for step in run.steps
        for name, value in step.tags.items()
        if not name.startswith(("falaj.", "mlflow."))
    }


def files(ground: Ground, run: Run) -> dict[str, bytes]:
    """What steps kept beside their answers, each below its step's name."""
    found = {}
    for step in run.steps:
        for name, digest in step.files.items():
            with suppress(KeyError):  # swept away
                path = name if not paths.trouble(name) else safe(name)
                found[f"files/{safe(step.step)}/{path}"] = ground.blobs.get(digest)
    return found


def in_words(value: Any) -> str:
    """Texts as they are, everything else as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(msgspec.to_builtins(value), sort_keys=True, ensure_ascii=False)


def tags(run: Run, label: Label) -> dict[str, str]:
    """No person: a pseudonym of ours means nothing there and follows somebody around."""
    found = {
        "mlflow.source.name": run.pipeline,
        "mlflow.source.type": "PROJECT",
        "mlflow.source.git.commit": run.code.commit,
        "mlflow.source.git.branch": run.code.branch,
        "mlflow.source.git.dirty": str(run.code.dirty).lower() if run.code.commit else "",
        "falaj.project": run.project,
        "falaj.pipeline": run.pipeline,
        "falaj.trigger": run.trigger,
        "falaj.seed": str(run.seed),
        "falaj.parent": run.parent,
        "falaj.env.lock_sha256": run.environment.lock.removeprefix("sha256:"),
        "falaj.env.locked": str(run.environment.locked).lower(),
        "falaj.env.python": run.environment.python,
        "falaj.label.class": str(label.classification),
        "falaj.label.countries": " ".join(label.countries),
        # The code alone: a message may repeat a value of a row.
        "falaj.error": run.error.partition(":")[0] if run.status is RunStatus.FAILED else "",
    }
    if run.origin is not None:
        found["falaj.imported"] = f"{run.origin.server} {run.origin.name}/{run.origin.version}"
    return {name: value for name, value in found.items() if value}


def plots(ground: Ground, run: Run) -> dict[str, bytes]:
    """Each plot as its data and as it is drawn here."""
    found: dict[str, bytes] = {}
    for step in run.steps:
        for name, digest in step.plots.items():
            with suppress(KeyError):  # swept away
                data = ground.blobs.get(digest)
                path = f"plots/{safe(step.step)}/{safe(name)}"
                found[f"{path}.json"] = data
                found[f"{path}.svg"] = plot_svg(msgspec.to_builtins(decode(Plot, data))).encode()
    return found


def safe(name: str) -> str:
    """A file name; what had to be changed in it is told apart by a digest."""
    plain = "".join(sign if sign.isalnum() or sign in "_-" else "_" for sign in name)[:80]
    if plain == name:
        return plain
    return f"{plain}-{digests.short(digests.of_bytes(name.encode())).removeprefix('sha256:')}"


def release_tags(release: Release) -> dict[str, str]:
    return {
        "falaj.release.version": release.version,
        "falaj.release.created": time.text(release.created),
        "falaj.tree": release.tree,
        "falaj.evidence": release.evidence,
        "falaj.run": release.run,
    }


def release_files(ground: Ground, release: Release, *, with_model: bool) -> dict[str, bytes]:
    """What proves the release; and its model, where the label lets it be shown."""
    folder = ground.root / release.folder
    found = {
        name: (folder / name).read_bytes()
        for name in ("release.json", "signature.json")
        if (folder / name).is_file()
    }
    if with_model:
        version = ground.store.get(ModelVersion, release.model_version).fact
        found |= {name: ground.blobs.get(d) for name, d in version.files.items()}
        found["MLmodel"] = manifest(version, release)
    return found


def manifest(version: ModelVersion, release: Release) -> bytes:
    """So that MLflow's own loaders find the ONNX file. JSON is YAML."""
    entry = version.schema.inputs[0]
    tensor = {"dtype": "float32", "shape": [-1, len(entry.columns)]}
    inputs = [{"name": entry.name, "type": "tensor", "tensor-spec": tensor}]
    file = next((name for name in version.files if name.endswith(".onnx")), "")
    told = {
        "flavors": {
            "onnx": {
                "data": file,
                "onnx_version": "1",
                "providers": ["CPUExecutionProvider"],
                "onnx_session_options": None,
                "code": None,
            },
            "python_function": {"loader_module": "mlflow.onnx", "data": file},
        },
        "signature": {"inputs": json.dumps(inputs), "outputs": None, "params": None},
        "metadata": {"falaj.release": release.id, "falaj.columns": [c.name for c in entry.columns]},
        "utc_time_created": f"{release.created:%Y-%m-%d %H:%M:%S.%f}",
    }
    return json.dumps(told, indent=1).encode()
