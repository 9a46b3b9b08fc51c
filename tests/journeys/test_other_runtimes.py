"""A model that is no ONNX, from a pipeline into production: the answers are those of its library.

XGBoost and LightGBM walk in the environment of the part `formats`, where this file is run again.
"""

from __future__ import annotations

import importlib.util
import json
import urllib.request

import numpy as np
import polars as pl
import pytest
import walks

import parts
from falaj.base import canonical
from falaj.base.errors import Exit
from falaj.base.sandbox import absent

TOML = """
[project]
name = "loans"
region = "ae"

[model]
name = "loan"
pipeline = "pipeline:main"
task = "binary-classification"

[[datasets]]
name = "rows"
source = "rows.parquet"
classification = "internal"
purpose = ["tests"]

[gates.quality]
metric = "roc_auc"
at_least = 0.70

[gates.latency]
p99_ms = 250.0
requests = 600

[environments.production]
target = "local"
requires = ["quality", "security", "latency"]
approvals = 1

[environments.production.rollout]
strategy = "direct"
"""
PIPELINE = '''
import numpy as np
import polars as pl

from falaj import Dataset, Model, pipeline, step

COLUMNS = ["income", "debt", "age"]
SCHEMA = {"input": "x", "columns": {name: {"nullable": True} for name in COLUMNS}, "output": "p"}
CODE = b"""
import numpy as np

def predict(inputs):
    x = np.nan_to_num(inputs["x"].astype(np.float64))
    return 1 / (1 + np.exp(-np.clip(x[:, 0] - 0.5 * x[:, 1], -50, 50)))
"""


def fitted(kind, x, y):
    if kind == "xgboost":
        from xgboost import XGBClassifier

        return XGBClassifier(n_estimators=15, max_depth=3, n_jobs=1).fit(x, y)
    if kind == "lightgbm":
        from lightgbm import LGBMClassifier

        return LGBMClassifier(n_estimators=15, n_jobs=1, verbose=-1).fit(x, y)
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(x, y)


@step
def load(*, rows: Dataset) -> pl.DataFrame:
    return rows.read().with_columns(pl.col(COLUMNS).cast(pl.Float32))


@step
def train(rows: pl.DataFrame, *, kind: str) -> Model:
    known, held = rows.filter(pl.col("held") == 0), rows.filter(pl.col("held") == 1)
    about = {
        "schema": SCHEMA,
        "threshold": 0.5,
        "reference": known.select(COLUMNS),
        "test": held.select(*COLUMNS, "y"),
    }
    if kind == "python":
        return Model(runtime="python", files={"model.py": CODE}, **about)
    return Model.of(fitted(kind, known.select(COLUMNS).to_numpy(), known["y"].to_numpy()), **about)


@pipeline
def main(kind: str = "linear") -> Model:
    return train(load(), kind=kind)
'''
ENGINES = all(importlib.util.find_spec(name) for name in ("xgboost", "lightgbm"))
FORMATS = {"linear": "npz", "xgboost": "xgboost-ubj", "lightgbm": "lightgbm", "python": "python"}


@pytest.fixture
def by(tmp_path, at):
    root = tmp_path / "loans"
    root.mkdir()
    draw = np.random.default_rng(11)
    x = draw.normal(size=(1200, 3))
    y = (x[:, 0] - 0.5 * x[:, 1] + 0.4 * draw.normal(size=1200) > 0).astype(int)
    x[draw.random(x.shape) < 0.05] = np.nan
    frame = pl.DataFrame(x, schema=["income", "debt", "age"], nan_to_null=True)
    frame.with_columns(y=pl.Series(y), held=pl.Series(np.arange(1200) % 2)).write_parquet(
        root / "rows.parquet"
    )
    (root / "falaj.toml").write_text(TOML)
    (root / "pipeline.py").write_text(PIPELINE)
    hands = at(root)
    hands.owner.post("/identities", {"name": walks.READER, "roles": ["approver"]})
    return hands


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm"] if ENGINES else ["linear", "python"])
def test_from_a_pipeline_to_an_answer(by, kind, monkeypatch):
    if kind == "python" and absent():
        parts.absent("bubblewrap", absent())
    monkeypatch.chdir(by.root)
    made = walks.made(by, "1.0.0", kind=kind)
    folder = by.root / made["folder"]
    manifest = canonical.loads((folder / "release.json").read_bytes())
    assert manifest["runtime"] == kind
    report = by.owner.get(f"/releases/{made['id']}")
    assert report["findings"] == []
    walks.turn(by, walks.start(by, "1.0.0"))
    url = walks.server(by)["url"]
    probes = json.loads((folder / "reference" / "probes.json").read_bytes())
    for row, wanted in list(zip(probes["inputs"], probes["outputs"], strict=True))[:5]:
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": row}
        answer = asked(f"{url}/v2/models/loan/infer", {"inputs": [tensor]})
        assert answer["outputs"][0]["data"][0] == pytest.approx(wanted[-1], abs=1e-5)
    files = [name for name in manifest["files"] if name.startswith("model/")]
    assert files == [f"model/{walk}" for walk in {"linear": ["linear.npz"], "python": ["model.py"], "xgboost": ["model.ubj"], "lightgbm": ["model.txt"]}[kind]]  # fmt: skip


def asked(url, body):
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def test_a_file_that_the_runtime_does_not_load_stops_at_the_gate(by):
    """Code beside a linear model is no part of it, whoever packed it."""
    text = PIPELINE.replace(
        "return Model.of(fitted",
        'extra = {"linear.npz": b"x" * 10, "model.py": CODE}\n    return Model(runtime="linear", files=extra, **about) if kind == "evil" else Model.of(fitted',
    )
    (by.root / "pipeline.py").write_text(text)
    error = walks.refused(by.owner.post, "/runs", {"parameters": {"kind": "evil"}})
    assert error.code == "serving.model-broken"
    assert error.exit == Exit.UNVERIFIED


if not ENGINES:

    def test_boosters_walk_the_same_way():
        parts.suite(
            "formats",
            "tests/journeys/test_other_runtimes.py",
            "-W",
            "ignore",
            "-k",
            "from_a_pipeline",
        )
