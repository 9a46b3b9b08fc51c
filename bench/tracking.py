"""What tracking costs: 100,000 points logged and stored, and the best 10 of 10,000 runs."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import insert

from bench.harness import ours, value, version, write
from falaj.base.filters import parse, parse_order
from falaj.base.points import pack, unpack
from falaj.facts.runs import Run, RunStatus
from falaj.facts.wire import encode
from falaj.links.sql import tables
from falaj.links.sql.store import SqlStore
from falaj.pipelines.context import RUNNING, Running, log

POINTS = 100_000
RUNS = 10_000
TIMES = 5
AT = datetime(2026, 3, 1, tzinfo=UTC)
NOTES = """
A step logs 100,000 points one call at a time, and they are stored with its run: the least of five. Then 10,000
runs are in the store, and the ten best by a metric under a condition on a metric and a parameter are found and
read: the median of twenty. Wall seconds, SQLite on this disk.
"""


def run(number: int) -> Run:
    return Run(
        id=f"R{number:06}",
        project="p",
        pipeline="pipeline:main",
        model="m",
        parameters={"month_to": number % 12, "kind": "ab"[number % 2]},
        seed=1,
        principal="me",
        status=RunStatus.OK,
        started=AT,
        metrics={"auc": (number * 7919 % 10007) / 10007, "f1": number / RUNS},
    )


def logged(store: SqlStore, number: int) -> tuple[float, float]:
    """Seconds of the calls in the step, and of storing what they left."""
    running = Running("train", 1)
    token = RUNNING.set(running)
    begun = time.perf_counter()
    for i in range(POINTS):
        log(loss=0.5, step=i)
    called = time.perf_counter()
    RUNNING.reset(token)
    store.runs().record(run(number), unpack(pack(list(running.lines.values()))))
    return called - begun, time.perf_counter() - called


def fill(store: SqlStore) -> None:
    many = [run(number) for number in range(RUNS)]
    family = tables.FAMILIES[Run].table
    with store._writer.begin() as connection:  # noqa: SLF001 the store itself writes one at a time
        connection.execute(
            insert(family),
            [
                {"id": r.id, "revision": 1, "model": "m", "status": "ok", "body": encode(r)}
                for r in many
            ],
        )
        connection.execute(
            insert(tables.run_last),
            [{"run": r.id, "name": n, "value": v} for r in many for n, v in r.metrics.items()],
        )
        connection.execute(
            insert(tables.run_param),
            [
                {
                    "run": r.id,
                    "name": n,
                    "number": float(v) if isinstance(v, int) else None,
                    "text": str(v),
                }
                for r in many
                for n, v in r.parameters.items()
            ],
        )


def found(store: SqlStore) -> float:
    begun = time.perf_counter()
    where = parse("metrics.auc > 0.7 and params.month_to = 4")
    runs = store.runs().search(where, parse_order("metrics.auc desc"), limit=10)
    facts = [store.get(Run, name).fact for name in runs]
    assert len(facts) == 10
    return time.perf_counter() - begun


def main(*, quick: bool) -> int:
    load = os.getloadavg()[0]
    times = 2 if quick else TIMES
    with tempfile.TemporaryDirectory() as folder:
        store = SqlStore.open(Path(folder, "store.db"))
        costs = [logged(store, RUNS + number) for number in range(times)]
        calls, storing = (min(cost) for cost in zip(*costs, strict=True))
        fill(store)
        looked = [found(store) * 1000 for _ in range(4 * times)]
        store.close()
    rows = [
        value("100,000 points logged and stored", "s", calls + storing, 0.3),
        value("best 10 of 10,000 runs, with their facts", "ms", statistics.median(looked), 20),
    ]
    versions = {"falaj": version(ours() / "python", "falaj")}
    return write("tracking", rows, versions=versions, load=load, notes=NOTES.strip())
