"""Walk (d): what the servers left in their spool becomes labels of rollouts, windows and alerts.

Everything in memory here can be rebuilt from the spool; what was counted is stored by `monitoring`
together with how far it was read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from msgspec.structs import asdict

from falaj.facts.models import ModelVersion
from falaj.facts.releases import Release
from falaj.facts.rollouts import LiveMove, Rollout, Strategy, Stratum
from falaj.learning.join import Join, Labelled, strata
from falaj.learning.pairs import SHADOW, Pairing, ScoreCounts
from falaj.monitoring import service as monitors
from falaj.ports.ground import Ground
from falaj.serving import spool

__all__ = ["Watch"]

DRIFT: Final = "drift"
LABELS: Final = "labels"
EDGES: Final = "edges.json"
DECILES: Final = (0.1, 0.3, 0.5, 0.7, 0.9)


LogReader = Callable[[Path, Mapping[str, int]], Iterator[spool.Mark]]


def row_answers(row: Mapping[str, Any]) -> bool:
    """Whether the row was an answer to somebody. A shadow's is not."""
    return bool(row["assigned"] != SHADOW)


class Arrivals:
    """Joins answers and truth of one spool as they arrive; each pair is given once.

    tap: sees every row of the log, and says whether it is an answer.
    """

    def __init__(
        self, read: LogReader, folder: Path, tap: Callable[[Mapping[str, Any]], bool] = row_answers
    ) -> None:
        self._log = read
        self._tap = tap
        self._folder = folder
        self._join = Join()
        self.answers: dict[str, int] = {}
        self.truths: dict[str, int] = {}

    def read(self, thresholds: Mapping[str, float]) -> list[Labelled]:
        self._join.thresholds = thresholds
        log = follow(self._log(self._folder, self.answers), self.answers)
        found = self._join.answers(row for row in log if self._tap(row))
        return found + self._join.truths(
            follow(spool.labels(self._folder, self.truths), self.truths)
        )


