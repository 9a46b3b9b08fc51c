"""A data contract on 3.4 million real flights: ours, a hand-written query, three other tools."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

from bench.harness import HERE, QUIET, Row, compared, interleaved, ours, peer, version, write

NOTES = """
The twenty checks (types, nulls, ranges, a key of three columns, allowed values, a pattern, two columns
together, a reference, row count, latest time) on the flights of 2013, ten times over: 3,367,760 rows of
Parquet. CPU seconds and peak memory of the whole process, imports and reading included, medians.
`hand` is what a careful person writes with Polars alone: one streamed query and the first rows of what
is broken. Every tool counts the same violations (dep_delay 50, tailnum 227,540, dest 76,020, all else 0);
a tool that counts others stops the benchmark. Great Expectations works on pandas and is measured on one
copy (336,776 rows) against ours on the same. Pointblank and Great Expectations show no rows here, ours
and `hand` show 20 of each broken check, Pandera gives all of them.
"""
ANSWER = {"dep_delay": 5, "tailnum": 22_754, "dest": 7_602, "others": 0}
CPU, MEMORY = 1.15, 1.1


def main(*, quick: bool) -> int:
    load = os.getloadavg()[0]
    here = ours() / "python"
    peers = {name: peer(name) / "python" for name in ("pandera", "pointblank", "greatexpectations")}
    cases = HERE / "data_cases.py"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        subprocess.run([here, cases, "make", folder, folder / "made"], check=True, env=QUIET)

        def command(python: Path, tool: str, size: str) -> list[str | Path]:
            return [python, cases, tool, folder / size, folder / f"{tool}-{size}.json"]

        costs = interleaved(
            {
                "falaj": command(here, "falaj", "x10"),
                "hand": command(here, "hand", "x10"),
                "pandera": command(peers["pandera"], "pandera", "x10"),
                "pointblank": command(peers["pointblank"], "pointblank", "x10"),
                "falaj x1": command(here, "falaj", "x1"),
                "great_expectations x1": command(
                    peers["greatexpectations"], "great_expectations", "x1"
                ),
            },
            runs=2 if quick else 5,
        )
        for file in folder.glob("*-x*.json"):
            times = 10 if file.stem.endswith("x10") else 1
            found = json.loads(file.read_text())
            wanted = {name: count * times for name, count in ANSWER.items()}
            if {name: found[name] for name in wanted} != wanted:
                raise RuntimeError(f"{file.stem} counted {found}, the truth is {wanted}")
    rows: list[Row] = []
    for mine, theirs, cpu, memory in (
        ("falaj", "hand", CPU, MEMORY),
        ("falaj", "pandera", None, None),
        ("falaj", "pointblank", None, None),
        ("falaj x1", "great_expectations x1", None, None),
    ):
        a, b = costs[mine], costs[theirs]
        rows.append(compared(f"{mine}: CPU", a.cpu_s, b.cpu_s, theirs, unit="s", target=cpu))
        rows.append(
            compared(f"{mine}: memory", a.rss_mb, b.rss_mb, theirs, unit="MB", target=memory)
        )
    versions = {
        "falaj": version(here, "falaj"),
        "polars": version(here, "polars"),
        "pandera": version(peers["pandera"], "pandera"),
        "pointblank": version(peers["pointblank"], "pointblank"),
        "great_expectations": version(peers["greatexpectations"], "great_expectations"),
    }
    quickly = (
        "\nA quick run: two repetitions on a machine that others used, too.\n" if quick else ""
    )
    return write("data", rows, versions=versions, load=load, notes=NOTES + quickly)
