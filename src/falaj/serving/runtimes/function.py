"""A model that is code: it runs in a sandbox, in a process of its own, and is asked over two pipes.

No network, a read-only root, an identity of its own, memory and time bounded (base/sandbox). Where
there is no sandbox the release is refused: its code never runs beside the server's.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

from numpy.typing import NDArray

from falaj.base import sandbox
from falaj.base.errors import FalajError, Unverified
from falaj.facts.models import Schema
from falaj.serving.runtimes import pipe
from falaj.serving.runtimes.answers import file_of, promised

__all__ = ["FunctionModel", "Stopped"]

START_S: Final = 60.0
ANSWER_S: Final = 10.0
AGAIN_S: Final = 1.0
LIMITS: Final = sandbox.Limits(memory_mb=4096, seconds=0, file_mb=16, files=256)
CHUNK: Final = 1 << 20


class Stopped(Exception):
    """The process gave no answer: it ended, was too slow, or said something else."""


class FunctionModel:
    """`model.py` of a verified model folder, and what lies beside it. `run` is thread-safe.

    kind: python | torch | pyfunc. python: of an environment with numpy and what the code imports;
    the one of this process when not said. timeout_s: of one answer; after it the process is ended,
    and the next question starts it again from the bytes that were verified.
    """

    def __init__(
        self,
        folder: Path,
        schema: Schema,
        *,
        kind: str = "python",
        python: Path | None = None,
        limits: sandbox.Limits = LIMITS,
        timeout_s: float = ANSWER_S,
    ) -> None:
        why = sandbox.absent()
        if why:
            raise FalajError(
                "serving.no-sandbox",
                "the release brings code along, and there is no sandbox on this machine",
                why=why,
                fix="apt-get install bubblewrap, and allow user namespaces; or export the model to ONNX",
            )
        file_of(folder, "model.py")
        self.schema, self.kind, self.limits, self.timeout_s = schema, kind, limits, timeout_s
        self.python = python or Path(sys.executable)
        self.lock = threading.Lock()
        # The server's own copy goes away after the load, and a process may have to start again.
        self.kept = tempfile.TemporaryDirectory(prefix="falaj-function-")
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            to = Path(self.kept.name, path.relative_to(folder))
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(path.read_bytes())
        self.child: Child | None = None
        self.failed = 0.0
        try:
            self.start()
        except Stopped as stopped:
            raise Unverified(
                "serving.model-broken",
                "model/model.py: it cannot be loaded",
                why=str(stopped)[:300],
                fix="try it where it was written, with the packages of this environment",
            ) from None

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[Any]:
        """Outputs in the order of the schema. Raises Stopped, ValueError."""
        rows = len(next(iter(feeds.values())))
        asked = pipe.pack(pipe.RUN, feeds, rows)
        with self.lock:
            if self.child is None:
                if time.monotonic() - self.failed < AGAIN_S:
                    raise Stopped("the model's process ended a moment ago")
                self.start()
            assert self.child is not None  # noqa: S101 started above; told to mypy
            try:
                kind, tensors, data = self.child.asked(asked, self.timeout_s)
                if kind == pipe.ERROR:
                    raise ValueError(bytes(data).decode(errors="replace")[:500])
                if kind != pipe.ANSWER:
                    raise pipe.Malformed(f"kind {kind}")
                found = pipe.unpack(tensors, data)
            except (Stopped, OSError, pipe.Malformed) as error:
                self.close()
                self.failed = time.monotonic()
                raise Stopped(str(error)) from None
        if set(found) == {""}:
            return promised(found[""], self.schema, rows)
        if all(name.isdecimal() for name in found):
            return promised(list(found.values()), self.schema, rows)
        return promised(found, self.schema, rows)

    def start(self) -> None:
        """Raises Stopped with what the process said last."""
        child = Child(self.python, self.kind, Path(self.kept.name), self.limits)
        try:
            kind, _, data = child.heard(time.monotonic() + START_S)
        except (Stopped, OSError, pipe.Malformed) as error:
            words = child.last_words() or str(error)
            child.end()
            raise Stopped(words) from None
        if kind != pipe.HELLO:
            child.end()
            raise Stopped(bytes(data).decode(errors="replace"))
        self.child = child
        self.ending = weakref.finalize(self, child.end)

    def close(self) -> None:
        """End the process."""
        if self.child is not None:
            self.ending()
            self.child = None


class Child:
    """One process in the sandbox, and its pipes."""

    def __init__(self, python: Path, kind: str, folder: Path, limits: sandbox.Limits) -> None:
        self.words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 closed with the process
        self.process: subprocess.Popen[bytes] = sandbox.started(
            python,
            ["-P", "-m", "falaj.serving.runtimes.child", kind],
            folder,
            limits,
            writable=False,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.words,
        )
        assert self.process.stdin is not None  # noqa: S101 asked for above
        assert self.process.stdout is not None  # noqa: S101
        self.to, self.back = self.process.stdin.fileno(), self.process.stdout.fileno()
        for handle in (self.to, self.back):
            os.set_blocking(handle, False)

    def asked(
        self, pieces: list[bytes | memoryview], timeout_s: float
    ) -> tuple[int, int, memoryview]:
        end = time.monotonic() + timeout_s
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                try:
                    rest = rest[os.write(self.to, rest) :]
                except BlockingIOError:
                    ready(self.to, selectors.EVENT_WRITE, end)
        return self.heard(end)

    def heard(self, end: float) -> tuple[int, int, memoryview]:
        """Kind, number of tensors, what follows. Raises Stopped, Malformed."""
        head = self.read(pipe.HEAD.size, end)
        length, kind, version, tensors, _ = pipe.HEAD.unpack(head)
        rest = length - (pipe.HEAD.size - 4)
        if version != pipe.VERSION or not 0 <= rest <= pipe.MOST:
            raise pipe.Malformed("it speaks another language")
        return kind, tensors, self.read(rest, end)

    def read(self, size: int, end: float) -> memoryview:
        whole = bytearray(size)
        view, at = memoryview(whole), 0
        while at < size:
            try:
                got = os.readv(self.back, [view[at : at + CHUNK]])
            except BlockingIOError:
                ready(self.back, selectors.EVENT_READ, end)
                continue
            if not got:
                raise Stopped("the model's process ended")
            at += got
        return view

    def last_words(self) -> str:
        try:
            self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return ""
        self.words.seek(0)
        lines = self.words.read(1 << 16).decode(errors="replace").strip().splitlines()
        return "".join(c if c.isprintable() else " " for c in lines[-1]) if lines else ""

    def end(self) -> None:
        sandbox.ended(self.process)
        for stream in (self.process.stdin, self.process.stdout, self.words):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    continue  # what was not written is lost with it


def ready(handle: int, event: int, end: float) -> None:
    """Wait until the pipe can go on. Raises Stopped at the end of the time."""
    with selectors.DefaultSelector() as selector:
        selector.register(handle, event)
        if not selector.select(max(0.0, end - time.monotonic())):
            raise Stopped("the model's process took too long")
