"""Both ways with a real MLflow 3.17.2 server, read back by its own client."""

from __future__ import annotations

import json
import subprocess

import loans
import numpy as np
import pytest
import small_project
import walks
from tracking import Real

import parts
from falaj.facts.releases import Release

MIRROR = frozenset({"mirror"})

SHOW_RUNS = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient()
home = client.get_experiment_by_name(sys.argv[1])
found = client.search_runs([home.experiment_id]) if home else []
print(json.dumps([
    {
        "status": r.info.status, "params": r.data.params, "metrics": r.data.metrics,
        "tags": r.data.tags,
        "inputs": [[i.dataset.name, i.dataset.digest] for i in r.inputs.dataset_inputs],
        "files": [f.path for f in client.list_artifacts(r.info.run_id)],
        "steps": [p.step for p in client.get_metric_history(r.info.run_id, "loss")],
    }
    for r in found
]))
"""
SHOW_MODEL = """
import json, sys
import mlflow, numpy as np
client = mlflow.MlflowClient()
version = client.get_model_version_by_alias(sys.argv[1], "champion")
everything = client.search_model_versions(f"name = '{sys.argv[1]}'")
model = mlflow.pyfunc.load_model(f"models:/{sys.argv[1]}@champion")
answer = model.predict({"features": np.array([[1, 0, 2], [-1, 2, 0]], np.float32)})
print(json.dumps({
    "version": version.version, "tags": version.tags, "run_tag": client.get_run(version.run_id).data.tags,
    "all": len(everything), "answer": np.asarray(next(iter(answer.values()))).ravel().tolist(),
}))
"""
LOG_MODELS = """
import json, sys
import mlflow, numpy as np, pandas as pd
from mlflow.models import infer_signature
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
rows = pd.read_csv(sys.argv[1])
rows = rows[rows.held == 0]
x, y = rows[["a", "b"]], rows.y
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
signature = infer_signature(x, model.predict_proba(x))
proto = to_onnx(model, x.to_numpy().astype(np.float32)[:1], options={id(model): {"zipmap": False}}, target_opset=17)
with mlflow.start_run():
    mlflow.log_params({"penalty": "l2"})
    mlflow.log_metric("auc", 0.999)
    mlflow.sklearn.log_model(model, name="a", registered_model_name="skops-model", signature=signature, serialization_format="skops")
    mlflow.sklearn.log_model(model, name="b", registered_model_name="pickled", signature=signature, serialization_format="cloudpickle")
    mlflow.onnx.log_model(proto, name="c", registered_model_name="onnx-model", signature=infer_signature(x.astype("float32")))
