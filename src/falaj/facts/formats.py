"""The table of model formats: what may stand in a release, and what a runtime loads of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["FORMATS", "MARK", "RUNTIMES"]

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
    "python",  # code of a model; only a runtime that runs it in a sandbox loads it
)

# The first line of a file of code: nothing else is taken for code, and code for nothing else.
MARK: Final = b"# falaj: code of a model\n"
CODE: Final = frozenset(FORMATS) - {"torch"}
# Runtime -> formats of the files in its model folder. The gate and the server read this one table:
# a runtime that is not here is not loaded, a file of another format does not pass.
RUNTIMES: Final[Mapping[str, frozenset[str]]] = {
    "onnx": frozenset({"onnx", "json"}),
    "linear": frozenset({"npz", "json"}),
    "xgboost": frozenset({"xgboost-ubj", "xgboost-json", "json"}),
    "lightgbm": frozenset({"lightgbm", "json"}),
    "skops": frozenset({"skops", "json"}),
    "torch": frozenset({"python", "safetensors", "torch", "json"}),
    "python": CODE,
    "pyfunc": CODE,
}
