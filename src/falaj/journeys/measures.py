"""Metrics of the user's own: what their system reports, and what their Prometheus has counted.

During a rollout they are strata of its analysis; afterwards reports feed a guard on the metric's limit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final

from msgspec.structs import replace

from falaj.base import ids
from falaj.base.errors import NotFound
from falaj.facts.access import Permit
from falaj.facts.monitoring import Alert, AlertState, MonitorState
from falaj.facts.project import OwnMetricTable
from falaj.facts.rollouts import KpiReport, MetricPlan, Phase, Rollout, Stratum
from falaj.monitoring import guard
from falaj.ports.ground import Ground
from falaj.ports.measures import Measures, NoMeasure
from falaj.ports.store import Kept, Unit
from falaj.rollouts import own
from falaj.rollouts.service import active, newest_live

__all__ = ["OwnMetrics", "report"]

CARRIES: Final = (Phase.PROGRESSING, Phase.PAUSED)
BEHIND: Final = 60  # strata that are still asked for when a worker was away
PATIENCE_S: Final = 10.0


def report(
    ground: Ground,
    permit: Permit,
    environment: str,
    model: str,
    metric: str,
    *,
    id: str,
    canary: tuple[Any, Any, Any],
    stable: tuple[Any, Any, Any],
) -> KpiReport:
    """Count what the user's system says of a metric: (n, bad, values) of each arm.

    The same id again counts once. In a rollout it joins the stratum in which it arrives; otherwise it
    speaks of the live release, as `stable`, and feeds the guard on the metric's limit.
    """
    table = table_of(ground, environment, metric)
    plan = table.plan()
    told_c = own.told(*canary, plan, "canary")
    told_s = own.told(*stable, plan, "stable")
    now = ground.now()
    with ground.store.begin() as unit:
        running = active(unit, environment, model)
        carried = running if running is not None and running.phase in CARRIES else None
        live = newest_live(unit, environment, carried.model if carried else model)
        if live is None:
            raise NotFound("rollouts.nothing-live", f"nothing of {model} is live in {environment}")
        if carried is None and told_c.n:
            raise own.wrong("no canary answers now", "report the live release as stable")
        name = carried.id if carried else live.stable
        kept = state_of(unit, f"{environment}/{live.model}/kpi/{name}", live.stable)
        size_ms = round((carried.plan.stratum_s if carried else 60.0) * 1000)
        place = (int(now.timestamp() * 1000) // size_ms, carried.step if carried else 0, metric)
        counted = own.added(kept.fact.open, id or ids.new(), place, told_c, told_s)
        said = KpiReport(
            id=id,
            model=live.model,
            metric=metric,
            n_c=told_c.n,
            x_c=told_c.bad,
            n_s=told_s.n,
            x_s=told_s.bad,
            at=now,
        )
        if counted is None:
            return said
        after = replace(kept.fact, open=counted)
        if carried is None and plan.slo is not None and told_s.n:
            after, crossed = guarded(after, metric, plan, told_s)
            if crossed:
                alarm(ground, unit, permit, environment, live.model, live.stable, metric, crossed)
        unit.replace(kept, after)
        unit.append(
            ground.event(
                "kpi.reported",
                permit.person,
                f"environment/{environment}",
                {
                    "report": id,
                    "metric": metric,
                    "of": name,
                    "canary": [told_c.n, told_c.bad],
                    "stable": [told_s.n, told_s.bad],
                },
            )
        )
    return said


def table_of(ground: Ground, environment: str, metric: str) -> OwnMetricTable:
    table = ground.project.environments.get(environment)
    found = table.rollout.metrics.get(metric) if table else None
    if found is None or found.source != "kpi":
        raise NotFound(
            "rollouts.no-such-metric",
            f"{environment} has no metric {metric[:60]!r} that is reported",
            fix=f"name it in falaj.toml: [environments.{environment}.rollout.metrics.{metric[:60]}]",
        )
    return found


def state_of(unit: Unit, id: str, release: str) -> Kept[MonitorState]:
    try:
        return unit.get(MonitorState, id)
    except NotFound:
        unit.add(MonitorState(id=id, release=release))
        return unit.get(MonitorState, id)


def guarded(
    state: MonitorState, metric: str, plan: MetricPlan, told: own.Told
) -> tuple[MonitorState, str]:
    """The guard with one report more; in words why it crossed, once."""
    assert plan.slo is not None  # noqa: S101 asked before
    before = guard.of_plain(state.guard.get(metric, {}), plan.slo)
    after = guard.step(before, told.bad, told.n)
    said = ""
    if after.crossed and not before.crossed:
        said = (
            f"{after.wrong} bad of {after.n} since it is live, at most {plan.slo:.2%} is its limit"
        )
    return replace(state, guard={**state.guard, metric: guard.plain(after)}), said


def alarm(
    ground: Ground,
    unit: Unit,
    permit: Permit,
    environment: str,
    model: str,
    release: str,
    metric: str,
    why: str,
) -> None:
    alert = Alert(
        id=ids.new(),
        kind="kpi",
        environment=environment,
        model=model,
        release=release,
        state=AlertState.OPEN,
        title=f"{metric} of {model} in {environment} is above its limit",
        reasons=(why,),
        at=ground.now(),
    )
    unit.add(alert)
    data = {"kind": alert.kind, "of": metric}
    unit.append(ground.event("alert.opened", permit.person, f"alert/{alert.id}", data))


class OwnMetrics:
    """The worker's memory of what Prometheus said. A new worker asks again, and hears the same."""

    def __init__(self, ground: Ground, measures: Callable[[str], Measures]) -> None:
        self._ground = ground
        self._measures = measures
        self._known: dict[tuple[str, str, int], dict[str, int]] = {}
        self._trouble: dict[str, str] = {}
        self._again: dict[str, float] = {}

    def strata(self, rollout: Rollout) -> list[Stratum]:
        table = self._ground.project.environments[rollout.environment]
        zone = table.region or self._ground.project.project.region
        found: list[Stratum] = []
        if any(plan.source == "kpi" for plan in rollout.plan.metrics.values()):
            name = f"{rollout.environment}/{rollout.model}/kpi/{rollout.id}"
            with contextlib.suppress(NotFound):  # nothing was reported yet
                found += own.rows_of(self._ground.store.get(MonitorState, name).fact.open, zone)
        for name, plan in rollout.plan.metrics.items():
            if plan.source == "prometheus":
                found += self._counted(rollout, name, plan, zone)
        return found

    def trouble(self) -> list[str]:
        """What could not be asked, each said once."""
        said = [f"metric {name} is not known: {why}" for name, why in self._trouble.items()]
        self._trouble.clear()
        return said

    def _counted(self, rollout: Rollout, name: str, plan: MetricPlan, zone: str) -> list[Stratum]:
        """Strata that are closed and not taken yet; where the server is away, those it lacks."""
        size = rollout.plan.stratum_s
        newest = int((self._ground.now().timestamp() - rollout.plan.grace_s) // size) - 1
        begun = int((rollout.opened or rollout.started).timestamp() // size) + 1
        first = max(rollout.done_stratum + 1, begun, newest - BEHIND)
        found = []
        for at in range(first, newest + 1):
            row = self._stratum(rollout, name, plan, at)
            if row is not None:
                found.append(
                    Stratum(stratum=at, zone=zone, step=rollout.step, metric=own.OWN + name, **row)
                )
        return found

    def _stratum(
        self, rollout: Rollout, name: str, plan: MetricPlan, at: int
    ) -> dict[str, int] | None:
        key = (rollout.id, name, at)
        if key in self._known:
            return self._known[key]
        if monotonic() < self._again.get(plan.url, 0.0):
            return None
        arms = {
            "c": (rollout.release, rollout.version),
            "s": (rollout.previous, rollout.previous_version),
        }
        row: dict[str, int] = {}
        try:
            for arm, (release, version) in arms.items():
                n = self._grown(plan, plan.all, release, version, at, rollout.plan.stratum_s)
                bad = self._grown(plan, plan.bad, release, version, at, rollout.plan.stratum_s)
                row[f"n_{arm}"] = n or 0
                row[f"x_{arm}"] = min(bad or 0, n or 0)
        except NoMeasure as error:
            self._trouble[name] = str(error)
            self._again[plan.url] = monotonic() + PATIENCE_S
            return None
        self._known[key] = row
        if len(self._known) > 10_000:
            del self._known[next(iter(self._known))]
        return row

    def _grown(
        self, plan: MetricPlan, query: str, release: str, version: str, at: int, size: float
    ) -> int | None:
        words = own.asked(query, release, version)
        ends = [datetime.fromtimestamp(place * size, UTC) for place in (at, at + 1)]
        asked = self._measures(plan.url)
        return own.grown(*(asked.value(words, end) for end in ends))
