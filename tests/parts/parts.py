"""Outside systems that tests want: there, or a counted and listed skip. The one place that skips.

`need("duckdb")` at the head of a fixture or test: a library beside the tests. `program("docker-registry")`: a small server. `environment("mlflow")`:
a heavy system in an environment of its own, made by `make test PARTS=mlflow`. What was asked for by
`--parts mlflow,ray`, or with `--parts required` anything at all, and is absent is an error.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

# part -> (modules that must be importable, how it comes to be there, label)
KNOWN = {
    "duckdb": (("duckdb",), "pip install 'falaj[duckdb]'", "executed"),
    "network": (
        (),
        "permit user namespaces: sysctl kernel.unprivileged_userns_clone=1",
        "executed",
    ),
    "softhsm": (("pkcs11",), "apt-get install softhsm2; pip install 'falaj[pkcs11]'", "executed"),
    "bubblewrap": ((), "apt-get install bubblewrap", "executed"),
    "torch": ((), "its CPU build, installed into build/parts/formats", "executed"),
}
# Heavy systems: each has a lock requirements/parts/NAME.txt and lies in build/parts/NAME.
APART = {
    "arrow": "executed",
    "clients": "executed",
    "feast": "executed",
    "formats": "executed",
    "kserve": "executed",
    "mlflow": "executed",
    "ray": "executed",
    "scan": "executed",
    "s3": "emulated",
    "suites": "executed",
}
# Small servers: unpacked by requirements/servers.sh, or installed on the machine.
SERVERS = {
    "docker-registry": "executed",
    "prometheus": "executed",
}
ROOT = Path(__file__).parents[2]
ASKED: set[str] = set()  # by the option --parts; "required" stands for all


def need(part):
    """Go on when the part is there; otherwise skip, and be counted."""
    modules, cure, _ = KNOWN[part]
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if not absent:
        return
    _absent(part, f"{', '.join(absent)} is not installed ({cure})")


def program(part):
    """The program of a small server; otherwise skip, and be counted."""
    unpacked = ROOT / "build" / "servers" / "usr" / "bin" / part
    found = str(unpacked) if unpacked.is_file() else shutil.which(part)
    if found is None:
        _absent(part, f"it is not here ({cure_of(part)})")
    return found


def environment(part):
    """The folder of programs of a heavy system's own environment; otherwise skip, and be counted."""
    place = ROOT / "build" / "parts" / part
    if not (place / "falaj").is_file():
        _absent(part, f"it was not asked for ({cure_of(part)})")
    return place / "bin"


def suite(part, *arguments):
    """Run tests inside the environment of a heavy system; none run is none passed."""
    python = environment(part) / "python"
    words = (python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments)
    done = subprocess.run(words, check=False, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def absent(part, why):
    """Skip for a reason that is the machine's, such as namespaces that it forbids."""
    _absent(part, why)


def _absent(part, why):
    text = f"part {part}: {why}"
    if ASKED & {part, "required"}:
        pytest.fail(text)
    pytest.skip(text)


def cure_of(part):
    if part in SERVERS:
        return "requirements/servers.sh"
    return KNOWN[part][1] if part in KNOWN else f"make test PARTS={part}"


def label_of(part):
    return KNOWN[part][2] if part in KNOWN else {**APART, **SERVERS}[part]


def report(reporter, folder):
    """One block at the end of a run, and the same as JSON."""
    skipped, names = Counter(), sorted({*KNOWN, *APART, *SERVERS})
    for one in reporter.stats.get("skipped", ()):
        text = one.longrepr[2] if isinstance(one.longrepr, tuple) else str(one.longrepr)
        for part in names:
            if f"part {part}: " in text:
                skipped[part] += 1
    if not skipped:
        return
    reporter.section("parts that were absent")
    for part, number in sorted(skipped.items()):
        reporter.line(f"{part}: {number} tests skipped ({cure_of(part)})")
    folder.mkdir(exist_ok=True)
    found = [
        {"part": part, "label": label_of(part), "skipped": number, "cure": cure_of(part)}
        for part, number in sorted(skipped.items())
    ]
    Path(folder, "parts.json").write_text(json.dumps(found, indent=1) + "\n")
