"""Each walk gets a copy of one prepared workspace: three releases, nothing live, a second person.

1.0.0 is the first one, 1.1.0 an equal one, 1.2.0 a harmful one that its gates cannot see.
"""

from __future__ import annotations

from pathlib import Path

import loans
import pytest
import walks


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("journey")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    root = loans.write_project(tmp_path_factory.mktemp("prepared") / "loans")
    by = walks.hands(root)
    by.owner.post("/identities", {"name": walks.READER, "roles": ["approver"]})
    walks.made(by, "1.0.0", month=1)
    walks.made(by, "1.1.0", month=2)
    walks.made(by, "1.2.0", swapped=True)
    by.works.close()
    return root


@pytest.fixture
def at(tmp_path):
    """Opens a project; its servers are stopped at the end."""
    opened = []

    def open_(root):
        opened.append(walks.hands(root))
        return opened[-1]

    yield open_
    for by in opened:
        by.works.ground.targets["local"].stop(loans.PLACE)
        by.works.close()


@pytest.fixture
def project(prepared, tmp_path, at):
    return at(walks.copied(prepared, tmp_path / "loans"))


@pytest.fixture
def live(project):
    """1.0.0 answers."""
    walks.turn(project, walks.start(project, "1.0.0"))
    return project


@pytest.fixture
def direct(prepared, tmp_path, at):
    """1.0.0 answers; what comes next switches at once, without a canary."""
    root = walks.copied(prepared, tmp_path / "loans")
    (root / "falaj.toml").write_text(
        loans.TOML.replace("steps_pct", 'strategy = "direct"\nsteps_pct')
    )
    by = at(root)
    walks.turn(by, walks.start(by, "1.0.0"))
    return by


@pytest.fixture
def processes(at):
    """Started processes; killed by their pid at the end, before the servers are stopped."""
    started = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
