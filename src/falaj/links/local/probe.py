"""Times answers of a release in a server process of this machine."""

from __future__ import annotations

import http.client
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from falaj.base.errors import FalajError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LocalProber"]

START_S: Final = 30.0
BOUND_S: Final = 120.0
WARM_UP: Final = 100


class LocalProber:
    """Adapter of ports.prober.Prober: one loopback connection, one row a request."""

    def time_answers(
        self, folder: Path, trust: Path, model: str, rows: NDArray[np.float32], requests: int
    ) -> NDArray[np.int64]:
        import numpy as np

        bodies = [body(row) for row in rows]
        child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                (
                    "import sys; from pathlib import Path; "
                    "from falaj.doors.predict.main import serve_folder; "
                    "sys.exit(serve_folder(Path(sys.argv[1]), Path(sys.argv[2]), 0))"
                ),
                str(folder),
                str(trust),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
        )
        try:
            host, port = address(child)
            return np.array(timed(host, port, model, bodies, requests), dtype=np.int64)
        finally:
            child.terminate()
            try:
                child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def body(row: Any) -> bytes:
    values = [None if value != value else float(value) for value in row]  # noqa: PLR0124 NaN
    tensor = {"name": "features", "shape": [1, len(values)], "datatype": "FP32", "data": values}
    return json.dumps({"inputs": [tensor]}).encode()


def address(child: subprocess.Popen[bytes]) -> tuple[str, int]:
    """Where the server listens, from the line that it prints when it is ready."""
    assert child.stdout is not None  # noqa: S101 asked for above
    assert child.stderr is not None  # noqa: S101
    ready, _, _ = select.select([child.stdout], [], [], START_S)
    line = child.stdout.readline() if ready else b""
    try:
        url = json.loads(line)["url"]
    except (ValueError, KeyError, TypeError):
        child.kill()
        said = child.stderr.read().decode(errors="replace")[-2000:]
        raise FalajError(
            "target.probe-failed",
            "the release could not be served for measuring",
            why=said or "it did not say why",
            fix="falaj serve FOLDER shows the same",
        ) from None
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


def timed(host: str, port: int, model: str, bodies: list[bytes], requests: int) -> list[int]:
    found: list[int] = []
    end = time.monotonic() + BOUND_S
    wire = http.client.HTTPConnection(host, port, timeout=10)
    path = f"/v2/models/{model}/infer"
    try:
        for number in range(WARM_UP + requests):
            if time.monotonic() > end:
                break  # fewer answers make the gate inconclusive, never endless
            started = time.perf_counter_ns()
            wire.request("POST", path, bodies[number % len(bodies)])
            answer = wire.getresponse()
            said = answer.read()
            took = (time.perf_counter_ns() - started) // 1000
            if answer.status != 200:
                raise FalajError(
                    "target.probe-failed",
                    f"the served release answered {answer.status}",
                    why=said.decode(errors="replace")[:500],
                )
            if number >= WARM_UP:
                found.append(took)
    finally:
        wire.close()
    return found
