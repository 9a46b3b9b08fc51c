"""Run by test_score_tasks.py in the environment of the part `ray`, inside a closed network: parts of a
batch job on two nodes of a real cluster are, byte by byte, those of one process."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path[:0] = [str(Path(__file__).parents[1] / "parts")]

import servers  # noqa: E402 it lies where the line before has just put it
from ray_cluster import Cluster  # noqa: E402 same

from falaj.base.errors import FalajError, GateFailed  # noqa: E402 same
from falaj.journeys.score import Asked, score  # noqa: E402 same
from falaj.links.arrow.formats import ArrowFormats  # noqa: E402 same
from falaj.links.ray.parts import RayTasks  # noqa: E402 same

ENTRY = "falaj.doors.worker.scoring:piece"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    made = Cluster(tmp_path_factory.mktemp("c"))
    for name, cores in (("head", 1), ("b", 1)):
        done = made.start(name, cores)
        assert done.returncode == 0, done.stdout + done.stderr
    yield made
    made.end()


@pytest.fixture(scope="session")
def house(tmp_path_factory):
    made = servers.House(tmp_path_factory.mktemp("house"))
    made.one = made.release("1")
    return made


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    draw = np.random.default_rng(2)
    n = 4000
    rows = pa.table(
        {
            "id": np.arange(n),
            "dep_delay": draw.normal(20, 30, n),
            "distance": np.where(np.arange(n) == 1234, -1, draw.integers(50, 5000, n)),
            "hour": draw.integers(0, 24, n),
        }
    )
    path = tmp_path_factory.mktemp("in") / "in.parquet"
    pq.write_table(rows, path, row_group_size=200)
    return path


def asked(house, table, out, **more):
    more = {"max_rejected": 1, **more}
    return Asked(
        folder=house.one.folder, trust=house.ring.trust_text(), input=str(table), output=out,
        keep=("id",), rows=200, **more,
    )  # fmt: skip


def on_ray(cluster):
    return RayTasks(address=cluster.address, token_file=cluster.token_file, entry=ENTRY)


def test_two_nodes_make_what_one_process_makes(cluster, house, table, tmp_path):
    here = score(asked(house, table, tmp_path / "here"), ArrowFormats())
    seen = []
    there = score(
        asked(house, table, tmp_path / "there"),
        ArrowFormats(),
        tasks=on_ray(cluster),
        tell=lambda *numbers: seen.append(numbers),
    )
    assert there == here
    assert (there.rows, there.rejected, there.parts) == (3999, 1, 20)
    assert seen[-1] == (20, 20, 4000, 4000)


def test_too_many_bad_rows_end_it_there_too(cluster, house, table, tmp_path):
    with pytest.raises(GateFailed):
        score(
            asked(house, table, tmp_path / "out", max_rejected=0),
            ArrowFormats(),
            tasks=on_ray(cluster),
        )
    job = score(asked(house, table, tmp_path / "out"), ArrowFormats(), tasks=on_ray(cluster))
    assert job == score(asked(house, table, tmp_path / "here"), ArrowFormats())


def test_what_a_node_refuses_is_said_as_it_would_be_here(cluster, house, table, tmp_path):
    """The input changes between the look at it and the work on it."""
    copy = tmp_path / "in.parquet"
    copy.write_bytes(table.read_bytes())

    class Late(ArrowFormats):
        def source(self, address):
            found = super().source(address)
            pieces = found.pieces

            def then(rows):
                made = pieces(rows)
                os.utime(copy, ns=(1, 1))
                return made

            found.pieces = then
            return found

    with pytest.raises(FalajError) as refused:
        score(asked(house, copy, tmp_path / "out"), Late(), tasks=on_ray(cluster))
    assert refused.value.code == "score.input-changed"


def test_a_node_that_dies_costs_nothing_but_time(cluster, house, table, tmp_path):
    killed = threading.Event()

    def kill(done, *_):
        if done == 3 and not killed.is_set():
            killed.set()
            cluster.kill("b")

    begun = time.monotonic()
    job = score(
        asked(house, table, tmp_path / "out"), ArrowFormats(), tasks=on_ray(cluster), tell=kill
    )
    print(f"with a node lost: {time.monotonic() - begun:.1f} s")
    assert killed.is_set()
    assert job == score(asked(house, table, tmp_path / "here"), ArrowFormats())
