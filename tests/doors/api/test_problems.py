"""Whatever goes wrong is an RFC 9457 problem with a code that the docs explain."""

from __future__ import annotations

import inspect
import re
from types import SimpleNamespace

import msgspec
import pytest

from falaj.base.errors import Exit
from falaj.doors.api import problems
from falaj.doors.api import route as route_module
from falaj.doors.cli.codes import explanations

MEMBERS = {
    "type", "title", "status", "exit", "detail", "code", "why", "fix", "place", "errors",
}  # fmt: skip


def problem(heard, status, code):
    assert heard.status == status, heard.body
    assert heard.headers["content-type"].startswith("application/problem+json")
    told = heard.json()
    assert set(told) == MEMBERS
    assert told["status"] == status
    assert told["code"] == code
    assert told["type"] == f"/problems/{code}"
    assert told["detail"]
    assert told["errors"][0]["code"] == code
    assert code in explanations()
    return told


PLACES = {
    "no such route": ("GET", "/nothing", 404, "api.no-such-route"),
    "a route below a thing": ("GET", "/changes/CHG-0001/secrets", 404, "api.no-such-route"),
    "another method": ("DELETE", "/changes/CHG-0001", 405, "api.method-not-allowed"),
    "a method of its own": ("PURGE", "/status", 405, "api.method-not-allowed"),
    "no such change": ("GET", "/changes/CHG-9999", 404, "store.no-change"),
    "no such run": ("GET", "/runs/nothing", 404, "runs.unknown"),
    "no such release": ("GET", "/releases/9.9.9", 404, "releases.unknown"),
    "no such rollout": ("GET", "/rollouts/RO-9999", 404, "store.no-rollout"),
    "no such report": ("GET", "/gates/x", 404, "store.no-gate-report"),
    "no such environment": ("GET", "/environments/moon/servers", 400, "config.no-environment"),
    "nothing live": ("GET", "/models/flight-delay/live?environment=production", 404, "rollouts.nothing-live"),
    "no time": ("GET", "/models/flight-delay/live?environment=production&at=soon", 400, "api.bad-time"),
    "a parameter is missing": ("GET", "/models/flight-delay/live", 400, "api.bad-request"),
    "a number that is none": ("GET", "/runs?limit=many", 400, "api.bad-request"),
    "fewer than none": ("GET", "/runs?limit=-1", 400, "api.bad-request"),
    "none at all": ("GET", "/events?limit=0", 400, "api.bad-request"),
    "a number beyond all": ("GET", f"/runs?limit={'9' * 5000}", 400, "api.bad-request"),
    "a name with a steering sign": ("GET", "/changes/\x1b[2J", 404, "store.no-change"),
    "a way up": ("GET", "/changes/../../etc/passwd", 404, "api.no-such-route"),
}  # fmt: skip


@pytest.mark.parametrize(("method", "address", "status", "code"), PLACES.values(), ids=PLACES)
def test_what_is_not_there(asking, method, address, status, code):
    path, _, query = address.partition("?")
    problem(asking(method, path, by="owner", query=query), status, code)


def test_more_than_a_thousand_is_a_thousand(asking):
    assert asking("GET", "/runs", by="owner", query="limit=999999").status == 200


BODIES = {
    "an unknown field": b'{"surprise": 1}',
    "a list": b"[]",
    "a text": b'"x"',
    "null": b"null",
    "no JSON": b"{",
    "two documents": b"{}{}",
    "a constant that is none": b'{"reason": NaN}',
    "bytes that are no text": b'{"reason": "\xff\xfe"}',
    "half a sign": b'{"reason": "\\ud800"}',
    "a deep well": b"[" * 100_000,
    "a deep well of objects": b'{"parameters":' * 50_000,
    "the wrong types": (
        b'{"name": 1, "roles": 1, "run": 1, "release": 1, "comment": 1, "why": 1, "pipeline": 1, "check": 1}'
    ),
}
FILL = {"change": "CHG-0001", "environment": "production", "verb": "pause"}


