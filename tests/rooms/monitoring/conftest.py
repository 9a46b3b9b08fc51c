"""A reference of three columns, log rows like those of a server, and a ground on a real store."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from falaj.facts.monitoring import MonitorState
from falaj.facts.project import (
    DriftTable,
    LabelsTable,
    ModelTable,
    MonitorsTable,
    Project,
    ProjectTable,
)
from falaj.links.sql.store import SqlStore
from falaj.monitoring import reference
from falaj.ports.ground import Ground

START = datetime(2013, 4, 1, tzinfo=UTC)
NOW = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Bench:
    """What the tests of this room share."""

    start, now, hour = START, NOW, HOUR
    names = ("delay", "wind", "month")

    @staticmethod
    def columns(n, seed=0, shift=0.0):
        """Values of n rows without missing ones; shift moves `wind` by so many deviations."""
        rng = np.random.default_rng(seed)
        return {
            "delay": np.round(rng.exponential(20, n)),
            "wind": rng.normal(shift, 1, n),
            "month": np.full(n, 4.0),
            "score": rng.beta(2, 5, n),
        }

    @classmethod
    def frozen(cls, n=20_000, seed=99):
        return reference.freeze(cls.columns(n, seed), np.arange(n) * 12 // n)

    @staticmethod
    def row(x, minutes=0.0, *, score=0.3, **more):
        """One log row about a time `minutes` after the start."""
        row = {
            "at": NOW,
            "request": "b-0-1",
            "row": 0,
            "model": "delay",
            "release": "sha256:live",
            "assigned": "stable",
            "arm": "stable",
            "outcome": "ok",
            "latency_us": 900,
            "stratum": 7,
            "step": 0,
            "rollout": "",
            "event_time": START + timedelta(minutes=minutes),
            "x": list(x),
            "y": [score],
            "score": score,
        }
        return row | more

    @classmethod
    def rows(cls, n, seed=0, *, shift=0.0, minutes=60.0, after=0.0, **more):
        """Rows of n answers, evenly spread over `minutes` behind `after`."""
        told = cls.columns(n, seed, shift)
        x = np.stack([told[name] for name in cls.names], axis=1).tolist()
        return [
            cls.row(one, after + minutes * i / n, score=float(told["score"][i]), **more)
            for i, one in enumerate(x)
        ]

    @staticmethod
    def state(monitor="drift", release="sha256:live"):
        return MonitorState(id=f"production/delay/{monitor}", release=release)


def project(**monitors):
    return Project(
        project=ProjectTable(name="flights", region="ae"),
        model=ModelTable(name="delay", pipeline="pipeline:delay", task="binary-classification"),
        monitors=MonitorsTable(**monitors),
    )


@pytest.fixture(scope="session")
def bench():
    return Bench


@pytest.fixture(scope="session")
def frozen():
    return Bench.frozen()


@pytest.fixture
def make_ground(tmp_path):
    """A ground of which a monitor asks the store, the project and the clock, nothing else."""
    stores = []

    def make(now=lambda: NOW, **monitors):
        monitors = monitors or {
            "drift": DriftTable(window="1h"),
            "labels": LabelsTable(window="1h", max_wrong=0.2, min_rows=100),
        }
        store = SqlStore.open(tmp_path / "store.db")
        stores.append(store)
        rest = dict.fromkeys(field.name for field in fields(Ground))
        return Ground(**(rest | {"store": store, "project": project(**monitors), "now": now}))

    yield make
    for store in stores:
        store.close()
