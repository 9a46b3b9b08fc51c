"""Signed releases of tiny ONNX models, signed plans, and real server processes that serve them."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from falaj.base import digests, dsse
from falaj.facts.data import Label
from falaj.facts.models import Column, Datatype, Schema, Tensor
from falaj.facts.runs import Code
from falaj.facts.serving import ArmPlan, Desired, ModelPlan, SplitPlan, TrafficPlan
from falaj.facts.wire import plain
from falaj.links.keyring.keys import KeyRing
from falaj.releases.build import build, release_id
from falaj.releases.sign import sign_release

PLAN = "application/vnd.falaj.plan+json"
MODEL = "delay"
SCHEMA = Schema(
    inputs=(
        Tensor(
            name="x",
            datatype=Datatype.FP32,
            shape=(-1, 3),
            columns=(
                Column(name="dep_delay", nullable=True, unit="min"),
                Column(name="distance", minimum=0.0, maximum=20000.0, unit="mi"),
                Column(name="hour", minimum=0.0, maximum=24.0),
            ),
        ),
    ),
    outputs=(
        Tensor(name="label", datatype=Datatype.INT64, shape=(-1,)),
        Tensor(name="probabilities", datatype=Datatype.FP32, shape=(-1, 2)),
    ),
)
WEIGHTS = (0.02, -0.0001, 0.05)


def graph(weights=WEIGHTS, bias=-1.0, trouble=""):
    """Logistic regression over x with holes filled by 0. trouble: nan | crash, when hour > 12."""
    w = np.array(weights, np.float32).reshape(3, 1)
    parts = {
        "zero": np.array(0, np.float32),
        "w": w,
        "b": np.array([bias], np.float32),
        "one": np.array(1, np.float32),
        "half": np.array(0.5, np.float32),
        "flat": np.array([-1], np.int64),
        "two": np.array([2], np.int64),
        "noon": np.array(12, np.float32),
        "safe": np.zeros(1, np.float32),
    }
    node = helper.make_node
    nodes = [
        node("IsNaN", ["x"], ["hole"]),
        node("Where", ["hole", "zero", "x"], ["full"]),
        node("MatMul", ["full", "w"], ["dot"]),
        node("Add", ["dot", "b"], ["logit"]),
        node("Sigmoid", ["logit"], ["p1" if not trouble else "p0"]),
    ]
    if trouble:
        nodes += [
            node("Gather", ["full", "two"], ["hour"], axis=1),
            node("Greater", ["hour", "noon"], ["after"]),
        ]
    if trouble == "nan":
        parts["bad"] = np.array(np.nan, np.float32)
        nodes.append(node("Where", ["after", "bad", "p0"], ["p1"]))
    if trouble == "crash":
        nodes += [
            node("Cast", ["after"], ["at"], to=TensorProto.INT64),
            node("Gather", ["safe", "at"], ["nothing"], axis=0),
            node("Add", ["p0", "nothing"], ["p1"]),
        ]
    nodes += [
        node("Sub", ["one", "p1"], ["q"]),
        node("Concat", ["q", "p1"], ["probabilities"], axis=1),
        node("Greater", ["p1", "half"], ["above"]),
        node("Cast", ["above"], ["wide"], to=TensorProto.INT64),
        node("Reshape", ["wide", "flat"], ["label"]),
    ]
    made = helper.make_graph(
        nodes,
        "delay",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]),
        ],
        [numpy_helper.from_array(value, name) for name, value in parts.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def expected(row, weights=WEIGHTS, bias=-1.0):
    logit = sum(w * (v or 0.0) for w, v in zip(weights, row, strict=True)) + bias
    return float(1 / (1 + np.exp(-logit)))


class Made(NamedTuple):
    id: str
    folder: Path
    version: str


class House:
    """A workspace in little: keys, releases, plans, the root of one environment."""

    def __init__(self, base):
        self.base = base
        self.ring = KeyRing(base / "keys")
        self.ring.create("releaser", ("release",))
        self.ring.create("planner", ("plan",))
        self.root = base / "root"
        self.root.mkdir()
        self.seq = 0
        self.salt = base64.b64encode(os.urandom(32)).decode()
        self.processes = []
        self.trust = self.root / "trust.json"
        self.trust.write_text(self.ring.trust_text())

    def release(
        self,
        version="1",
        *,
        onnx_bytes=None,
        model=MODEL,
        schema=SCHEMA,
        probes=None,
        sign=True,
        threshold="0.5",
        task="binary-classification",
        runtime="onnx",
        files=None,
    ):
        given = files or {"model.onnx": graph() if onnx_bytes is None else onnx_bytes}
        placed = {}
        for name, data in given.items():
            placed[name] = self.base / f"{model}-{version}-{name.replace('/', '-')}"
            placed[name].write_bytes(data)
        folder = self.base / "made" / f"{model}-{version}"
        reference = {} if probes is None else {"probes.json": json.dumps(probes).encode()}
        manifest = build(
            folder,
            model=model,
            version=version,
            runtime=runtime,
            task=task,
            schema=schema,
            threshold=threshold,
            code=Code(commit="0" * 40),
            run="run",
            datasets=(),
            label=Label(),
            created=datetime.now(UTC),
            model_files=placed,
            environment_lock=b"",
            reference=reference,
            card="# delay\n",
            mlbom={},
            evidence=(),
        )
        id_ = release_id(manifest)
        if sign:
            sign_release(folder, self.ring.signer("releaser"), expect=id_)
        return Made(id_, folder, version)

    def place(self, made):
        """Copy a release below the root, as a target does."""
        to = self.root / "releases" / digests.short(made.id)
        if not to.exists():
            shutil.copytree(made.folder, to)
        return to

    def arm(self, made, weight_bp=0, timeout_ms=1000):
        return ArmPlan(
            release=made.id,
            folder=f"releases/{digests.short(made.id)}",
            weight_bp=weight_bp,
            timeout_ms=timeout_ms,
        )

    def plan(self, stable, canary=None, weight_bp=0, *, model=MODEL, more=(), **about):
        about = {"latency_us": (50, 200, 1000, 5000), "stratum_ms": 60_000, **about}
        self.seq += 1
        timeout_ms = about.pop("timeout_ms", 1000)
        split = SplitPlan(
            salt=about.pop("salt", self.salt),
            stratum_ms=about.pop("stratum_ms"),
            key=about.pop("key", "request"),
            sticky=about.pop("sticky", False),
        )
        mine = ModelPlan(
            stable=self.arm(stable),
            canary=self.arm(canary, weight_bp, timeout_ms) if canary else None,
            rollout=about.pop("rollout", "r1" if canary else ""),
            split=split,
            **about,
        )
        return TrafficPlan(
            seq=self.seq,
            environment="production",
            zone="ae",
            issued=datetime.now(UTC),
            models={model: mine, **dict(more)},
        )

    def sealed(self, plan, signer="planner", kind=PLAN):
        return json.dumps(dsse.seal(plain(plan), self.ring.signer(signer), kind=kind))

    def write(self, plan, **how):
        part = self.root / ".plan.part"
        part.write_text(self.sealed(plan, **how))
        part.replace(self.root / "plan.json")
        return plan

    def desired(self, plan, *made, replicas=1):
        return Desired(
            environment="production",
            plan=plan,
            envelope=self.sealed(plan),
            trust=self.ring.trust_text(),
            folders={one.id: str(one.folder) for one in made},
            replicas=replicas,
        )

    def apply(self, stable, canary=None, weight_bp=0, **about):
        for made in (stable, canary):
            if made is not None:
                self.place(made)
        return self.write(self.plan(stable, canary, weight_bp, **about))

    def start(self, *more, ready=True, name="server-1"):
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "falaj.doors.predict"),
                *("--root", str(self.root), "--trust", str(self.trust), "--name", name),
                *more,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
        )
        self.processes.append(process)
        if not ready:
            return process
        line = process.stdout.readline()
        assert line, process.stderr.read().decode()
        self.started = json.loads(line)
        return Client(self.started["url"], process)

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


class Client:
    def __init__(self, url, process=None):
        self.url = url
        self.process = process
        self.host, _, port = url.removeprefix("http://").rpartition(":")
        self.port = int(port)
        self.connection = None

    def ask(self, method, path, body=None, headers=None):
        """Status, headers, parsed body; one kept connection."""
        if self.connection is None:
            self.connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        head = {"content-type": "application/json", **(headers or {})}
        self.connection.request(method, path, data, head)
        answer = self.connection.getresponse()
        text = answer.read()
        found = dict(answer.getheaders())
        if found.get("connection") == "close":
            self.connection.close()
            self.connection = None
        kind = found.get("content-type", "")
        return answer.status, found, json.loads(text) if kind == "application/json" else text

    def get(self, path):
        return self.ask("GET", path)

    def post(self, path, body, **headers):
        return self.ask("POST", path, body, {k.replace("_", "-"): v for k, v in headers.items()})

    def infer(self, *rows, model=MODEL, **more):
        return self.post(f"/v2/models/{model}/infer", infer_body(*rows, **more))

    def raw(self, data, *, wait=2.0, half=False, step=None):
        """Send bytes as they are, read until the end or silence."""
        with socket.create_connection((self.host, self.port), timeout=wait) as sock:
            for part in (
                [data] if step is None else [data[i : i + step] for i in range(0, len(data), step)]
            ):
                sock.sendall(part)
            if half:
                sock.shutdown(socket.SHUT_WR)
            return read_all(sock)

    def ready(self):
        return self.get("/v2/health/ready")[2]

    def until(self, check, seconds=10.0):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.ready()
            if check(found):
                return found
            time.sleep(0.05)
        raise AssertionError(f"not seen in {seconds} s: {found}")

    def terminate(self):
        self.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def read_all(sock):
    found = b""
    try:
        while part := sock.recv(65536):
            found += part
    except (TimeoutError, ConnectionResetError):
        pass
    return found


def infer_body(*rows, **more):
    flat = [value for row in rows for value in row]
    one = {"name": "x", "datatype": "FP32", "shape": [len(rows), 3], "data": flat}
    return {"inputs": [one], **more}


def children(pid):
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in path.read_text().split()]
    return [one for one in found if b"predict.model" in cmdline(one)]


def cmdline(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def child(client, but=()):
    """The one model process of a server; another one than those that were."""
    end = time.monotonic() + 40
    while time.monotonic() < end:
        found = [pid for pid in children(client.process.pid) if pid not in but]
        if found:
            return found[0]
        time.sleep(0.02)
    raise AssertionError("the model process does not come back")
