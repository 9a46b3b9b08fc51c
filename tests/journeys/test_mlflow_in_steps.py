"""`mlflow.*` in steps, with the real client, and what our own record says of it."""

from __future__ import annotations

import json
import os
import subprocess
import textwrap

import pytest

import parts

TOML = """
[project]
name = "small"
region = "ae"
[model]
name = "small"
pipeline = "pipeline:main"
task = "binary-classification"
[pipelines]
parallel = 1 # every step in one warm worker, which is the harder case
"""
PERSONAL = """
[[datasets]]
name = "rows"
source = "rows.csv"
classification = "personal"
purpose = ["tests"]
"""
PIPELINE = """
import os, pathlib, subprocess, sys, tempfile, threading
import mlflow
import numpy as np
from falaj import pipeline, step

def rows():
    x = np.random.default_rng(1).normal(size=(60, 3))
    return x, (x[:, 0] > 0).astype(int)

@step
def says() -> str:
    mlflow.set_experiment("whatever they are used to")
    mlflow.log_param("depth", 6)
    mlflow.log_params({"eta": 0.1, "kind": "tree"})
    mlflow.log_metric("auc", 0.9)
    for i in range(4):
        mlflow.log_metric("loss", 1 / (i + 1), step=i)
    mlflow.log_metrics({"gain": 2.0, "odd": float("inf"), "void": float("nan")}, step=7)
    mlflow.set_tags({"team": "delays", "esc": "\\x1b[2J<script>alert(1)</script>"})
    mlflow.log_text("<b>hello</b>", "notes/readme.txt")
    mlflow.log_dict({"a": 1}, "conf.json")
    mlflow.log_image(np.zeros((4, 4, 3), np.uint8), "pixels.png")
    place = pathlib.Path(tempfile.mkdtemp(), "empty.bin")
    place.write_bytes(b"")
    mlflow.log_artifact(str(place), "raw")
    for i in range(30):
        mlflow.log_metric("later", i, step=i, synchronous=False)
    seen = mlflow.get_run(mlflow.active_run().info.run_id).data
    assert seen.params["depth"] == "6" and seen.metrics["loss"] == 0.25
    return mlflow.active_run().info.run_id  # left open

@step
def runs(before: str) -> int:
    with mlflow.start_run() as first:
        mlflow.log_param("depth", 7)
    assert first.info.run_id != before
    with mlflow.start_run(run_name="second"):
        mlflow.log_metric("auc", 0.8)
        with mlflow.start_run(nested=True):
            mlflow.log_text("inside", "deep/a.txt")
    return 1

@step
def fits(after: int) -> int:
    from sklearn.linear_model import LogisticRegression
    mlflow.sklearn.autolog(log_models=False)
    LogisticRegression(C=0.5).fit(*rows())
    return 1

@step
def plain(after: int) -> int:
    from sklearn.linear_model import LogisticRegression
    LogisticRegression(C=0.5).fit(*rows())
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    return 1

@step
def keeps(after: int) -> int:
    from sklearn.linear_model import LogisticRegression
    x, y = rows()
    model = LogisticRegression().fit(x, y)
    info = mlflow.sklearn.log_model(
        model, name="clf", serialization_format="skops", pip_requirements=["scikit-learn"]
    )
    again = mlflow.sklearn.load_model(info.model_uri)
    assert (again.predict(x) == model.predict(x)).all()
    try:
        mlflow.register_model(info.model_uri, "prod")
    except mlflow.exceptions.MlflowException as refused:
        print("refused:", refused)
    return 1

@step
def spreads(after: int) -> int:
    def inner():
        mlflow.log_param("in_thread", 1)
        mlflow.end_run()

    one = threading.Thread(target=inner)
    one.start()
    one.join()
    code = "import mlflow; mlflow.log_param('in_child', 2)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not [n for n in os.environ.items() if "MLFLOW_RUN_ID" in n]
    return 1

@step
def breaks(after: int) -> int:
    with mlflow.start_run():
        mlflow.log_param("before", 1)
        raise ValueError("on purpose")

@pipeline
def main(fail: bool = False) -> int:
    last = spreads(keeps(plain(fits(runs(says())))))
    return breaks(last) if fail else last
"""