def follow(marks: Iterator[spool.Mark], positions: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Rows as plain mappings; `positions` moves with them."""
    for mark in marks:
        positions[mark.name] = mark.offset
        yield asdict(mark.fact)


class Watch:
    """The worker's memory of what it has read. A new worker starts with an empty one."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._arrivals: dict[str, Arrivals] = {}
        self._limits: dict[str, float] = {}  # release -> threshold of its labels; never changes
        self._judged: dict[str, list[Labelled]] = defaultdict(list)  # rollout -> pairs
        self._pairs: dict[str, Pairing] = defaultdict(Pairing)  # rollout -> what a shadow said
        self._scores: dict[str, ScoreCounts] = {}  # rollout -> scores of its arms
        self._refused: dict[str, str] = {}  # segment of a log -> why it does not open
        self._told: set[tuple[str, str]] = set()

    def _log(self, folder: Path, since: Mapping[str, int]) -> Iterator[spool.Mark]:
        scopes = self._ground.scopes

        def key(said: Mapping[str, str]) -> bytes:
            scope, version = said.get("scope", ""), said.get("scope_version", "")
            if scopes is None or not version.isdecimal():
                raise ValueError("its key is not here")
            return scopes.reading(scope, int(version))

        return spool.log(folder, since, key=key, refused=self._refused.__setitem__)

    def _not_read(self) -> list[str]:
        """Segments that do not open, each said once a worker."""
        new = [one for one in self._refused.items() if one not in self._told]
        self._told |= set(new)
        return [f"segment {name} of the inference log is not read: {why}" for name, why in new]

    def strata(self, rollout: Rollout) -> list[Stratum]:
        """Labelled answers of a rollout by arrival, and scores of both arms by request.

        For a shadow: pairs of what both models said of one row.
        """
        if rollout.id not in self._scores:
            self._scores[rollout.id] = ScoreCounts(self._deciles(rollout.previous))
        self._arrive(rollout.environment)
        table = self._ground.project.environments[rollout.environment]
        zone = table.region or self._ground.project.project.region
        size_ms = round(rollout.plan.stratum_s * 1000)
        judged = self._judged[rollout.id]
        if rollout.plan.strategy is Strategy.SHADOW:
            pairs = self._pairs[rollout.id]
            pairs.labelled(judged)
            judged.clear()
            return pairs.strata(self._limits, size_ms, zone=zone)
        labelled = strata(judged, size_ms, rollout=rollout.id, zone=zone)
        return labelled + self._scores[rollout.id].strata(zone=zone)

    def _deciles(self, release: str) -> tuple[float, ...]:
        """Five thresholds of the live release's own scores at training, as its reference has them."""
        from falaj.monitoring.reference import SCORE, open_reference

        folder = self._ground.store.get(Release, release).fact.folder
        try:
            reference = open_reference(
                (self._ground.root / folder / "reference" / EDGES).read_bytes()
            )
        except FileNotFoundError:
            return ()
        column = reference.columns.get(SCORE)
        if column is None or not len(column.edges.edges):
            return ()
        edges = [float(edge) for edge in column.edges.edges]
        found = [edges[min(int(share * len(edges)), len(edges) - 1)] for share in DECILES]
        return tuple(sorted(set(found)))

    def _tap(self, row: Mapping[str, Any]) -> bool:
        """Count scores of rollouts, take what shadows said; tell whether the row is an answer."""
        if not row_answers(row):
            self._pairs[row["rollout"]].shadow(row)
            return False
        scores = self._scores.get(row["rollout"])
        if scores is not None:
            scores.row(row)
        return True

    def _arrive(self, environment: str) -> None:
        arrivals = self._arrivals.setdefault(
            environment, Arrivals(self._log, self._spool(environment), self._tap)
        )
        for pair in arrivals.read(self._thresholds()):
            if pair.rollout:
                self._judged[pair.rollout].append(pair)

    def _thresholds(self) -> dict[str, float]:
        for release in self._ground.store.find(Release):
            if release.id in self._limits:
                continue
            version = self._ground.store.get(ModelVersion, release.model_version).fact
            self._limits[release.id] = 0.5 if version.threshold is None else version.threshold
        return self._limits

    def _spool(self, environment: str) -> Path:
        table = self._ground.project.environments[environment]
        return self._ground.targets[table.target].spool(environment)

    def turn(self) -> list[str]:
        """Feed every monitor of every live release; return what was found, in words."""
        done: list[str] = []
        for environment in self._ground.project.environments:
            seen: set[str] = set()
            for move in self._ground.store.find(LiveMove, environment=environment):
                if move.model not in seen:
                    seen.add(move.model)
                    done += self._drift(move)
                    done += self._labels(move)
        return done + self._not_read()

    def _drift(self, move: LiveMove) -> list[str]:
        ground = self._ground
        if ground.project.monitors.drift is None:
            return []
        release = ground.store.get(Release, move.stable).fact
        edges = ground.root / release.folder / "reference" / EDGES
        if not edges.is_file():
            return []
        since = monitors.positions(ground, move.environment, move.model, DRIFT)
        offsets = dict(since)
        rows = [
            row
            for row in follow(self._log(self._spool(move.environment), since), offsets)
            if row["model"] == move.model and row_answers(row)
        ]
        closed, alert = monitors.take(
            ground,
            move.environment,
            move.model,
            release.id,
            edges.read_bytes(),
            rows,
            offsets,
            now=ground.now(),
            names=self._names(release),
            since=since,
        )
        return told(closed, alert)

    def _names(self, release: Release) -> tuple[str, ...]:
        version = self._ground.store.get(ModelVersion, release.model_version).fact
        return tuple(column.name for column in version.schema.inputs[0].columns)

    def _labels(self, move: LiveMove) -> list[str]:
        ground = self._ground
        if ground.project.monitors.labels is None:
            return []
        since = monitors.positions(ground, move.environment, move.model, LABELS)
        key = f"{move.environment}/{move.model}/{LABELS}"
        arrivals = self._arrivals.get(key)
        if arrivals is None or {**arrivals.answers, **arrivals.truths} != since:
            # A new worker: what was counted before is read again and left aside.
            arrivals = self._arrivals[key] = Arrivals(self._log, self._spool(move.environment))
            known = counted(arrivals, since, self._thresholds())
        else:
            known = set()
        fresh = [p for p in arrivals.read(self._thresholds()) if (p.request, p.row) not in known]
        closed, alert = monitors.take_labels(
            ground,
            move.environment,
            move.model,
            move.stable,
            fresh,
            {**arrivals.answers, **arrivals.truths},
            now=ground.now(),
            since=since,
        )
        return told(closed, alert)


def counted(
    arrivals: Arrivals, since: Mapping[str, int], thresholds: Mapping[str, float]
) -> set[tuple[str, int]]:
    """Pairs whose both sides lie before the stored positions: they were counted already."""
    if not since:
        return set()
    folder = arrivals._folder  # noqa: SLF001 the same module
    join = Join()
    join.thresholds = thresholds
    log = arrivals._log(folder, {})  # noqa: SLF001 the same module
    before = [m for m in log if m.offset <= since.get(m.name, 0)]
    truths = [m for m in spool.labels(folder) if m.offset <= since.get(m.name, 0)]
    rows = (asdict(m.fact) for m in before)
    pairs = join.answers(row for row in rows if row_answers(row)) + join.truths(
        asdict(m.fact) for m in truths
    )
    return {(pair.request, pair.row) for pair in pairs}


def told(closed: Any, alert: Any) -> list[str]:
    lines = [
        f"window {window.opens:%Y-%m-%d} of {window.monitor}: {window.rows} rows"
        for window in closed
    ]
    return [*lines, f"alert: {alert.title}"] if alert is not None else lines
