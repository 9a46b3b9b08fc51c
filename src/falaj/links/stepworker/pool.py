"""Steps in processes of their own: started when first needed, kept warm, replaced after a crash."""

from __future__ import annotations

import base64
import codecs
import json
import os
import secrets
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from falaj.base.points import Series, unpack
from falaj.facts.runs import Ending
from falaj.ports.executor import Hear, Order, Outcome

__all__ = ["StepWorkers"]

GRACE_S: Final = 5.0  # between asking a step to end and ending it
HALF: Final = 5 * 1024 * 1024  # bytes kept of the beginning, and of the end
LOOK_S: Final = 0.1  # where the system cannot tell of the end of a process


class StepWorkers:
    """The port Executor over processes of this machine.

    command: starts a worker; the descriptors of orders and answers are put behind it.
    """

    def __init__(
        self, command: Sequence[str], *, at_once: int, environment: Mapping[str, str] | None = None
    ) -> None:
        self.at_once = at_once
        self._command = tuple(command)
        self._environment = {**os.environ, **(environment or {})}
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._closed = False

    def run(self, order: Order) -> Outcome:
        return self.run_telling(order, _unheard)

    def run_telling(self, order: Order, hear: Hear) -> Outcome:
        worker = self._take(fresh=order.isolate)
        if worker is None:
            return Outcome(ending=Ending.LOST, message="the run was ended")
        outcome = worker.run(order, hear)
        with self._lock:
            if worker.lives and not order.isolate and not self._closed:
                self._idle.append(worker)
                return outcome
            self._all.discard(worker)
        worker.end()
        return outcome

    def close(self) -> None:
        with self._lock:
            self._closed = True
            busy, idle = self._all - set(self._idle), self._idle
            self._all, self._idle = set(), []
        for worker in idle:
            worker.end()
        for worker in busy:
            worker.kill()  # the thread that waits for its answer tidies up

    def _take(self, *, fresh: bool) -> _Worker | None:
        with self._lock:
            if self._closed:
                return None
            if self._idle and not fresh:
                return self._idle.pop()
            worker = _Worker(self._command, self._environment)
            self._all.add(worker)
            return worker


