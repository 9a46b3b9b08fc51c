"""Tables: one a noun family, each with the columns that are searched; the events and their tree.

The fact itself is the JSON in `body`; indexed columns repeat fields of it and are never read back.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

from falaj.facts.access import Principal
from falaj.facts.changes import Approval, Change, Preapproval, Review
from falaj.facts.checks import GateReport
from falaj.facts.data import SuiteReport
from falaj.facts.mirrors import MirrorState
from falaj.facts.models import AliasMove, ModelVersion
from falaj.facts.monitoring import Alert, MonitorState, Proposal, Window
from falaj.facts.releases import Release
from falaj.facts.rollouts import Deployment, LiveMove, Rollout, RolloutDecision
from falaj.facts.runs import Run
from falaj.facts.scans import AdvisoryDatabase, Scan
from falaj.facts.testing import TestReport
from falaj.facts.wire import Fact

__all__ = [
    "FAMILIES",
    "METADATA",
    "Family",
    "checkpoint",
    "cosignature",
    "event",
    "lease",
    "log_leaf",
    "log_node",
    "log_waiting",
    "point_chunk",
    "run_last",
    "run_param",
    "scope_key",
    "sequence",
    "witnessed",
]

METADATA: Final = MetaData()
# SQLite counts rows with INTEGER PRIMARY KEY only; PostgreSQL wants the wide type.
POSITION: Final = BigInteger().with_variant(Integer(), "sqlite")


class Family(NamedTuple):
    """One noun family: its table, the field that names a fact, the fields that are searched."""

    table: Table
    key: str
    searched: tuple[str, ...]


def family(name: str, *searched: str, key: str = "id") -> Family:
    table = Table(
        name,
        METADATA,
        Column("position", POSITION, primary_key=True, autoincrement=True),
        Column("id", String, nullable=False, unique=True),
        Column("revision", Integer, nullable=False),
        *(Column(field, String, nullable=False) for field in searched),
        Column("body", LargeBinary, nullable=False),
        *(Index(f"{name}_{field}", field) for field in searched),
    )
    return Family(table, key, searched)


FAMILIES: Final[dict[type[Fact], Family]] = {
    Principal: family("principal", "person", key="name"),
    Run: family("run", "model", "status"),
    ModelVersion: family("model_version", "model", "run"),
    GateReport: family("gate_report", "run", "subject"),
    AliasMove: family("alias_move", "model", "alias"),
    Release: family("release", "model", "version"),
    Change: family("change", "model", "environment", "state", "release"),
    Approval: family("approval", "change"),
    Rollout: family("rollout", "environment", "model", "phase", "change"),
    RolloutDecision: family("rollout_decision", "rollout"),
    LiveMove: family("live_move", "environment", "model"),
    Deployment: family("deployment"),
    Window: family("window", "environment", "model", "monitor"),
    MonitorState: family("monitor_state"),
    Alert: family("alert", "model", "state", "kind"),
    Proposal: family("proposal", "model", "alert"),
    SuiteReport: family("suite_report", "dataset", "version"),
    TestReport: family("test_report", "tree"),
    MirrorState: family("mirror_state"),
    AdvisoryDatabase: family("advisory_database", "ecosystem"),
    Scan: family("scan", "lock", "release"),
    Preapproval: family("preapproval", "template"),
    Review: family("review", "model"),
}

event = Table(
    "event",
    METADATA,
    Column("id", String, primary_key=True),
    Column("at", String, nullable=False, index=True),
    Column("project", String, nullable=False),
    Column("type", String, nullable=False, index=True),
    Column("actor", String, nullable=False, index=True),
    Column("subject", String, nullable=False, index=True),
    Column("body", LargeBinary, nullable=False),
    Column("leaf", LargeBinary, nullable=False),
)
# Events without a place in the log yet: found by being here, never by the order of their ids.
log_waiting = Table(
    "log_waiting",
    METADATA,
    Column("event_id", String, primary_key=True),
)
log_leaf = Table(
    "log_leaf",
    METADATA,
    Column("idx", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", String, nullable=False, unique=True),
)
log_node = Table(
    "log_node",
    METADATA,
    Column("level", Integer, primary_key=True),
    Column("idx", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
)
checkpoint = Table(
    "checkpoint",
    METADATA,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("root", LargeBinary, nullable=False),
    Column("note", LargeBinary, nullable=False),
)
cosignature = Table(
    "cosignature",
    METADATA,
    Column("size", BigInteger, nullable=False),
    Column("witness", String, nullable=False),
    Column("line", String, nullable=False),
    Column("at", BigInteger, nullable=False),
    UniqueConstraint("size", "witness"),
)
witnessed = Table(
    "witnessed",
    METADATA,
    Column("origin", String, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("note", LargeBinary, nullable=False),
)
person = Table(
    "person",
    METADATA,
    Column("pseudonym", String, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
)
remark = Table(
    "remark",
    METADATA,
    Column("event_id", String, primary_key=True),
    Column("salt", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)
lease = Table(
    "lease",
    METADATA,
    Column("name", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("until_ms", BigInteger, nullable=False),
)
point_chunk = Table(
    "point_chunk",
    METADATA,
    Column("run", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("n", Integer, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("min", Float, nullable=False),
    Column("max", Float, nullable=False),
    Column("last_value", Float, nullable=False),
    Column("steps", LargeBinary, nullable=False),
    Column("times", LargeBinary, nullable=False),
    Column("values", LargeBinary, nullable=False),
)
run_last = Table(
    "run_last",
    METADATA,
    Column("run", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("value", Float, nullable=False),
    Index("run_last_value", "name", "value"),
)
run_param = Table(
    "run_param",
    METADATA,
    Column("run", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("number", Float, nullable=True),
    Column("text", String, nullable=False),
    Index("run_param_number", "name", "number"),
    Index("run_param_text", "name", "text"),
)
scope_key = Table(
    "scope_key",
    METADATA,
    Column("scope", String, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("residency", String, nullable=False),
    Column("kek", String, nullable=False),
    Column("wrapped", String, nullable=False),
    Column("binding", String, nullable=False),
    Column("created", String, nullable=False),
    Column("erased", String, nullable=False),
)
sequence = Table(
    "sequence",
    METADATA,
    Column("name", String, primary_key=True),
    Column("last", BigInteger, nullable=False),
)
