"""Entry of a node of someone's cluster: a step runs here as it does in a worker process.

Who carries orders across, such as links/ray, knows it by its name alone: `module:function`.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec

from falaj.base.points import Series, pack
from falaj.links.python.environment import read_environment
from falaj.links.stepworker.pool import StepWorkers
from falaj.pipelines.keys import variables_part
from falaj.ports.executor import Order

__all__ = ["attempt"]

STEPS: Final = (sys.executable, "-m", "falaj.doors.worker.steps", "apart")
# Set by the cluster for each task; a warm process keeps those it was started with.
GIVEN: Final = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
LOOK_S: Final = 1.0  # between two looks at whether the run still goes on
_pools: dict[tuple[str | None, ...], StepWorkers] = {}


def attempt(text: str) -> Iterator[str]:
    """Run an order to its end. Text in, texts out; all JSON.

    In: `session` of the run, `witness`: a file of the project's workspace, `expects`: versions and
    environment of who asks, `order`, or null for a look at this node only.
    Out: `said` while the step runs, about each second; last `outcome`, `fit`, or why nothing was
    run: `blind` or `differs`.
    """
    asked = json.loads(text)
    found = _unfit(asked)
    if found or asked["order"] is None:
        yield json.dumps(found or {"fit": True})
        return
    order = msgspec.convert(asked["order"], Order)
    pool = _pool(asked["session"], order.seed, Path(asked["witness"]))
    told: queue.SimpleQueue[str] = queue.SimpleQueue()

    def hear(metrics: Mapping[str, float], lines: Sequence[Series]) -> None:
        said = {"metrics": dict(metrics), "points": base64.b64encode(pack(lines)).decode()}
        told.put(json.dumps({"said": said}))

    with ThreadPoolExecutor(1) as beside:
        running = beside.submit(pool.run_telling, order, hear)
        running.add_done_callback(lambda _: told.put(""))
        while line := told.get():
            yield line
        yield json.dumps({"outcome": msgspec.to_builtins(running.result())})


def _unfit(asked: dict[str, Any]) -> dict[str, str]:
    witness = Path(asked["witness"])
    if not witness.is_file():
        return {"blind": str(witness.parents[1])}
    mine = _mine(str(witness.parents[1]), asked["session"])
    for name, wanted in asked["expects"].items():
        if mine.get(name) != wanted:
            return {"differs": f"{name} is {mine.get(name)}, expected {wanted}"}
    wanted = (asked["order"] or {}).get("variables", {})
    for name, here in variables_part(list(wanted)).items():
        if here != wanted[name]:
            return {"differs": f"the variable {name} is not the same"}
    return {}


@lru_cache(maxsize=4)
def _mine(root: str, _session: str) -> dict[str, Any]:
    """Once a run: reading the list of packages takes a while."""
    environment = read_environment(Path(root))[0]
    return {"falaj": version("falaj"), **msgspec.to_builtins(environment)}


def _pool(session: str, seed: int, witness: Path) -> StepWorkers:
    """One warm process. A new run starts with a new one, as its code may be new."""
    key = (session, str(seed), *(os.environ.get(name) for name in GIVEN))
    if key not in _pools:
        for old in _pools.values():
            old.close()
        _pools.clear()
        seeded = {"PYTHONHASHSEED": str(seed % 2**32)}
        pool = _pools[key] = StepWorkers(STEPS, at_once=1, environment=seeded)
        threading.Thread(target=_end_with, args=(witness, pool), daemon=True).start()
    return _pools[key]


def _end_with(witness: Path, pool: StepWorkers) -> None:
    """The run takes its witness away when it ends.

    The cluster may keep this process for another run of the same program, and children that steps
    have left would live as long.
    """
    while witness.exists():
        time.sleep(LOOK_S)
    pool.close()