def taking(app):
    """Each route that reads a body: its path, and the kind that the body has to be."""
    for route in app.routes:
        for handler in route.route_handlers:
            function = route_module.unwrapped(handler.fn)
            if "data" in inspect.signature(function).parameters:
                kind = inspect.get_annotations(function, eval_str=True)["data"]
                name = re.sub(r"\{(\w+):str\}", lambda found: FILL.get(found[1], "x"), route.path)
                yield name, kind


def test_every_body_refuses_fields_that_nobody_knows(asking):
    found = dict(taking(asking.app))
    assert len(found) > 10
    for path, kind in found.items():
        assert issubclass(kind, msgspec.Struct), path
        assert kind.__struct_config__.forbid_unknown_fields, path


def allowed(asking, path, raw):
    """By the first identity that may."""
    for by in ("owner", "layla", "noor"):
        heard = asking("POST", path, raw=raw, by=by)
        if heard.status != 403:
            return heard
    raise AssertionError(f"nobody may {path}")


@pytest.mark.parametrize("raw", BODIES.values(), ids=BODIES)
def test_a_hostile_body_is_refused(asking, raw):
    for path, _ in taking(asking.app):
        told = problem(allowed(asking, path, raw), 400, "api.bad-request")
        assert len(told["detail"]) < 2000


def test_a_huge_body_is_refused(asking):
    raw = b'{"reason": "' + b"x" * 11_000_000 + b'"}'
    told = problem(
        asking("POST", "/environments/production/changes", raw=raw, by="owner"), 413, "api.refused"
    )
    assert told["exit"] == Exit.USAGE


NAMES = {
    "a role that is none": {"name": "eve", "roles": ["king"]},
    "no roles": {"name": "eve"},
    "roles as one word": {"name": "eve", "roles": "owner"},
    "an unknown person": {"name": "eve", "roles": ["viewer"], "person": "nobody"},
    "a name out of range": {"name": "../eve", "roles": ["viewer"]},
    "a name that is taken": {"name": "layla", "roles": ["owner"]},
    "a key of the workspace": {"name": "release-signer", "roles": ["owner"]},
}


@pytest.mark.parametrize("body", NAMES.values(), ids=NAMES)
def test_identities_are_made_whole_or_not_at_all(asking, body):
    before = asking("GET", "/identities", by="owner").json()
    heard = asking("POST", "/identities", body, by="owner")
    assert 400 <= heard.status < 500
    assert asking("GET", "/identities", by="owner").json() == before


@pytest.mark.parametrize("lifetime", ["", "soon", "0s", "13h", "-1m", "1e9d", "9" * 400 + "d"])
def test_the_life_of_a_token_has_bounds(asking, lifetime):
    heard = asking("POST", "/tokens", {"name": "owner", "lifetime": lifetime}, by="owner")
    assert heard.status == 400
    assert heard.json()["code"] in ("api.bad-time", "access.token-lifetime")


def test_what_was_shown_is_what_is_signed(asking):
    heard = asking(
        "POST",
        "/changes/CHG-0001/approve",
        {"comment": "fine", "shown_evidence": "sha256:" + "0" * 64},
        by="layla",
    )
    problem(heard, 409, "changes.evidence-changed")


def test_a_release_that_vanished_is_told_without_the_place(asking):
    folder = asking.works.ground.state / "releases" / "flight-delay"
    moved = folder.with_name("moved")
    folder.rename(moved)
    try:
        heard = asking("GET", "/releases/1.0.0", by="owner")
    finally:
        moved.rename(folder)
    assert heard.status == 422
    assert heard.json()["exit"] == Exit.UNVERIFIED
    assert str(folder) not in heard.body.decode()


def test_what_nobody_foresaw_is_logged_whole_and_told_without_details(asking, caplog):
    state = SimpleNamespace(embedded=False)
    request = SimpleNamespace(
        app=SimpleNamespace(state=state), method="GET", url=SimpleNamespace(path="/x")
    )
    answer = problems.surprise(request, ValueError("the password is hunter2"))
    assert answer.status_code == 500
    assert answer.content["code"] == "api.internal"
    assert answer.content["exit"] == Exit.INTERNAL
    assert "hunter2" not in str(answer.content)
    assert "hunter2" in caplog.text
    state.embedded = True
    with pytest.raises(ValueError, match="hunter2"):
        problems.surprise(request, ValueError("hunter2"))
