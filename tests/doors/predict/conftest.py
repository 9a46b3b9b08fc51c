from __future__ import annotations

import pytest
from servers import House


@pytest.fixture
def house(tmp_path):
    made = House(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A house whose one release is served, for questions that change nothing."""
    made = House(tmp_path_factory.mktemp("running"))
    release = made.release("1")
    made.apply(release)
    client = made.start()
    client.release = release
    client.house = made
    yield client
    client.close()
    made.close()
