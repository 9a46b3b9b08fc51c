"""Events that wait for their place in the log, and logs of others that are witnessed here."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("log_waiting", sa.Column("event_id", sa.String(), primary_key=True))
    op.execute(
        "INSERT INTO log_waiting (event_id) SELECT id FROM event "
        "WHERE id NOT IN (SELECT event_id FROM log_leaf)"
    )
    op.create_table(
        "witnessed",
        sa.Column("origin", sa.String(), primary_key=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("note", sa.LargeBinary(), nullable=False),
    )
    op.create_index("ix_event_actor", "event", ["actor"])
    op.create_index("ix_event_at", "event", ["at"])
