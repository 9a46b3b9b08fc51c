from __future__ import annotations

import shutil
from datetime import UTC, datetime

import pytest
from typing_hands import run_here

from falaj.app import Works
from falaj.facts.events import Event
from falaj.facts.monitoring import Alert, AlertState, FeatureDrift, Window

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def stop_servers(root):
    """Servers outlive the command that started them; a test's end is theirs."""
    works = Works.open(root)
    try:
        for environment in works.ground.project.environments:
            works.ground.targets["local"].stop(environment)
    finally:
        works.close()


@pytest.fixture
def living(workspace):
    """A copy of the project whose servers are ended with the test."""
    yield workspace
    stop_servers(workspace)


@pytest.fixture(scope="module")
def live(prepared, tmp_path_factory, request):
    """1.0.0 is approved and answers; one window of a monitor is closed, one alert is open."""
    root = shutil.copytree(prepared, tmp_path_factory.mktemp("live") / "project")
    request.addfinalizer(lambda: stop_servers(root))  # also when the next lines fail
    for line in (
        ("--as", "layla", "approve", "CHG-0001", "-m", "read it"),
        ("rollout", "start", "CHG-0001", "--watch"),
        ("run", "-p", "slope=1.5"),
    ):
        done = run_here(root, *line)
        assert done.code == 0, done.err
    works = Works.open(root)
    with works.ground.store.begin() as unit:
        unit.add(
            Window(
                id="W-1", monitor="drift", environment="production", model="flight-delay",
                release="sha256:0", opens=AT, closes=AT, rows=900, at=AT,
                features=(
                    FeatureDrift(
                        feature="a", psi=0.4, psi_null=0.02, psi_limit=0.2, p=0.001, ks=0.3,
                        violated=True,
                    ),
                ),
            )
        )  # fmt: skip
        unit.add(
            Alert(
                id="A-1", kind="drift", environment="production", model="flight-delay",
                release="sha256:0", state=AlertState.OPEN, title="a has moved",
                reasons=("psi 0.4, limit 0.2",), windows=("W-1",), at=AT,
            )
        )  # fmt: skip
        unit.append(
            Event(
                id="01TEST", at=AT, project="small", type="alert.raised", actor="worker:test",
                subject="alert/A-1", data={},
            )
        )  # fmt: skip
    works.close()
    return root
