"""Tracking servers of others: what they show of us, and what we take over from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from falaj.base.points import Series
from falaj.facts.data import DatasetVersion
from falaj.facts.runs import Origin

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "Claimed",
    "Converted",
    "Converter",
    "Mirror",
    "Registry",
    "ShownRelease",
    "ShownRun",
]


@dataclass(frozen=True, kw_only=True)
class ShownRun:
    """A finished run as another server is to show it. `run` is its identity there, too.

    status: ok | failed | interrupted. files: path -> bytes.
    """

    run: str
    name: str
    status: str
    started: datetime
    ended: datetime
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    series: Sequence[Series] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    datasets: Sequence[DatasetVersion] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ShownRelease:
    """A promoted release. `release`, its id, is its identity there, too; run: that made its model."""

    release: str
    model: str
    version: str
    run: ShownRun
    tags: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


class Mirror(Protocol):
    """Another server that shows what happened here. tests/contracts/test_mirror.py.

    All of it may be said again, also after a kill in the middle of it: what is there already is
    found by our own ids, and nothing is doubled. Raises Away, or Refused for this one thing.
    """

    def show_run(self, run: ShownRun) -> str:
        """Returns the run's id there."""

    def show_release(self, release: ShownRelease) -> str:
        """Returns the model version's number there."""

    def move_alias(self, model: str, alias: str, release: ShownRelease) -> None:
        """Let `alias` of `model` point at a release, which is shown first where it is not there."""


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A model of another registry, its files fetched. What is said of it are claims.

    columns: name -> may be missing, in the model's order; nothing where the server names none.
    model: path of the model's own file among `files`.
    """

    origin: Origin
    model: str
    files: Mapping[str, Path]
    columns: Mapping[str, bool] = field(default_factory=dict)


class Registry(Protocol):
    """Models of another server. tests/contracts/test_registry.py.

    The server is not trusted: paths that lead out of the folder, endless lists, files of another
    size than announced and formats that run code are refused.
    """

    def fetch(self, name: str, folder: Path) -> Claimed:
        """Find `NAME@ALIAS` or `NAME/VERSION`, with `models:/` or without, and bring its files.

        Raises Away, NotFound, or FalajError that says why and what to do.
        """


@dataclass(frozen=True, kw_only=True)
class Converted:
    """An ONNX model and the scores that the original gave to the same rows, shape (n,)."""

    onnx: bytes
    scores: NDArray[np.float64]
    about: str


class Converter(Protocol):
    """Turns a model file of another format into ONNX, apart from this process."""

    def convert(
        self, file: Path, rows: NDArray[np.float32], columns: Sequence[str], trust: Sequence[str]
    ) -> Converted:
        """rows: shape (n, d), what the two are compared on. trust: types that a person allows.

        Raises FalajError: a type is not trusted, a tool is not installed, it cannot be converted.
        """
