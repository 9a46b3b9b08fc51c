"""The port Executor on the nodes of a Ray cluster: see inside_ray.py, which runs in Ray's environment.

What is refused without Ray, here.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import closed
import pytest
from small_project import write_project

import parts
from falaj.base.errors import FalajError
from falaj.links.files.project import read_project
from falaj.links.ray.executor import RayExecutor
from falaj.ports.executor import Order

HERE = Path(__file__).parent
PROJECT = """
[project]
name = "small"
region = "ae"
[model]
name = "small"
pipeline = "pipeline:main"
task = "binary-classification"
[pipelines]
executor = "ray"
"""
ORDER = Order(
    run="r", root="/", roots=(), pipeline="p:main", parameters={}, call="a", id="a", attempt=1, seed=1
)  # fmt: skip


def test_the_promises_hold_on_a_cluster_of_two_nodes():
    """In a network of its own: Ray listens on the addresses of its host, and talks."""
    python = parts.environment("ray") / "python"
    if why := closed.forbidden():
        parts.absent("ray", f"no network of its own can be made here: {why}")
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PYTHON", "PYTEST"))
    }
    # Its sockets have paths of at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        done = closed.run(
            [
                python, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-p", "no:xdist",
                f"--basetemp={folder}/t", HERE / "inside_ray.py",
            ],
            count_in=Path(folder), within_s=1200, cwd=HERE.parents[1], env=environment,
        )  # fmt: skip
    print(done.text[-20_000:])
    assert done.code == 0, done.text[max(done.text.find("= FAILURES ="), 0) :][:12_000]
    assert " passed" in done.text
    assert "skipped" not in done.text


@pytest.fixture
def token(tmp_path):
    file = tmp_path / "token"
    file.write_text("0" * 64)
    return file


def refused(address, token_file, tmp_path):
    executor = RayExecutor(
        address=address, token_file=token_file, entry="none:none", state=tmp_path, expects=dict
    )
    with pytest.raises(FalajError) as found:
        executor.run(ORDER)
    executor.close()
    assert not list(tmp_path.glob("nodes-*"))
    return found.value


def test_without_ray_the_cure_is_named(tmp_path, token, monkeypatch):
    assert importlib.util.find_spec("ray") is None, "Ray belongs into an environment of its own"
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, "")  # put back afterwards
    with socket.create_server(("127.0.0.1", 0)) as head:
        error = refused(f"127.0.0.1:{head.getsockname()[1]}", token, tmp_path)
    assert error.code == "pipelines.extra-missing"
    assert error.problems[0].fix == "pip install 'falaj[ray]'"


@pytest.mark.parametrize("content", [None, "", " \n"], ids=["absent", "empty", "blank"])
def test_no_token_is_refused_before_anything_is_sent(tmp_path, content):
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    with socket.create_server(("127.0.0.1", 0)) as head:
        head.settimeout(0.2)
        error = refused(f"127.0.0.1:{head.getsockname()[1]}", file, tmp_path)
        with pytest.raises(TimeoutError):
            head.accept()
    assert error.code == "pipelines.cluster-token"


def test_an_executor_that_was_never_used_closes_without_ray(tmp_path, token):
    executor = RayExecutor(
        address="127.0.0.1:9", token_file=token, entry="none:none", state=tmp_path, expects=dict
    )
    executor.close()
    executor.close()
    assert executor.run(ORDER).message == "the run was ended"


LINK = """
[links.ray]
address = "ray.example.org:6379"
region = "ae"
token_file = "token"
"""
WRONG = {  # what follows the project's table -> what is told
    "no cluster": ("", "ray needs [links.ray]"),
    "no port": (LINK.replace(":6379", ""), "host:port"),
    "an address of the web": (LINK.replace('"ray.', '"https://ray.'), "host:port"),
    "no region": (LINK.replace('region = "ae"\n', ""), "region"),
    "no token": (LINK.replace('token_file = "token"\n', ""), "token_file"),
    "the token itself": (LINK + 'token = "secret"\n', "token"),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG)
def test_settings_that_cannot_be_meant_are_refused(tmp_path, text, words):
    (tmp_path / "falaj.toml").write_text(PROJECT + text)
    with pytest.raises(FalajError) as found:
        read_project(tmp_path / "falaj.toml")
    assert words in str(found.value.problems)


def test_good_settings_are_read(tmp_path):
    (tmp_path / "falaj.toml").write_text(PROJECT + LINK)
    table = read_project(tmp_path / "falaj.toml").links.ray
    assert table is not None
    assert (table.address, table.region, table.token_file) == (
        "ray.example.org:6379", "ae", "token",
    )  # fmt: skip


ALLOWED = {  # countries of the dataset, region of the cluster -> refused
    "where the project is": ("", "ae", False),
    "a part of the country": ("", "ae-az", False),
    "where the project is not": ("", "eu", True),
    "named by the dataset": ('countries = ["AE", "EU"]', "eu", False),
    "not named by the dataset": ('countries = ["AE"]', "us", True),
}


@pytest.mark.parametrize(("countries", "region", "is_refused"), ALLOWED.values(), ids=ALLOWED)
def test_data_is_not_worked_on_where_it_may_not_be(tmp_path, countries, region, is_refused):
    """Said before the cluster is asked for anything: there is none, and no token."""
    write_project(tmp_path)
    file = tmp_path / "falaj.toml"
    text = file.read_text().replace('name = "rows"\n', f'name = "rows"\n{countries}\n', 1)
    ray = LINK.replace('"ae"', f'"{region}"')
    file.write_text(f'{text}\n[pipelines]\nexecutor = "ray"\n{ray}')
    done = subprocess.run(
        [sys.executable, "-m", "falaj", "run"], cwd=tmp_path, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert ("pipelines.not-allowed-there" in done.stderr) == is_refused, done.stderr
    assert ("pipelines.cluster-token" in done.stderr) != is_refused, done.stderr
