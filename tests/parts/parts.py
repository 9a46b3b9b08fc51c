"""Outside systems that tests want: there, or a counted and listed skip. The one place that skips.

`need("iceberg")` at the head of a fixture or test. With `--parts required` what is absent is an error.
"""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path

import pytest

# part -> (modules that must be importable, how it comes to be there, label)
KNOWN = {
    "iceberg": (("pyiceberg", "pyarrow"), "pip install 'falaj[iceberg]'", "executed"),
    "duckdb": (("duckdb",), "pip install 'falaj[duckdb]'", "executed"),
}
REQUIRED = False  # set by the option --parts


def need(part):
    """Go on when the part is there; otherwise skip, and be counted."""
    modules, cure, _ = KNOWN[part]
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if not absent:
        return
    why = f"part {part}: {', '.join(absent)} is not installed ({cure})"
    if REQUIRED:
        pytest.fail(why)
    pytest.skip(why)


def report(reporter, folder):
    """One block at the end of a run, and the same as JSON."""
    skipped = Counter()
    for one in reporter.stats.get("skipped", ()):
        text = one.longrepr[2] if isinstance(one.longrepr, tuple) else str(one.longrepr)
        for part in KNOWN:
            if f"part {part}: " in text:
                skipped[part] += 1
    if not skipped:
        return
    reporter.section("parts that were absent")
    for part, number in sorted(skipped.items()):
        reporter.line(f"{part}: {number} tests skipped ({KNOWN[part][1]})")
    folder.mkdir(exist_ok=True)
    found = [
        {"part": part, "label": KNOWN[part][2], "skipped": number, "cure": KNOWN[part][1]}
        for part, number in sorted(skipped.items())
    ]
    Path(folder, "parts.json").write_text(json.dumps(found, indent=1) + "\n")
