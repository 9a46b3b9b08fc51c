"""What the engine itself costs a step, without a process around it."""

from __future__ import annotations

import json
import os
import subprocess

from bench.harness import HERE, Row, ours, value, version, write

NOTES = """
A pipeline of 1,000 steps that add a number, in one process, with everything that a step leaves: its entry in
the cache, its artifact, its log, its times. The least of five runs; the first one, which reads the code, is not
counted. One function called a thousand times, and a thousand functions.
"""


def main(*, quick: bool) -> int:
    load = os.getloadavg()[0]
    found = json.loads(
        subprocess.run(
            [ours() / "python", HERE / "steps_engine.py", "2" if quick else "5"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    unit, one, apart = "ms CPU", found["called"], found["apart"]
    rows = [
        value("a step of 1000, cold, one function", unit, one["cold"], 1.0),
        value("a step of 1000, cached, one function", unit, one["cached"], 0.2),
        Row(metric="a step of 1000, cold, all different", unit=unit, ours=apart["cold"]),
        Row(metric="a step of 1000, cached, all different", unit=unit, ours=apart["cached"]),
    ]
    versions = {"falaj": version(ours() / "python", "falaj")}
    return write("steps", rows, versions=versions, load=load, notes=NOTES.strip())
