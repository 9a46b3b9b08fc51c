"""Tracking servers for tests: a stand-in that speaks as much of MLflow's REST API as is used, and
the real one, started from its own environment.

The stand-in answers as 3.17.2 was seen to answer. `falter` makes it break off a connection after it
has done what was asked: the caller cannot know. `lie` changes an answer, as a hostile one would.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["Real", "StandIn"]

API = "/api/2.0/mlflow/"
FILES = "/api/2.0/mlflow-artifacts/artifacts"
NAME = re.compile(r"[\w\-./ ]{1,250}")


class Says(Exception):
    def __init__(self, status, code, message):
        super().__init__(message)
        self.status, self.code = status, code


class StandIn:
    """In memory. calls: what was asked, in order."""

    def __init__(self, port=0):
        self.lock = threading.Lock()
        self.calls = []
        self.headers = []
        self.experiments, self.runs, self.versions, self.aliases, self.files = {}, {}, [], {}, {}
        self.models = set()
        self.falter = None  # number of calls that are answered before one is not
        self.lie = None  # (method, path, answer bytes) -> (status, bytes, headers) or nothing
        self.port = port
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self):
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length)
                outer.serve(self, body)

        for method in ("GET", "POST", "PUT", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.answer)
        ThreadingHTTPServer.allow_reuse_address = True
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def serve(self, http, body):
        parts = urlsplit(http.path)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        headers = {}
        with self.lock:
            self.calls.append(f"{http.command} {parts.path}")
            self.headers.append(dict(http.headers))
            try:
                status, data = 200, self.do(http.command, unquote(parts.path), query, body)
            except Says as said:
                words = {"error_code": said.code, "message": str(said)}
                status, data = said.status, json.dumps(words).encode()
            if self.falter is not None:
                self.falter -= 1
                if self.falter < 0:
                    self.falter = None
                    http.close_connection = True
                    http.connection.shutdown(socket.SHUT_RDWR)
                    return
            if self.lie is not None:
                status, data, headers = self.lie(http.command, parts.path, data) or (
                    status,
                    data,
                    {},
                )
        http.send_response(status)
        for name, value in headers.items():
            http.send_header(name, value)
        if "Content-Length" not in headers:
            http.send_header("Content-Length", str(len(data)))
        http.end_headers()
        try:
            http.wfile.write(data)
        except OSError:
            http.close_connection = True

    # --- what MLflow does ---

    def do(self, method, path, query, body):
        if path == "/health":
            return b"OK"
        if path.startswith(f"{FILES}/"):
            name = path.removeprefix(f"{FILES}/")
            if method == "PUT":
                self.files[name] = body
                return b""
            if name not in self.files:
                raise Says(404, "RESOURCE_DOES_NOT_EXIST", f"No such artifact: '{name}'")
            return self.files[name]
        if path == FILES:
            return self.listing(query.get("path", ""))
        call = path.removeprefix(API)
        given = json.loads(body) if body else query
        made = getattr(self, call.replace("/", "_").replace("-", "_"), None)
        if made is None:
            raise Says(404, "ENDPOINT_NOT_FOUND", call)
        return json.dumps(made(**given)).encode()

    def listing(self, folder):
        found = {}
        for path, data in self.files.items():
            if path.startswith(f"{folder}/"):
                name, is_deep, _ = path.removeprefix(f"{folder}/").partition("/")
                found[name] = {"path": name, "is_dir": bool(is_deep)}
                if not is_deep:
                    found[name]["file_size"] = len(data)
        return json.dumps({"files": list(found.values())} if found else {}).encode()

    def experiments_create(self, name):
        if name in self.experiments:
            raise Says(400, "RESOURCE_ALREADY_EXISTS", f"Experiment(name={name}) already exists.")
        self.experiments[name] = {
            "experiment_id": str(len(self.experiments) + 1), "name": name, "lifecycle_stage": "active",
        }  # fmt: skip
        return {"experiment_id": self.experiments[name]["experiment_id"]}

    def experiments_get_by_name(self, experiment_name):
        if experiment_name not in self.experiments:
            raise Says(404, "RESOURCE_DOES_NOT_EXIST", f"No Experiment {experiment_name}")
        return {"experiment": self.experiments[experiment_name]}

    def runs_create(self, experiment_id, run_name, start_time, tags):
        name = f"{len(self.runs) + 1:032x}"
        self.runs[name] = {
            "info": {
                "run_id": name, "experiment_id": experiment_id, "run_name": run_name,
                "status": "RUNNING", "start_time": start_time, "lifecycle_stage": "active",
                "artifact_uri": f"mlflow-artifacts:/{experiment_id}/{name}/artifacts",
            },
            "params": {}, "points": set(), "tags": {t["key"]: t["value"] for t in tags}, "inputs": {},
        }  # fmt: skip
        return {"run": {"info": self.runs[name]["info"]}}

    def runs_search(self, experiment_ids, filter, run_view_type, max_results):
        tag, value = re.fullmatch(r"tags\.`([^`]+)` = '([^']*)'", filter).groups()
        return {
            "runs": [
                {"info": run["info"]}
                for run in self.runs.values()
                if run["info"]["experiment_id"] in experiment_ids
                and run["info"]["lifecycle_stage"] == "active"
                and run["tags"].get(tag) == value
            ]
        }

    def active(self, run_id):
        if run_id not in self.runs:
            raise Says(404, "RESOURCE_DOES_NOT_EXIST", f"Run with id={run_id} not found")
        run = self.runs[run_id]
        if run["info"]["lifecycle_stage"] != "active":
            raise Says(
                400, "INVALID_PARAMETER_VALUE", f"The run {run_id} must be in the 'active' state"
            )
        return run

    def runs_log_batch(self, run_id, params=(), metrics=(), tags=()):
        run = self.active(run_id)
        if len(params) > 100 or len(metrics) > 1000 or len(tags) > 100:
            raise Says(400, "INVALID_PARAMETER_VALUE", "too many")
        for one in (*params, *metrics, *tags):
            key = one["key"]
            if not NAME.fullmatch(key) or os.path.normpath(key) != key or key[0] in "./":
                raise Says(400, "INVALID_PARAMETER_VALUE", f"Invalid value {key!r}")
        for one in params:
            if run["params"].setdefault(one["key"], one["value"]) != one["value"]:
                raise Says(400, "INVALID_PARAMETER_VALUE", "Changing param values is not allowed.")
        run["points"] |= {(m["key"], m["step"], m["timestamp"], str(m["value"])) for m in metrics}
        run["tags"] |= {t["key"]: t["value"] for t in tags}
        return {}

    def runs_log_inputs(self, run_id, datasets):
        for one in datasets:
            assert len(one["dataset"]["digest"]) <= 36
            self.active(run_id)["inputs"][one["dataset"]["name"], one["dataset"]["digest"]] = one
        return {}

    def runs_update(self, run_id, status, end_time):
        self.active(run_id)["info"] |= {"status": status, "end_time": end_time}
        return {}

    def runs_delete(self, run_id):
        self.active(run_id)["info"]["lifecycle_stage"] = "deleted"
        return {}

    def runs_get(self, run_id):
        run = self.active(run_id)
        latest = {}
        for key, step, at, value in sorted(run["points"], key=lambda p: p[1:3]):
            latest[key] = {"key": key, "step": step, "timestamp": at, "value": value}
            if value not in ("NaN", "Infinity", "-Infinity"):
                latest[key]["value"] = float(value)
        told = {
            name: [{"key": k, "value": v} for k, v in run[name].items()]
            for name in ("params", "tags")
        }
        data = told | {"metrics": list(latest.values())}
        inputs = {"dataset_inputs": list(run["inputs"].values())}
        return {"run": {"info": run["info"], "data": data, "inputs": inputs}}

    def registered_models_create(self, name):
        if name in self.models:
            raise Says(
                400, "RESOURCE_ALREADY_EXISTS", f"Registered Model (name={name}) already exists."
            )
        self.models.add(name)
        return {}

    def model_versions_create(self, name, source, run_id="", description="", tags=()):
        if not re.match(r"(mlflow-artifacts:/|models:/|runs:/)", source):
            raise Says(400, "INVALID_PARAMETER_VALUE", f"Invalid model version source: '{source}'.")
        number = str(1 + sum(1 for v in self.versions if v["name"] == name))
        self.versions.append(
            {
                "name": name, "version": number, "source": source, "run_id": run_id,
                "status": "READY", "tags": list(tags), "description": description,
            }
        )  # fmt: skip
        return {"model_version": self.versions[-1]}

    def model_versions_search(self, filter, max_results):
        found = re.fullmatch(r"name = '([^']*)' AND tags\.`([^`]+)` = '([^']*)'", filter).groups()
        return {
            "model_versions": [
                v for v in self.versions
                if v["name"] == found[0] and {"key": found[1], "value": found[2]} in v["tags"]
            ]
        }  # fmt: skip

    def version(self, name, version):
        for one in self.versions:
            if one["name"] == name and one["version"] == version:
                return one
        raise Says(
            404,
            "RESOURCE_DOES_NOT_EXIST",
            f"Model Version (name={name}, version={version}) not found",
        )

    def model_versions_get(self, name, version):
        return {"model_version": self.version(name, version)}

    def model_versions_delete(self, name, version):
        self.versions.remove(self.version(name, version))
        return {}

    def model_versions_get_download_uri(self, name, version):
        return {"artifact_uri": self.version(name, version)["source"]}

    def registered_models_alias(self, name, alias, version=""):
        if version:
            self.version(name, version)
            self.aliases[name, alias] = version
            return {}
        if (name, alias) not in self.aliases:
            raise Says(400, "INVALID_PARAMETER_VALUE", f"Registered model alias {alias} not found.")
        return {"model_version": self.version(name, self.aliases[name, alias])}

    def keep_model(self, name, files, *, alias="", said=None):
        """As a person of that server would have logged it."""
        home = f"0/models/m-{len(self.versions):032x}/artifacts"
        for path, data in files.items():
            self.files[f"{home}/{path}"] = data
        run = ""
        if said is not None:
            run = self.runs_create("0", "theirs", 1, [])["run"]["info"]["run_id"]
            self.runs_log_batch(run, **said)
        self.models.add(name)
        version = self.model_versions_create(name, f"mlflow-artifacts:/{home}", run)[
            "model_version"
        ]
        if alias:
            self.aliases[name, alias] = version["version"]
        return version


class Real:
    """An MLflow server of 3.17.2 in a folder; stopped and started again it is the same one."""

    def __init__(self, programs, folder):
        self.programs, self.folder = programs, folder
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process = None
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        words = ["server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        words += ["--backend-store-uri", "sqlite:///store.db", "--artifacts-destination", "./files"]
        left = {k: v for k, v in os.environ.items() if not k.startswith(("FALAJ_", "MLFLOW_"))}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.programs / "mlflow"), *words],
                cwd=self.folder,
                env=left
                | {
                    "PATH": f"{self.programs}:{left['PATH']}",
                    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                    "MLFLOW_DISABLE_TELEMETRY": "true",
                    "DO_NOT_TRACK": "true",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        end = time.monotonic() + 120
        while True:
            try:
                with opener.open(f"{self.url}/health", timeout=2):
                    return
            except OSError:
                assert self.process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
                assert time.monotonic() < end, "the MLflow server does not come up"
                time.sleep(0.2)

    def stop(self):
        """The server and its workers: a session of their own."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def tell(self, script, *words):
        """Run a script with MLflow's own client in a child process; what it prints, as JSON."""
        done = subprocess.run(
            [str(self.programs / "python"), "-c", script, *words],
            cwd=self.folder,
            env=os.environ
            | {
                "MLFLOW_TRACKING_URI": self.url,
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "DO_NOT_TRACK": "true",
                "OPENBLAS_NUM_THREADS": "1",
            },
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.strip().splitlines()[-1])
