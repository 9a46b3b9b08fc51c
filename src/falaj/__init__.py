"""Falaj: from a git commit to a governed, monitored, reversible model in production.

The names of a pipeline author. They are looked up on first use, so that `import falaj` is cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from falaj.pipelines.context import log, seed
    from falaj.pipelines.declare import pipeline, step
    from falaj.pipelines.model import Model
    from falaj.ports.datasets import Dataset

__all__ = ["Dataset", "Model", "log", "pipeline", "seed", "step"]

_HOMES = {
    "Dataset": "falaj.ports.datasets",
    "Model": "falaj.pipelines.model",
    "log": "falaj.pipelines.context",
    "pipeline": "falaj.pipelines.declare",
    "seed": "falaj.pipelines.context",
    "step": "falaj.pipelines.declare",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'falaj' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
