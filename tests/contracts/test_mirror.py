"""ports/mirrors.py, Mirror: whatever is said twice, or broken off in the middle, is there once."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracking import Real, StandIn

import parts
from falaj.base.points import Series
from falaj.base.strangers import Away, Refused
from falaj.facts.data import DatasetVersion
from falaj.facts.project import MlflowTable
from falaj.links.mlflow.client import Client
from falaj.links.mlflow.mirror import MlflowMirror
from falaj.links.mlflow.names import batches, cut, renamed
from falaj.ports.mirrors import ShownRelease, ShownRun

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
RELEASE = "sha256:" + "b" * 64


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    server = Real(parts.environment("mlflow"), tmp_path_factory.mktemp("mlflow"))
    yield server
    server.stop()


@pytest.fixture(params=["stand-in", "mlflow"])
def server(request):
    if request.param == "mlflow":
        yield request.getfixturevalue("real")
        return
    made = StandIn()
    yield made
    made.stop()


def mirror(server, tmp_path, experiment="falaj/loans", **words):
    table = MlflowTable(url=server.url, region="ae", **words)
    return MlflowMirror(Client(table, tmp_path), experiment)


def points(name="loss", n=3):
    made = Series(name)
    for step in range(n):
        made.add(step, AT.timestamp() + step, 1 / (step + 1))
    return made


def run(name="01RUN", **other):
    values = {
        "run": name,
        "name": f"loan-{name}",
        "status": "ok",
        "started": AT,
        "ended": AT + timedelta(seconds=9),
        "params": {"month": "3", "شهر": "مارس"},
        "metrics": {"auc": 0.91, "loss": 1 / 3},
        "series": [points()],
        "tags": {"mlflow.source.git.commit": "c0ffee", "falaj.pipeline": "pipeline:main"},
        "datasets": [
            DatasetVersion(
                dataset="rows", bytes="sha256:" + "1" * 64, content="content1:" + "2" * 64,
                schema="sha256:" + "3" * 64, columns={}, rows=6000, source="rows.csv", at=AT,
            )
        ],
        "files": {"plots/train/roc.json": b"{}"},
    }  # fmt: skip
    return ShownRun(**{**values, **other})


def release(shown, **other):
    values = {
        "release": RELEASE, "model": "loan", "version": "1.0.0", "run": shown,
        "tags": {"falaj.tree": "sha256:" + "c" * 64}, "files": {"release.json": b"{}"},
    }  # fmt: skip
    return ShownRelease(**{**values, **other})


class There:
    """What the server shows, asked as anybody would."""

    def __init__(self, server, experiment="falaj/loans"):
        self.http = httpx.Client(base_url=f"{server.url}/api/2.0/mlflow/", trust_env=False)
        self.url, self.experiment = server.url, experiment

    def post(self, call, body):
        return self.http.post(call, json=body).raise_for_status().json()

    def get(self, call, **words):
        return self.http.get(call, params=words).raise_for_status().json()

    def runs(self, name="01RUN"):
        home = self.get("experiments/get-by-name", experiment_name=self.experiment)["experiment"]
        found = self.post(
            "runs/search",
            {
                "experiment_ids": [home["experiment_id"]],
                "filter": f"tags.`falaj.run` = '{name}'",
                "run_view_type": "ACTIVE_ONLY",
                "max_results": 100,
            },
        )
        ids = [one["info"]["run_id"] for one in found.get("runs", [])]
        return [self.get("runs/get", run_id=one)["run"] for one in ids]

    def versions(self, release=RELEASE, model="loan"):
        asked = f"name = '{model}' AND tags.`falaj.release` = '{release}'"
        found = self.get("model-versions/search", filter=asked, max_results="100")
        return found.get("model_versions", [])

    def file(self, path):
        answer = httpx.get(f"{self.url}/api/2.0/mlflow-artifacts/artifacts/{path}", trust_env=False)
        return answer.content if answer.status_code == 200 else None


def pairs(entries):
    return {one["key"]: one["value"] for one in entries}


def test_a_run_is_shown_with_all_that_it_has(server, tmp_path, request):
    shown = run(name := f"01ALL{request.node.callspec.id}")
    there_id = mirror(server, tmp_path).show_run(shown)
    (there,) = There(server).runs(name)
    assert there["info"]["run_id"] == there_id
    assert there["info"]["status"] == "FINISHED"
    assert int(there["info"]["end_time"]) - int(there["info"]["start_time"]) == 9000
    assert pairs(there["data"]["params"]) == {"month": "3", "شهر": "مارس"}
    assert pairs(there["data"]["metrics"]) == {"auc": 0.91, "loss": pytest.approx(1 / 3)}
    tags = pairs(there["data"]["tags"])
    assert tags["falaj.run"] == name
    assert tags["mlflow.source.git.commit"] == "c0ffee"
    (data,) = there["inputs"]["dataset_inputs"]
    assert (data["dataset"]["name"], data["dataset"]["digest"]) == ("rows", "2" * 32)
    assert pairs(data["tags"])["falaj.content"] == "content1:" + "2" * 64
    home = there["info"]["artifact_uri"].removeprefix("mlflow-artifacts:/")
    assert There(server).file(f"{home}/plots/train/roc.json") == b"{}"


@pytest.mark.parametrize(
    ("ours", "theirs"), {"ok": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}.items()
)
def test_how_it_ended(server, tmp_path, ours, theirs, request):
    name = f"01END{ours}{request.node.callspec.id[:3]}"
    mirror(server, tmp_path).show_run(run(name, status=ours))
    (there,) = There(server).runs(name)
    assert there["info"]["status"] == theirs


def test_said_twice_it_is_there_once(server, tmp_path):
    ours = mirror(server, tmp_path, "falaj/twice")
    twice = There(server, "falaj/twice")
    assert ours.show_run(run()) == mirror(server, tmp_path, "falaj/twice").show_run(run())
    (there,) = twice.runs()
    assert len(there["inputs"]["dataset_inputs"]) == 1
    history = history_of(server, there["info"]["run_id"], "loss")
    assert [one["step"] for one in history] == [0, 1, 2]


def history_of(server, run_id, name):
    if isinstance(server, StandIn):
        found = sorted(p for p in server.runs[run_id]["points"] if p[0] == name)
        return [{"step": step} for _, step, _, _ in found]
    return There(server).get("metrics/get-history", run_id=run_id, metric_key=name)["metrics"]


def test_a_run_that_went_on_after_all_is_told_anew(server, tmp_path):
    ours = mirror(server, tmp_path, "falaj/anew")
    ours.show_run(run(status="interrupted", params={}))
    ours.show_run(run(status="ok"))
    (there,) = There(server, "falaj/anew").runs()
    assert there["info"]["status"] == "FINISHED"


def test_a_release_its_version_and_its_alias(server, tmp_path):
    ours = mirror(server, tmp_path, "falaj/releases")
    shown, model = run(), f"loan-{id(server)}"
    first = release(shown, model=model)
    second = release(shown, model=model, version="1.1.0", release="sha256:" + "d" * 64)
    for one in (first, first, second, second, first):
        ours.move_alias(model, "champion", one)
    there = There(server, "falaj/releases")
    (version,) = there.versions(model=model)
    assert len(there.versions("sha256:" + "d" * 64, model)) == 1
    assert pairs(version["tags"])["falaj.tree"] == "sha256:" + "c" * 64
    alias = there.get("registered-models/alias", name=model, alias="champion")["model_version"]
    assert alias["version"] == version["version"]
    (made,) = there.runs()
    assert version["run_id"] == made["info"]["run_id"]
    assert version["source"].endswith("/releases/1.0.0")


def test_names_and_values_that_mlflow_does_not_take(server, tmp_path, request):
    name = f"01ODD{request.node.callspec.id}"
    shown = run(
        name,
        params={"a:b[c]": "1", "a_b_c_": "2", "../../etc": "3", "k" * 300: "4", "long": "x" * 9000},
        metrics={"nan": math.nan, "top": math.inf, "f1@0.5": 0.5, "f1_0.5": 0.25, ".": 1.0},
        series=[points("loss/eval//deep", 2500)],
        tags={"note": "y" * 20000},
    )
    mirror(server, tmp_path).show_run(shown)
    (there,) = There(server).runs(name)
    params, tags = pairs(there["data"]["params"]), pairs(there["data"]["tags"])
    assert sorted(params.values(), key=len)[:4] == ["1", "2", "3", "4"]
    assert "sha256:" in params["long"]
    assert len(params["long"]) <= 6000
    assert len(tags["note"]) <= 8000
    metrics = pairs(there["data"]["metrics"])
    assert metrics["f1_0.5"] == 0.25
    assert len(metrics) == 6
    assert tags["falaj.name.loss/eval/deep"] == "loss/eval//deep"
    assert len(history_of(server, there["info"]["run_id"], "loss/eval/deep")) == 2500


def test_a_connection_that_breaks_after_any_call_doubles_nothing(tmp_path):
    """The caller never learns that it was done: it says everything again from the beginning."""
    counted = StandIn()
    mirror(counted, tmp_path).move_alias("loan", "champion", release(run()))
    calls = len(counted.calls)
    counted.stop()
    assert calls > 8
    for broken_after in range(calls):
        server = StandIn()
        server.falter = broken_after
        with pytest.raises(Away):
            mirror(server, tmp_path).move_alias("loan", "champion", release(run()))
        mirror(server, tmp_path).move_alias("loan", "champion", release(run()))
        assert len(server.runs) == 1, broken_after
        assert len(server.versions) == 1, broken_after
        (made,) = server.runs.values()
        assert made["info"]["status"] == "FINISHED"
        assert len(made["points"]) == 4
        assert server.aliases == {("loan", "champion"): "1"}
        server.stop()


def test_a_second_worker_that_was_thought_dead_leaves_no_double(server, tmp_path):
    """Both have looked, found nothing, and made the run: one of the two goes away again."""
    ours = mirror(server, tmp_path, "falaj/doubles")
    ours.show_run(run())
    there = There(server, "falaj/doubles")
    home = there.get("experiments/get-by-name", experiment_name="falaj/doubles")["experiment"]
    there.post(
        "runs/create",
        {
            "experiment_id": home["experiment_id"],
            "run_name": "again",
            "start_time": 1,
            "tags": [{"key": "falaj.run", "value": "01RUN"}],
        },
    )
    assert len(there.runs()) == 2
    ours.show_run(run())
    assert len(there.runs()) == 1


def test_a_server_that_is_gone_is_no_mistake_of_ours(tmp_path):
    server = StandIn()
    server.stop()
    with pytest.raises(Away) as caught:
        mirror(server, tmp_path).show_run(run())
    assert caught.value.code == "tracking.unreachable"


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    {
        "it is broken": ((503, b"busy", {}), Away, "tracking.unreachable"),
        "it asks who we are": ((401, b"", {}), Away, "tracking.denied"),
        "it does not know this host": ((403, b"Invalid Host header", {}), Away, "tracking.denied"),
        "it is no MLflow": ((200, b"<html>hello</html>", {}), Away, "tracking.bad-answer"),
        "it answers a list": ((200, b"[]", {}), Away, "tracking.bad-answer"),
        "nesting without end": ((200, b"[" * 100_000, {}), Away, "tracking.bad-answer"),
        "not found, by somebody else": ((404, b"nginx", {}), Away, "tracking.unreachable"),
        "it refuses": (
            (400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "no\\u001b[2J"}', {}),
            Refused, "tracking.refused",
        ),
        "it points elsewhere": (
            (302, b"", {"Location": "http://192.0.2.1/"}), Refused, "tracking.hostile",
        ),
        "it packs": ((200, b"x", {"Content-Encoding": "gzip"}), Refused, "tracking.hostile"),
    }.values(),
)  # fmt: skip
def test_what_a_server_may_answer(tmp_path, answer, kind, code):
    server = StandIn()
    server.lie = lambda *_: answer
    with pytest.raises(kind) as caught:
        mirror(server, tmp_path).show_run(run())
    server.stop()
    assert caught.value.code == code
    assert str(caught.value).isprintable()


def test_an_answer_without_end_is_cut(tmp_path):
    server = StandIn()
    server.lie = lambda *_: (200, b"x" * (20 << 20), {})
    with pytest.raises(Refused) as caught:
        mirror(server, tmp_path).show_run(run())
    server.stop()
    assert caught.value.code == "tracking.hostile"


def test_the_token_is_read_from_its_file_and_nowhere_else(tmp_path):
    server = StandIn()
    (tmp_path / "token").write_text("s3cret\n")
    mirror(server, tmp_path, token_file="token").show_run(run())
    assert {h["Authorization"] for h in server.headers} == {"Bearer s3cret"}
    server.headers.clear()
    mirror(server, tmp_path, token_file="token", user="layla").show_run(run())
    assert {h["Authorization"] for h in server.headers} == {"Basic bGF5bGE6czNjcmV0"}
    for wrong in ("missing", "two words"):
        (tmp_path / "two words").write_text("two words")
        with pytest.raises(Away) as caught:
            mirror(server, tmp_path, token_file=wrong).show_run(run())
        assert caught.value.code == "tracking.no-token"
    server.stop()


def test_plain_http_to_another_machine_is_refused(tmp_path):
    table = MlflowTable(url="http://192.0.2.1:5000", region="ae")
    with pytest.raises(Away) as caught:
        MlflowMirror(Client(table, tmp_path), "x").show_run(run())
    assert caught.value.code == "tracking.plain-http"


def test_a_deleted_experiment_is_not_brought_back(tmp_path):
    server = StandIn()
    server.experiments_create("falaj/loans")
    server.experiments["falaj/loans"]["lifecycle_stage"] = "deleted"
    with pytest.raises(Away) as caught:
        mirror(server, tmp_path).show_run(run())
    server.stop()
    assert caught.value.code == "tracking.experiment-deleted"
    assert server.runs == {}


# --- laws of names ---


@given(st.sets(st.text(max_size=400), max_size=30))
def test_every_name_becomes_one_that_is_taken_and_no_two_the_same(names):
    import posixpath

    found = renamed(names)
    assert set(found) == names
    assert len(set(found.values())) == len(names)
    for there in found.values():
        assert 1 <= len(there) <= 250
        assert all(
            sign.isalnum() or sign in "_-./ " or sign.isidentifier() or f"a{sign}".isidentifier()
            for sign in there
        )
        assert posixpath.normpath(there) == there
        assert not there.startswith(("/", ".."))
        assert there != "."


@given(st.text(max_size=50), st.integers(200, 400))
def test_what_is_cut_says_so(text, most):
    assert cut(text, most) == text
    long = (text or "x") * 1000
    assert len(cut(long, most)) <= most or len(long) <= most
    assert cut(long, most) == cut(long, most)


@given(st.integers(0, 250), st.integers(0, 2500), st.integers(1, 6000))
def test_requests_stay_inside_their_limits(params, metrics, length):
    made = list(
        batches(
            params=[{"key": str(i), "value": "ب" * length} for i in range(params)],
            metrics=[{"key": str(i), "value": 1.0} for i in range(metrics)],
        )
    )
    for body in made:
        assert len(body.get("params", [])) <= 100
        assert sum(map(len, body.values())) <= 1000
        assert len(json.dumps(body)) < 1_000_000
    assert sum(len(body.get("params", [])) for body in made) == params
    assert sum(len(body.get("metrics", [])) for body in made) == metrics
