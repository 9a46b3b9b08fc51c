"""Databases of advisories that were taken in, and scans of locks, code and releases."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

FAMILIES = {"advisory_database": ("ecosystem",), "scan": ("lock", "release")}


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
