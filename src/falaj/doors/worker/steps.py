"""Entry of a process that runs steps: `python -m falaj.doors.worker.steps [apart] ORDERS ANSWERS`.

It wires the few adapters that steps need itself; the whole control plane would cost its start.
apart: on another machine than the run's, whose database must not be written over a network.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from falaj.facts.data import PROTECTED
from falaj.links.files.project import read_project
from falaj.links.frames.codecs import codecs
from falaj.links.stepcache.cache import FileStepCache
from falaj.pipelines.attempt import Around
from falaj.pipelines.serve import Supplies, serve
from falaj.ports.datasets import Dataset
from falaj.readers import artifacts, evidence_readers, table_readers

__all__ = ["OwnMemo", "main", "supplies"]


class OwnMemo:
    """The port Memo, as long as this process lives."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}

    def memo(self, kind: str, key: str) -> str | None:
        return self._known.get((kind, key))

    def remember(self, kind: str, key: str, value: str) -> None:
        self._known[kind, key] = value


def supplies(root: Path, *, apart: bool = False) -> Supplies:
    """Of the project in `root`, whose workspace is there already."""
    project = read_project(root / "falaj.toml")
    cache = OwnMemo() if apart else FileStepCache(root / ".falaj" / "cache.db")

    def datasets() -> Mapping[str, Dataset]:
        from falaj.base.time import now
        from falaj.journeys.train import handles

        tables = table_readers(root / ".falaj" / "snapshots")
        return handles(project, root=root, memo=cache, clock=now, tables=tables)

    return Supplies(
        blobs=artifacts(project, root / ".falaj")[0],
        memo=cache,
        codecs=codecs(),
        datasets=datasets,
        declared=tuple(table.name for table in project.datasets),
        around=for_mlflow(any(d.classification in PROTECTED for d in project.datasets)),
        evidence=evidence_readers(),
    )


@functools.cache
def for_mlflow(protected: bool) -> Around | None:
    """Where steps can call `mlflow.*`, an endpoint for it; elsewhere nothing, at no cost.

    protected: the workspace holds data of class personal or above, for which even loopback needs TLS.
    """
    if importlib.util.find_spec("mlflow") is None:
        return None
    from falaj.doors.worker.mlflow import Endpoint

    return Endpoint(tls=protected).around


def main() -> None:
    *words, orders, answers = sys.argv[1:]
    serve(int(orders), int(answers), partial(supplies, apart="apart" in words))


if __name__ == "__main__":
    main()
