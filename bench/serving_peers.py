"""The servers that answer the same rows: their programs, as their own pages show them, and how they start.

Notes of fresh installs: MLServer 1.7.1 needs uvloop below 0.22; LitServe wants the argument `request`;
`mlflow models serve` needs its environment's bin folder on PATH; Ray wants its usage statistics off.
Every peer runs ONNX Runtime with one thread, one worker, access logs off, otherwise as installed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["BODIES", "PEERS", "Peer"]

ORT = """
import onnxruntime as rt
options = rt.SessionOptions()
options.intra_op_num_threads = 1
session = rt.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
def answer(x): return session.run(["probabilities"], {"features": x})[0]
"""
FASTAPI = (
    """
import os, numpy as np
MODEL = os.environ["MODEL"]
"""
    + ORT
    + """
from fastapi import FastAPI
from pydantic import BaseModel
app = FastAPI()
class In(BaseModel):
    inputs: list[list[float]]
class Out(BaseModel):
    predictions: list[list[float]]
@app.post("/predict")
async def predict(r: In) -> Out:
    return Out(predictions=answer(np.asarray(r.inputs, "float32")).tolist())
"""
)
LITSERVE = """
import os, sys, numpy as np, litserve as ls
MODEL = os.environ["MODEL"]
class Api(ls.LitAPI):
    def setup(self, device):
        import onnxruntime as rt
        options = rt.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = rt.InferenceSession(MODEL, options)
    def decode_request(self, request): return np.asarray(request["inputs"], "float32")
    def predict(self, x): return self.session.run(["probabilities"], {"features": x})[0]
    def encode_response(self, y): return {"predictions": y.tolist()}
if __name__ == "__main__":
    server = ls.LitServer(Api(), accelerator="cpu", workers_per_device=1, timeout=60)
    server.run(port=int(sys.argv[1]), host="127.0.0.1", num_api_servers=1, log_level="error",
               generate_client_file=False, access_log=False)
"""
BENTO = """
import os, bentoml, numpy as np
MODEL = os.environ["MODEL"]
@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Svc:
    def __init__(self):
        import onnxruntime as rt
        options = rt.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = rt.InferenceSession(MODEL, options)
    @bentoml.api
    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return self.session.run(["probabilities"], {"features": inputs.astype("float32")})[0]
"""
KSERVE = (
    """
import os, sys, kserve, numpy as np
from kserve import InferOutput, InferRequest, InferResponse
MODEL = os.environ["MODEL"]
"""
    + ORT
    + """
class Flights(kserve.Model):
    def __init__(self):
        super().__init__("flights")
        self.ready = True
    def predict(self, payload, headers=None, response_headers=None):
        if isinstance(payload, InferRequest):
            y = answer(payload.inputs[0].as_numpy().astype("float32", copy=False))
            out = InferOutput("probabilities", list(y.shape), "FP32")
            out.set_data_from_numpy(y, binary_data=False)
            return InferResponse(payload.id or "x", "flights", [out])
        return {"predictions": answer(np.asarray(payload["instances"], "float32")).tolist()}
if __name__ == "__main__":
    kserve.ModelServer().start([Flights()])
"""
)
MLSERVER = """
import os, numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse
class Flights(MLModel):
    async def load(self):
        import onnxruntime as rt
        options = rt.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = rt.InferenceSession(os.environ["MODEL"], options)
        return True
    async def predict(self, payload):
        x = NumpyCodec.decode_input(payload.inputs[0]).astype("float32", copy=False)
        y = self.session.run(["probabilities"], {"features": x})[0]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("probabilities", y)])
"""
RAY = """
import os, sys, time, numpy as np
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray
from ray import serve
@serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 0.5}, max_ongoing_requests=200)
class Flights:
    def __init__(self, model):
        import onnxruntime as rt
        options = rt.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = rt.InferenceSession(model, options)
    async def __call__(self, request):
        x = np.asarray((await request.json())["inputs"], "float32")
        return {"predictions": self.session.run(["probabilities"], {"features": x})[0].tolist()}
if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error", object_store_memory=200 * 2**20,
             _node_ip_address="127.0.0.1")
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])},
                logging_config={"enable_access_log": False, "log_level": "ERROR"})
    serve.run(Flights.bind(os.environ["MODEL"]), route_prefix="/predict", name="app")
    time.sleep(36000)
