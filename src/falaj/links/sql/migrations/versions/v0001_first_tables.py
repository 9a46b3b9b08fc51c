"""The first tables: noun families, events and their tree, leases.

Spelled out here and not taken from tables.py: a migration must never change with the code.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

FAMILIES = {
    "principal": ("person",),
    "run": ("model", "status"),
    "model_version": ("model", "run"),
    "gate_report": ("run", "subject"),
    "alias_move": ("model", "alias"),
    "release": ("model", "version"),
    "change": ("model", "environment", "state", "release"),
    "approval": ("change",),
    "rollout": ("environment", "model", "phase", "change"),
    "rollout_decision": ("rollout",),
    "live_move": ("environment", "model"),
    "deployment": (),
    "window": ("environment", "model", "monitor"),
    "monitor_state": (),
    "alert": ("model", "state", "kind"),
    "proposal": ("model", "alert"),
}


def text(name: str, *, unique: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=False, unique=unique)


def upgrade() -> None:
    position = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    for name, searched in FAMILIES.items():
        op.create_table(
            name,
            sa.Column("position", position, primary_key=True, autoincrement=True),
            text("id", unique=True),
            sa.Column("revision", sa.Integer(), nullable=False),
            *(text(field) for field in searched),
            sa.Column("body", sa.LargeBinary(), nullable=False),
        )
        for field in searched:
            op.create_index(f"{name}_{field}", name, [field])
    op.create_table(
        "event",
        sa.Column("id", sa.String(), primary_key=True),
        *(text(field) for field in ("at", "project", "type", "actor", "subject")),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("leaf", sa.LargeBinary(), nullable=False),
    )
    op.create_index("ix_event_type", "event", ["type"])
    op.create_index("ix_event_subject", "event", ["subject"])
    op.create_table(
        "log_leaf",
        sa.Column("idx", sa.BigInteger(), primary_key=True, autoincrement=False),
        text("event_id", unique=True),
    )
    op.create_table(
        "log_node",
        sa.Column("level", sa.Integer(), primary_key=True),
        sa.Column("idx", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "checkpoint",
        sa.Column("size", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("note", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "cosignature",
        sa.Column("size", sa.BigInteger(), nullable=False),
        text("witness"),
        text("line"),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("size", "witness"),
    )
    op.create_table(
        "person",
        sa.Column("pseudonym", sa.String(), primary_key=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "remark",
        sa.Column("event_id", sa.String(), primary_key=True),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.String(), primary_key=True),
        text("owner"),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "sequence",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("last", sa.BigInteger(), nullable=False),
    )
