"""Runtime's name in a release -> the class that loads it. Nothing is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from falaj.base.errors import Unverified
from falaj.facts.formats import RUNTIMES
from falaj.facts.models import Schema

__all__ = ["APART", "maker"]

CLASSES: Final = {
    "onnx": ("onnx", "OnnxModel"),
    "linear": ("linear", "LinearModel"),
    "xgboost": ("xgboost", "XgboostModel"),
    "lightgbm": ("lightgbm", "LightgbmModel"),
    "skops": ("skops", "SkopsModel"),
}
# Code that a release brings along runs in a sandbox, in a process of its own.
APART: Final = frozenset({"python", "torch", "pyfunc"})


def maker(runtime: str) -> Callable[[Path, Schema], Any]:
    """(model folder, schema) -> the runtime. Raises Unverified for a name that is not in the table."""
    if runtime in APART and runtime in RUNTIMES:
        from falaj.serving.runtimes.function import FunctionModel

        return partial(FunctionModel, kind=runtime)
    if runtime not in CLASSES or runtime not in RUNTIMES:
        raise Unverified(
            "serving.runtime",
            f"release.json: runtime: got {runtime!r}, expected {' or '.join(RUNTIMES)}",
            fix="export the model to ONNX",
        )
    module, name = CLASSES[runtime]
    made: Callable[[Path, Schema], Any] = getattr(
        import_module(f"falaj.serving.runtimes.{module}"), name
    )
    return made
