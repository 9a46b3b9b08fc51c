"""One inference request between its split and its answer."""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from falaj.base.time import parse_instant
from falaj.doors.predict.http import REASONS, Connection, Request, error_body
from falaj.doors.predict.remote import Remote
from falaj.doors.predict.staging import Live
from falaj.doors.predict.state import State
from falaj.serving.counts import CANARY, STABLE
from falaj.serving.journal import moment
from falaj.serving.loading import EngineFailed, Loaded, Outputs
from falaj.serving.spool import LogRow
from falaj.serving.wire.v2 import Call

__all__ = ["LOGGED", "Job"]

LOGGED: Final = 64  # rows of one request that the log keeps
CLIENT_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
JSON_LINE: Final = b"content-type: application/json\r\n"
ARMS: Final = ("stable", "canary")
BROKEN: Final = {
    500: ("serving.engine", "the model failed on this request"),
    503: ("serving.arm", "this version cannot answer now"),
    504: ("serving.timeout", ""),
}
SHADOWS: Final = 64  # that wait: more are not shown, and counted
TIMEOUT_S: Final = 10.0


class Job:
    """assigned: by the split; engine: who is asked now; they part when stable rescues."""

    door = "http"

    __slots__ = (
        "assigned",
        "begun_ns",
        "call",
        "chosen",
        "connection",
        "counted",
        "counter",
        "desk",
        "done",
        "engine",
        "error",
        "form",
        "live",
        "request",
        "rows",
        "stratum",
        "until",
    )

    def __init__(
        self,
        desk: State,
        live: Live,
        call: Call,
        request: Request,
        connection: Connection,
        form: Callable[[Loaded, Call, Outputs, str], bytes],
        counter: int,
        stratum: int,
        assigned: int,
        engine: Loaded | None,
        counted: bool,
        chosen: bool = False,
    ) -> None:
        self.desk = desk
        self.live = live
        self.call = call
        self.rows = call.rows
        self.request = request
        self.connection = connection
        self.form = form
        self.counter = counter
        self.stratum = stratum
        self.assigned = assigned
        self.engine: Any = engine
        self.chosen = chosen  # the client named the arm: another one is not what it asked for
        self.counted = counted  # it says something about the arms of a rollout
        self.error = ""
        self.done = False
        self.begun_ns = request.at_ns
        asked = request.headers.get(b"falaj-timeout-ms")
        self.until = math.inf if asked is None else self.begun_ns / 1e9 + timeout_s(asked)

    def settle(self, outputs: Outputs, first: int, waited_ns: int) -> None:
        """Answer; runs on the loop."""
        late = self.too_late(waited_ns)
        if late is not None:
            self.fail(late, waited_ns)
            return
        mine = outputs.part(first, self.rows.n)
        request = self.desk.ids.name(self.engine.release, self.counter)
        body = self.form(self.engine, self.call, mine, request)
        self.finish(body, mine, request, waited_ns)

    def fail(self, error: EngineFailed, waited_ns: int) -> None:
        """Let stable answer what the canary could not; stable's own failure is a 500."""
        if time.perf_counter() > self.until:
            self.broken("no answer in time", waited_ns, 504)
            return
        if self.rescue(str(error)):
            self.desk.turn.add(self)
        else:
            self.broken(str(error), waited_ns)

    def rescue(self, why: str) -> bool:
        """Ask stable next, once; False when it was stable that failed."""
        stable = self.live.stable
        if self.assigned == STABLE or self.error or self.chosen:
            return False
        self.note_rescue(why)
        self.error = why or "failed"
        self.engine = stable
        return True

    def note_rescue(self, why: str) -> None:
        """Count what the canary lacked; on the loop only."""
        self.desk.rescued[why] = self.desk.rescued.get(why, 0) + 1

    def too_late(self, waited_ns: int) -> EngineFailed | None:
        """Tell whether the canary's answer comes after its timeout."""
        if self.assigned != CANARY or self.error:
            return None
        spent = time.perf_counter_ns() - self.begun_ns - waited_ns
        if spent <= self.live.canary_timeout_ns:
            return None
        return EngineFailed(f"no answer within {self.live.plan.canary.timeout_ms} ms")  # type: ignore[union-attr]

    def finish(self, body: bytes, outputs: Outputs, request: str, waited_ns: int) -> None:
        """Write the answer, then count and remember it."""
        if self.done:
            return
        self.done = True
        self.tell(body, request)
        us = (time.perf_counter_ns() - self.begun_ns - waited_ns) // 1000
        self.account(us, outputs, request, time.time_ns())

    def account(self, us: int, outputs: Outputs, request: str, at_ns: int) -> None:
        """Count an answer and remember it; on the loop only."""
        rescued = bool(self.error)
        if self.counted:
            self.count(-1 if rescued else us)
        if self.assigned == STABLE:
            self.live.latencies.note(us, self.rows.n, request)
        self.remember("rescued" if rescued else "ok", us, outputs, request, at_ns)
        if self.live.shadow is not None:
            mirror(self, request)

    def count(self, us: int) -> None:
        """Count one outcome of the assigned arm; below 0: none of its own."""
        live, plan, tally = self.live, self.live.plan, self.desk.tally
        cell = tally.cell(
            live.name,
            plan.rollout,
            plan.step,
            self.stratum,
            live.zone,
            plan.latency_us,
            plan.latency_margin_us,
        )
        tally.count(cell, self.assigned, us)

    def broken(self, why: str, waited_ns: int, status: int = 500) -> None:
        """No arm could answer."""
        if self.done:
            return
        self.done = True
        if status == 500 and self.engine.away:
            status = 503
        code, words = BROKEN.get(status, (BROKEN[500]))
        if status == 504:
            words = why
        request = self.desk.ids.name("", self.counter)
        self.tell_broken(status, code, words, request)
        us = (time.perf_counter_ns() - self.begun_ns - waited_ns) // 1000
        self.account_broken(code, why, us, request, time.time_ns())

    def account_broken(self, code: str, why: str, us: int, request: str, at_ns: int) -> None:
        """Count that nobody answered, and remember it; on the loop only."""
        if self.counted:
            self.count(-1)
        self.desk.failures += 1
        self.desk.last_failure = f"{self.live.name}: {why}"
        self.remember(code, us, None, request, at_ns)

    def tell(self, body: bytes, request: str) -> None:
        """Write the answer. Doors other than HTTP have their own way."""
        desk, call = self.desk, self.call
        head = desk.heads[self.engine.release] + request.encode() + b"\r\n"
        if call.head:
            head = head.replace(JSON_LINE, call.head, 1)
        client = self.request.headers.get(b"x-request-id")
        if client is not None and CLIENT_ID.fullmatch(client):
            head += b"x-request-id: " + client + b"\r\n"
        self.connection.send(head, body)

    def tell_broken(self, status: int, code: str, words: str, request: str) -> None:
        """Write that there is no answer."""
        body = error_body(code, words, request=request, release=self.engine.release)
        head = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\nfalaj-request: %b\r\n"
        head %= (status, REASONS[status], request.encode())
        self.connection.send(head + b"retry-after: 1\r\n" if status == 503 else head, body)

    def remember(
        self, outcome: str, us: int, outputs: Outputs | None, request: str, at_ns: int
    ) -> None:
        key = (self.live.name, self.engine.release, ARMS[self.assigned], outcome, self.door)
        self.desk.answered(
            key,
            min(self.rows.n, LOGGED),
            lambda: self.log_rows(at_ns, outcome, us, outputs, request),
        )

    def log_rows(
        self, at_ns: int, outcome: str, us: int, outputs: Outputs | None, request: str
    ) -> list[LogRow]:
        """Rows for the log: all of a small request, a uniform sample of a large one."""
        arm = ARMS[STABLE] if self.error else ARMS[self.assigned]
        told = (ARMS[self.assigned], arm, outcome, us)
        return rows_of(self, self.engine, told, outputs, request, at_ns)


