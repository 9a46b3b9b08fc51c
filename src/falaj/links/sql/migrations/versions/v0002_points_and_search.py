"""Points of metrics in packed chunks; the search tables, filled from the runs that are there."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def key(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(), primary_key=True)


def upgrade() -> None:
    op.create_table(
        "point_chunk",
        key("run"),
        key("name"),
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("n", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("first", "last")),
        *(sa.Column(name, sa.Float(), nullable=False) for name in ("min", "max", "last_value")),
        *(sa.Column(n, sa.LargeBinary(), nullable=False) for n in ("steps", "times", "values")),
    )
    last = op.create_table(
        "run_last", key("run"), key("name"), sa.Column("value", sa.Float(), nullable=False)
    )
    op.create_index("run_last_value", "run_last", ["name", "value"])
    given = op.create_table(
        "run_param",
        key("run"),
        key("name"),
        sa.Column("number", sa.Float(), nullable=True),
        sa.Column("text", sa.String(), nullable=False),
    )
    op.create_index("run_param_number", "run_param", ["name", "number"])
    op.create_index("run_param_text", "run_param", ["name", "text"])
    fill(last, given)


def fill(last: sa.Table, given: sa.Table) -> None:
    metrics, parameters = [], []
    for run, body in op.get_bind().execute(sa.text("SELECT id, body FROM run")):
        known = json.loads(body)
        metrics += [
            {"run": run, "name": name, "value": value}
            for name, value in known.get("metrics", {}).items()
        ]
        for name, value in known.get("parameters", {}).items():
            plain = isinstance(value, int | float) and not isinstance(value, bool)
            text = str(value).lower() if isinstance(value, bool) or value is None else str(value)
            number = float(value) if plain else None
            parameters.append({"run": run, "name": name, "number": number, "text": text[:200]})
    if metrics:
        op.bulk_insert(last, metrics)
    if parameters:
        op.bulk_insert(given, parameters)
