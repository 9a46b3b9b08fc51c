"""Times answers of a release in a server process of this machine."""

from __future__ import annotations

import http.client
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from falaj.base.errors import FalajError
from falaj.ports.prober import Timing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LocalProber"]

START_S: Final = 30.0
BOUND_S: Final = 120.0
ANSWER_S: Final = 10.0
STOP_S: Final = 10.0
WARM_UP: Final = 100

SERVE: Final = (
    "import sys; from pathlib import Path; "
    "from falaj.doors.predict.main import serve_folder; "
    "sys.exit(serve_folder(Path(sys.argv[1]), Path(sys.argv[2]), 0))"
)


class LocalProber:
    """Adapter of ports.prober.Prober: one loopback connection, one row a request."""

    def time_answers(
        self, folder: Path, trust: Path, model: str, rows: NDArray[np.float32], requests: int
    ) -> Timing:
        import numpy as np

        if not len(rows):
            raise failed("there are no rows to ask with", "the held-out rows are empty")
        # A file, not a pipe: a server that complains a lot must not stop at a full pipe.
        with tempfile.TemporaryFile() as words:
            child = subprocess.Popen(
                # -P: a numpy.py in the folder of the project is not the numpy of the server.
                [sys.executable, "-P", "-c", SERVE, str(folder), str(trust)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=words,
                env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
            )
            try:
                host, port = address(child)
                ready = memory_mb(child.pid, "VmRSS")
                us = np.array(timed(host, port, model, rows, requests), dtype=np.int64)
                return Timing(us, ready, memory_mb(child.pid, "VmHWM"))
            except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
                stop(child)
                why = said(words) or f"{type(error).__name__}: {error}"
                raise failed("the release could not be served for measuring", why) from None
            finally:
                stop(child)


def failed(message: str, why: str) -> FalajError:
    fix = "falaj serve FOLDER shows the same"
    return FalajError("target.probe-failed", message, why=why, fix=fix)


def said(words: IO[bytes]) -> str:
    """The end of what the server complained about."""
    words.seek(0)
    return words.read().decode(errors="replace")[-2000:].strip()


def memory_mb(pid: int, field: str) -> float | None:
    """MB of a living process, from Linux's own books; None elsewhere.

    VmRSS is what it holds now, VmHWM the most it ever held. Not `ru_maxrss`: that one begins with
    the size of the process that started it.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith(f"{field}:")]
    return int(found[0][1]) * 1024 / 1e6 if found else None


def stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(timeout=STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    if child.stdout is not None:
        child.stdout.close()


def address(child: subprocess.Popen[bytes]) -> tuple[str, int]:
    """Where the server listens, from the line that it prints when it is ready.

    Raises ValueError or KeyError when it ends, stays silent, or says something else.
    """
    assert child.stdout is not None  # noqa: S101 asked for above
    ready, _, _ = select.select([child.stdout], [], [], START_S)
    if not ready:
        raise TimeoutError(f"it was not ready after {START_S:g} s")
    host, _, port = (
        json.loads(child.stdout.readline())["url"].removeprefix("http://").rpartition(":")
    )
    return host, int(port)


def timed(host: str, port: int, model: str, rows: NDArray[np.float32], requests: int) -> list[int]:
    """Microseconds of each answer; fewer than asked for when the time is over."""
    found: list[int] = []
    end = time.monotonic() + BOUND_S
    wire = http.client.HTTPConnection(host, port, timeout=ANSWER_S)
    path = f"/v2/models/{model}"
    try:
        tensors = json.loads(ask(wire, "GET", path))["inputs"]
        if len(tensors) != 1:
            raise failed(f"the model has {len(tensors)} inputs", "one matrix of rows is measured")
        bodies = [body(row, tensors[0]) for row in rows]
        for number in range(WARM_UP + requests):
            if time.monotonic() > end:
                break  # fewer answers make the gate inconclusive, never endless
            started = time.perf_counter_ns()
            ask(wire, "POST", f"{path}/infer", bodies[number % len(bodies)])
            took = (time.perf_counter_ns() - started) // 1000
            if number >= WARM_UP:
                found.append(took)
    finally:
        wire.close()
    return found


def ask(wire: http.client.HTTPConnection, verb: str, path: str, sent: bytes | None = None) -> bytes:
    wire.request(verb, path, sent)
    answer = wire.getresponse()
    text = answer.read()
    if answer.status != http.HTTPStatus.OK:
        raise failed(
            f"the served release answered {answer.status}", text.decode(errors="replace")[:500]
        )
    return text


def body(row: Any, tensor: dict[str, Any]) -> bytes:
    """One row as the served model wants it, named and typed by its own metadata."""
    number = float if tensor["datatype"].startswith("FP") else int
    values = [None if value != value else number(value) for value in row]  # noqa: PLR0124 NaN
    named = {"name": tensor["name"], "datatype": tensor["datatype"], "shape": [1, len(values)]}
    return json.dumps({"inputs": [named | {"data": values}]}).encode()
