"""Ours and theirs, interleaved in one run, each in its own environment, medians.

CPU is user + system time of the child and of all that it waited for (os.wait4), so it does not
depend on what else the machine does as wall time does. Names of hosts, accounts and folders are
never written.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
OURS = ROOT / ".venv" / "bin"

# Peers call home when they start; that is neither wanted nor to be measured.
QUIET = {
    "LANG": "C.UTF-8",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ZENML_ANALYTICS_OPT_IN": "false",
    "ZENML_LOGGING_VERBOSITY": "ERROR",
    "AUTO_OPEN_DASHBOARD": "false",
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Medians of one command. rss_mb: of the largest process of its tree."""

    wall_s: float
    cpu_s: float
    rss_mb: float
    runs: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """ratio: ours / peer. target: the largest ratio (or value) that is asked for; None: none."""

    metric: str
    unit: str
    ours: float
    peer: float | None = None
    peer_name: str = ""
    ratio: float | None = None
    target: float | None = None
    holds: bool | None = None


def value(metric: str, unit: str, ours_: float, target: float, *, holds: bool | None = None) -> Row:
    """Ours alone, with the most that it may be. holds: where another rule decides."""
    holds = ours_ <= target if holds is None else holds
    return Row(metric=metric, unit=unit, ours=ours_, target=target, holds=holds)


def compared(
    metric: str, ours: float, peer: float, peer_name: str, *, unit: str, target: float | None = None
) -> Row:
    """A row that says how many times theirs ours is. target: the largest ratio allowed."""
    ratio = ours / peer
    return Row(
        metric=metric,
        unit=unit,
        ours=ours,
        peer=peer,
        peer_name=peer_name,
        ratio=ratio,
        target=target,
        holds=None if target is None else ratio <= target,
    )


def peer(name: str) -> Path:
    """The bin folder of a peer's own environment, made from its lock on first use."""
    return environment(name, HERE / "requirements" / f"{name}.txt")


def ours() -> Path:
    """Falaj as a user has it: without the tools of its developers, some of which slow others down."""
    return environment("falaj", ROOT / "requirements" / "demo.txt", ROOT)


def environment(name: str, lock: Path, project: Path | None = None) -> Path:
    home = HERE / ".envs" / name
    stamp = home / "lock.txt"
    wanted = lock.read_text() + ((project / "pyproject.toml").read_text() if project else "")
    if stamp.exists() and stamp.read_text() == wanted:
        return home / "bin"
    say(f"installing {name} into its own environment; this takes minutes, once")
    shutil.rmtree(home, ignore_errors=True)
    quiet = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    quiet["UV_SYSTEM_CERTS"] = "true"
    quiet["UV_BUILD_CONSTRAINT"] = str(ROOT / "requirements" / "sdist.txt")
    python = home / "bin" / "python"
    uv = [OURS / "uv", "-q", "pip"]
    subprocess.run([sys.executable, "-m", "venv", home], check=True, env=quiet)
    sync = [*uv, "sync", "--python", python, "--require-hashes", "--compile-bytecode", lock]
    subprocess.run(sync, check=True, env=quiet)
    if project is not None:
        flags = ("--offline", "--no-build-isolation", "--no-deps", "--editable")
        subprocess.run([*uv, "install", "--python", python, *flags, project], check=True, env=quiet)
    stamp.write_text(wanted)
    return home / "bin"


def once(
    command: Sequence[str | Path], *, at: Path, env: Mapping[str, str], codes: Sequence[int] = (0,)
) -> Cost:
    """Run a command once. Raises RuntimeError with the end of its output when it fails."""
    cost, code, said = heard(command, at=at, env=env)
    if code not in codes:
        name = Path(str(command[0])).name
        raise RuntimeError(f"{name} ended with {code}:\n{said[-2000:]}")
    return cost