def falaj(root, *words):
    left_out = {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "FALAJ_URL"}
    environment = {k: v for k, v in os.environ.items() if k not in left_out}
    program = parts.environment("mlflow") / "falaj"
    return subprocess.run(
        [program, *words],
        cwd=root, capture_output=True, text=True, check=False, timeout=300,
        env={**environment, "COLUMNS": "100"},
    )  # fmt: skip


def said(root, *words):
    done = falaj(root, *words)
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)["data"]


def project_in(root, toml, text):
    (root / "falaj.toml").write_text(toml)
    (root / "pipeline.py").write_text(textwrap.dedent(text))
    return root


@pytest.fixture(scope="module", params=["worker", "in-process"])
def done(request, tmp_path_factory):
    """A project, and its run step by step."""
    toml = f'{TOML}executor = "{request.param}"\n'
    root = project_in(tmp_path_factory.mktemp("small"), toml, PIPELINE)
    run = said(root, "run", "--json")
    return root, run, {step["step"]: step for step in run["steps"]}


def test_what_a_step_says_is_in_its_record(done):
    _, run, steps = done
    says = steps["says"]
    assert says["params"] == {"depth": "6", "eta": "0.1", "kind": "tree"}
    assert says["metrics"] == {"auc": 0.9, "loss": 0.25, "gain": 2.0, "later": 29.0}
    assert says["tags"]["team"] == "delays"
    assert says["tags"]["falaj.not-a-number.odd"] == "inf at step 7"
    assert says["tags"]["falaj.not-a-number.void"] == "nan at step 7"
    assert not [tag for tag in says["tags"] if tag.startswith(("mlflow.user", "mlflow.source"))]
    names = {"notes/readme.txt", "conf.json", "pixels.png", "raw/empty.bin"}
    assert says["files"].keys() == {f"mlflow/{name}" for name in names}
    assert run["metrics"]["auc"] == 0.9


def test_a_step_does_not_go_on_in_the_run_of_the_one_before(done):
    _, _, steps = done
    assert steps["runs"]["params"] == {"depth": "7"}
    assert steps["runs"]["metrics"] == {"child/1/auc": 0.8}
    assert steps["runs"]["tags"] == {"child/1/mlflow.runName": "second"}
    assert steps["runs"]["files"].keys() == {"mlflow/child/2/deep/a.txt"}


def test_autologging_lands_in_the_step_that_asked_for_it_alone(done):
    _, _, steps = done
    assert steps["fits"]["params"]["C"] == "0.5"
    assert steps["fits"]["metrics"]["training_accuracy_score"] > 0.9
    assert {"mlflow/training_confusion_matrix.png", "mlflow/inputs.json"} <= steps["fits"][
        "files"
    ].keys()
    kept = ("params", "metrics", "tags", "files")
    assert [steps["plain"][what] for what in kept] == [{}, {}, {}, {}]


def test_a_logged_model_is_files_and_is_registered_nowhere(done):
    root, run, steps = done
    names = steps["keeps"]["files"].keys()
    assert {"mlflow/models/clf/MLmodel", "mlflow/models/clf/model.skops"} <= names
    log = falaj(root, "runs", "log", run["id"], "keeps").stdout
    assert "refused:" in log and "falaj release create" in log
    assert run["result"]["kind"] != "model"


def test_threads_and_child_processes_are_heard(done):
    _, _, steps = done
    assert steps["spreads"]["params"] == {"in_thread": "1", "child/1/in_child": "2"}


def test_nothing_is_written_beside_the_project(done):
    root, _, _ = done
    assert {p.name for p in root.iterdir()} == {
        "falaj.toml",
        "pipeline.py",
        ".falaj",
        "__pycache__",
    } - (set() if (root / "__pycache__").exists() else {"__pycache__"})


