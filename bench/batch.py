"""Millions of rows through a release, Parquet to Parquet: ours, MLflow pyfunc and Ray Data.

CPU is user + system of the whole process tree, memory the peak of the tree's private share (PSS). Every
competitor gets one engine thread, the same ONNX file, the same input and writes the same two columns.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench import closed
from bench.harness import (
    HERE,
    QUIET,
    Row,
    compared,
    environment,
    ours,
    peer,
    say,
    value,
    version,
    write,
)
from bench.tree import cpu_s, members, pss_mb

FULL, QUICK = (1_000_000, 10_000_000), (100_000, 500_000)
ROUNDS = 3
GROUP = 131_072
EVERY_S = 0.05

GENERATE = """
import sys, numpy as np, pyarrow as pa, pyarrow.parquet as pq, json
home, n, to = sys.argv[1], int(sys.argv[2]), sys.argv[3]
x, names = np.load(home + "/x.npy"), json.load(open(home + "/features.json"))
draw = np.random.default_rng(1)
schema = pa.schema([("id", pa.int64())] + [(name, pa.float32()) for name in names])
with pq.ParquetWriter(to, schema, compression="zstd", compression_level=1) as file:
    for at in range(0, n, 1_000_000):
        size = min(1_000_000, n - at)
        z = x[draw.integers(0, len(x), size)]
        columns = [pa.array(np.arange(at, at + size)), *(pa.array(z[:, i].copy()) for i in range(len(names)))]
        file.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=131_072)
"""

MLFLOW = """
import os, sys, json
os.environ["OMP_NUM_THREADS"] = "1"
home, given, to = sys.argv[1:4]
import mlflow, onnx, pandas as pd, numpy as np
names = json.load(open(home + "/features.json"))
place = home + "/mlflow-" + sys.argv[4]
if not os.path.isdir(place):
    from mlflow.models import infer_signature
    mlflow.onnx.save_model(
        onnx.load(home + "/" + sys.argv[4] + "/model.onnx"), place,
        signature=infer_signature(np.zeros((1, len(names)), np.float32)), pip_requirements=["onnxruntime"],
        onnx_session_options={"intra_op_num_threads": 1, "execution_mode": "sequential"},
    )
if given:
    model = mlflow.pyfunc.load_model(place)
    frame = pd.read_parquet(given)
    found = model.predict(frame[names].to_numpy())
    pd.DataFrame({"id": frame["id"], "p": np.asarray(found["probabilities"])[:, 1]}).to_parquet(to)
"""

RAY = """
import os, sys, json, numpy as np
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
home, given, to, name = sys.argv[1:5]
import ray
names = json.load(open(home + "/features.json"))
ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False,
         object_store_memory=2 * 2**30, _node_ip_address="127.0.0.1")
ray.data.DataContext.get_current().enable_progress_bars = False

class Predict:
    def __init__(self):
        import onnxruntime as rt
        options = rt.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = rt.InferenceSession(home + "/" + name + "/model.onnx", options)

    def __call__(self, batch):
        x = np.stack([batch[n] for n in names], 1).astype("f4")
        return {"id": batch["id"], "p": self.session.run(["probabilities"], {"features": x})[0][:, 1]}

