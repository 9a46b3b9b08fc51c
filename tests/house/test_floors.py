"""Who may import whom. The contracts stand in pyproject.toml."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "falaj"
ROOMS = (
    "data", "pipelines", "evaluation", "releases", "changes", "rollouts", "serving", "monitoring",
    "learning", "audit", "access", "compliance",
)  # fmt: skip


def test_the_contracts_hold():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_contract_has_exceptions():
    text = (ROOT / "pyproject.toml").read_text()
    tool = tomllib.loads(text)["tool"]["importlinter"]
    assert not any("ignore_imports" in contract for contract in tool["contracts"])
    assert "ignore_imports" not in text


def test_init_files_are_empty():
    """What an __init__ imports is in no chain of the contracts, yet it runs at import."""
    full = [p for p in SRC.rglob("__init__.py") if p.read_text().strip()]
    assert full in ([], [SRC / "__init__.py"])


def test_the_front_door_imports_lazily():
    tree = ast.parse((SRC / "__init__.py").read_text())
    now = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    assert {n.module for n in now if isinstance(n, ast.ImportFrom)} <= {"__future__", "typing"}
    assert not [n for n in now if isinstance(n, ast.Import)]


def test_every_room_says_what_it_does():
    for room in ROOMS:
        readme = SRC / room / "README.md"
        assert readme.exists(), f"{room} has no README.md"
        assert 3 <= len(readme.read_text().splitlines()) <= 60, f"{room}: half a page, please"


def modules_of(statement, *, isolated=True):
    """Names in sys.modules of a fresh interpreter after one statement."""
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, *(["-I"] if isolated else []), "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return set(json.loads(done.stdout))


@pytest.fixture(scope="module")
def bare():
    return modules_of("pass")


def inside(found, *names):
    return sorted(m for m in found if any(m == n or m.startswith(f"{n}.") for n in names))


def folder(package):
    """An import of every module below a package."""
    files = sorted((SRC / package).rglob("*.py"))
    names = [".".join(("falaj", *p.relative_to(SRC).with_suffix("").parts)) for p in files]
    names = [n.removesuffix(".__init__") for n in names if not n.endswith(".__main__")]
    return "import " + ", ".join(names)


def test_import_falaj_is_cheap(bare):
    assert len(modules_of("import falaj") - bare) <= 60


@pytest.mark.parametrize("module", ["falaj.audit.verify", "falaj.releases.verify"])
def test_an_auditor_needs_facts_and_base_alone(module):
    found = modules_of(f"import {module}")
    home = module.rsplit(".", 1)[0]
    others = [f"falaj.{room}" for room in ROOMS if f"falaj.{room}" != home]
    assert inside(found, "falaj.ports", "falaj.stats", "falaj.links", "falaj.journeys") == []
    assert inside(found, "falaj.app", "falaj.doors", *others) == []
    assert inside(found, "sqlalchemy", "litestar", "httpx", "numpy", "polars", "asyncio") == []


def test_the_verifier_that_is_handed_out_needs_base_alone():
    found = modules_of("import falaj.doors.verifier.main")
    ours = {m for m in found if m.startswith("falaj.")}
    rooms = {m for m in ours if not m.startswith(("falaj.base", "falaj.audit", "falaj.doors"))}
    assert rooms == set()
    assert inside(found, "msgspec", "cryptography", "click", "asyncio") == []


def test_the_data_plane_lives_alone(bare):
    found = modules_of(folder("doors/predict"))
    others = [f"falaj.{room}" for room in ROOMS if room not in ("serving", "releases")]
    assert inside(found, "falaj.app", "falaj.journeys", "falaj.links", *others) == []
    assert inside(found, "falaj.releases") in (
        [],
        ["falaj.releases", "falaj.releases.verify"],
    ), "of releases the data plane needs the verifier alone"
    assert inside(found, "sqlalchemy", "jinja2", "click", "litestar", "scipy", "polars") == []
    assert inside(found, "onnxruntime") == [], "the runtime is loaded with the first model"
    assert len(found - bare) <= 400


def test_help_is_cheap(bare):
    found = modules_of("import falaj.doors.cli.main")
    heavy = "asyncio msgspec litestar httpx rich numpy sqlalchemy jinja2 onnxruntime polars"
    assert inside(found, *heavy.split()) == []
    assert len(found) <= 130


HEAVY = {  # package -> where it may be imported at all
    "scipy": (),
    "pandas": ("links/feast/child.py", "links/bubblewrap/child.py"),
    "polars": (
        "data/",
        "links/database/",
        "links/delta/",
        "links/duckdb/",
        "links/feast/",
        "links/frames/",
        "links/iceberg/",
        "links/skops/",
        "doors/worker/checks.py",
        "pipelines/checking.py",
        "pipelines/model.py",
        "pipelines/packing.py",
        "base/frames.py",
        "journeys/",
        "doors/cli/demo/",
        "testing.py",
    ),
    "sklearn": ("links/frames/", "pipelines/", "evaluation/"),
    "deltalake": ("links/delta/", "links/arrow/"),
    "duckdb": ("links/duckdb/",),
    "mlflow": ("serving/runtimes/child.py",),
    "feast": ("links/feast/child.py",),
    "pyiceberg": ("links/iceberg/",),
    "ray": ("links/ray/",),
    "pandera": (),
    "pointblank": (),
    "great_expectations": (),
    "skl2onnx": ("links/frames/", "links/skops/", "links/bubblewrap/child.py", "pipelines/"),
    "skops": ("links/skops/", "links/bubblewrap/child.py", "serving/runtimes/skops.py"),
    "joblib": ("links/bubblewrap/child.py",),
    "picklescan": ("links/bubblewrap/child.py",),
    "xgboost": ("links/bubblewrap/child.py", "serving/runtimes/xgboost.py"),
    "lightgbm": ("links/bubblewrap/child.py", "serving/runtimes/lightgbm.py"),
    "torch": ("serving/runtimes/child.py",),
    "cyclonedx": ("links/cyclonedx/",),
    "bandit": (),
    "detect_secrets": (),
}


def imports_of(path):
    """What a module imports when it runs; annotations under TYPE_CHECKING cost nothing."""
    tree = ast.parse(path.read_text())
    notes = [
        n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)
    ]
    idle = {id(n) for note in notes for n in ast.walk(note)}
    for node in ast.walk(tree):
        if id(node) in idle:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0], node


def test_heavy_packages_stay_in_their_rooms():
    found = []
    for path in SRC.rglob("*.py"):
        at = path.relative_to(SRC).as_posix()
        for package, node in imports_of(path):
            if package in HEAVY and not at.startswith(HEAVY[package] or ("nowhere",)):
                found.append(f"{at}:{node.lineno} imports {package}")
    assert found == []