def heard(
    command: Sequence[str | Path], *, at: Path, env: Mapping[str, str]
) -> tuple[Cost, int, str]:
    """Run a command once: what it cost, its exit code, all that it printed."""
    with tempfile.TemporaryFile() as out:
        begun = time.perf_counter()
        child = subprocess.Popen(
            [str(word) for word in command],
            cwd=at,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - begun
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        said = out.read().decode(errors="replace")
    cpu = used.ru_utime + used.ru_stime
    cost = Cost(wall_s=wall, cpu_s=cpu, rss_mb=used.ru_maxrss / 1024, runs=1)
    return cost, child.returncode, said


def interleaved(
    commands: Mapping[str, Sequence[str | Path]],
    *,
    runs: int,
    warm: int = 1,
    at: Path | None = None,
) -> dict[str, Cost]:
    """Medians of each command; round after round, so that a noisy minute hits all of them.

    Each command gets an own home folder. The warm rounds write bytecode and caches, unmeasured.
    """
    seen: dict[str, list[Cost]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(warm + runs):
            for name, command in commands.items():
                home = Path(scratch) / name.replace(" ", "-").replace("/", "-")
                home.mkdir(exist_ok=True)
                path = os.pathsep.join((str(Path(command[0]).parent), "/usr/bin", "/bin"))
                env = {**QUIET, "HOME": str(home), "PATH": path}
                cost = once(command, at=at or home, env=env)
                if number >= warm:
                    seen[name].append(cost)
            say(f"round {number + 1} of {warm + runs}")
    return {name: median(costs) for name, costs in seen.items()}


def median(costs: Sequence[Cost]) -> Cost:
    return Cost(
        wall_s=statistics.median(c.wall_s for c in costs),
        cpu_s=statistics.median(c.cpu_s for c in costs),
        rss_mb=statistics.median(c.rss_mb for c in costs),
        runs=len(costs),
    )


def version(python: Path, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def machine() -> dict[str, str | int]:
    """What the numbers depend on; nothing that names this machine."""
    return {
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "architecture": platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
    }


def write(
    name: str, rows: Sequence[Row], *, versions: Mapping[str, str], load: float, notes: str
) -> int:
    """Write results/<name>.json and .md; return 1 when a target does not hold, else 0."""
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    document = {
        "name": name,
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine(),
        "load": round(load, 2),
        "versions": dict(versions),
        "rows": [{k: _short(v) for k, v in asdict(row).items()} for row in rows],
    }
    text = json.dumps(document, indent=1)
    if str(ROOT) in text or platform.node() in text.split('"'):
        raise RuntimeError("a result names this machine or a folder on it")
    (folder / f"{name}.json").write_text(text + "\n")
    page = _page(document, rows, notes)
    (folder / f"{name}.md").write_text(page)
    print(page)
    return int(any(row.holds is False for row in rows))


def _page(document: Mapping[str, object], rows: Sequence[Row], notes: str) -> str:
    facts = document["machine"]
    assert isinstance(facts, dict)
    lines = [
        f"# {document['name']}",
        "",
        notes.strip(),
        "",
        (
            f"Measured {document['at']} on {facts['system']}, {facts['architecture']}, "
            f"{facts['cores']} cores, {facts['memory_gb']} GB, Python {facts['python']}, "
            f"load {document['load']} at the start. Again: `make bench NAME={document['name']}`."
        ),
        "",
        "| metric | unit | ours | theirs | peer | ours / theirs | target | holds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        holds = "" if row.holds is None else "yes" if row.holds else "**no**"
        cells = (
            row.metric, row.unit, _cell(row.ours), _cell(row.peer), row.peer_name, _cell(row.ratio),
            _cell(row.target), holds,
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    versions = document["versions"]
    assert isinstance(versions, dict)
    lines += ["", "Versions: " + ", ".join(f"{k} {v}" for k, v in versions.items()) + ".", ""]
    return "\n".join(lines)


def _short(value: object) -> object:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def say(words: str) -> None:
    print(f"[bench] {words}", file=sys.stderr, flush=True)
