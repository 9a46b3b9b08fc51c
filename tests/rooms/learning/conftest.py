"""A ground on a real store: this room asks it for the store, the project's name and the clock."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime

import pytest

from falaj.facts.project import ModelTable, Project, ProjectTable
from falaj.links.sql.store import SqlStore
from falaj.ports.ground import Ground

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def ground(tmp_path):
    store = SqlStore.open(tmp_path / "store.db")
    project = Project(
        project=ProjectTable(name="flights", region="ae"),
        model=ModelTable(name="delay", pipeline="pipeline:delay", task="binary-classification"),
    )
    rest = dict.fromkeys(field.name for field in fields(Ground))
    yield Ground(**(rest | {"store": store, "project": project, "now": lambda: NOW}))
    store.close()
