"""What a supervisor answers for all of its workers: health, and their metrics added up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from falaj.doors.predict.http import Connection, Request, error_body

if TYPE_CHECKING:
    import subprocess

__all__ = ["Together", "added"]

KIND: Final = b"application/openmetrics-text; version=1.0.0; charset=utf-8"
ASK_S: Final = 2.0
MOST: Final = 8 << 20

encode: Final = msgspec.json.Encoder().encode


class Worker(Protocol):
    """One of many, as its supervisor knows it."""

    process: subprocess.Popen[bytes]
    told: dict[str, Any]
    own_url: str
    draining: bool
    began: float


class Above(Protocol):
    """The supervisor."""

    boot: str
    stopping: asyncio.Event
    rolled: int
    respawned: int

    @property
    def everybody(self) -> Sequence[Worker]:
        """Workers, those that drain included."""

    @property
    def serving(self) -> Sequence[Worker]:
        """Workers that answer and will go on doing so."""

    @property
    def troubled(self) -> bool:
        """Tell whether workers die again and again."""


class Together:
    """The application of the supervisor's own listener."""

    def __init__(self, supervisor: Above) -> None:
        self.supervisor = supervisor
        self.tasks: set[asyncio.Task[None]] = set()

    def __call__(self, request: Request, connection: Connection) -> None:
        path = request.target.partition(b"?")[0]
        if request.method not in (b"GET", b"HEAD"):
            body = error_body("serving.method", "method: expected GET")
            connection.answer(405, body, headers=b"allow: GET, HEAD\r\n")
        elif path == b"/v2/health/ready":
            told = self.health()
            connection.answer(200 if told["ready"] else 503, encode(told))
        elif path == b"/v2/health/live":
            connection.answer(200, encode({"live": True}))
        elif path == b"/metrics":
            task = asyncio.get_running_loop().create_task(self.metrics(connection))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        else:
            words = "this listener knows health and metrics; requests go to the other one"
            connection.answer(404, error_body("serving.address", words))

    def health(self) -> dict[str, Any]:
        """Ready while one worker is and nothing dies again and again; the oldest plan counts."""
        above = self.supervisor
        told = [worker.told for worker in above.serving]
        ready = [one for one in told if one.get("ready")]
        problems = {str(one.get("problem", "")) for one in told} - {""}
        if above.troubled:
            problems.add("workers die again and again")
        return {
            "live": True,
            "ready": bool(ready) and not above.troubled and not above.stopping.is_set(),
            "boot": above.boot,
            "plan_seq": min((int(one.get("plan_seq", -1)) for one in ready), default=-1),
            "models": ready[0].get("models", {}) if ready else {},
            "problem": "; ".join(sorted(problems)),
            "workers": [
                {
                    "pid": worker.process.pid,
                    "ready": bool(worker.told.get("ready")) and not worker.draining,
                    "draining": worker.draining,
                    "boot": worker.told.get("boot", ""),
                    "age_s": round(time.monotonic() - worker.began, 1),
                }
                for worker in above.everybody
            ],
        }

    async def metrics(self, connection: Connection) -> None:
        above = self.supervisor
        texts = await asyncio.gather(*(scrape(worker) for worker in above.serving))
        lines = added([text for text in texts if text])
        own = {
            "falaj_workers": ("gauge", "Workers that answer.", len(above.serving)),
            "falaj_workers_started": ("counter", "Started in place of dead ones.", above.respawned),
            "falaj_restarts": ("counter", "Rolling restarts that were completed.", above.rolled),
        }
        for name, (kind, words, value) in own.items():
            lines += [f"# TYPE {name} {kind}", f"# HELP {name} {words}"]
            lines.append(f"{name}{'_total' if kind == 'counter' else ''} {value}")
        connection.answer(200, "\n".join([*lines, "# EOF\n"]).encode(), kind=KIND)


async def scrape(worker: Worker) -> str:
    """Metrics of one worker; nothing when it does not answer now."""
    host, _, port = worker.own_url.removeprefix("http://").rpartition(":")
    try:
        async with asyncio.timeout(ASK_S):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            try:
                # Alone: asked for all, a worker would ask its neighbours, and so this process.
                writer.write(b"GET /metrics?alone HTTP/1.0\r\nhost: supervisor\r\n\r\n")
                text = await reader.read(MOST)
                while part := await reader.read(MOST):
                    text += part
            finally:
                writer.close()
    except (OSError, ValueError):
        return ""
    return text.partition(b"\r\n\r\n")[2].decode(errors="replace")


def added(texts: list[str]) -> list[str]:
    """Add counters and histograms of several texts, take the largest of everything else."""
    families: dict[str, list[str]] = {}
    kinds: dict[str, str] = {}
    values: dict[str, dict[str, float]] = {}
    for text in texts:
        family = ""
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, family, kind = line.split(" ", 3)
                kinds[family] = kind
                families.setdefault(family, [line])
            elif line.startswith("# HELP ") and len(families.get(family, ())) == 1:
                families[family].append(line)
            elif line and not line.startswith("#") and family:
                sample, _, number = line.partition(" # ")[0].rpartition(" ")
                held = values.setdefault(family, {})
                value = float(number)
                if kinds[family] in ("counter", "histogram"):
                    held[sample] = held.get(sample, 0.0) + value
                else:
                    held[sample] = max(held.get(sample, value), value)
    return [
        line
        for family, head in families.items()
        for line in (*head, *(f"{k} {v:.12g}" for k, v in values.get(family, {}).items()))
    ]
