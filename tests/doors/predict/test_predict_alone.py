"""The data plane lives alone: few modules, none of the control plane's, no engine before a load."""

from __future__ import annotations

import json
import subprocess
import sys

FORBIDDEN = {
    "alembic", "cedarpy", "click", "httpx", "jinja2", "joblib", "litestar", "onnxruntime", "pandas",
    "pickle5", "polars", "pyarrow", "rich", "sqlalchemy", "uvicorn", "yaml",
}  # fmt: skip
ROOMS = {
    "access", "app", "audit", "changes", "compliance", "data", "evaluation", "journeys", "learning",
    "links", "monitoring", "pipelines", "rollouts",
}  # fmt: skip


def modules_of(words):
    code = f"{words}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    return json.loads(done.stdout)


def test_the_door_is_light_and_alone():
    found = modules_of("import falaj.doors.predict.main")
    assert len(found) <= 400
    assert not FORBIDDEN & {name.partition(".")[0] for name in found}
    ours = {name.split(".")[1] for name in found if name.startswith("falaj.")}
    assert not ROOMS & ours
    releases = {name for name in found if name.startswith("falaj.releases")}
    assert releases <= {"falaj.releases", "falaj.releases.verify"}


def test_the_readers_of_the_spool_need_no_engine():
    found = modules_of("import falaj.serving.spool, falaj.serving.requests")
    assert "onnxruntime" not in found
    assert "numpy" not in found
