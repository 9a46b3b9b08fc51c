"""The port Tasks over a Ray cluster: see inside_ray_score.py, which runs in Ray's environment."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import closed
import pytest

import parts
from falaj.base.errors import FalajError
from falaj.links.ray.parts import RayTasks

HERE = Path(__file__).parent


def test_parts_are_the_same_on_a_cluster_of_two_nodes():
    """In a network of its own: Ray listens on the addresses of its host."""
    python = parts.environment("ray") / "python"
    if why := closed.forbidden():
        parts.absent("ray", f"no network of its own can be made here: {why}")
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PYTHON", "PYTEST"))
    }
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        done = closed.run(
            [
                python, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-p", "no:xdist",
                f"--basetemp={folder}/t", HERE / "inside_ray_score.py",
            ],
            count_in=Path(folder), within_s=600, cwd=HERE.parents[1], env=environment,
        )  # fmt: skip
    assert done.code == 0, done.text[max(done.text.find("= FAILURES ="), 0) :][:12_000]
    assert "4 passed" in done.text


def test_without_a_token_nothing_is_sent(tmp_path):
    tasks = RayTasks(address="127.0.0.1:9", token_file=tmp_path / "none", entry="none:none")
    with pytest.raises(FalajError) as refused:
        list(tasks.run([]))
    assert refused.value.code in ("pipelines.cluster-token", "pipelines.extra-missing")
