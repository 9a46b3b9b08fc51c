"""Alembic's entry: works on the connection that connect.migrate hands over."""

from __future__ import annotations

from alembic import context

from falaj.links.sql.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=False,  # the caller's transaction covers the whole upgrade
)
context.run_migrations()