class Shadow:
    """A copy of a request that was answered; what becomes of it is for the log alone."""

    __slots__ = ("at_ns", "begun_ns", "engine", "job", "request", "rows", "until")

    def __init__(self, job: Job, engine: Remote, request: str) -> None:
        self.job = job
        self.engine: Any = engine
        self.rows = job.rows
        self.request = request
        self.at_ns = time.time_ns()
        self.begun_ns = time.perf_counter_ns()
        self.until = math.inf

    def settle(self, outputs: Outputs, first: int, waited_ns: int) -> None:
        del waited_ns
        self.remember("ok", outputs.part(first, self.rows.n))

    def fail(self, error: EngineFailed, waited_ns: int) -> None:
        del error, waited_ns
        self.remember("serving.engine", None)

    def remember(self, outcome: str, outputs: Outputs | None) -> None:
        us = (time.perf_counter_ns() - self.begun_ns) // 1000
        told = ("shadow", "shadow", outcome, us)
        job, engine, request, at_ns = self.job, self.engine, self.request, self.at_ns
        job.desk.answered(
            (job.live.name, engine.release, "shadow", outcome, job.door),
            self.rows.n,
            lambda: rows_of(job, engine, told, outputs, request, at_ns),
        )


def mirror(job: Job, request: str) -> None:
    """Show an answered request to the shadow, if it is in the sample; never wait for it."""
    live, desk = job.live, job.desk
    shadow = live.shadow
    key = f"{desk.ids.boot}{job.counter:012x}".encode()
    if shadow is None or not live.split.shadows(key):
        return
    inputs = live.stable.manifest.schema.inputs
    if job.rows.n > LOGGED or shadow.manifest.schema.inputs != inputs:
        reason = "large" if job.rows.n > LOGGED else "schema"
    elif len(shadow.waiting) >= SHADOWS or len(desk.shadows.waiting) >= SHADOWS:
        reason = "busy"
    else:
        desk.shadows.add(Shadow(job, shadow, request))
        return
    desk.unshown[reason] = desk.unshown.get(reason, 0) + 1


def rows_of(
    job: Job,
    engine: Loaded,
    told: tuple[str, str, str, int],
    outputs: Outputs | None,
    request: str,
    at_ns: int,
) -> list[LogRow]:
    """Rows for the log. told: assigned, arm, outcome, microseconds."""
    n = job.rows.n
    chosen = range(n) if n <= LOGGED else sorted(random.sample(range(n), LOGGED))
    at: datetime = moment(at_ns)
    about = job.call.event_time
    event_time = parse_instant(about) if about else None
    assigned, arm, outcome, us = told
    live = job.live
    return [
        LogRow(
            at=at,
            request=request,
            row=row,
            model=live.name,
            release=engine.release,
            assigned=assigned,
            arm=arm,
            outcome=outcome,
            latency_us=us,
            stratum=job.stratum if job.counted else -1,
            step=live.plan.step,
            rollout=live.plan.rollout,
            event_time=event_time,
            x=job.rows.row(row),
            y=outputs.row(row) if outputs else [],
            score=engine.score(outputs, row) if outputs else None,
            rows=n,
        )
        for row in chosen
    ]


def timeout_s(asked: bytes) -> float:
    """Return the smaller of ten seconds and what the client asks for."""
    if asked.isdigit() and len(asked) < 10:
        return min(TIMEOUT_S, int(asked) / 1000)
    return TIMEOUT_S
