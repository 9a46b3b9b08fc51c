"""What a project reads with: the same for the control plane, for workers and for its own tests.

A process that runs steps or tests wires itself, without the control plane, and must read the same:
tables of others, evidence of others, and artifacts, sealed where the project says so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from falaj.base import time
from falaj.base.errors import NotAllowed
from falaj.links.files.blobs import FileBlobs
from falaj.ports.evidence import EvidenceReader
from falaj.ports.tables import TableReader

if TYPE_CHECKING:
    from falaj.facts.project import Project
    from falaj.ports.kms import Scopes, ScopeStore

__all__ = ["artifacts", "evidence_readers", "table_readers"]


def table_readers(snapshots: Path) -> tuple[TableReader, ...]:
    """Readers of lakes, databases, feature stores. snapshots: the folder theirs lie in."""
    from falaj.links.database.reader import DatabaseTables
    from falaj.links.delta.reader import DeltaTables
    from falaj.links.feast.reader import FeastTables
    from falaj.links.iceberg.reader import IcebergTables

    return (
        DeltaTables(snapshots),
        IcebergTables(snapshots),
        DatabaseTables(snapshots),
        FeastTables(snapshots),
    )


def evidence_readers() -> tuple[EvidenceReader, ...]:
    """Readers of other tools' suites; most commands never see one."""
    from falaj.links.greatexpectations.evidence import GreatExpectationsEvidence
    from falaj.links.pandera.evidence import PanderaEvidence
    from falaj.links.pointblank.evidence import PointblankEvidence

    return (PanderaEvidence(), PointblankEvidence(), GreatExpectationsEvidence())


def artifacts(
    project: Project, state: Path, scopes: Callable[[], ScopeStore] | None = None
) -> tuple[FileBlobs, Scopes | None]:
    """The workspace's blobs, and their keys where the project seals them.

    scopes: the table of keys of a store that is open already. Raises NotAllowed when sealed blobs
    could not be read, or the keys lie outside the project's countries.
    """
    folder, keks = state / "blobs", state / "kek"
    if not project.seals and not keks.exists():
        return FileBlobs(folder), None
    from falaj.links.keyring.kek import LocalKms
    from falaj.links.keyring.scopes import ScopeKeys, ScopeSealing
    from falaj.links.sql.store import SqlStore

    table = scopes() if scopes else SqlStore.open(state / "store.db").scopes()
    if not project.seals:
        if any(one.erased is None for one in table.all()):
            raise NotAllowed(
                "keys.still-sealed",
                "this workspace holds sealed artifacts, and falaj.toml seals nothing",
                why="they could not be read, and new ones would lie beside them in the clear",
                fix='write `at_rest = "all"` or "personal" below [encryption] again',
            )
        return FileBlobs(folder), None
    country = project.project.region[:2]
    kms = LocalKms(keks, country=country)
    keys = ScopeKeys(table, kms, residency=countries(project), now=time.now)
    # A month at a time: what is too old to be kept is erased by erasing its key.
    sealing = ScopeSealing(
        keys, lambda: f"artifacts/{time.now():%Y-%m}", str(project.classification)
    )
    return FileBlobs(folder, sealing), keys


def countries(project: Project) -> tuple[str, ...]:
    """Where all of the project's data may be: in every dataset's countries at once."""
    region = project.project.region[:2]
    allowed = [
        {country.lower() for country in dataset.countries}
        for dataset in project.datasets
        if dataset.countries
    ]
    return tuple(sorted(set.intersection(*allowed))) if allowed else (region,)
