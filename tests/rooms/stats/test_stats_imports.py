from __future__ import annotations

import json
import subprocess
import sys

import pytest

PARTS = ("special", "summaries", "eproc", "analysis", "paired", "intervals", "fairness", "drift")
HEAVY = {"scipy", "pandas", "polars", "sklearn", "statsmodels", "socket", "ssl", "asyncio"}


def loaded(code):
    text = f"import json, sys; before = set(sys.modules); {code}; print(json.dumps(sorted(set(sys.modules) - before)))"
    out = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    return json.loads(out.stdout)


@pytest.fixture(scope="module")
def everything():
    return loaded("; ".join(f"import falaj.stats.{part}" for part in PARTS))


def test_stats_needs_neither_scipy_nor_frames_nor_network(everything):
    assert not {name.split(".")[0] for name in everything} & HEAVY


def test_stats_knows_itself_and_base_only(everything):
    own = {name for name in everything if name.startswith("falaj.")}
    rooms = {name.split(".")[1] for name in own}
    assert rooms == {"base", "stats"}


def test_summaries_load_numpy_the_standard_library_and_base_only():
    found = loaded("import falaj.stats.summaries")
    top = {name.split(".")[0] for name in found} - set(sys.stdlib_module_names)
    assert top == {"falaj", "numpy"}
    own = {name for name in found if name.startswith("falaj.stats.")}
    assert own == {"falaj.stats.summaries"}
