"""What runs inside the sandbox: `python -m falaj.links.bubblewrap.child JOB`, in its one folder.

The one place of Falaj that unpickles. `scan` reads operations.pkl with picklescan and loads nothing;
`convert` loads model.pkl, answers rows.npy (drawn when there are none) and writes the new file;
`answer` loads the new file alone and answers the same rows. Each writes answer.json.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

__all__ = ["main"]

OPSET: Final = {"": 17, "ai.onnx.ml": 3}
ROWS: Final = 1000
ENDINGS: Final = {"onnx": "onnx", "xgboost-ubj": "ubj", "lightgbm": "txt", "skops": "skops"}


class Cannot(Exception):
    """Why a model cannot be converted, for a person."""


def main(job: str, folder: Path = Path()) -> None:
    asked = json.loads((folder / "request.json").read_text())
    try:
        answer = {"scan": scanned, "convert": converted, "answer": answered}[job](asked, folder)
    except Cannot as cannot:
        answer = {"cannot": str(cannot)}
    (folder / "answer.json").write_text(json.dumps(answer))


def scanned(_: dict[str, Any], folder: Path) -> dict[str, Any]:
    if importlib.util.find_spec("picklescan") is None:
        return {"tool": ""}
    from picklescan.scanner import scan_pickle_bytes

    with (folder / "operations.pkl").open("rb") as file:
        found = scan_pickle_bytes(file, "model")
    return {
        "tool": f"picklescan {importlib.metadata.version('picklescan')}",
        "failed": bool(found.scan_err),
        "names": [[g.module, g.name, g.safety.value] for g in found.globals],
    }


def converted(asked: dict[str, Any], folder: Path) -> dict[str, Any]:
    model = loaded(folder / "model.pkl", joblib=asked["joblib"])
    rows = rows_for(model, folder / "rows.npy")
    scores = scored(model, rows)
    to = asked["to"] or natural(model)
    written(model, to, rows.shape[1], folder / f"model.{ENDINGS[to]}")
    np.save(folder / "scores.npy", scores, allow_pickle=False)
    return {"to": to, "file": f"model.{ENDINGS[to]}", "versions": versions(model)}


def loaded(path: Path, *, joblib: bool) -> Any:
    try:
        if joblib:
            import joblib as library

            return library.load(path)
        import pickle

        with path.open("rb") as file:
            return pickle.load(file)  # noqa: S301 inside the sandbox, and after the rules
    except ImportError as error:
        raise Cannot(f"{error.name or error} is not installed here") from None


def rows_for(model: Any, path: Path) -> Any:
    """Rows to compare on: those given, or drawn ones of several sizes, the same each time."""
    width = width_of(model)
    if not path.is_file():
        draw = np.random.default_rng(0)
        scale = draw.choice([0.1, 1.0, 10.0], size=(ROWS, 1))
        np.save(path, (draw.normal(size=(ROWS, width)) * scale).astype(np.float32))
    rows = np.load(path, allow_pickle=False)
    if rows.ndim != 2 or rows.shape[1] != width:
        raise Cannot(f"the model takes {width} columns, the sample has {rows.shape[1:]}")
    return rows


def width_of(model: Any) -> int:
    for name in ("n_features_in_", "num_features", "num_feature"):
        found = getattr(model, name, None)
        if found is not None:
            return int(found() if callable(found) else found)
    raise Cannot("the model does not say how many columns it takes")


def scored(model: Any, rows: Any) -> Any:
    """Answers as one matrix: probabilities where there are any."""
    kind = f"{type(model).__module__}.{type(model).__name__}"
    if kind == "xgboost.core.Booster":
        import xgboost

        found = model.predict(xgboost.DMatrix(rows, feature_names=model.feature_names))
    elif hasattr(model, "predict_proba"):
        found = model.predict_proba(named(model, rows))
    else:
        found = model.predict(named(model, rows))
    found = np.asarray(found)
    if found.dtype.kind not in "biuf":
        raise Cannot("it answers with texts, without probabilities")
    return matrix(found)


def matrix(found: Any) -> Any:
    """Two columns of a binary answer say one thing."""
    scores = np.asarray(found, np.float64)
    scores = scores.reshape(len(scores), -1)
    return scores[:, 1:] if scores.shape[1] == 2 else scores


def named(model: Any, rows: Any) -> Any:
    names = getattr(model, "feature_names_in_", None)
    if names is None or importlib.util.find_spec("pandas") is None:
        return rows
    import pandas as pd

    return pd.DataFrame(rows, columns=list(names))


def natural(model: Any) -> str:
    home = type(model).__module__.partition(".")[0]
    return {"xgboost": "xgboost-ubj", "lightgbm": "lightgbm"}.get(home, "onnx")


def written(model: Any, to: str, width: int, path: Path) -> None:
    home = type(model).__module__.partition(".")[0]
    if home != {"xgboost-ubj": "xgboost", "lightgbm": "lightgbm"}.get(to, "sklearn"):
        raise Cannot(f"a model of {home} cannot be written as {to}")
    if to == "xgboost-ubj":
        (model.get_booster() if hasattr(model, "get_booster") else model).save_model(path)
    elif to == "lightgbm":
        (model.booster_ if hasattr(model, "booster_") else model).save_model(path)
    elif to == "skops":
        import skops.io

        skops.io.dump(model, path)
    else:
        path.write_bytes(as_onnx(model, width))


def as_onnx(model: Any, width: int) -> bytes:
    try:
        import skl2onnx
        from skl2onnx.common.data_types import FloatTensorType
    except ImportError as error:
        raise Cannot(f"{error.name or error} is not installed here") from None
    options = {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else None
    try:
        proto: Any = skl2onnx.to_onnx(
            model,
            initial_types=[("features", FloatTensorType([None, width]))],
            options=options,
            target_opset=OPSET,
        )
    except Exception as error:  # the converter's errors have no common class
        words = (str(error).splitlines() or [type(error).__name__])[0]
        raise Cannot(f"it cannot be converted to ONNX: {words[:300]}") from None
    if options:
        kept = [value for value in proto.graph.output if value.name == "probabilities"]
        if len(kept) != 1:
            raise Cannot("the converter gives no probabilities")
        del proto.graph.output[:]
        proto.graph.output.extend(kept)
    found: bytes = proto.SerializeToString()
    return found


def versions(model: Any) -> dict[str, str]:
    home = type(model).__module__.partition(".")[0]
    names = {"sklearn": ("scikit-learn", "skl2onnx"), "xgboost": ("xgboost", "xgboost-cpu")}
    found = {}
    for name in ("numpy", *names.get(home, (home,))):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def answered(asked: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The new file's own answers, in a process that never saw the old one."""
    path = folder / f"model.{ENDINGS[asked['to']]}"
    rows = np.load(folder / "rows.npy", allow_pickle=False)
    if asked["to"] == "onnx":
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        found = session.run(None, {"features": rows.astype(np.float32)})[0]
    elif asked["to"] == "xgboost-ubj":
        import xgboost

        model = xgboost.Booster(model_file=str(path))
        found = model.predict(xgboost.DMatrix(rows, feature_names=model.feature_names))
    elif asked["to"] == "lightgbm":
        import lightgbm

        found = lightgbm.Booster(model_file=str(path)).predict(rows)
    else:
        import skops.io

        data = path.read_bytes()
        kept = skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))
        found = scored(kept, rows)
    np.save(folder / "answers.npy", matrix(found), allow_pickle=False)
    return {"rows": len(rows)}


if __name__ == "__main__":
    main(sys.argv[1])
