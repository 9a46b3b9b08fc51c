"""The process that loads a skops file and converts it: `python -m falaj.links.skops.child FOLDER`.

FOLDER holds request.json, model.skops and rows.npy; model.onnx, scores.npy and answer.json are
written into it. Types that are not trusted are listed and nothing is loaded.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

__all__ = ["main"]

OPSET: Final = {"": 17, "ai.onnx.ml": 3}
INPUT: Final = "features"


class Cannot(Exception):
    """kind: untrusted | shape | convert."""

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(words)
        self.kind = kind


def main(folder: Path) -> None:
    try:
        about = converted(folder)
        answer = {"kind": "ok", "words": about}
    except Cannot as cannot:
        answer = {"kind": cannot.kind, "words": str(cannot)}
    (folder / "answer.json").write_text(json.dumps(answer))


def converted(folder: Path) -> str:
    import skl2onnx
    import skops.io

    asked = json.loads((folder / "request.json").read_text())
    data = (folder / "model.skops").read_bytes()
    strangers = sorted(set(skops.io.get_untrusted_types(data=data)) - set(asked["trust"]))
    if strangers:
        raise Cannot("untrusted", ", ".join(strangers)[:1000])
    model = skops.io.loads(data, trusted=asked["trust"])
    rows = np.load(folder / "rows.npy", allow_pickle=False)
    fits(model, asked["columns"], rows.shape[1])
    scores = np.asarray(model.predict_proba(named(model, rows)), np.float64)
    if scores.shape != (len(rows), 2):
        raise Cannot("shape", f"it answers with {scores.shape[1:]} columns, expected 2")
    from skl2onnx.common.data_types import FloatTensorType

    proto: Any = skl2onnx.to_onnx(
        model,
        initial_types=[(INPUT, FloatTensorType([None, rows.shape[1]]))],
        options={id(model): {"zipmap": False}},
        target_opset=OPSET,
    )
    only_probabilities(proto)
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    np.save(folder / "scores.npy", scores[:, 1], allow_pickle=False)
    return f"{type(model).__module__}.{type(model).__qualname__}, skops {skops.__version__}"


def fits(model: Any, columns: list[str], width: int) -> None:
    own = [str(name) for name in getattr(model, "feature_names_in_", [])]
    if own and own != columns:
        raise Cannot("shape", f"it was trained on the columns {', '.join(own)[:500]}")
    if int(getattr(model, "n_features_in_", width)) != width:
        raise Cannot("shape", f"it takes {model.n_features_in_} columns, and {width} are named")
    if not hasattr(model, "predict_proba"):
        raise Cannot("shape", f"{type(model).__name__} gives no probabilities")
    if [
        int(one) if isinstance(one, int | np.integer | np.bool_) else one for one in model.classes_
    ] != [0, 1]:
        raise Cannot("shape", f"its classes are {list(model.classes_)[:10]}, expected 0 and 1")


def named(model: Any, rows: Any) -> Any:
    """Rows under the names of the training, where the model asks for names."""
    if not hasattr(model, "feature_names_in_"):
        return rows
    try:
        import polars as pl
    except ImportError:
        return rows
    return pl.DataFrame(rows, schema=[str(name) for name in model.feature_names_in_])


def only_probabilities(proto: Any) -> None:
    """The label that scikit-learn would choose is not ours: the threshold is the release's."""
    kept = [value for value in proto.graph.output if value.name == "probabilities"]
    if len(kept) != 1:
        raise Cannot("convert", "the converter gives no probabilities")
    del proto.graph.output[:]
    proto.graph.output.extend(kept)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
