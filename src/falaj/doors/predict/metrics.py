"""OpenMetrics text of one server process. No principal, key or request id is a label."""

from __future__ import annotations

import time
from typing import Final

from falaj.base.digests import short
from falaj.doors.predict.http import Desk
from falaj.doors.predict.state import State
from falaj.serving.counts import EDGES_US

__all__ = ["KIND", "text"]

KIND: Final = b"application/openmetrics-text; version=1.0.0; charset=utf-8"


def text(desk: State, door: Desk) -> bytes:
    """Tell the state of the process."""
    lines: list[str] = []

    def family(name: str, kind: str, words: str) -> None:
        lines.append(f"# TYPE {name} {kind}")
        lines.append(f"# HELP {name} {words}")

    def sample(name: str, value: float, note: str = "", **labels: str) -> None:
        inside = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items())
        told = _number(value)
        lines.append((f"{name}{{{inside}}} {told}" if inside else f"{name} {told}") + note)

    family("falaj_requests", "counter", "Requests by the arm of their assignment.")
    for (model, release, arm, outcome, way), count in sorted(desk.outcomes.items()):
        labels = {"model": model, "release": short(release), "arm": arm, "code": outcome}
        labels["door"] = way
        sample("falaj_requests_total", count, **labels)
    family("falaj_refused", "counter", "Requests refused before they had an arm.")
    for code, count in sorted(desk.refusals.items()):
        sample("falaj_refused_total", count, code=code)
    for status, count in sorted(door.refused.items()):
        sample("falaj_refused_total", count, code=f"http.{status}")
    family("falaj_shed", "counter", "Requests that were not tried.")
    for reason, count in sorted(desk.shed.items()):
        sample("falaj_shed_total", count, reason=reason)
    family("falaj_rescued", "counter", "Requests of the canary that stable answered.")
    for reason, count in sorted(desk.rescued.items()):
        sample("falaj_rescued_total", count, reason=reason)
    family("falaj_shadow_unshown", "counter", "Requests that the shadow did not see.")
    for reason, count in sorted(desk.unshown.items()):
        sample("falaj_shadow_unshown_total", count, reason=reason)
    far = desk.current.far if desk.current else {}
    family("falaj_model_process", "counter", "What became of the processes of canary and shadow.")
    for (name, arm, _), remote in far.items():
        for event, count in remote.counts.items():
            sample("falaj_model_process_total", count, arm=arm, event=event, model=name)
    family("falaj_breaker", "gauge", "0 closed, 1 half open, 2 open: whether an arm is asked.")
    for (name, arm, _), remote in far.items():
        state = ("closed", "half-open", "open").index(remote.breaker.way)
        sample("falaj_breaker", state, arm=arm, model=name)
    family("falaj_log_rows", "counter", "Rows written to the inference log.")
    sample("falaj_log_rows_total", desk.log.rows)
    family("falaj_log_dropped", "counter", "Rows of the inference log that were dropped.")
    for reason, count in sorted(desk.log.dropped.items()):
        sample("falaj_log_dropped_total", count, reason=reason)
    family("falaj_request_seconds", "histogram", "Latency of stable, parsed to written.")
    current = desk.current
    for name, live in (current.models if current else {}).items():
        labels = {"model": name, "release": short(live.stable.release)}
        below, named = 0, False
        slowest, live.latencies.slowest = live.latencies.slowest, (-1, "")
        for at, count in enumerate(live.latencies.counts):
            below += count
            if at % 8 == 7:  # one bucket a doubling is enough for a scrape
                note = ""
                if not named and 0 <= slowest[0] <= EDGES_US[at]:
                    named = True
                    note = f' # {{request="{slowest[1]}"}} {slowest[0] / 1e6!r}'
                edge = repr(EDGES_US[at] / 1e6)
                sample("falaj_request_seconds_bucket", below, note, **labels, le=edge)
        sample("falaj_request_seconds_bucket", below, **labels, le="+Inf")
        sample("falaj_request_seconds_count", below, **labels)
        sample("falaj_request_seconds_sum", live.latencies.total_us / 1e6, **labels)
    family(
        "falaj_rows", "counter", "Rows that were answered by the arm of their assignment, stable."
    )
    for name, live in (current.models if current else {}).items():
        labels = {"model": name, "release": short(live.stable.release)}
        sample("falaj_rows_total", live.latencies.rows, **labels)
    family("falaj_release", "info", "What is loaded.")
    for name, live in (current.models if current else {}).items():
        for arm, loaded in (("stable", live.stable), ("canary", live.canary)):
            if loaded is not None:
                labels = {"model": name, "arm": arm, "version": loaded.manifest.version}
                sample("falaj_release_info", 1, **labels, release=short(loaded.release))
    family("falaj_plan_seq", "gauge", "Number of the plan in force.")
    sample("falaj_plan_seq", current.plan.seq if current else -1)
    family("falaj_plan_age_seconds", "gauge", "Time since the plan in force was applied.")
    sample("falaj_plan_age_seconds", round(time.time() - desk.plan_since, 3))
    family("falaj_ready", "gauge", "1 when this server takes requests.")
    sample("falaj_ready", int(desk.ready))
    family("falaj_problem", "info", "What is wrong, if anything is.")
    if desk.trouble:
        sample("falaj_problem_info", 1, problem=desk.trouble[:200])
    family("falaj_connections", "gauge", "Open connections.")
    busy = door.busy
    sample("falaj_connections", busy, state="busy")
    sample("falaj_connections", len(door.connections) - busy, state="waiting")
    sample("falaj_connections", door.handshakes, state="handshake")
    family("falaj_turned_away", "counter", "Connections ended at accept or for dawdling.")
    for reason, count in sorted(door.turned_away.items()):
        sample("falaj_turned_away_total", count, reason=reason)
    family("falaj_auth", "counter", "Decisions about who may ask.")
    for result, count in sorted(desk.auth.items()):
        sample("falaj_auth_total", count, result=result)
    family("falaj_features", "counter", "Rows whose features were looked up.")
    for result, count in sorted(desk.features.items()):
        sample("falaj_features_total", count, result=result)
    family("falaj_spool_bytes", "gauge", "Bytes of the inference log written by this process.")
    sample("falaj_spool_bytes", desk.log.written)
    family("falaj_verified_timestamp_seconds", "gauge", "When what runs was verified last.")
    sample("falaj_verified_timestamp_seconds", round(desk.verified_at, 3))
    family("falaj_loop_lag_seconds", "gauge", "Longest delay of the loop since the last scrape.")
    sample("falaj_loop_lag_seconds", round(desk.loop_lag_s, 6))
    desk.loop_lag_s = 0.0
    lines.append("# EOF\n")
    return "\n".join(lines).encode()


def _number(value: float) -> str:
    """All digits: with six of them a counter stands still for thousands of requests."""
    return str(value) if isinstance(value, int) else repr(float(value))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
