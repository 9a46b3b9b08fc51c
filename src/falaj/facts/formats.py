"""The table of model formats: what may stand in a release, and what a runtime loads of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["FORMATS", "RUNTIMES"]

# Formats whose structure is read through before anything loads them. Pickle and joblib are not here:
# they are taken as intermediates of training alone, and converted in a sandbox.
FORMATS: Final = (
    "onnx",
    "safetensors",
    "xgboost-ubj",
    "xgboost-json",
    "lightgbm",
    "skops",
    "npy",
    "npz",
    "parquet",
    "arrow",
    "torch",
    "json",
)

# Runtime -> formats of the files in its model folder. The gate and the server read this one table:
# a runtime that is not here is not loaded, a file of another format does not pass.
RUNTIMES: Final[Mapping[str, frozenset[str]]] = {"onnx": frozenset({"onnx", "json"})}
