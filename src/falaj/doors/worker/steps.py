"""Entry of a process that runs steps: `python -m falaj.doors.worker.steps ORDERS ANSWERS`.

It wires the few adapters that steps need itself; the whole control plane would cost its start.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path

from falaj.facts.data import PROTECTED
from falaj.links.files.project import read_project
from falaj.links.frames.codecs import codecs
from falaj.links.stepcache.cache import FileStepCache
from falaj.pipelines.attempt import Around
from falaj.pipelines.serve import Supplies, serve
from falaj.ports.datasets import Dataset
from falaj.readers import artifacts, evidence_readers, table_readers

__all__ = ["main", "supplies"]


def supplies(root: Path) -> Supplies:
    """Of the project in `root`, whose workspace is there already."""
    project = read_project(root / "falaj.toml")
    cache = FileStepCache(root / ".falaj" / "cache.db")

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
    orders, answers = (int(word) for word in sys.argv[1:3])
    serve(orders, answers, supplies)


if __name__ == "__main__":
    main()