"""


def v2(rows: Sequence[Sequence[float]]) -> bytes:
    flat = [value for row in rows for value in row]
    tensor = {
        "name": "features",
        "shape": [len(rows), len(rows[0])],
        "datatype": "FP32",
        "data": flat,
    }
    return json.dumps({"inputs": [tensor]}).encode()


BODIES: Mapping[str, Callable[[Sequence[Sequence[float]]], bytes]] = {
    "v2": v2,
    "v1": lambda rows: json.dumps({"instances": rows}).encode(),
    "inputs": lambda rows: json.dumps({"inputs": rows}).encode(),
}


@dataclass(frozen=True, kw_only=True)
class Peer:
    """lock: name of its environment. command: (bin folder, its folder, port) -> words."""

    name: str
    lock: str
    path: str
    body: str
    command: Callable[[Path, Path, int], Sequence[str | Path]]
    files: Mapping[str, str] = field(default_factory=dict)
    env: Callable[[int], Mapping[str, str]] = lambda _: {}
    packaged: bool = True
    package: str = ""


def mlserver_settings(port: int) -> dict[str, str]:
    return {
        "MLSERVER_HTTP_PORT": str(port), "MLSERVER_GRPC_PORT": str(port + 1),
        "MLSERVER_METRICS_PORT": str(port + 2), "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_DEBUG": "false", "MLSERVER_PARALLEL_WORKERS": "0",
    }  # fmt: skip


PEERS = (
    Peer(
        name="FastAPI by hand", lock="fastapi", package="fastapi", path="/predict", body="inputs",
        files={"service.py": FASTAPI}, packaged=False,
        command=lambda bin_, _, port: [
            bin_ / "uvicorn", "service:app", "--port", str(port), "--no-access-log", "--log-level", "error",
            "--loop", "uvloop", "--http", "httptools",
        ],
    ),
    Peer(
        name="MLServer", lock="mlserver", package="mlserver", path="/v2/models/flights/infer", body="v2",
        files={
            "flights.py": MLSERVER,
            "model-settings.json": json.dumps({"name": "flights", "implementation": "flights.Flights"}),
        },
        command=lambda bin_, home, _: [bin_ / "mlserver", "start", home], env=mlserver_settings,
    ),
    Peer(
        name="KServe V1", lock="kserve", package="kserve", path="/v1/models/flights:predict", body="v1",
        files={"service.py": KSERVE},
        command=lambda bin_, _, port: [
            bin_ / "python", "service.py", "--http_port", str(port), "--grpc_port", str(port + 1), "--workers", "1",
        ],
    ),
    Peer(
        name="KServe V2", lock="kserve", package="kserve", path="/v2/models/flights/infer", body="v2",
        files={"service.py": KSERVE},
        command=lambda bin_, _, port: [
            bin_ / "python", "service.py", "--http_port", str(port), "--grpc_port", str(port + 1), "--workers", "1",
        ],
    ),
    Peer(
        name="LitServe", lock="litserve", package="litserve", path="/predict", body="inputs",
        files={"service.py": LITSERVE}, command=lambda bin_, _, port: [bin_ / "python", "service.py", str(port)],
    ),
    Peer(
        name="BentoML", lock="bentoml", package="bentoml", path="/predict", body="inputs", files={"service.py": BENTO},
        command=lambda bin_, _, port: [bin_ / "bentoml", "serve", "service:Svc", "-p", str(port), "--host", "127.0.0.1"],
        env=lambda _: {"BENTOML_DO_NOT_TRACK": "True"},
    ),
    Peer(
        name="mlflow models serve", lock="mlflowserve", package="mlflow", path="/invocations", body="inputs",
        command=lambda bin_, home, port: [
            bin_ / "mlflow", "models", "serve", "-m", home / "mlflow-trees", "--env-manager", "local",
            "-p", str(port), "-h", "127.0.0.1", "-w", "1",
        ],
    ),
    Peer(
        name="Ray Serve", lock="rayserve", package="ray", path="/predict", body="inputs",
        files={"service.py": RAY}, command=lambda bin_, _, port: [bin_ / "python", "service.py", str(port)],
        env=lambda _: {"RAY_USAGE_STATS_ENABLED": "0"},
    ),
)  # fmt: skip
