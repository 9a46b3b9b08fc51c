"""What a server process knows of itself: what is live, what was answered, what is wrong."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from falaj.base.digests import short
from falaj.doors.predict.remote import Remote
from falaj.doors.predict.staging import Prepared
from falaj.serving.batching import Turn
from falaj.serving.counts import Tally
from falaj.serving.journal import LogFile
from falaj.serving.requests import RequestIds
from falaj.serving.rights import Bucket
from falaj.serving.spool import LogRow

__all__ = ["State"]

POSTED: Final = 64


class State:
    """Changed on the loop only."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ids: RequestIds,
        tally: Tally,
        log: LogFile,
        name: str,
    ) -> None:
        self.loop = loop
        self.ids = ids
        self.tally = tally
        self.log = log
        self.name = name
        self.turn = Turn(loop.call_soon)
        self.current: Prepared | None = None
        self.heads: dict[str, bytes] = {}  # release -> head of an answer up to the request's name
        self.outcomes: dict[tuple[str, str, str, str, str], int] = {}
        self.shed: dict[str, int] = {}
        self.refusals: dict[str, int] = {}
        self.auth: dict[str, int] = {}
        self.buckets: dict[str, Bucket] = {}
        self.failures = 0
        self.rescued: dict[str, int] = {}  # by what the canary lacked
        self.unshown: dict[str, int] = {}  # not shown to the shadow, by reason
        self.last_failure = ""
        self.problem = ""
        self.isolated = ""
        self.findings: list[str] = []  # what did not verify any more, arm by arm
        self.remotes: list[Remote] = []
        self.shadows = Turn(loop.call_soon)
        self.max_queue_us = 50_000.0
        self.draining = False
        self.flushing = False
        self.posted: deque[Callable[[], None]] = deque()
        self.woken = False
        self.plan_since = time.time()
        self.features: dict[str, int] = {}  # result of a lookup -> rows
        self.strict: frozenset[str] = frozenset()  # models without an answer that is not logged
        self.verified_at = time.time()
        self.loop_lag_s = 0.0  # the largest since somebody looked last
        self.neighbours: Callable[[], list[str]] = list  # addresses of the other servers here

    @property
    def ready(self) -> bool:
        return self.current is not None and not self.draining and not self.isolated

    @property
    def trouble(self) -> str:
        """What is wrong, in words: of this server, of its plan, of the processes of its arms."""
        told = [self.isolated or self.problem]
        for (name, arm, _), remote in self.current.far.items() if self.current else ():
            if remote.problem and not self.isolated:
                told.append(f"{name} {arm}: {remote.problem}")
        return "; ".join(words for words in told if words)

    def state(self) -> dict[str, Any]:
        """`live` is what the specification's object says; `ready` is what people look for."""
        current = self.current
        return {
            "live": True,
            "ready": self.ready,
            "boot": self.ids.boot,
            "plan_seq": current.plan.seq if current else -1,
            "models": {
                name: {
                    "stable": live.stable.release,
                    "canary": live.canary.release if live.canary else "",
                }
                for name, live in (current.models if current else {}).items()
            },
            "problem": self.trouble,
        }

    def post(self, account: Callable[[], None]) -> None:
        """Leave for the loop what only the loop may change; from any thread. Looked at each tick."""
        self.posted.append(account)
        if len(self.posted) > POSTED and not self.woken:
            self.woken = True
            self.loop.call_soon_threadsafe(self.take_posted)

    def take_posted(self) -> None:
        """Do what was left here, in its order."""
        self.woken = False
        posted = self.posted
        for _ in range(len(posted)):
            posted.popleft()()

    def answered(
        self,
        outcome: tuple[str, str, str, str, str],
        rows: int,
        make: Callable[[], list[LogRow]],
    ) -> None:
        """Count an outcome (model, release, arm, code, door), and leave its rows for the log."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        self.log.add(rows, make)
        if self.log.waiting_rows >= 128 and not self.flushing:
            self.flushing = True
            self.loop.call_soon(self.flush_log)

    def flush_log(self) -> None:
        """Write a block; when more waits, let the loop answer requests in between."""
        self.flushing = self.log.flush()
        if self.flushing:
            self.loop.call_soon(self.flush_log)

    def summary(self) -> str:
        """One line for people: what is live."""
        current = self.current
        return ", ".join(
            f"{name} {live.stable.manifest.version} ({short(live.stable.release)})"
            for name, live in (current.models if current else {}).items()
        )