client = mlflow.MlflowClient()
client.set_registered_model_alias("onnx-model", "champion", "1")
print(json.dumps(model.predict_proba(x)[:3, 1].tolist()))
"""  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = Real(parts.environment("mlflow"), tmp_path_factory.mktemp("mlflow"))
    yield made
    made.stop()


def linked(server, more=""):
    return f'\n[links.mlflow]\nurl = "{server.url}"\nregion = "ae"\n{more}\n'


def test_runs_are_shown_also_when_the_server_was_killed_meanwhile(server, tmp_path, at):
    root = loans.write_project(tmp_path / "loans", toml=loans.TOML + linked(server))
    text = (root / "pipeline.py").read_text()
    more = (
        "    for n in range(1500):\n        falaj.log(step=n, loss=1 / (n + 1))\n"
        '    falaj.plot("weights", {"at": ["a", "b"], "w": [1.0, 2.0]}, x="at", y="w", mark="bars")\n'
    )
    (root / "pipeline.py").write_text(
        text.replace("    falaj.log(bias", f"{more}    falaj.log(bias")
    )
    by = at(root)
    first = by.owner.post("/runs", {"parameters": {"month": 2}})
    assert by.works.turn(MIRROR) == [f"mlflow: run/{first['id']} is shown"]
    server.stop()
    second = by.owner.post("/runs", {"parameters": {"month": 3}})
    assert second["status"] == "ok"
    (said,) = by.works.turn(MIRROR)
    assert "does not answer" in said
    assert by.owner.get("/status")["links"][0]["waiting"] == 1
    server.start()
    code, out, err = walks.falaj(root, "worker", "--once", "--duty", "mirror")
    assert (code, out.count("is shown")) == (0, 1), err
    found = server.tell(SHOW_RUNS, "falaj/loans")
    assert sorted(r["params"]["month"] for r in found) == ["2", "3"]
    assert {r["tags"]["falaj.run"] for r in found} == {first["id"], second["id"]}
    for there in found:
        assert there["status"] == "FINISHED"
        assert sorted(there["steps"]) == list(range(1500))
        assert "bias" in there["metrics"]
        assert there["files"] == ["plots"]
        assert there["inputs"] == [
            ["rows", first["datasets"][0]["content"].rpartition(":")[2][:32]]
        ]
    # A worker that has forgotten everything shows it all again: nothing is there twice.
    walks.falaj(root, "worker", "--once")
    assert len(server.tell(SHOW_RUNS, "falaj/loans")) == 2


def test_a_promoted_release_carries_the_alias_and_its_proof(server, prepared, tmp_path, at):
    root = walks.copied(prepared, tmp_path / "loans")
    toml = loans.TOML.replace("steps_pct", 'strategy = "direct"\nsteps_pct')
    (root / "falaj.toml").write_text(toml + linked(server, 'experiment = "promoted"'))
    by = at(root)
    walks.turn(by, walks.start(by, "1.0.0"))
    by.works.turn(MIRROR)
    releases = {r.version: r for r in by.works.ground.store.find(Release)}
    found = server.tell(SHOW_MODEL, loans.MODEL)
    assert found["tags"]["falaj.release"] == releases["1.0.0"].id
    assert found["tags"]["falaj.tree"] == releases["1.0.0"].tree
    assert found["run_tag"]["falaj.run"] == releases["1.0.0"].run
    assert all(0 < one < 1 for one in found["answer"])
    walks.turn(by, walks.start(by, "1.1.0"))
    by.works.turn(MIRROR)
    after = server.tell(SHOW_MODEL, loans.MODEL)
    assert after["tags"]["falaj.release"] == releases["1.1.0"].id
    assert after["all"] == 2
    assert not np.allclose(found["answer"], after["answer"])


def test_models_logged_by_mlflow_itself_are_imported_gated_and_released(server, tmp_path):
    root = small_project.write_project(
        tmp_path / "small", toml=small_project.TOML + linked(server, "what = []")
    )
    server.tell(LOG_MODELS, str(root / "rows.csv"))

    def falaj(*words):
        done = subprocess.run(
            [str(server.programs / "falaj"), *words],
            cwd=root, env=walks.quiet(), capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    rows = ("--evaluation", "rows", "--label", "y", "--where", "held=1")
    made = {}
    for version, name in (("1.0.0", "models:/onnx-model@champion"), ("2.0.0", "skops-model/1")):
        code, out, err = falaj("import", "mlflow", name, *rows, "--json")
        assert code == 0, err
        run = made[version] = json.loads(out)["data"]
        assert run["origin"]["claimed"] == {"auc": 0.999}
        assert run["origin"]["said"]["penalty"] == "l2"
        assert run["origin"]["mlflow_version"] == "3.17.2"
        assert run["origin"]["model_id"].startswith("m-")
        code, out, err = falaj("gate", run["id"])
        assert code == 0, out + err
        code, out, err = falaj("release", "create", run["id"], "--version", version)
        assert code == 0, out + err
        folder = f".falaj/releases/flight-delay/{version}"
        code, out, err = falaj("verify", folder)
        assert code == 0, out + err
        card = (root / folder / "card.md").read_text()
        assert "never checked" in card
    assert made["1.0.0"]["origin"]["flavor"] == "onnx"
    assert made["2.0.0"]["origin"]["flavor"] == "sklearn-skops"
    code, _, err = falaj("import", "mlflow", "pickled/1", *rows)
    assert code != 0
    assert "error[imports.pickle]" in err
    assert "serialization_format='skops'" in err
