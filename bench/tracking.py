"""What tracking costs: 100,000 points logged and stored, and the best 10 of 10,000 runs.

python bench/tracking.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import insert

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


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = SqlStore.open(Path(folder, "store.db"))
        costs = [logged(store, RUNS + number) for number in range(TIMES)]
        calls, storing = (min(cost) for cost in zip(*costs, strict=True))
        print(f"{POINTS:,} points: {calls:.3f} s in the step, {storing:.3f} s to store")
        fill(store)
        looked = [found(store) * 1000 for _ in range(4 * TIMES)]
        print(f"best 10 of {RUNS:,} runs with their facts: {statistics.median(looked):.1f} ms")
        store.close()


if __name__ == "__main__":
    main()
