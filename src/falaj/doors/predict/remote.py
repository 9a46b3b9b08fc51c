"""A release that answers from a process of its own: asked in frames, never waited for.

Whatever happens to the process (it dies, hangs, floods, answers what was not asked), the requests
that wait for it fail here and now, and their jobs ask stable instead. Everything but `start` and
`run` happens on the loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from falaj.base.errors import FalajError
from falaj.doors.predict.channel import Channel, Started, start
from falaj.facts.releases import Manifest
from falaj.serving.batching import Waiting
from falaj.serving.breaker import Breaker, Way
from falaj.serving.loading import EngineFailed, Loaded, Outputs
from falaj.serving.schema import DTYPES, Rows, concatenate
from falaj.serving.wire.frames import Frame, Kind, pack, text_of

__all__ = ["Remote"]

MOST_WAITING: Final = 256  # batches
MOST_UNSENT: Final = 8 << 20
SILENT_S: Final = 5.0
RETIRE_S: Final = 10.0
FIRST_S: Final = 0.2
LONGEST_S: Final = 30.0

Done = Callable[[Outputs | EngineFailed], None]


class Batch:
    """What was asked in one frame. Seconds of `time.perf_counter`."""

    __slots__ = ("deadline", "done", "n", "sent")

    def __init__(self, n: int, sent: float, deadline: float, done: Done) -> None:
        self.n = n
        self.sent = sent
        self.deadline = deadline
        self.done = done


class Remote(Loaded):
    """Stands for a model in another process; what it takes and gives is known from the manifest."""

    away = True

    def __init__(
        self,
        release: str,
        manifest: Manifest,
        slot: int,
        command: Sequence[str],
        into: Path,
        started: Started,
    ) -> None:
        super().__init__(release, manifest, Absent(), slot)
        self.command = command
        self.into = into
        self.started: Started | None = started
        self.cost_us = started.cost_us
        self.timeout_s = 1.0
        self.breaker = Breaker()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.channel: Channel | None = None
        self.process: subprocess.Popen[bytes] | None = started.process
        self.waiting: dict[int, Batch] = {}
        self.given_up: deque[int] = deque(maxlen=4 * MOST_WAITING)  # their answers come too late
        self.number = 0
        self.timer: asyncio.TimerHandle | None = None
        self.timer_at = 0.0
        self.heard = 0.0
        self.hop_ns = 0  # of the newest answer
        self.retired = False
        self.condemned = ""
        self.problem = ""
        self.counts = {"deaths": 0, "hangs": 0, "garbage": 0, "timeouts": 0, "errors": 0, "late": 0}
        self.respawning: asyncio.Task[None] | None = None

    # life

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to listen to the process; again after it was replaced."""
        started, self.started = self.started, None
        if started is None or self.retired:
            return
        self.loop = loop
        self.process = started.process
        self.channel = Channel(loop, started.sock, self._heard, self._lost)
        self.heard = time.perf_counter()

    def retire(self) -> None:
        """Answer what was asked, then go. No new request comes: another plan is in force."""
        self.retired = True
        if self.respawning is not None:
            self.respawning.cancel()
        if self.channel is None or self.loop is None:
            self.kill()
            return
        self.channel.send(pack(Kind.DRAIN, 0, 0, []))
        self.loop.call_later(RETIRE_S, self.kill)

    def condemn(self, why: str) -> None:
        """Its files changed, or it was withdrawn: never ask it again."""
        self.condemned = self.problem = why
        self.kill()

    def kill(self) -> None:
        """End the process now; whatever state it is in, also stopped."""
        process = self.process
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
        if self.started is not None:
            self.started.sock.close()
            self.started = None

    @property
    def up(self) -> bool:
        return self.channel is not None

    # questions

    def run(self, parts: list[Rows]) -> Outputs:
        """Ask and wait, in a thread that may. Raises EngineFailed."""
        loop = self.loop
        if loop is None:
            raise EngineFailed("its process does not run")
        found: concurrent.futures.Future[Outputs | EngineFailed] = concurrent.futures.Future()

        def submit() -> None:
            self.submit(parts, found.set_result, time.perf_counter() + self.timeout_s)

        loop.call_soon_threadsafe(submit)
        try:
            outputs = found.result(self.timeout_s + 1.0)
        except TimeoutError:
            raise EngineFailed("no answer in time") from None
        if isinstance(outputs, EngineFailed):
            raise outputs
        return outputs

    def ask(self, jobs: list[Waiting]) -> None:
        """Ask for several requests in one frame; they hear of the outcome by themselves."""
        now = time.perf_counter()
        deadline = min(now + self.timeout_s, *(job.until for job in jobs))

        def done(found: Outputs | EngineFailed) -> None:
            if not isinstance(found, EngineFailed):
                first = 0
                for job in jobs:
                    job.settle(found, first, self.hop_ns)
                    first += job.rows.n
            elif len(jobs) > 1 and found.args[1:] == ("model",):
                for job in jobs:  # a bad row hurts its own request only
                    self.ask([job])
            else:
                for job in jobs:
                    job.fail(found, 0)

        self.submit([job.rows for job in jobs], done, deadline)

    def submit(self, parts: list[Rows], done: Done, deadline: float) -> None:
        """Send one frame. `done` is called once, perhaps at once."""
        now = time.perf_counter()
        channel = self.channel
        if channel is None or self.condemned:
            done(EngineFailed("its process does not run"))
            return
        if len(self.waiting) >= MOST_WAITING or channel.unsent > MOST_UNSENT:
            self._failed(now)
            done(EngineFailed("too much waits for its process"))
            return
        if not self.breaker.passes(now):
            done(EngineFailed("it failed too often to be asked now"))
            return
        n = sum(part.n for part in parts)
        feeds = concatenate(self.reader, parts)
        self.number += 1
        budget_us = max(int((deadline - now) * 1e6), 0)
        try:
            tensors = [feeds[name] for name in self.reader.inputs]
            frame = pack(Kind.RUN, self.number, n, tensors, budget_us)
        except ValueError as error:
            done(EngineFailed(str(error)))
            return
        self.waiting[self.number] = Batch(n, now, deadline, done)
        self._watch(now, deadline)
        channel.send(frame)

    # outcomes

    def _heard(self, frame: Frame) -> None:
        self.heard = now = time.perf_counter()
        batch = self.waiting.pop(frame.batch, None)
        if batch is None:
            if frame.batch in self.given_up:
                self.given_up.remove(frame.batch)
                self.counts["late"] += 1
            else:
                self._garbage("it answered what was not asked")
            return
        if frame.kind is Kind.ANSWER:
            try:
                outputs = self._outputs(frame, batch.n)
            except EngineFailed as error:
                self.counts["garbage"] += 1
                self._failed(now)
                batch.done(error)
                return
            self.breaker.answered()
            # The way there and back is ours, not the release's: promoted, it answers without it.
            self.hop_ns = max(int((now - batch.sent) * 1e9) - frame.budget_us * 1000, 0)
            batch.done(outputs)
        elif frame.kind is Kind.ERROR:
            self.counts["errors"] += 1
            self._failed(now)
            batch.done(EngineFailed(_why(frame), "model"))
        else:
            batch.done(EngineFailed("it answered with something else"))
            self._garbage(f"it sent {frame.kind.name}")

    def _outputs(self, frame: Frame, n: int) -> Outputs:
        if frame.rows != n or len(frame.tensors) != len(self.outputs):
            raise EngineFailed(f"got {len(frame.tensors)} outputs of {frame.rows} rows for {n}")
        for array, tensor in zip(frame.tensors, self.outputs, strict=True):
            text = np.dtype(DTYPES[tensor.datatype]) == object
            if (array.dtype == object) is not text:
                raise EngineFailed(f"{tensor.name}: got {array.dtype} for {tensor.datatype}")
        return self.outputs_of(frame.tensors, n)

    def _failed(self, now: float) -> None:
        """Count a failure; where it was one too many, nobody waits any longer."""
        if self.breaker.failed(now):
            self._release("it failed too often to be asked now")

    def _release(self, why: str) -> None:
        """Let everybody who waits ask elsewhere."""
        waiting, self.waiting = self.waiting, {}
        self.given_up.extend(waiting)
        for batch in waiting.values():
            batch.done(EngineFailed(why))

    def _watch(self, now: float, deadline: float) -> None:
        """See to it that something looks at the time then; one timer for all."""
        if self.loop is None or (self.timer is not None and self.timer_at <= deadline):
            return
        if self.timer is not None:
            self.timer.cancel()
        self.timer_at = deadline
        self.timer = self.loop.call_later(max(deadline - now, 0.001), self._expire)

    def _expire(self) -> None:
        """Give up what is overdue; replace a process that says nothing any more."""
        self.timer = None
        now = time.perf_counter()
        overdue = [number for number, batch in self.waiting.items() if batch.deadline <= now]
        silent = bool(overdue) and all(b.sent > self.heard for b in self.waiting.values())
        for number in overdue:
            batch = self.waiting.pop(number, None)
            if batch is None:  # let go while the ones before it failed
                continue
            self.given_up.append(number)
            self.counts["timeouts"] += 1
            if self.breaker.failed(now):
                silent = silent or now - self.heard > self.timeout_s
                self._release("it failed too often to be asked now")
            batch.done(EngineFailed("no answer in time"))
        if silent and (self.breaker.way is Way.OPEN or now - self.heard > SILENT_S):
            self._hangs()
        if self.waiting:
            self._watch(now, min(batch.deadline for batch in self.waiting.values()))

    def _hangs(self) -> None:
        self.counts["hangs"] += 1
        self.problem = "its process said nothing any more and was replaced"
        self._end()

    def _garbage(self, why: str) -> None:
        self.counts["garbage"] += 1
        self.problem = f"{why}; its process was replaced"
        self._end()

    def _end(self) -> None:
        if self.channel is not None:
            self.channel.close()
        self._lost("replaced")

    def _lost(self, why: str) -> None:
        """The process is gone, or what it sends is no frame: nothing is waited for any more."""
        if self.channel is None:
            return
        self.channel = None
        if not self.retired:
            self.counts["deaths"] += 1
            self.breaker.open(time.perf_counter())
            if not self.condemned and (not self.problem or why != "replaced"):
                self.problem = f"its process ended: {why}"
        self._release(f"its process ended: {why}")
        self.given_up.clear()
        if self.loop is not None:
            loop = self.loop
            loop.run_in_executor(None, self.kill)  # and reap
            if not self.retired and not self.condemned:
                self.respawning = loop.create_task(self._respawn(loop))

    async def _respawn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start anew, verification and probe rows included; the first request decides (half open)."""
        wait_s = FIRST_S
        while True:
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_S)
            try:
                started = await loop.run_in_executor(None, start, self.command, self.into)
            except FalajError as error:
                self.problem = str(error)
                print(f"falaj: {self.release[:19]}: {error}", file=sys.stderr, flush=True)
                continue
            if self.retired or self.condemned:
                started.end()
                return
            self.started = started
            self.attach(loop)
            self.problem = ""
            return


class Absent:
    """The runtime is elsewhere."""

    def run(self, feeds: Any) -> list[Any]:
        del feeds
        raise EngineFailed("this model runs in another process")


def _why(frame: Frame) -> str:
    import msgspec

    try:
        return str(msgspec.json.decode(text_of(frame.tensors[0]))["why"])[:300]
    except (ValueError, KeyError, TypeError, IndexError):
        return "it failed"
