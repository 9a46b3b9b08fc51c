"""`falaj run` in its own process takes no way through the framework, and nobody can tell."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from falaj.doors.api import asked
from falaj.facts.access import ResourceKind

BODIES = {
    "as asked": {},
    "a parameter": {"parameters": {"slope": 1.0}},
    "of a run": {"parent": "latest"},
    "an unknown step": {"only": "nothing"},
    "an unknown pipeline": {"pipeline": "pipeline:nothing"},
    "an unknown parameter": {"parameters": {"height": 3}},
    "an unknown parent": {"parent": "01XXXXXXXX"},
}
OF_ONE_RUN = {"id", "started", "ended", "process", "cpu_s", "seconds", "at", "peak_mb", "parent"}


def still(value):
    """Without what differs from run to run."""
    if isinstance(value, dict):
        return {name: still(inner) for name, inner in value.items() if name not in OF_ONE_RUN}
    return [still(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("body", BODIES.values(), ids=list(BODIES))
@pytest.mark.parametrize("path", ["/runs", "/runs/explain"])
def test_both_ways_answer_the_same(embedded, path, body):
    if path == "/runs":
        embedded("POST", path, body)  # what both find is then the same
    heard = embedded("POST", path, body)
    status, content = asked.answer(embedded.works, None, "POST", path, json.dumps(body).encode())
    assert (status, still(json.loads(content))) == (heard.status, still(heard.json()))


@pytest.mark.parametrize("path", ["/runs", "/runs/explain"])
@pytest.mark.parametrize("name", ["zayed", "omar", "layla", "nobody"])
def test_both_ways_ask_for_the_same_permission(embedded, path, name):
    heard = embedded("POST", path, {}, headers={"falaj-as": name})
    before = refusals(embedded.works)
    status, content = asked.answer(embedded.works, name, "POST", path, b"{}")
    assert status == heard.status
    if status >= 400:
        assert json.loads(content) == heard.json()
    assert refusals(embedded.works) == before + (status == 403)
    if name == "zayed" and path == "/runs":
        assert status == 403


def refusals(works):
    works.ground.store.integrate()
    events = works.ground.store.events(limit=10_000)
    return sum(event.type == "access.denied" for _, event in events)


def test_what_the_table_says_is_what_the_routes_say(embedded):
    routes = {
        found.path: handler.opt
        for found in embedded.app.routes
        for handler in found.route_handlers
        if "POST" in handler.http_methods
    }
    for one in (asked.START_RUN, asked.EXPLAIN_RUN):
        assert routes[one.path] == {"needs": one.needs, "on": ResourceKind.PROJECT, "by": ""}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/runs", b""),
        ("POST", "/tokens", b'{"name": "owner"}'),
        ("POST", "/runs/", b"{}"),
        ("POST", "/runs", b"{"),
        ("POST", "/runs", b"\xff"),
        ("POST", "/runs", b"[" * 100_000),
        ("POST", "/runs", b'{"seed": "x"}'),
        ("POST", "/runs", b'{"unheard": 1}'),
    ],
)
def test_all_else_is_left_to_the_framework(embedded, method, path, body):
    assert asked.answer(embedded.works, None, method, path, body) is None


def test_a_run_loads_no_framework(workspace):
    code = (
        "import sys\nfrom falaj.doors.cli.main import answer\n"
        "sys.argv = ['falaj', 'run']\nassert answer() == 0\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules}), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=True)
    loaded = done.stderr.splitlines()[-1]
    for heavy in ("litestar", "httpx", "alembic", "sklearn"):
        assert f"'{heavy}'" not in loaded
