"""Which readers a project has: one list for the control plane, for workers and for its own tests.

A process that runs steps or tests wires itself, without the control plane, and must read the same.
"""

from __future__ import annotations

from pathlib import Path

from falaj.ports.evidence import EvidenceReader
from falaj.ports.tables import TableReader

__all__ = ["evidence_readers", "table_readers"]


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
