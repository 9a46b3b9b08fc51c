"""`python -m falaj.doors.predict.model`: one release in a process of its own.

It verifies and loads by itself, says so in a frame, then answers frames until its socket ends. It
listens nowhere, knows no client, and dies with the server that started it.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from falaj.base.errors import FalajError
from falaj.doors.predict.loads import load_release, read_trust
from falaj.serving.loading import EngineFailed, Loaded
from falaj.serving.wire.frames import BadFrame, Frame, Frames, Kind, blob, pack

__all__ = ["main", "reply"]

CHUNK: Final = 1 << 18
DIE_WITH_PARENT: Final = 1  # PR_SET_PDEATHSIG


def main(argv: Sequence[str] | None = None) -> int:
    """Load one release and answer frames. Returns the exit code."""
    parser = argparse.ArgumentParser("falaj.doors.predict.model", description=main.__doc__)
    parser.add_argument("--fd", type=int, required=True, help="one end of a pair of sockets")
    parser.add_argument("--parent", type=int, required=True, help="process that started this one")
    parser.add_argument("--folder", type=Path, required=True, help="the release")
    parser.add_argument("--into", type=Path, required=True, help="private copy while it loads")
    parser.add_argument("--trust", type=Path, required=True)
    parser.add_argument("--trust-version", type=int, default=0)
    parser.add_argument("--release", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--environment", default="")
    asked = parser.parse_args(argv)
    die_with(asked.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the server says when to go
    with socket.socket(fileno=asked.fd) as sock:
        try:
            trust = read_trust(asked.trust, asked.trust_version)
            loaded = load_release(
                asked.folder,
                trust,
                asked.into,
                release=asked.release,
                model=asked.model,
                environment=asked.environment,
                slot=0,
            )
        except FalajError as error:
            sock.sendall(pack(Kind.ERROR, 0, 0, [told(msgspec.to_builtins(error.problems[0]))]))
            return error.exit
        gc.collect()
        gc.freeze()
        hello = {"release": asked.release, "cost_us": loaded.cost_us, "pid": os.getpid()}
        sock.sendall(pack(Kind.HELLO, 0, 0, [told(hello)]))
        with contextlib.suppress(ConnectionError, BadFrame):
            serve(sock, loaded)
    return 0


def serve(sock: socket.socket, loaded: Loaded) -> None:
    """Answer until the other end is gone or says that nothing more will come."""
    frames = Frames()
    while data := sock.recv(CHUNK):
        for frame in frames.feed(data):
            if frame.kind is Kind.DRAIN:
                return
            sock.sendall(reply(loaded, frame))


def reply(loaded: Loaded, frame: Frame) -> bytes:
    """Run one frame. A model that fails is an answer, too. Raises BadFrame for what no server asks."""
    if frame.kind is not Kind.RUN or len(frame.tensors) != len(loaded.reader.inputs):
        raise BadFrame(f"{frame.kind.name}: with {len(frame.tensors)} tensors")
    feeds = dict(zip(loaded.reader.inputs, frame.tensors, strict=True))
    begun = time.perf_counter_ns()
    try:
        found = loaded.compute(feeds, frame.rows)
        took_us = (time.perf_counter_ns() - begun) // 1000
        return pack(Kind.ANSWER, frame.batch, frame.rows, found, took_us)
    except (EngineFailed, ValueError) as error:
        return pack(Kind.ERROR, frame.batch, 0, [told({"why": str(error)[:300]})])


def told(about: Any) -> Any:
    return blob(msgspec.json.encode(about))


def die_with(parent: int) -> None:
    """A server that is killed takes its models along, also those that hang."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)
    score = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError):
        score.write_text("500")  # when memory is short, this one goes and stable stays


if __name__ == "__main__":
    sys.exit(main())
