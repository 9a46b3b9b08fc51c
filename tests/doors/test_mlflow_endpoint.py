"""The endpoint inside a worker, spoken to without an MLflow client: what it keeps, what it refuses."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from falaj.doors.worker.mlflow import HIDDEN, Endpoint
from falaj.doors.worker.mlrecord import MOST_FILE, Record, Refused
from falaj.pipelines.context import Running
from falaj.ports.executor import Order

API = "/api/2.0/mlflow/"
FILES = "/api/2.0/mlflow-artifacts/artifacts"
INF = 1.7976931348623157e308


def order(call="train"):
    return Order(
        run="R1", root="/", roots=(), pipeline="p:main", parameters={}, call=call, id=call,
        attempt=1, seed=1,
    )  # fmt: skip


class Step:
    """A step that runs, and a client that has its token."""

    def __init__(self, running):
        self.running, self.run = running, os.environ["MLFLOW_RUN_ID"]
        self.url = os.environ["MLFLOW_TRACKING_URI"]
        self.token = os.environ["MLFLOW_TRACKING_TOKEN"]
        proof = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
        self.client = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.token}"},
            trust_env=False,
            verify=ssl.create_default_context(cafile=proof) if proof else False,
        )

    def post(self, path, **body):
        return self.client.post(API + path, json=body)

    def said(self, path, **body):
        answer = self.post(path, **body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def read(self, path, **asked):
        answer = self.client.get(API + path, params=asked)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def put(self, name, data, owner=None):
        return self.client.put(f"{FILES}/{owner or self.run}/{name}", content=data)

    def listed(self, path=""):
        found = self.client.get(FILES, params={"path": f"{self.run}/{path}"}).json()["files"]
        return [(one["path"], one["is_dir"]) for one in found]


@contextmanager
def running(endpoint, call="train"):
    record = Running(call, 7)
    with endpoint.around(record, order(call)):
        step = Step(record)
        with step.client:
            yield step


@pytest.fixture(scope="module")
def endpoint():
    made = Endpoint()
    yield made
    made.close()


@pytest.fixture
def step(endpoint):
    with running(endpoint) as made:
        yield made


def test_params_metrics_tags_and_points_land_in_the_step(endpoint):
    with running(endpoint) as step:
        step.said("runs/log-parameter", run_id=step.run, key="depth", value="6")
        step.said("runs/log-metric", run_id=step.run, key="auc", value=0.9, timestamp="5000")
        step.said(
            "runs/log-batch",
            run_id=step.run,
            metrics=[
                {"key": "loss", "value": 1 / (i + 1), "timestamp": 1000 * i, "step": str(i)}
                for i in range(3)
            ],
            params=[{"key": "eta", "value": "0.1"}],
            tags=[{"key": "team", "value": "delays"}, {"key": "mlflow.user", "value": "root"}],
        )
        seen = step.read("runs/get", run_id=step.run)["run"]
        assert {p["key"]: p["value"] for p in seen["data"]["params"]} == {
            "depth": "6", "eta": "0.1",
        }  # fmt: skip
        history = step.read("metrics/get-history", run_id=step.run, metric_key="loss")["metrics"]
        assert [(one["step"], one["timestamp"]) for one in history] == [
            (0, 0),
            (1, 1000),
            (2, 2000),
        ]
    kept = step.running
    assert kept.params == {"depth": "6", "eta": "0.1"}
    assert kept.metrics == {"auc": 0.9, "loss": 1 / 3}
    assert kept.tags == {"team": "delays"}, "who sits at the machine is said nowhere"
    assert list(kept.lines["loss"].steps) == [0, 1, 2]
    assert list(kept.lines["loss"].times) == [0.0, 1.0, 2.0]
    assert "auc" not in kept.lines, "one value is no line"


def test_the_metric_is_that_of_the_last_step_however_late_it_comes(endpoint):
    with running(endpoint) as step:
        for number in (3, 1, 2):
            said = {"value": float(number), "timestamp": 1, "step": number}
            step.said("runs/log-metric", run_id=step.run, key="loss", **said)
    assert step.running.metrics == {"loss": 3.0}


@pytest.mark.parametrize(
    ("value", "told"),
    [("NaN", "nan"), ("Infinity", "inf"), ("-Infinity", "-inf"), (INF, "inf"), (-INF, "-inf")],
)
def test_what_is_no_number_is_told_and_not_taken_as_one(endpoint, value, told):
    with running(endpoint) as step:
        metrics = [
            {"key": "loss", "value": v, "timestamp": 0, "step": i}
            for i, v in enumerate([0.5, value, value])
        ]
        step.said("runs/log-batch", run_id=step.run, metrics=metrics)
    assert step.running.metrics == {"loss": 0.5}
    assert step.running.tags == {"falaj.not-a-number.loss": f"{told} at step 1, and 1 more"}


def test_other_runs_of_the_client_are_kept_below_child(endpoint):
    with running(endpoint) as step:
        for number in (1, 2):
            made = step.said("runs/create", experiment_id="9", start_time=1, run_name="tuned")
            child = made["run"]["info"]["run_id"]
            step.said("runs/log-parameter", run_id=child, key="depth", value=str(number))
            step.said("runs/log-metric", run_id=child, key="auc", value=0.5, timestamp=0, step=9)
            step.said("runs/set-tag", run_id=child, key="kind", value="tree")
            step.said("runs/update", run_id=child, status="FAILED", end_time=5)
            assert step.put("a.txt", b"x", owner=child).status_code == 200
    kept = step.running
    assert kept.params == {"child/1/depth": "1", "child/2/depth": "2"}
    assert kept.metrics == {"child/1/auc": 0.5, "child/2/auc": 0.5}
    assert kept.tags == {"child/1/kind": "tree", "child/2/kind": "tree"}
    assert kept.files == {"mlflow/child/1/a.txt": b"x", "mlflow/child/2/a.txt": b"x"}
    assert list(kept.lines["child/1/auc"].steps) == [9]


def test_files_are_kept_listed_and_read_again(endpoint):
    with running(endpoint) as step:
        assert step.put("notes/a b.txt", b"one").status_code == 200
        assert step.put("notes/a b.txt", b"two").status_code == 200
        assert step.put("empty.bin", iter([])).status_code == 200  # chunked, as the client does it
        assert step.put("large.bin", iter([b"x" * 70_000, b"y"])).status_code == 200
        assert step.listed() == [("empty.bin", False), ("large.bin", False), ("notes", True)]
        assert step.listed("notes") == [("a b.txt", False)]
        assert step.client.get(f"{FILES}/{step.run}/notes/a b.txt").content == b"two"
        assert step.client.get(f"{FILES}/{step.run}/nothing").status_code == 404
    assert step.running.files == {
        "mlflow/notes/a b.txt": b"two", "mlflow/empty.bin": b"",
        "mlflow/large.bin": b"x" * 70_000 + b"y",
    }  # fmt: skip


def test_models_are_files_also_without_a_run_and_twice(endpoint):
    with running(endpoint) as step:
        for _ in range(2):
            model = step.said("logged-models", experiment_id="1", name="clf")["model"]["info"]
            assert model["source_run_id"] == step.run
            assert step.put("MLmodel", b"m", owner=model["model_id"]).status_code == 200
            done = {"status": "LOGGED_MODEL_READY"}
            step.client.patch(f"{API}logged-models/{model['model_id']}", json=done)
            again = step.read(f"logged-models/{model['model_id']}")["model"]["info"]
            assert again["status"] == "LOGGED_MODEL_READY"
    assert step.running.files == {
        "mlflow/models/clf/MLmodel": b"m", "mlflow/models/clf-2/MLmodel": b"m",
    }  # fmt: skip


def test_every_experiment_is_the_one_of_the_step(step):
    for path, key in (("experiments/get-by-name", "experiment_name"), ("experiments/get", "id")):
        assert step.read(path, **{key: "mine"})["experiment"]["experiment_id"] == "1"
    assert step.said("experiments/create", name="other")["experiment_id"] == "1"
    assert os.environ["MLFLOW_EXPERIMENT_ID"] == "1"


def test_datasets_of_the_client_are_told_as_a_file(endpoint):
    with running(endpoint) as step:
        one = {"dataset": {"name": "rows", "digest": "abc", "source_type": "code", "source": "{}"}}
        step.said("runs/log-inputs", run_id=step.run, datasets=[one, one])
    assert json.loads(step.running.files["mlflow/inputs.json"]) == [
        {"name": "rows", "digest": "abc", "source_type": "code"}
    ]


def test_many_threads_at_once_lose_nothing(endpoint):
    with running(endpoint) as step:

        def say(number):
            with httpx.Client(base_url=step.url, headers=step.client.headers) as own:
                for i in range(20):
                    body = {"run_id": step.run, "key": f"m{number}", "value": i, "step": i}
                    assert own.post(API + "runs/log-metric", json=body).status_code == 200

        threads = [threading.Thread(target=say, args=(n,)) for n in range(8)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert {len(line.steps) for line in step.running.lines.values()} == {20}
    assert step.running.metrics == {f"m{n}": 19.0 for n in range(8)}


def test_the_variables_are_there_while_the_step_runs_and_gone_afterwards(endpoint, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "of their own server")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    monkeypatch.delenv("no_proxy", raising=False)
    before = dict(os.environ)
    with running(endpoint, "first") as step:
        assert json.loads(os.environ["MLFLOW_RUN_CONTEXT"]) == {
            "falaj.run": "R1", "falaj.step": "first", "mlflow.parentRunId": step.run,
        }  # fmt: skip
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
        assert not set(HIDDEN) & os.environ.keys()
        assert os.environ["no_proxy"] == "intranet.example,127.0.0.1"
        del os.environ["MLFLOW_RUN_ID"]  # as the client does it
    assert dict(os.environ) == before
    with running(endpoint, "second") as other:
        assert other.run != step.run and other.token != step.token and other.url == step.url


def test_the_variables_are_gone_when_the_step_raises(endpoint):
    before = dict(os.environ)
    with pytest.raises(ZeroDivisionError), running(endpoint) as step:
        step.said("runs/log-parameter", run_id=step.run, key="depth", value="6")
        raise ZeroDivisionError
    assert dict(os.environ) == before and step.running.params == {"depth": "6"}


def test_a_name_and_a_password_in_a_file_do_not_take_the_place_of_the_token(
    endpoint, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text("[mlflow]\n")
    with running(endpoint) as step:
        pair = (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"])
        assert httpx.get(f"{step.url}/version", auth=pair).text == "3.17.2"
        assert httpx.get(f"{step.url}/version", auth=(pair[0], "guess")).status_code == 401


def test_a_tracking_server_of_their_own_stays_theirs(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    before = dict(os.environ)
    with Endpoint().around(Running("train", 1), order()):
        assert dict(os.environ) == before


# Refusals.

TOKENS = {
    "none": {},
    "empty": {"Authorization": "Bearer"},
    "a guess": {"Authorization": "Bearer guess"},
    "not bearer": {"Authorization": "Digest guess"},
    "basic that is none": {"Authorization": "Basic %%%"},
    "basic with another password": {"Authorization": "Basic ZmFsYWo6Z3Vlc3M="},
    "signs beyond ASCII": {"Authorization": "Bearer \u00e9".encode("latin-1")},
}


@pytest.mark.parametrize("headers", TOKENS.values(), ids=TOKENS)
@pytest.mark.parametrize("path", ["/version", API + "runs/get", FILES + "/x/y"])
def test_nothing_is_said_without_the_token(step, headers, path):
    answer = httpx.get(step.url + path, headers=headers, trust_env=False)
    assert answer.status_code == 401 and "step" in answer.json()["message"]


def test_nothing_is_kept_without_the_token(step):
    url = f"{step.url}{FILES}/{step.run}/a.txt"
    assert httpx.put(url, content=b"x", trust_env=False).status_code == 401
    assert httpx.put(url, content=iter([b"x" * 99]), trust_env=False).status_code == 401
    assert step.running.files == {}


def test_the_token_of_a_step_that_is_over_is_none(endpoint):
    with running(endpoint, "first") as first:
        pass
    body = {"run_id": first.run, "key": "late", "value": "1"}
    old = {"Authorization": f"Bearer {first.token}"}
    assert (
        httpx.post(f"{first.url}{API}runs/log-parameter", json=body, headers=old).status_code == 401
    )
    with running(endpoint, "second") as second:
        assert httpx.post(f"{first.url}{API}runs/log-parameter", json=body, headers=old).is_error
        assert second.post("runs/log-parameter", **body).status_code == 404
    assert first.running.params == second.running.params == {}


def test_a_call_that_was_on_its_way_when_the_step_ended_is_refused():
    record = Record(Running("train", 1), "r")
    record.close()
    with pytest.raises(Refused, match="over"):
        record.put("r/a.txt", b"x")
    with pytest.raises(Refused, match="over"):
        record.answer("GET", API + "runs/get", {"run_id": "r"}, {})


ELSEWHERE = {
    "a registered model": ("POST", "registered-models/create", "falaj release create"),
    "a model version": ("POST", "model-versions/create", "falaj release create"),
    "an alias": ("POST", "registered-models/alias", "falaj release create"),
    "traces": ("POST", "traces", "set_tracking_uri"),
    "a search of runs": ("POST", "runs/search", "set_tracking_uri"),
    "deleting": ("POST", "runs/delete", "set_tracking_uri"),
    "a wrong method": ("DELETE", "runs/get", "set_tracking_uri"),
}


@pytest.mark.parametrize(("method", "path", "words"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_what_is_not_kept_here_is_refused_in_words(step, method, path, words):
    answer = step.client.request(method, API + path, json={})
    assert answer.status_code == 404 and words in answer.json()["message"]


@pytest.mark.parametrize("path", ["/", "/api/2.0/other/runs/get", "/health", "/metrics", "//x"])
def test_there_is_nothing_at_other_paths(step, path):
    assert step.client.get(step.url + path).status_code == 404


BODIES = {
    "no JSON": b"{",
    "a list": b"[]",
    "a text": b'"x"',
    "nested without end": b"[" * 100_000,
    "not UTF-8": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_that_is_no_object_is_refused(step, body):
    assert step.client.post(API + "runs/log-batch", content=body).status_code == 400


WRONG = {
    "a text as a metric": ("runs/log-metric", {"key": "m", "value": "high"}),
    "a truth as a metric": ("runs/log-metric", {"key": "m", "value": True}),
    "no value": ("runs/log-metric", {"key": "m"}),
    "a step that is no number": ("runs/log-metric", {"key": "m", "value": 1, "step": "x"}),
    "a step beyond 64 bits": ("runs/log-metric", {"key": "m", "value": 1, "step": 2**70}),
    "a name that is empty": ("runs/log-parameter", {"key": " ", "value": "1"}),
    "a name that moves the cursor": ("runs/log-parameter", {"key": "a\x1b[2J", "value": "1"}),
    "a name that is too long": ("runs/log-parameter", {"key": "k" * 251, "value": "1"}),
    "a name that is no text": ("runs/log-parameter", {"key": 7, "value": "1"}),
    "a value that is too long": ("runs/log-parameter", {"key": "k", "value": "v" * 6001}),
    "a tag that is too long": ("runs/set-tag", {"key": "k", "value": "v" * 8001}),
    "half a sign": ("runs/set-tag", {"key": "k", "value": "\ud800"}),
    "metrics that are no list": ("runs/log-batch", {"metrics": 7}),
    "params that are no objects": ("runs/log-batch", {"params": ["a"]}),
    "datasets without a dataset": ("runs/log-inputs", {"datasets": [{}]}),
}


@pytest.mark.parametrize(("path", "said"), WRONG.values(), ids=WRONG)
def test_what_is_said_wrongly_is_refused(step, path, said):
    body = json.dumps({"run_id": step.run, **said}).encode()
    answer = step.client.post(API + path, content=body)
    assert answer.status_code == 400, answer.text
    kept = step.running
    assert not (kept.params or kept.metrics or kept.tags or kept.files)


def test_a_batch_with_one_wrong_thing_is_refused_whole(step):
    answer = step.post(
        "runs/log-batch",
        run_id=step.run,
        metrics=[{"key": "good", "value": 1.0}],
        params=[{"key": "good", "value": "1"}],
        tags=[{"key": "bad", "value": 1}],
    )
    assert answer.status_code == 400 and step.running.params == {} == step.running.metrics


def test_a_param_does_not_change(step):
    step.said("runs/log-parameter", run_id=step.run, key="depth", value="6")
    step.said("runs/log-parameter", run_id=step.run, key="depth", value="6")
    answer = step.post("runs/log-parameter", run_id=step.run, key="depth", value="7")
    assert answer.status_code == 400 and "another name" in answer.json()["message"]
    assert step.running.params == {"depth": "6"}


@pytest.mark.parametrize("name", ["", "a/b", "..", "a:b", "con", "a\x00b", "x" * 300])
def test_a_model_of_such_a_name_is_refused(step, name):
    answer = step.post("logged-models", name=name)
    assert answer.status_code == (200 if not name else 400)


NAMES = {
    "up": "../x",
    "up, written otherwise": "%2e%2e%2fx",
    "up, in the middle": "a/%2e%2e/%2e%2e/x",
    "up, by twice": "a/..%2f..%2fx",
    "from the root": "/etc/passwd",
    "from the root, written otherwise": "%2fetc%2fpasswd",
    "a backslash": "a%5cb",
    "a drive": "c%3ax",
    "a device": "nul",
    "a sign that ends names": "a%00b",
    "a sign that turns the text": "a%e2%80%aeb",
    "not UTF-8": "a%ff",
    "a folder": "a/",
    "nothing": "",
    "a point": ".",
    "too long": "x" * 600,
    "too deep": "/".join("x" * 20),
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_names_of_files_that_are_refused(step, name, method):
    raw = http.client.HTTPConnection(step.url.removeprefix("http://"))
    token = {"Authorization": f"Bearer {step.token}"}
    raw.request(method, f"{FILES}/{step.run}/{name}", b"x" if method == "PUT" else None, token)
    assert raw.getresponse().status == 400
    raw.close()
    assert step.running.files == {}


@pytest.mark.parametrize("owner", ["..", "other", "m-1", "%2e%2e"])
def test_files_of_others_are_refused(step, owner):
    raw = http.client.HTTPConnection(step.url.removeprefix("http://"))
    raw.request("PUT", f"{FILES}/{owner}/x", b"x", {"Authorization": f"Bearer {step.token}"})
    assert raw.getresponse().status == 404
    raw.close()
    assert step.client.get(FILES, params={"path": owner}).status_code == 404
    assert step.client.get(FILES, params={"path": f"{step.run}/../.."}).status_code == 400


def test_a_body_beyond_all_measure_is_refused_and_the_next_one_heard(step):
    answer = step.client.post(API + "runs/log-batch", content=b" " * (4 << 20) + b"{}")
    assert answer.status_code == 413 and "MiB" in answer.json()["message"]
    step.said("runs/set-tag", run_id=step.run, key="next", value="heard")


@pytest.mark.parametrize("length", ["-1", "many", "1" * 20, "+5", "0x10"])
def test_a_length_that_is_none_is_refused(step, length):
    raw = http.client.HTTPConnection(step.url.removeprefix("http://"))
    raw.putrequest("POST", API + "runs/log-batch")
    raw.putheader("Authorization", f"Bearer {step.token}")
    raw.putheader("Content-Length", length)
    raw.endheaders()
    assert raw.getresponse().status == 400
    raw.close()


@pytest.mark.parametrize("chunk", [b"-5\r\n", b"x\r\n", b"2\r\nabc\r\n", b"\r\n"])
def test_chunks_that_lie_are_refused(step, chunk):
    raw = http.client.HTTPConnection(step.url.removeprefix("http://"))
    raw.putrequest("PUT", f"{FILES}/{step.run}/a.txt")
    raw.putheader("Authorization", f"Bearer {step.token}")
    raw.putheader("Transfer-Encoding", "chunked")
    raw.endheaders()
    raw.send(chunk)
    assert raw.getresponse().status == 400
    raw.close()
    assert step.running.files == {}


def test_files_have_a_limit_each_and_together():
    kept = Running("train", 1)
    record = Record(kept, "r")
    with pytest.raises(Refused, match="256 MiB a file"):
        record.put("r/large", bytes(MOST_FILE + 1))
    same = bytes(MOST_FILE)
    record.put("r/one", same)
    record.put("r/two", same)
    record.put("r/two", same)  # in its own place
    with pytest.raises(Refused, match="512 MiB in all"):
        record.put("r/three", b"x")
    assert set(kept.files) == {"mlflow/one", "mlflow/two"}


def test_runs_and_points_have_a_limit():
    record = Record(Running("train", 1), "r")
    for _ in range(1000):
        record.answer("POST", API + "runs/create", {}, {})
    with pytest.raises(Refused, match="at most 1000 runs"):
        record.answer("POST", API + "runs/create", {}, {})
    many = [{"key": f"m{i}", "value": 1} for i in range(20_001)]
    with pytest.raises(Refused, match="at most 20000 metrics"):
        record.answer("POST", API + "runs/log-batch", {}, {"run_id": "r", "metrics": many})


def test_with_data_of_persons_it_speaks_tls_and_only_who_has_the_certificate_listens():
    endpoint = Endpoint(tls=True)
    try:
        with running(endpoint) as step:
            assert step.url.startswith("https://127.0.0.1:")
            step.said("runs/log-parameter", run_id=step.run, key="depth", value="6")
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                httpx.get(step.url + "/version", trust_env=False)
            with pytest.raises(httpx.TransportError):
                httpx.get(step.url.replace("https", "http") + "/version", trust_env=False)
            child = "import os, ssl; ssl.create_default_context(cafile=os.environ['MLFLOW_TRACKING_SERVER_CERT_PATH'])"
            subprocess.run([sys.executable, "-c", child], check=True)
            pem = Path(os.environ["MLFLOW_TRACKING_SERVER_CERT_PATH"]).read_text()
            assert "PRIVATE KEY" not in pem and ssl.PEM_cert_to_DER_cert(pem)
        assert "MLFLOW_TRACKING_SERVER_CERT_PATH" not in os.environ
        assert step.running.params == {"depth": "6"}
    finally:
        endpoint.close()


def test_where_there_is_no_client_a_worker_pays_nothing():
    code = (
        "import sys, falaj.doors.worker.steps as steps\n"
        "found = steps.for_mlflow(True)\n"
        "print(found, [m for m in ('http.server', 'ssl', 'falaj.doors.worker.mlflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None []"


def test_lines_can_be_looked_at_while_the_step_runs():
    """What is told meanwhile and what is handed over in the end are the same points."""
    endpoint = Endpoint()
    try:
        with running(endpoint) as step:
            for i in range(3):
                step.said(
                    "runs/log-metric", run_id=step.run, key="loss", value=1.5, timestamp=1, step=i
                )
            step.said(
                "runs/log-metric", run_id=step.run, key="alone", value=2.0, timestamp=1, step=0
            )
            (source,) = step.running.beside
            (line,) = source()
            assert (line.name, list(line.steps)) == ("loss", [0, 1, 2])
            assert step.running.lines == {} and step.running.metrics["alone"] == 2.0
            record = step.running
        assert record.beside == [] and list(record.lines["loss"].steps) == [0, 1, 2]
    finally:
        endpoint.close()
