"""One inference request between its split and its answer."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from falaj.base.time import parse_instant
from falaj.doors.predict.http import REASONS, Connection, Request, error_body
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


class Job:
    """assigned: by the split; engine: who is asked now; they part when stable rescues."""

    door = "http"

    __slots__ = (
        "assigned",
        "begun_ns",
        "call",
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
        self.counted = counted  # it says something about the arms of a rollout
        self.error = ""
        self.done = False
        self.begun_ns = request.at_ns

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
        if self.rescue(str(error)):
            self.desk.turn.add(self)
        else:
            self.broken(str(error), waited_ns)

    def rescue(self, why: str) -> bool:
        """Ask stable next, once; False when it was stable that failed."""
        stable = self.live.stable
        if self.assigned == STABLE or self.error:
            return False
        self.error = why or "failed"
        self.engine = stable
        return True

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
        code = "serving.timeout" if status == 504 else "serving.engine"
        words = why if status == 504 else "the model failed on this request"
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
        if call.json_size >= 0:
            line = (
                b"content-type: application/octet-stream\r\ninference-header-content-length: %d\r\n"
            )
            head = head.replace(JSON_LINE, line % call.json_size, 1)
        client = self.request.headers.get(b"x-request-id")
        if client is not None and CLIENT_ID.fullmatch(client):
            head += b"x-request-id: " + client + b"\r\n"
        self.connection.send(head, body)

    def tell_broken(self, status: int, code: str, words: str, request: str) -> None:
        """Write that there is no answer."""
        body = error_body(code, words, request=request, release=self.engine.release)
        head = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\nfalaj-request: %b\r\n"
        self.connection.send(head % (status, REASONS[status], request.encode()), body)

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
        n = self.rows.n
        chosen = range(n) if n <= LOGGED else sorted(random.sample(range(n), LOGGED))
        live, engine = self.live, self.engine
        at: datetime = moment(at_ns)
        about = self.call.event_time
        event_time = parse_instant(about) if about else None
        arm = ARMS[STABLE] if self.error else ARMS[self.assigned]
        return [
            LogRow(
                at=at,
                request=request,
                row=row,
                model=live.name,
                release=engine.release,
                assigned=ARMS[self.assigned],
                arm=arm,
                outcome=outcome,
                latency_us=us,
                stratum=self.stratum if self.counted else -1,
                step=live.plan.step,
                rollout=live.plan.rollout,
                event_time=event_time,
                x=self.rows.row(row),
                y=outputs.row(row) if outputs else [],
                score=engine.score(outputs, row) if outputs else None,
                rows=n,
            )
            for row in chosen
        ]
