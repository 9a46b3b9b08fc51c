"""What each stage of the demo costs: from a commit to a rollback that happens by itself.

`falaj demo --json` prints one object a line; those with a `stage` say what it took:
`{"stage": "train", "wall_s": 1.2, "cpu_s": 1.9}`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

from bench.harness import QUIET, Row, ours, say, version, write

NOTES = """
Wall and CPU seconds (median) of each stage of `falaj demo`, in an empty folder each time: training,
gates, signed releases, canaries under real HTTP requests, a rollback, drift, retraining, evidence. CPU
is that of the demo, its workers and its servers. Stages with traffic take as long as their flights and
the rollout's own least times ask for. There is no peer: we know of nothing else that walks the whole way.
"""
WHOLE_S = 300.0  # the first value for a newcomer; a walk that takes longer is no demonstration


def main(*, quick: bool) -> int:
    load = os.getloadavg()[0]
    runs = [dict(stages()) for _ in range(1 if quick else 3)]
    names = list(runs[0])
    rows = [
        Row(metric=name, unit=unit, ours=statistics.median(run[name][unit] for run in runs))
        for name in names
        for unit in ("wall_s", "cpu_s")
    ]
    whole = statistics.median(sum(run[name]["wall_s"] for name in names) for run in runs)
    rows.append(
        Row(metric="whole", unit="wall_s", ours=whole, target=WHOLE_S, holds=whole <= WHOLE_S)
    )
    versions = {"falaj": version(ours() / "python", "falaj")}
    return write("journey", rows, versions=versions, load=load, notes=NOTES)


def stages() -> Iterator[tuple[str, dict[str, Any]]]:
    """One run of the demo. Raises RuntimeError when it fails or names no stage."""
    here = ours()
    with tempfile.TemporaryDirectory() as folder:
        env = {**QUIET, "HOME": folder, "PATH": f"{here}:/usr/bin:/bin"}
        done = subprocess.run(
            [here / "falaj", "demo", "walk", "--json"],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=1800,
        )
    if done.returncode:
        raise RuntimeError(f"the demo ended with {done.returncode}:\n{done.stderr[-2000:]}")
    records = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    found = [record for record in records if "stage" in record]
    if not found:
        raise RuntimeError("the demo named no stage")
    for record in found:
        say(f"{record['stage']}: {record['wall_s']:.2f} s")
        yield record["stage"], record
