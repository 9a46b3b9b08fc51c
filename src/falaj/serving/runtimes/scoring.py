"""A model as one function from a matrix to scores, for gates and references: no server around it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from falaj.facts.models import Schema

__all__ = ["scorer"]


def scorer(onnx: bytes, schema: Schema) -> Callable[[NDArray[np.float32]], NDArray[np.float64]]:
    """Scores of the positive class, shape (n,), through the same runtime that serves."""
    from falaj.serving.runtimes.onnx import OnnxModel

    with TemporaryDirectory() as folder:
        Path(folder, "model.onnx").write_bytes(onnx)
        model = OnnxModel(Path(folder), schema)
    name = schema.inputs[0].name

    def score(x: NDArray[np.float32]) -> NDArray[np.float64]:
        first: Any = model.run({name: x})[0]
        return np.asarray(first, np.float64).reshape(len(x), -1)[:, -1]

    return score
