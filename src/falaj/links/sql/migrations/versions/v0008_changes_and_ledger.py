"""Signed templates and reviews; what was live can be added to, and nothing else."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

FAMILIES = {"preapproval": ("template",), "review": ("model",)}
LEDGER = ("live_move", "rollout_decision")


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
    for name in LEDGER:
        close(name)


def close(table: str) -> None:
    """Let the database itself refuse to change or remove a row of the ledger."""
    words = f"{table} is append-only"
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{words}'); END"
            )
        return
    op.execute(
        f"CREATE FUNCTION {table}_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{words}'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_append_only()"
    )
