"""What starting costs. Modules are counted; processor time is a ratio taken in the same run."""

from __future__ import annotations

import json
import os
import re
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from small_project import write_project

ROOT = Path(__file__).parents[2]
HEAVY = ["asyncio", "msgspec", "litestar", "httpx", "rich", "numpy", "sqlalchemy"]


@pytest.fixture(scope="module")
def compiled():
    """Bytecode is written first: a fresh installation compiles, and the budget is for after that."""
    code = [sys.executable, "-m", "compileall", "-q", ROOT / "src"]
    subprocess.run(code, check=True, env=quiet())
    return quiet()


def quiet(**more):
    left_out = {"PYTHONDONTWRITEBYTECODE", "FALAJ_URL", "FALAJ_CONFIG"}
    return {k: v for k, v in os.environ.items() if k not in left_out} | more


def modules(argv, at, env):
    """Names in sys.modules at the end of a command."""
    code = (
        "import atexit, json, sys\n"
        f"sys.argv = {['falaj', *argv]!r}\n"
        "atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))\n"
        "from falaj.doors.cli.main import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=at, env=env, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


def cost(command, at, env):
    """Processor seconds of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=at, env=env, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def ratio(command, at, env, *, runs=7):
    """Median cost against that of a Python that does nothing, taken in turn."""
    bare = [sys.executable, "-c", "pass"]
    pairs = [(cost(command, at, env), cost(bare, at, env)) for _ in range(runs)]
    ours, theirs = zip(*pairs, strict=True)
    return statistics.median(ours) / statistics.median(theirs)


def inside(found, names):
    return sorted(m for m in found if m.split(".")[0] in names)


def test_help_imports_next_to_nothing(compiled, tmp_path):
    found = modules(["--help"], tmp_path, compiled)
    assert inside(found, HEAVY) == []
    assert len(found) <= 130


def test_the_front_door_imports_next_to_nothing(compiled):
    code = "import json, sys; {}; print(json.dumps(sorted(sys.modules)))"
    bare, ours = (
        set(json.loads(subprocess.run(
            [sys.executable, "-I", "-c", code.format(what)],
            env=compiled, capture_output=True, text=True, check=True,
        ).stdout))
        for what in ("pass", "import falaj")
    )  # fmt: skip
    assert len(ours - bare) <= 60


def within(limit, command, at, env):
    """Once more when the machine was busy: another process next door costs caches."""
    found = ratio(command, at, env)
    return found if found < limit else min(found, ratio(command, at, env))


def test_help_costs_less_than_six_pythons(compiled, tmp_path):
    assert within(6.0, [sys.executable, "-m", "falaj", "--help"], tmp_path, compiled) < 6.0


# What a read has no use for. The access rules (cedarpy) are asked for every read.
IDLE = ["alembic", "uvicorn", "cryptography", "numpy", "polars", "onnxruntime", "onnx", "sklearn", "scipy", "httpx", "rich", "joserfc", "jinja2"]  # fmt: skip


def test_a_read_imports_what_it_uses(compiled, tmp_path):
    root = write_project(tmp_path / "project")
    subprocess.run(
        [sys.executable, "-m", "falaj", "status"],
        cwd=root,
        env=compiled,
        check=True,
        capture_output=True,
    )
    found = modules(["status"], root, compiled)
    assert inside(found, IDLE) == []
    assert (
        len(found) <= 880
    )  # with pydantic, which comes with the tools of development; 730 without


def pins(name):
    """Packages that are installed on every machine."""
    text = (ROOT / "requirements" / name).read_text().replace("\\\n", " ")
    for line in text.splitlines():
        found = re.match(r"^([A-Za-z0-9._-]+)==\S+(.*)$", line)
        if found and not re.search(r";.*(?:sys_platform|platform_|os_name)", found[2]):
            yield found[1].lower()


def test_the_core_is_forty_packages_at_most():
    found = set(pins("core.txt"))
    assert 10 < len(found) <= 40, found
    assert "pandas" not in found
    assert "scipy" not in found