def test_runs_are_found_by_what_their_steps_said(done):
    root, run, _ = done
    for asked in ("params.kind = 'tree'", "params.eta < 0.2 and metrics.auc > 0.8"):
        assert [one["id"] for one in said(root, "runs", "list", asked, "--json")] == [run["id"]]
    assert said(root, "runs", "list", "params.kind = 'bush'", "--json") == []


def test_people_see_it_without_what_moves_their_cursor(done):
    root, _, _ = done
    shown = falaj(root, "runs", "show").stdout
    assert "says: params\n  depth  6\n  eta    0.1\n  kind   tree\n" in shown
    assert "mlflow/notes/readme.txt  12 B" in shown and "\x1b" not in shown
    assert falaj(root, "runs", "show", "--html", "run.html").returncode == 0
    page = (root / "run.html").read_text()
    (root / "run.html").unlink()
    assert "Said by says" in page and "mlflow/raw/empty.bin" in page and "0 bytes" in page
    assert 'src="data:image/png;base64' in page and "says: mlflow/pixels.png" in page
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_a_kept_file_is_written_out(done, tmp_path):
    root, run, _ = done
    to = tmp_path / "out.txt"
    words = ("runs", "file", run["id"], "says", "mlflow/notes/readme.txt")
    assert falaj(root, *words, "--write", str(to)).returncode == 0
    assert to.read_text() == "<b>hello</b>"
    absent = falaj(root, "runs", "file", run["id"], "says", "mlflow/nothing")
    assert absent.returncode != 0 and "runs.no-file" in absent.stderr


def test_a_cached_step_shows_what_it_said_when_it_ran(done):
    root, _, steps = done
    again = {step["step"]: step for step in said(root, "run", "--json")["steps"]}
    for name, step in steps.items():
        assert again[name]["status"] == "cached"
        for what in ("params", "metrics", "tags", "files"):
            assert again[name][what] == step[what]


def test_a_step_that_raises_has_failed_whatever_the_client_says(done):
    root, _, _ = done
    assert falaj(root, "run", "-p", "fail=true", "--json").returncode != 0
    run = said(root, "runs", "list", "status = failed and params.before = 1", "--json")[0]
    assert run["steps"][-1]["status"] == "failed"
    assert run["steps"][-1]["params"] == {"before": "1"}


def test_with_data_of_persons_the_client_speaks_tls(tmp_path):
    root = project_in(
        tmp_path, TOML + PERSONAL,
        """
        import os, mlflow
        from falaj import pipeline, step

        @step
        def a() -> str:
            mlflow.log_param("depth", 6)
            mlflow.log_text("x", "a.txt")
            return os.environ["MLFLOW_TRACKING_URI"][:8]

        @pipeline
        def main() -> str:
            return a()
        """,
    )  # fmt: skip
    (root / "rows.csv").write_text("a\n1\n")
    run = said(root, "run", "--json")
    assert run["steps"][0]["params"] == {"depth": "6"}
    assert run["steps"][0]["files"].keys() == {"mlflow/a.txt"}
    blob = run["result"]["digest"].removeprefix("sha256:")
    assert b"https://" in (root / ".falaj" / "blobs" / blob[:2] / blob[2:]).read_bytes()


def test_a_tracking_server_of_their_own_gets_what_is_said(tmp_path, monkeypatch):
    """Nothing listens there, so the step fails, and nothing of it is kept here."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    root = project_in(
        tmp_path, TOML,
        """
        import mlflow
        from falaj import pipeline, step

        @step
        def a() -> int:
            mlflow.log_param("depth", 6)
            return 1

        @pipeline
        def main() -> int:
            return a()
        """,
    )  # fmt: skip
    failed = falaj(root, "run", "--json")
    assert failed.returncode != 0 and "127.0.0.1" in failed.stderr + failed.stdout
    assert said(root, "runs", "list", "--json")[0]["steps"][0]["params"] == {}
