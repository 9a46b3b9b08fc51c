"""Keys of everything that is erased together, wrapped."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "scope_key",
        sa.Column("scope", sa.String(), primary_key=True),
        sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("residency", sa.String(), nullable=False),
        sa.Column("kek", sa.String(), nullable=False),
        sa.Column("wrapped", sa.String(), nullable=False),
        sa.Column("binding", sa.String(), nullable=False),
        sa.Column("created", sa.String(), nullable=False),
        sa.Column("erased", sa.String(), nullable=False),
    )
