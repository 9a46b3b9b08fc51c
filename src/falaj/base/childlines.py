"""A child process that answers JSON lines, each by a deadline: what is heavy stays out of ours."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Final

__all__ = ["ChildDied", "ChildLate", "ChildLines"]

MAX_LINE: Final = 256 * 1024**2
STOP_S: Final = 5.0


class ChildDied(RuntimeError):
    """The process ended, or answered what is no answer."""


class ChildLate(TimeoutError):
    """The answer did not come in time. It is thrown away when it comes; the child goes on."""


class ChildLines:
    """One question at a time, from any thread. What the child prints to standard error is kept.

    Questions are `{"id": n, ...}` lines to its standard input, answers `{"id": n, ...}` lines from
    its standard output.
    """

    def __init__(
        self, argv: Sequence[str], *, cwd: Path, environment: Mapping[str, str], log: Path
    ) -> None:
        with log.open("ab") as errors:
            self._child = subprocess.Popen(
                list(argv),
                cwd=cwd,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # an interrupt from the keyboard is ours to handle
            )
        assert self._child.stdin is not None and self._child.stdout is not None  # noqa: S101 PT018 asked for
        self._in, self._out = self._child.stdin.fileno(), self._child.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._asking = threading.Lock()
        self._asked = 0
        self._unsent = b""
        self._rest = bytearray()

    @property
    def is_alive(self) -> bool:
        return self._child.poll() is None

    def ask(self, question: Mapping[str, Any], *, within: float) -> dict[str, Any]:
        """The answer to one question. within: seconds, waiting for other questions included.

        Raises ChildLate, ChildDied.
        """
        end = monotonic() + within
        if not self._asking.acquire(timeout=max(within, 0)):
            raise ChildLate
        try:
            self._asked += 1
            line = json.dumps({**question, "id": self._asked}).encode() + b"\n"
            # A question that could not be sent whole before is still sent first: lines stay lines.
            self._unsent += line
            self._send(end)
            while True:
                answer = self._line(end)
                if answer.get("id") == self._asked:
                    return answer
        finally:
            self._asking.release()

    def _send(self, end: float) -> None:
        while self._unsent:
            left = end - monotonic()
            if left <= 0 or not select.select([], [self._in], [], left)[1]:
                raise ChildLate
            try:
                self._unsent = self._unsent[os.write(self._in, self._unsent) :]
            except BlockingIOError:
                continue
            except OSError:
                raise ChildDied(self._ending()) from None

    def _line(self, end: float) -> dict[str, Any]:
        while (at := self._rest.find(b"\n")) < 0:
            left = end - monotonic()
            if left <= 0 or not select.select([self._out], [], [], left)[0]:
                raise ChildLate
            part = os.read(self._out, 1 << 20)
            if not part or len(self._rest) > MAX_LINE:
                raise ChildDied(self._ending())
            self._rest += part
        line = bytes(self._rest[:at])
        del self._rest[: at + 1]
        try:
            answer = json.loads(line)
        except ValueError:
            raise ChildDied("it answered what is no JSON") from None
        return answer if isinstance(answer, dict) else {}

    def _ending(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return f"it ended with code {self._child.wait(timeout=1)}"
        return "it does not listen any more"

    def end(self) -> None:
        """End it at once, whatever it does now. Not an error twice."""
        with contextlib.suppress(ProcessLookupError):
            self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None  # noqa: S101 asked for
            with contextlib.suppress(OSError):
                pipe.close()

    def close(self) -> None:
        """End it: gently by closing its input, then by force. Not an error twice."""
        with contextlib.suppress(OSError):
            assert self._child.stdin is not None  # noqa: S101 asked for
            self._child.stdin.close()
        try:
            self._child.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        assert self._child.stdout is not None  # noqa: S101 asked for
        self._child.stdout.close()