rows = ray.data.read_parquet(given, columns=["id", *names])
rows.map_batches(Predict, batch_size=65536, concurrency=1, num_cpus=1).write_parquet(to)
"""


class Ran(NamedTuple):
    cpu_s: float
    peak_mb: float
    wall_s: float


def measured(command: Sequence[str | Path], *, env: Mapping[str, str], at: Path) -> Ran:
    """CPU and peak memory of a command and everything that it starts, sampled while it runs."""
    begun, peak, last = time.monotonic(), 0.0, {}
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            [str(word) for word in command], cwd=at, env=dict(env), stdin=subprocess.DEVNULL,
            stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            while child.poll() is None:
                pids = members(child.pid)
                peak = max(peak, pss_mb(pids))
                last |= {pid: used for pid in pids if (used := cpu_s([pid])) > 0}
                time.sleep(EVERY_S)
        finally:
            for pid in members(child.pid):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        if child.returncode != 0:
            said.seek(0)
            raise RuntimeError(said.read().decode(errors="replace")[-2000:])
    return Ran(sum(last.values()), peak, time.monotonic() - begun)


def main(*, quick: bool) -> int:
    sizes = QUICK if quick else FULL
    rounds = 1 if quick else ROUNDS
    load = os.getloadavg()[0]
    here = environment("batch", HERE.parent / "requirements" / "parts" / "arrow.txt", HERE.parent)
    mlflow, ray = peer("mlflowserve"), peer("rayserve")
    ours()
    if not closed.is_closed():  # Ray listens beyond loopback
        return closed.run_closed("bench.batch", quick=quick)
    closed.loopback_up()
    with tempfile.TemporaryDirectory(prefix="falaj-batch-") as scratch:
        home = Path(scratch)
        say("training the flights model")
        subprocess.run(
            [ours() / "python", HERE / "serving_model.py", home], check=True, env=plain(home)
        )
        inputs = {}
        for size in sizes:
            inputs[size] = home / f"in-{size}.parquet"
            code = [here / "python", "-c", GENERATE, home, str(size), inputs[size]]
            subprocess.run(code, check=True, env=plain(home))
        for name in ("trees", "linear-onnx"):
            subprocess.run(
                [mlflow / "python", "-c", MLFLOW, home, "", "", name],
                check=True,
                env=plain(home),
                capture_output=True,
            )
        found: dict[tuple[str, str, int], list[Ran]] = {}
        for number in range(rounds):
            for model in ("trees", "linear"):
                theirs = "trees" if model == "trees" else "linear-onnx"
                for size in sizes:
                    given = inputs[size]
                    commands = {
                        "falaj": [
                            here / "falaj",
                            "score",
                            home / f"release-{model}",
                            given,
                            home / "out-falaj",
                            "--trust",
                            home / "trust.json",
                            "--keep",
                            "id",
                        ],
                        "MLflow pyfunc": [
                            mlflow / "python",
                            "-c",
                            MLFLOW,
                            home,
                            given,
                            home / "out.parquet",
                            theirs,
                        ],
                        "Ray Data": [
                            ray / "python",
                            "-c",
                            RAY,
                            home,
                            given,
                            home / "out-ray",
                            theirs,
                        ],
                    }
                    for who, command in commands.items():
                        cleared(home)
                        ran = measured(command, env=plain(home), at=home)
                        found.setdefault((who, model, size), []).append(ran)
                        say(
                            f"round {number + 1}: {who}, {model}, {size:,} rows: {ran.cpu_s * 1e6 / size:.2f} us a row, {ran.peak_mb:.0f} MB, {ran.wall_s:.1f} s"
                        )
        rows = results({key: median(ran) for key, ran in found.items()}, sizes)
        versions = {
            "falaj": version(here / "python", "falaj"),
            "onnxruntime": version(here / "python", "onnxruntime"),
            "pyarrow": version(here / "python", "pyarrow"),
            "mlflow": version(mlflow / "python", "mlflow"),
            "ray": version(ray / "python", "ray"),
        }
    return write("batch", rows, versions=versions, load=load, notes=NOTES)


def median(ran: Sequence[Ran]) -> Ran:
    import statistics

    return Ran(*(statistics.median(values) for values in zip(*ran, strict=True)))


def results(found: Mapping[tuple[str, str, int], Ran], sizes: Sequence[int]) -> list[Row]:
    rows: list[Row] = []
    few, many = sizes
    for model, target in (("trees", 1 / 1.6), ("linear", 1 / 4)):
        ours_ = found["falaj", model, many]
        for who in ("MLflow pyfunc", "Ray Data"):
            other = found[who, model, many]
            rows.append(
                compared(
                    f"{model}, {many:,} rows: CPU a row",
                    ours_.cpu_s * 1e6 / many,
                    other.cpu_s * 1e6 / many,
                    who,
                    unit="us",
                    target=target,
                )
            )
            rows.append(
                compared(
                    f"{model}, {many:,} rows: peak memory",
                    ours_.peak_mb,
                    other.peak_mb,
                    who,
                    unit="MB",
                    target=1 / 5,
                )
            )
        for size in sizes:
            rows.append(
                value(
                    f"{model}, {size:,} rows: peak memory of ours",
                    "MB",
                    found["falaj", model, size].peak_mb,
                    600,
                )
            )
        growth = ours_.peak_mb / found["falaj", model, few].peak_mb
        rows.append(
            value(f"{model}: memory at {many:,} rows against {few:,}", "times", growth, 1.2)
        )
    return rows


def plain(home: Path) -> dict[str, str]:
    return {
        **QUIET,
        "HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def cleared(home: Path) -> None:
    import shutil

    for path in home.glob("out*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


NOTES = """
Rows of the flights model (15 numeric features; 100 trees of histogram boosting, or a logistic regression),
Parquet to Parquet: all columns are read, the id and the probability are written. Ours is `falaj score`
with everything it promises: the release verified and probed, the input hashed, each row checked, parts
synced and hashed. MLflow's pyfunc reads the table as one pandas frame, as its pages show it; Ray Data
maps batches of 65,536 rows on one node of two cores. All three run ONNX Runtime with one thread, but
our linear model, which is one product in numpy. CPU is user + system of all processes of the tree,
start included; memory is the largest sum of their proportional shares (PSS), looked at each 50 ms.
"""

if __name__ == "__main__":
    sys.exit(main(quick="--quick" in sys.argv))
