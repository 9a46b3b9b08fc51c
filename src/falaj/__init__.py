"""Falaj: from a git commit to a governed, monitored, reversible model in production.

The names of a pipeline author. They are looked up on first use, so that `import falaj` is cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from falaj.data import features
    from falaj.data.quarantine import Split, split
    from falaj.pipelines.checking import check
    from falaj.pipelines.context import evidence, log, plot, seed
    from falaj.pipelines.declare import pipeline, step
    from falaj.pipelines.flow import each as map  # noqa: A004 the word that authors look for
    from falaj.pipelines.flow import when
    from falaj.pipelines.model import Model
    from falaj.pipelines.pictures import Picture, keep
    from falaj.ports.datasets import Dataset

__all__ = [
    "Dataset",
    "Model",
    "Picture",
    "Split",
    "check",
    "evidence",
    "features",
    "keep",
    "log",
    "map",
    "pipeline",
    "plot",
    "seed",
    "split",
    "step",
    "when",
]

_HOMES = {
    "Dataset": "falaj.ports.datasets",
    "Model": "falaj.pipelines.model",
    "check": "falaj.pipelines.checking",
    "Picture": "falaj.pipelines.pictures",
    "Split": "falaj.data.quarantine",
    "evidence": "falaj.pipelines.context",
    "features": "falaj.data.features",  # the module itself
    "keep": "falaj.pipelines.pictures",
    "log": "falaj.pipelines.context",
    "map": "falaj.pipelines.flow",
    "plot": "falaj.pipelines.context",
    "pipeline": "falaj.pipelines.declare",
    "seed": "falaj.pipelines.context",
    "split": "falaj.data.quarantine",
    "step": "falaj.pipelines.declare",
    "when": "falaj.pipelines.flow",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'falaj' has no attribute {name!r}")
    from importlib import import_module

    home = import_module(_HOMES[name])
    value = home if name == "features" else getattr(home, "each" if name == "map" else name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
