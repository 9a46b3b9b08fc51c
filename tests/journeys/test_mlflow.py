"""Both ways with a tracking server of others, against a stand-in: it is shown everything once, it never
holds anything up, and what comes from it is governed like a model of our own.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
import threading
import time

import loans
import numpy as np
import pytest
import small_project
import walks
from onnx import TensorProto, helper, numpy_helper
from tracking import StandIn
from walks import refused

from falaj.facts.models import ModelVersion
from falaj.facts.releases import Release

MIRROR = frozenset({"mirror"})


@pytest.fixture
def server():
    made = StandIn()
    yield made
    made.lie = None
    made.stop()


def linked(server, *, region="ae", more=""):
    return f'\n[links.mlflow]\nurl = "{server.url}"\nregion = "{region}"\n{more}\n'


@pytest.fixture
def small(server, tmp_path, at):
    """A small project that shows its runs."""

    def open_(toml=small_project.TOML, **words):
        root = small_project.write_project(tmp_path / "small", toml=toml + linked(server, **words))
        return at(root)

    return open_


def link(by):
    (found,) = by.owner.get("/status")["links"]
    return found


def test_a_run_is_shown_with_its_points_plots_tags_and_data(server, tmp_path, at):
    root = loans.write_project(tmp_path / "loans", toml=loans.TOML + linked(server))
    text = (root / "pipeline.py").read_text()
    noisy = (
        "    for n in range(5):\n        falaj.log(step=n, loss=1 / (n + 1))\n"
        '    falaj.plot("weights", {"at": ["a", "b"], "w": [1.0, 2.0]}, x="at", y="w", mark="bars")\n'
    )
    (root / "pipeline.py").write_text(
        text.replace("    falaj.log(bias", f"{noisy}    falaj.log(bias")
    )
    subprocess.run(
        "git init -q && git add -A && git -c user.name=a -c user.email=a@example.org commit -qm one",
        shell=True, cwd=root, check=True,
    )  # fmt: skip
    by = at(root)
    run = by.owner.post("/runs", {"parameters": {"month": 4}})
    assert by.works.turn(MIRROR) == [f"mlflow: run/{run['id']} is shown"]
    (there,) = server.runs.values()
    assert there["info"]["status"] == "FINISHED"
    assert there["params"] == {"month": "4", "swapped": "false"}
    assert sorted(p[1] for p in there["points"] if p[0] == "loss") == [0, 1, 2, 3, 4]
    assert "bias" in {p[0] for p in there["points"]}
    tags = there["tags"]
    assert tags["falaj.run"] == run["id"]
    assert tags["mlflow.source.git.commit"] == run["code"]["commit"] != ""
    assert tags["mlflow.source.git.branch"] == run["code"]["branch"]
    assert tags["mlflow.source.git.dirty"] in ("true", "false")
    assert run["environment"]["lock"].endswith(tags["falaj.env.lock_sha256"])
    assert tags["falaj.label.countries"] == "ae"
    ((name, digest),) = there["inputs"]
    assert name == "rows"
    assert run["datasets"][0]["content"].endswith(digest + run["datasets"][0]["content"][-32:])
    files = {path.split("/artifacts/")[1] for path in server.files}
    assert files == {"plots/pack/weights.json", "plots/pack/weights.svg"}
    assert run["principal"] not in str(there)
    assert by.works.turn(MIRROR) == []


def test_a_failed_run_is_shown_by_its_code_and_not_by_its_words(server, small):
    by = small()
    (by.root / "pipeline.py").write_text(
        (by.root / "pipeline.py").read_text().replace("    weights =", '    raise ValueError("layla@example.org")\n    weights =')
    )  # fmt: skip
    refused(by.owner.post, "/runs", {})
    by.works.turn(MIRROR)
    (there,) = server.runs.values()
    assert there["info"]["status"] == "FAILED"
    assert there["tags"]["falaj.error"] == "pipelines.step-failed"
    assert "layla" not in json.dumps([there["tags"], there["params"]])


def test_a_server_that_is_away_touches_nothing_and_is_told_later(server, small):
    by = small()
    server.stop()
    first = by.owner.post("/runs", {})
    second = by.owner.post("/runs", {"parameters": {"slope": 2.0}})
    assert (first["status"], second["status"]) == ("ok", "ok")
    (said,) = by.works.turn(MIRROR)
    assert "does not answer" in said
    assert by.works.turn(MIRROR) == []  # it is left alone for a while
    shown = link(by)
    assert (shown["waiting"], shown["refused"]) == (2, 0)
    assert "does not answer" in shown["trouble"]
    code, out, _ = walks.falaj(by.root, "status")
    assert code == 0
    assert "warning     mlflow" in out
    assert "2 item(s) wait for it" in out
    server.start()
    code, out, err = walks.falaj(by.root, "worker", "--once")  # another worker, with no memory
    assert code == 0, err
    assert out.count("is shown") == 2
    assert len(server.runs) == 2
    assert link(by) | {"since": None} == link(by)
    assert (link(by)["waiting"], link(by)["trouble"]) == (0, "")
    assert "warning" not in walks.falaj(by.root, "status")[1]
    assert len(walks.told(by, "mirror.waits")) == 1
    assert len(walks.told(by, "mirror.shown")) == 2


def test_a_server_that_hangs_holds_nothing_up(server, small):
    by = small()
    go = threading.Event()
    server.lie = lambda *_: go.wait(20) and None
    by.owner.post("/runs", {})
    begun = time.monotonic()
    by.works.turn(frozenset({"mirror", "rollouts", "monitors"}), wait=False)
    by.works.turn(frozenset({"mirror", "rollouts", "monitors"}), wait=False)
    assert time.monotonic() - begun < 2
    go.set()
    walks.wait(lambda: by.works.turn(MIRROR, wait=False), what="the run")
    assert len(server.runs) == 1


KILLED_AT = (0, 2, 3, 4, 5)  # experiment, look, make it, log, data, end


def test_a_worker_that_is_killed_between_any_two_calls_doubles_nothing(server, small, processes):
    by = small()
    by.owner.post("/runs", {})
    for calls in KILLED_AT:
        reached, go = threading.Event(), threading.Event()
        begin = len(server.calls)

        def block(*_, begin=begin, calls=calls, reached=reached, go=go):
            if len(server.calls) - begin > calls:
                reached.set()
                server.lock.release()
                go.wait(30)
                server.lock.acquire()

        server.lie = block
        process = walks.worker(by.root, "mirror")
        processes.append(process)
        assert reached.wait(30)
        process.kill()
        process.wait()
        server.lie = None
        go.set()
        walks.let_leases_run_out(by.root)
    code, out, err = walks.falaj(by.root, "worker", "--once", "--duty", "mirror")
    assert code == 0, err
    assert "is shown" in out
    assert len(server.runs) == 1
    (there,) = server.runs.values()
    assert there["info"]["status"] == "FINISHED"
    assert len(walks.told(by, "mirror.shown")) == 1


def test_two_workers_at_once_show_everything_once(server, small, processes):
    by = small()
    for n in range(4):
        by.owner.post("/runs", {"parameters": {"slope": 1.0 + n}})
    processes += [walks.worker(by.root, "mirror"), walks.worker(by.root, "mirror")]
    walks.wait(lambda: len(walks.told(by, "mirror.shown")) == 4, what="four runs")
    assert len(server.runs) == 4
    assert {r["info"]["status"] for r in server.runs.values()} == {"FINISHED"}


def test_what_may_not_be_there_is_not_shown_there(server, small):
    by = small(region="de")
    run = by.owner.post("/runs", {})
    (said,) = by.works.turn(MIRROR)
    assert "it may be in ae, and not in de" in said
    assert server.calls == []
    assert link(by)["refused"] == 1
    assert walks.told(by, "mirror.refused") == [f"run/{run['id']}"]
    assert "1 item(s) are not shown there" in walks.falaj(by.root, "status")[1]


CLASSES = {"confidential": True, "personal": False, "sensitive": False}


@pytest.mark.parametrize(("word", "is_shown"), CLASSES.items(), ids=CLASSES)
def test_the_class_of_the_data_decides_what_is_shown(server, small, word, is_shown):
    """Personal data never goes over plain HTTP, not even to this machine; drawings stay from confidential on."""
    by = small(small_project.TOML.replace('"internal"', f'"{word}"'))
    text = (by.root / "pipeline.py").read_text()
    plot = '    falaj.plot("p", {"a": ["x"], "b": [1.0]}, x="a", y="b")\n'
    (by.root / "pipeline.py").write_text(text.replace("    weights =", f"{plot}    weights ="))
    by.owner.post("/runs", {})
    by.works.turn(MIRROR)
    assert len(server.runs) == int(is_shown)
    assert server.files == {}


def test_only_what_was_asked_for_is_shown(server, small):
    by = small(more='what = ["params"]')
    by.owner.post("/runs", {})
    by.works.turn(MIRROR)
    (there,) = server.runs.values()
    assert there["params"]
    assert (there["points"], server.files) == (set(), {})
    nothing = small_project.TOML + linked(server, more="what = []")
    (by.root / "falaj.toml").write_text(nothing)
    walks.falaj(by.root, "run")
    walks.falaj(by.root, "worker", "--once")
    assert len(server.runs) == 1


def test_another_server_is_told_everything_from_the_beginning(server, small):
    by = small()
    by.owner.post("/runs", {})
    by.works.turn(MIRROR)
    other = StandIn()
    (by.root / "falaj.toml").write_text(small_project.TOML + linked(other))
    code, _, err = walks.falaj(by.root, "worker", "--once")
    other.stop()
    assert code == 0, err
    assert len(other.runs) == len(server.runs) == 1


def test_a_promoted_release_is_registered_and_the_alias_follows(prepared, tmp_path, server, at):
    root = walks.copied(prepared, tmp_path / "loans")
    toml = loans.TOML.replace("steps_pct", 'strategy = "direct"\nsteps_pct')
    (root / "falaj.toml").write_text(toml + linked(server))
    by = at(root)
    walks.turn(by, walks.start(by, "1.0.0"))
    by.works.turn(MIRROR)
    (version,) = server.versions
    first = {r.version: r for r in by.works.ground.store.find(Release)}["1.0.0"]
    tags = {t["key"]: t["value"] for t in version["tags"]}
    assert tags["falaj.release"] == first.id
    assert (tags["falaj.tree"], tags["falaj.evidence"]) == (first.tree, first.evidence)
    assert server.aliases == {(loans.MODEL, "champion"): "1"}
    assert server.runs[version["run_id"]]["tags"]["falaj.run"] == first.run
    names = {p.split("/releases/1.0.0/")[1] for p in server.files if "/releases/" in p}
    assert names == {"release.json", "signature.json", "MLmodel", "model.onnx"}
    walks.turn(by, walks.start(by, "1.1.0"))
    by.works.turn(MIRROR)
    assert server.aliases == {(loans.MODEL, "champion"): "2"}
    walks.let_leases_run_out(by.root)  # of this process, which turns no more
    code, _, err = walks.falaj(by.root, "rollback", "production", "-m", "no good")
    assert code == 0, err
    by.works.turn(MIRROR)
    assert server.aliases == {(loans.MODEL, "champion"): "1"}
    assert len(server.versions) == 2


def test_a_model_whose_bytes_were_altered_is_shown_to_nobody(prepared, tmp_path, server, at):
    root = walks.copied(prepared, tmp_path / "loans")
    toml = loans.TOML.replace("steps_pct", 'strategy = "direct"\nsteps_pct')
    (root / "falaj.toml").write_text(toml + linked(server, more='what = ["models"]'))
    by = at(root)
    walks.turn(by, walks.start(by, "1.0.0"))
    first = {r.version: r for r in by.works.ground.store.find(Release)}["1.0.0"]
    model = by.works.ground.store.get(ModelVersion, first.model_version).fact
    digest = model.files["model.onnx"].removeprefix("sha256:")
    (blob,) = [
        p for p in (root / ".falaj" / "blobs").rglob("*") if digest.endswith(p.name) and p.is_file()
    ]
    walks.flip(blob)
    (said,) = by.works.turn(MIRROR)
    assert "gone or were altered" in said
    assert (server.versions, server.files) == ([], {})


# --- the other way ---


def theirs(weights=(1.0, 0.1), *, inputs=("x",), name="p", width=1):
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["z"]),
            helper.make_node("Sigmoid", ["z"], [name]),
        ],
        "theirs",
        [helper.make_tensor_value_info(one, TensorProto.FLOAT, ["n", 2]) for one in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])],
        [numpy_helper.from_array(np.array(weights, np.float32).reshape(2, width), "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return made.SerializeToString()


def manifest(**other):
    columns = [{"type": "float", "name": n, "required": True} for n in ("a", "b")]
    said = {
        "flavors": {"onnx": {"data": "model.onnx"}},
        "signature": {"inputs": json.dumps(columns)},
        "mlflow_version": "3.17.2",
    }
    return json.dumps(said | other).encode()


SAID = {
    "params": [{"key": "depth", "value": "6"}],
    "metrics": [{"key": "roc_auc", "value": 0.999, "timestamp": 1, "step": 0}],
}
ASKED = {"name": "models:/loan@champion", "evaluation": "rows", "label": "y", "where": "held=1"}


def keep(server, model=None, **other):
    files = {"MLmodel": manifest(**other), "model.onnx": theirs() if model is None else model}
    return server.keep_model("loan", files, alias="champion", said=SAID)


def test_an_imported_model_walks_the_governed_way(server, small):
    by = small()
    keep(server)
    run = by.owner.post("/imports", ASKED)
    assert (run["status"], run["trigger"], run["parameters"]) == ("ok", "import", {"depth": "6"})
    assert run["metrics"] == {}, "what somebody else measured is no measurement of ours"
    assert run["origin"]["claimed"] == {"roc_auc": 0.999}
    model = by.works.ground.store.find(ModelVersion, run=run["id"])[0]
    assert by.works.ground.blobs.get(model.files["model.onnx"]) == theirs()
    assert [c.name for c in model.schema.inputs[0].columns] == ["a", "b"]
    assert set(model.reference) == {"edges.json", "probes.json"}
    report = by.owner.post("/gates", {"run": run["id"], "environment": "production"})
    assert {r["verdict"] for r in report["results"]} == {"pass"}
    (quality,) = [r for r in report["results"] if r["check"] == "quality.roc_auc"]
    assert quality["value"] < 0.999
    release = by.owner.post("/releases", {"run": run["id"]})
    folder = by.root / release["folder"]
    card = (folder / "card.md").read_text()
    assert "Claimed there, never checked: roc\\_auc" in card or "never checked: roc_auc" in card
    import base64

    sealed = json.loads((folder / "evidence" / "provenance.dsse.json").read_text())
    said = json.loads(base64.b64decode(sealed["payload"]))["predicate"]["buildDefinition"]
    assert said["buildType"] == "falaj:import/v1"
    assert said["externalParameters"]["name"] == "loan"
    assert "0.999" not in json.dumps(said)
    digests = {d["name"]: d["digest"] for d in said["resolvedDependencies"]}
    assert digests["loan/1/model.onnx"]["sha256"] == model.files["model.onnx"].removeprefix(
        "sha256:"
    )
    code, out, err = walks.falaj(by.root, "verify", folder)
    assert code == 0, out + err
    by.works.turn(MIRROR)
    shown = [r for r in server.runs.values() if r["tags"].get("falaj.run") == run["id"]]
    assert shown[0]["tags"]["falaj.imported"] == f"{server.url} loan/1"


def test_the_command_line_says_what_is_a_claim(server, small):
    by = small()
    keep(server)
    words = ("--evaluation", "rows", "--label", "y", "--where", "held=1")
    code, out, err = walks.falaj(by.root, "import", "mlflow", "loan/1", *words)
    assert code == 0, err
    assert "claimed there, not measured: roc_auc = 0.999" in out
    code, out, _ = walks.falaj(by.root, "import", "mlflow", "loan/1", *words, "--json")
    assert json.loads(out)["data"]["origin"]["name"] == "loan"
    code, _, err = walks.falaj(by.root, "import", "mlflow", "loan/9", *words)
    assert code != 0
    assert "error[imports.unknown]" in err


REFUSED = {
    "a dataset that is not declared": ({"evaluation": "other"}, {}, "imports.no-dataset"),
    "no such column of truth": ({"label": "z"}, {}, "imports.bad-rows"),
    "a truth that is more than 0 and 1": ({"label": "a"}, {}, "imports.bad-label"),
    "no such rows": ({"where": "held=7"}, {}, "imports.bad-rows"),
    "no condition": ({"where": "held"}, {}, "imports.bad-rows"),
    "a column that the data has not": ({"columns": ["a", "c"]}, {}, "imports.bad-rows"),
    "a column of texts": ({"columns": ["a", "origin_airport"]}, {}, "imports.bad-rows"),
    "no names of columns": ({}, {"signature": None}, "imports.no-columns"),
    "another number of columns": ({"columns": ["a", "b", "held"]}, {}, "imports.model-shape"),
    "no such output": ({"output": "q"}, {}, "imports.model-shape"),
    "a file that is no ONNX": ({}, {"model": b"PK\x03\x04"}, "imports.quarantined"),
    "a pickle by another name": ({}, {"model": b"\x80\x04N."}, "imports.quarantined"),
    "ONNX that no runtime loads": ({}, {"model": theirs(inputs=("y",))}, "imports.quarantined"),
    "two inputs": ({}, {"model": theirs(inputs=("x", "y"))}, "imports.model-shape"),
    "three classes": ({}, {"model": theirs([1.0] * 6, width=3)}, "imports.model-shape"),
    "a pickle": (
        {}, {"flavors": {"sklearn": {"pickled_model": "m.pkl", "serialization_format": "pickle"}}},
        "imports.pickle",
    ),
    "a name that is no version": ({"name": "loan"}, {}, "imports.bad-name"),
}  # fmt: skip


@pytest.mark.parametrize(("asked", "kept", "code"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_imported_leaves_a_failed_run_and_no_model(server, small, asked, kept, code):
    by = small()
    keep(server, **kept)
    error = refused(by.owner.post, "/imports", ASKED | asked)
    assert error.code == code, error
    assert error.problems[0].fix
    assert by.works.ground.store.find(ModelVersion) == []
    (run,) = by.owner.get("/runs")
    assert (run["status"], run["trigger"]) == ("failed", "import")
    assert not list((by.root / ".falaj").glob("tmp*"))


def test_without_a_server_there_is_nothing_to_import_from(tmp_path, at):
    by = at(small_project.write_project(tmp_path / "small"))
    assert refused(by.owner.post, "/imports", ASKED).code == "imports.no-server"
    assert by.owner.get("/status")["links"] == []


@pytest.mark.parametrize("role", ["viewer", "approver", "operator", "risk"])
def test_who_may_not_run_pipelines_may_not_import(server, small, role):
    by = small()
    keep(server)
    by.owner.post("/identities", {"name": walks.READER, "roles": [role]})
    assert refused(by.reader.post, "/imports", ASKED).code == "access.denied"
    assert server.calls == []
    assert by.owner.get("/runs") == []


def test_an_author_may_import_and_may_not_approve_it(server, small):
    by = small()
    keep(server)
    by.owner.post("/identities", {"name": walks.READER, "roles": ["author", "approver"]})
    run = by.reader.post("/imports", ASKED)
    by.owner.post("/gates", {"run": run["id"], "environment": "production"})
    by.owner.post("/releases", {"run": run["id"], "version": "1.0.0"})
    change = by.owner.post("/environments/production/changes", {"release": "1.0.0", "reason": "x"})
    assert refused(walks.approve, by.reader, change).code == "access.four-eyes"


def test_a_broken_contract_stops_an_import(server, tmp_path, at):
    root = loans.write_project(tmp_path / "loans", toml=loans.TOML + linked(server))
    contract = (root / "rows.odcs.yaml").read_text()
    (root / "rows.odcs.yaml").write_text(contract.replace("maximum: 1}", "maximum: 0}"))
    by = at(root)
    keep(server)
    error = refused(by.owner.post, "/imports", ASKED)
    assert error.code == "data.contract-broken"
    assert not [call for call in server.calls if "artifacts" in call]


def test_the_state_of_the_mirror_is_one_row(server, small):
    by = small()
    for _ in range(3):
        by.owner.post("/runs", {})
        by.works.turn(MIRROR)
    with contextlib.closing(sqlite3.connect(by.root / ".falaj" / "store.db")) as base:
        ((kept, body),) = base.execute("SELECT revision, body FROM mirror_state").fetchall()
    assert (kept, json.loads(body)["shown"]) == (3, 3)


def test_the_mirror_is_not_loaded_where_nobody_asked_for_one(tmp_path):
    root = small_project.write_project(tmp_path / "small")
    code = (
        "import sys\nfrom pathlib import Path\nfrom falaj.app import Works\n"
        "w = Works.open(Path('.'))\nw.close()\nassert 'httpx' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