class _Worker:
    """One process, its two pipes, and what it prints."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        theirs, self._orders = os.pipe()
        self._answers, said = os.pipe()
        self._out, out = os.pipe()
        try:
            self._process = subprocess.Popen(
                [*command, str(theirs), str(said)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=(theirs, said),
                env=dict(environment),
                start_new_session=True,
            )
        finally:
            for descriptor in (theirs, said, out):
                os.close(descriptor)
        os.set_blocking(self._out, False)
        self._ended = _ended_sign(self._process.pid)
        self._lock = threading.Lock()
        self._rest = b""
        self.lives = True

    def run(self, order: Order, hear: Hear) -> Outcome:
        word = secrets.token_hex(16)
        printed, begun = _Printed(), time.perf_counter()
        line = json.dumps(msgspec.to_builtins(order)) + f" {word}\n"
        try:
            _write(self._orders, line.encode())
        except OSError:
            return self._lost(printed, begun)
        until = None if order.timeout_s is None else time.monotonic() + order.timeout_s
        answer = self._wait(printed, until, hear)
        if answer is not None:
            self._read_out(printed)
            outcome = msgspec.convert(answer, Outcome)
            return msgspec.structs.replace(outcome, log=printed.text().rpartition(word)[0])
        if until is not None and time.monotonic() >= until and not self._has_ended(set()):
            self._signal(signal.SIGTERM)
            self._wait_end(printed, time.monotonic() + GRACE_S)
            self._signal(signal.SIGKILL)
            self._lost(printed, begun)
            return Outcome(
                ending=Ending.TIMEOUT, log=printed.text(), seconds=time.perf_counter() - begun
            )
        return self._lost(printed, begun)

    def _wait(self, printed: _Printed, until: float | None, hear: Hear) -> Any:
        """The answer; None when the time is up or the process has ended.

        What the step says before goes to `hear`.
        """
        with selectors.DefaultSelector() as looking:
            looking.register(self._answers, selectors.EVENT_READ)
            looking.register(self._out, selectors.EVENT_READ)
            if self._ended is not None:
                looking.register(self._ended, selectors.EVENT_READ)
            while until is None or time.monotonic() < until:
                left = None if until is None else max(until - time.monotonic(), 0)
                pause = left if self._ended is not None else min(left or LOOK_S, LOOK_S)
                ready = {key.fd for key, _ in looking.select(pause)}
                if self._out in ready and not self._read_out(printed):
                    looking.unregister(self._out)
                if self._answers in ready:
                    data = os.read(self._answers, 1 << 16)
                    if not data:
                        looking.unregister(self._answers)
                    self._rest += data
                    while b"\n" in self._rest:
                        line, _, self._rest = self._rest.partition(b"\n")
                        answer = json.loads(line)
                        if "said" not in answer:
                            return answer
                        _heard(answer["said"], hear)
                if self._has_ended(ready):
                    return None
        return None

    def _wait_end(self, printed: _Printed, until: float) -> None:
        while time.monotonic() < until and not self._has_ended(set()):
            with selectors.DefaultSelector() as looking:
                if self._ended is not None:
                    looking.register(self._ended, selectors.EVENT_READ)
                looking.select(LOOK_S)
            self._read_out(printed)

    def _has_ended(self, ready: set[int]) -> bool:
        """Without taking the process off the table: its group keeps its name until then."""
        if self._ended is not None and self._ended in ready:
            return True
        found = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        return found is not None

    def _read_out(self, printed: _Printed) -> bool:
        """Take all that is there; False when nobody can print any more."""
        while True:
            try:
                data = os.read(self._out, 1 << 16)
            except BlockingIOError:
                return True
            if not data:
                return False
            printed.add(data)

    def _lost(self, printed: _Printed, begun: float) -> Outcome:
        """The process went away without an answer: how, and what it had printed."""
        self._signal(signal.SIGKILL)  # children that it left
        code = self._process.wait()
        self.lives = False
        self._read_out(printed)
        return Outcome(
            ending=Ending.LOST,
            message=_how(code),
            log=printed.text(),
            seconds=time.perf_counter() - begun,
        )

    def _signal(self, number: int) -> None:
        if self._process.returncode is not None:
            return  # its group's name may be another's by now
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            return

    def kill(self) -> None:
        """End the process and all that it started; who waits for its answer sees the end."""
        self._signal(signal.SIGKILL)

    def end(self) -> None:
        """The same, and give back what it holds here."""
        with self._lock:
            self._signal(signal.SIGKILL)
            if self._orders < 0:
                return
            self._process.wait()
            self.lives = False
            for descriptor in (self._orders, self._answers, self._out, self._ended):
                if descriptor is not None:
                    os.close(descriptor)
            self._orders = -1


class _Printed:
    """Bytes: the first and the last 5 MiB; what is between is counted, not kept."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._lost = 0

    def add(self, data: bytes) -> None:
        room = HALF - len(self._head)
        self._head += data[:room] if room > 0 else b""
        self._tail += data[max(room, 0) :]
        if len(self._tail) > 2 * HALF:
            self._cut()

    def _cut(self) -> None:
        over = max(len(self._tail) - HALF, 0)
        self._lost += over
        del self._tail[:over]

    def text(self) -> str:
        self._cut()
        between = f"\n... {self._lost} bytes left out ...\n" if self._lost else ""
        decode = codecs.getdecoder("utf-8")
        if not self._lost:
            return decode(bytes(self._head + self._tail), "replace")[0]
        head, tail = (decode(bytes(part), "replace")[0] for part in (self._head, self._tail))
        return head + between + tail


def _unheard(_metrics: Mapping[str, float], _lines: Sequence[Series]) -> None:
    """Nobody listens."""


def _heard(said: Mapping[str, Any], hear: Hear) -> None:
    hear(said["metrics"], unpack(base64.b64decode(said["points"])))


def _ended_sign(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends, where the system has one."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _how(code: int) -> str:
    if code >= 0:
        return f"it ended with exit code {code} and no answer"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    more = ", often because memory ran out" if name == "SIGKILL" else ""
    return f"it was ended by {name}{more}"


def _write(to: int, data: bytes) -> None:
    while data:
        data = data[os.write(to, data) :]
