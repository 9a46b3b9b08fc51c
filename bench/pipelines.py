"""Pipelines: what they cost, and whether a cache sees that the code was changed; against seven engines."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.harness import Cost, Row, compared, heard, median, ours, say, value, version, write
from bench.pipelines_cases import CASES, outcome
from bench.pipelines_tools import OURS, PEERS, PLAIN, Chain, Tool, counting, for_frames, frames

NOTES = """
The same plain functions as a project of each tool, each in its own environment, in its documented way with
default settings, telemetry off, no way out of this machine. CPU is of the whole process tree, imports
included; cold is a value of the parameter that no run had before, in a workspace that is warm; cached is
the same command again, in a second process. A tool whose mode has no cache runs everything again: that is
what its cached row shows, and the table of modes says so. Prefect starts and ends its own server with each
run. The frame is of Polars everywhere.
"""
FAST, RECORDING = "falaj run", "the fastest that caches and records"


class Bench:
    """All tools over one scratch folder. failed: what did not work, never left out."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.failed: list[str] = []
        self.number = 0

    def project(self, tool: Tool, kind: str, chain: Chain) -> Path | None:
        folder = self.scratch / tool.name.replace(" ", "-") / kind
        try:
            tool.project(folder, self.home(tool), chain)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            self.failed.append(f"{tool.name}, {kind}: {str(error).splitlines()[0][:120]}")
            return None
        return folder

    def home(self, tool: Tool) -> Path:
        return self.scratch / tool.name.replace(" ", "-") / "home"

    def run(
        self, tool: Tool, folder: Path, x: int, more: Mapping[str, str] | None = None
    ) -> tuple[Cost, int, str]:
        if tool.before is not None:
            tool.before(folder, x)
        environment = {**tool.environment(self.home(tool)), **(more or {})}
        return heard(tool.command(folder, x), at=folder, env=environment)

    def costs(
        self, tools: Sequence[Tool], kind: str, chain: Chain, start: int, rounds: int
    ) -> dict[tuple[str, str], Cost]:
        """(tool, cold or cached) -> medians; round after round, slow tools in fewer of them."""
        folders = {tool.name: self.project(tool, kind, chain) for tool in tools}
        seen: dict[tuple[str, str], list[Cost]] = {}
        for number in range(rounds + 1):
            for tool in tools:
                folder = folders[tool.name]
                if folder is None or (tool.slow and number > max(rounds // 2, 1)):
                    continue
                for state in ("cold", "cached"):
                    cost, code, said = self.run(tool, folder, start + number)
                    if code:
                        words = (said.strip().splitlines() or ["it said nothing"])[-1]
                        self.failed.append(f"{tool.name}, {kind}: exit {code}: {words[:120]}")
                        folders[tool.name] = None
                        break
                    if number:
                        seen.setdefault((tool.name, state), []).append(cost)
            say(f"{kind}: round {number} of {rounds}")
        return {name: median(costs) for name, costs in seen.items()}

    def lines(self, tool: Tool) -> tuple[int, int]:
        """Lines that a failing step prints, and how many of them hold its message."""
        folder = self.project(tool, "failing", counting(3))
        if folder is None:
            return 0, 0
        _, _, said = self.run(tool, folder, 3, {"FAIL": "1"})
        found = [line for line in said.splitlines() if line.strip()]
        return len(found), sum("boom in step 1" in line for line in found)

    def at_once(self, tool: Tool) -> str:
        """Executions of three steps by two equal runs at the same time."""
        folder = self.project(tool, "at-once", counting(3))
        if folder is None:
            return "did not start"
        if tool.before is not None:
            tool.before(folder, 4)
        trace = folder.parent / "at-once-trace"
        environment = {**tool.environment(self.home(tool)), "TRACE": str(trace), "SLOW": "1"}
        words = [str(word) for word in tool.command(folder, 4)]
        both = [
            subprocess.Popen(
                words,
                cwd=folder,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(2)
        ]
        codes = [child.wait(timeout=300) for child in both]
        count = len(trace.read_text().split()) if trace.exists() else 0
        return f"{count}" + ("" if not any(codes) else f", exit codes {codes[0]} and {codes[1]}")

    def changes(self, tool: Tool) -> dict[str, str]:
        found = {}
        for number, case in enumerate(CASES):
            folder = self.scratch / tool.name.replace(" ", "-") / f"case{number}" / "project"
            found[case.name] = outcome(tool, case, folder, self.home(tool))
        say(f"code changes: {tool.name}")
        return found


def main(*, quick: bool) -> int:
    load = os.getloadavg()[0]
    rounds = 2 if quick else 5
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(Path(scratch))
        tools = (*OURS, *PEERS)
        small = {
            steps: bench.costs(tools, f"{steps} steps", counting(steps), 100, rounds)
            for steps in (3, 20)
        }
        wide = bench.costs([PLAIN, *map(for_frames, tools)], "frames", frames(), 1_000_000, rounds)
        told = {tool.name: (*bench.lines(tool), bench.at_once(tool)) for tool in tools}
        with ThreadPoolExecutor(3) as pool:  # right or wrong, not fast or slow
            changes = dict(
                zip([tool.name for tool in tools], pool.map(bench.changes, tools), strict=True)
            )
    rows = [*cost_rows(small, wide), *change_rows(changes, told)]
    notes = "\n".join(
        (
            NOTES.strip(),
            *(["", "A quick run: two repetitions, others used the machine."] if quick else []),
            f"\nThe whole took {(time.monotonic() - begun) / 60:.0f} minutes.",
            *modes_table(tools, told),
            *changes_table(changes),
            *(
                ["\nDid not work:\n", *(f"- {words}" for words in bench.failed)]
                if bench.failed
                else []
            ),
        )
    )
    versions = {tool.package: version(tool.bin / "python", tool.package) for tool in tools}
    versions["polars"] = version(ours() / "python", "polars")
    return write("pipelines", rows, versions=versions, load=load, notes=notes)


def cost_rows(
    small: Mapping[int, Mapping[tuple[str, str], Cost]], wide: Mapping[tuple[str, str], Cost]
) -> list[Row]:
    rows: list[Row] = []
    reruns = small[20]
    good = [t.name for t in PEERS if t.caches and (t.name, "cached") in reruns and t.name != "dvc"]
    for what in ("cpu_s", "wall_s"):
        unit = "s CPU" if what == "cpu_s" else "s wall"
        best = min(good, key=lambda name: getattr(reruns[name, "cached"], what))
        theirs = getattr(reruns[best, "cached"], what)
        for tool, target in ((FAST, 1.0), ("falaj as a library", 0.5)):
            mine = getattr(reruns[tool, "cached"], what)
            rows.append(
                compared(
                    f"20 steps, cached: {tool}, {RECORDING}", mine, theirs, best,
                    unit=unit, target=target,
                )
            )  # fmt: skip
    for metric, costs in (
        *((f"{n} steps", c) for n, c in small.items()),
        ("1M x 10, 3 steps", wide),
    ):
        for state in ("cold", "cached"):
            for unit, what in (("s CPU", "cpu_s"), ("s wall", "wall_s")):
                for mine in (tool.name for tool in OURS):
                    if (mine, state) not in costs:
                        continue
                    for tool in (PLAIN, *PEERS):
                        if (tool.name, state) not in costs:
                            continue
                        held = tool is PLAIN and state == "cold" and what == "cpu_s"
                        rows.append(
                            compared(
                                f"{metric}, {state}: {mine}",
                                getattr(costs[mine, state], what),
                                getattr(costs[tool.name, state], what),
                                tool.name,
                                unit=unit,
                                target=1.3 if held and mine == "falaj as a library" else None,
                            )
                        )
    return rows


def change_rows(
    changes: Mapping[str, Mapping[str, str]], told: Mapping[str, tuple[int, int, str]]
) -> list[Row]:
    seen = {name: sum(v == "right" for v in found.values()) for name, found in changes.items()}
    hits = {name: sum(v == "hits" for v in found.values()) for name, found in changes.items()}
    asked = sum(not case.forgives for case in CASES)
    rows = [
        value("code changes not seen", "cases", asked - seen[FAST], 0),
        value("needless reruns", "cases", len(CASES) - asked - hits[FAST], 0),
        value("lines of a failing step", "lines", told[FAST][0], 16),
        value("executions of 3 steps by two equal runs", "", int(told[FAST][2].split(",")[0]), 3),
    ]
    for tool in PEERS:
        rows += [
            compared(
                f"{what} of {total}", mine[FAST], mine[tool.name] or 1e-9, tool.name, unit="cases"
            )
            if mine[tool.name]
            else Row(
                metric=f"{what} of {total}",
                unit="cases",
                ours=mine[FAST],
                peer=0.0,
                peer_name=tool.name,
            )
            for what, total, mine in (
                ("code changes seen", asked, seen),
                ("unchanged steps kept", len(CASES) - asked, hits),
            )
        ]
    return rows


def modes_table(tools: Sequence[Tool], told: Mapping[str, tuple[int, int, str]]) -> list[str]:
    lines = [
        "",
        (
            "| tool | mode | cache | what is left of a run | lines of a failing step (with its message) "
            "| 3 steps, two equal runs at once: executions |"
        ),
        "|---|---|---|---|---|---|",
    ]
    for tool in tools:
        count, held, once = told[tool.name]
        cells = (tool.name, tool.mode, "yes" if tool.caches else "no", tool.records)
        lines.append(f"| {' | '.join(cells)} | {count} ({held}) | {once} |")
    return lines


def changes_table(changes: Mapping[str, Mapping[str, str]]) -> list[str]:
    lines = [
        "",
        (
            "What happens when the code below a step was changed. `right`: it ran again with the new code; "
            "`stale`: the old answer came back without a word. From `nothing at all` on, nothing that counts "
            "was changed: `hits` is wanted. A tool without a cache is always right and always reruns."
        ),
        "",
        f"| changed | {' | '.join(changes)} |",
        f"|---|{'---|' * len(changes)}",
    ]
    lines += [
        f"| {case.name} | {' | '.join(found[case.name] for found in changes.values())} |"
        for case in CASES
    ]
    return lines
