"""Every route asks before it answers. What was declared in any other way stops the start."""

from __future__ import annotations

import inspect
import re

import litestar
import pytest
from litestar import Litestar, WebSocket

from falaj.doors.api import route
from falaj.facts.access import Action, ResourceKind, Role

READING = {Action.READ, Action.EXPORT_EVIDENCE}
FILL = {
    "change": "CHG-0001", "environment": "production", "verb": "pause", "model": "flight-delay",
    "release": "1.0.0", "report": "x", "form": "markdown", "run": "latest", "rollout": "RO-0001", "path": "x",
}  # fmt: skip


def declared(app):
    """(method, path, handler) of everything but the framework's OPTIONS."""
    for found in app.routes:
        for handler in found.route_handlers:
            for method in sorted(handler.http_methods):
                if method != "OPTIONS":
                    yield str(method), found.path, handler


def filled(path):
    return re.sub(r"\{(\w+):str\}", lambda found: FILL.get(found[1], "x"), path)


def test_every_route_says_what_it_needs(asking):
    found = list(declared(asking.app))
    assert len(found) > 25
    for method, path, handler in found:
        assert set(handler.opt) == {"needs", "on", "by"}, path
        assert isinstance(handler.opt["needs"], Action), path
        assert isinstance(handler.opt["on"], ResourceKind), path
        assert handler.resolve_guards(), path
        if method == "GET":
            assert handler.opt["needs"] in READING, f"{path} changes something on GET"


def test_every_route_asks_for_something_that_some_role_may(asking):
    """A route on a kind that its action has no policy for would be closed for everybody."""
    from datetime import UTC, datetime

    from falaj.access import engine
    from falaj.facts.access import Principal, Resource

    now = datetime(2026, 3, 1, tzinfo=UTC)
    some = {  # a log sees nothing, whatever else its account may
        action: Principal(
            name="o",
            person="p",
            roles=tuple(r for r in Role if (r is Role.LOG) == (action is Action.WITNESS_LOG)),
            created=now,
        )
        for action in Action
    }
    for _, path, handler in declared(asking.app):
        thing = Resource(kind=handler.opt["on"], id="x")
        assert engine.decide(
            some[handler.opt["needs"]], handler.opt["needs"], thing, now=now, rules=engine.bundle()
        ), path


def test_options_tells_the_methods_and_nothing_else(asking):
    every = {path for _, path, _ in declared(asking.app)}
    paths = {path for path in every if not path.startswith("/openapi.json")}
    for path in paths:
        heard = asking("OPTIONS", filled(path))
        assert heard.status == 204, path
        assert heard.body == b""
        methods = {m for m, p, _ in declared(asking.app) if p == path}
        told = {m.strip() for m in heard.headers["allow"].split(",")}
        assert "OPTIONS" in told
        assert told <= methods | {"OPTIONS"}


def plain(decorator, **how):
    """A handler made with the framework's own decorator."""

    def answer() -> str:
        return "open"

    return decorator("/x", **how)(answer)


ASKED = {"needs": Action.READ, "on": ResourceKind.PROJECT, "by": ""}


def socket_handler():
    @litestar.websocket("/x")
    async def talk(socket: WebSocket) -> None: ...

    return talk


def bare_handler():
    @litestar.asgi("/x")
    async def answer(scope: object, receive: object, send: object) -> None: ...

    return answer


def named_options():
    @litestar.get("/x", sync_to_thread=False)
    def options_handler() -> str:
        return "open"

    return options_handler


def own_options():
    @litestar.route("/x", http_method=["OPTIONS"], sync_to_thread=False)
    def options_handler() -> str:
        return "secret"

    return options_handler


def guarded(**opt):
    return plain(litestar.get, sync_to_thread=False, guards=[route.guard], opt={**ASKED, **opt})


OTHER_WAYS = {
    "no permission": lambda: plain(litestar.get, sync_to_thread=False),
    "a post without permission": lambda: plain(litestar.post, sync_to_thread=False),
    "a permission that nobody asks for": lambda: plain(
        litestar.get, sync_to_thread=False, opt=dict(ASKED)
    ),
    "a misspelt option": lambda: guarded(need=Action.READ),
    "a permission in words": lambda: guarded(needs="read"),
    "a kind in words": lambda: guarded(on="Project"),
    "a resource that the path does not name": lambda: guarded(by="change"),
    "called like the framework's own": named_options,
    "an own answer to OPTIONS": own_options,
    "a web socket": socket_handler,
    "bare ASGI": bare_handler,
}


@pytest.mark.parametrize("handler", OTHER_WAYS.values(), ids=OTHER_WAYS)
def test_a_route_made_in_another_way_stops_the_start(handler):
    app = Litestar([handler()], openapi_config=None)
    with pytest.raises(RuntimeError, match="does not say what it needs"):
        route.refuse_open_routes(app)


def test_a_route_made_in_our_way_starts():
    @route.get("/x", needs=Action.READ, on=ResourceKind.PROJECT)
    def answer() -> str:
        return "asked first"

    route.refuse_open_routes(Litestar([answer], openapi_config=None))


def test_needs_and_on_have_no_default():
    for declare in (route.get, route.post):
        found = inspect.signature(declare).parameters
        assert found["needs"].default is found["on"].default is inspect.Parameter.empty


def test_without_a_token_nothing_answers(asking):
    for method, path, _ in declared(asking.app):
        heard = asking(method, filled(path), {})
        assert heard.status == 401, path
        assert heard.json()["code"] == "access.no-token"
        assert heard.headers["www-authenticate"] == "Bearer"


LOOKS_LOCAL = {
    "from this machine, it says": {"x-forwarded-for": "127.0.0.1", "host": "127.0.0.1"},
    "as the owner, it says": {"falaj-as": "owner"},
    "with a password": {"authorization": "Basic b3duZXI6"},
    "with an empty token": {"authorization": "Bearer "},
    "with a token that is none": {"authorization": "Bearer a.b.c"},
    "with a cookie": {"cookie": "falaj=owner; __Host-falaj=owner"},
}


@pytest.mark.parametrize("headers", LOOKS_LOCAL.values(), ids=LOOKS_LOCAL)
def test_a_server_believes_tokens_alone(asking, headers):
    heard = asking("GET", "/status", headers=headers)
    assert heard.status == 401
    assert heard.json()["exit"] == 6


CROSS_SITE = {
    "a form": {"content-type": "application/x-www-form-urlencoded"},
    "a form that looks like JSON": {"content-type": "text/plain"},
    "a script": {"content-type": "application/json"},
}


@pytest.mark.parametrize("headers", CROSS_SITE.values(), ids=CROSS_SITE)
def test_a_page_of_others_can_post_nothing(asking, headers):
    """No cookie is ever read, so there is nothing that a browser could lend to another site."""
    headers = {
        **headers, "origin": "https://evil.example", "sec-fetch-site": "cross-site",
        "cookie": "falaj=1",
    }  # fmt: skip
    body = {"name": "mallory", "roles": ["owner"]}
    heard = asking("POST", "/identities", body, headers=headers)
    assert heard.status == 401
    assert "access-control-allow-origin" not in heard.headers
    preflight = asking("OPTIONS", "/identities", headers=headers)
    assert "access-control-allow-origin" not in preflight.headers


def test_a_viewer_changes_nothing(asking):
    before = asking("GET", "/changes", by="owner").json()
    asked = 0
    for method, path, handler in declared(asking.app):
        if handler.opt["needs"] is Action.READ:
            continue
        heard = asking(method, filled(path), {}, by="zayed")
        assert heard.status == 403, path
        assert heard.json()["code"] == "access.denied"
        asked += 1
    assert asked >= 12
    assert asking("GET", "/changes", by="owner").json() == before
    events = asking("GET", "/events", by="owner", query="limit=1000").json()["events"]
    assert sum(e["type"] == "falaj.access.denied" for e in events) >= asked


def test_a_viewer_reads_everything(asking):
    for method, path, handler in declared(asking.app):
        if method == "GET" and handler.opt["needs"] is Action.READ:
            assert asking(method, filled(path), by="zayed").status in (200, 400, 404), path


def test_the_author_may_not_approve_under_any_account(asking):
    for account in ("owner", "owner-2"):
        heard = asking("POST", "/changes/CHG-0001/approve", {"comment": "fine"}, by=account)
        assert heard.status == 403
        assert heard.json()["code"] == "access.four-eyes"


def test_an_owner_from_afar_makes_tokens_for_the_own_person_only(asking):
    own = asking("POST", "/tokens", {"name": "owner"}, by="owner")
    assert own.status == 201
    headers = {"authorization": f"Bearer {own.json()['token']}"}
    assert asking("GET", "/status", headers=headers).status == 200
    assert asking("POST", "/tokens", {"name": "owner-2"}, by="owner").status == 201
    other = asking("POST", "/tokens", {"name": "layla"}, by="owner")
    assert other.status == 403
    assert other.json()["code"] == "access.token-of-another"
    unknown = asking("POST", "/tokens", {"name": "nobody"}, by="owner")
    assert unknown.json()["code"] == "access.unknown-identity"


def test_in_the_owners_own_process_no_token_is_needed(embedded):
    assert embedded("GET", "/status").status == 200
    assert embedded("POST", "/tokens", {"name": "layla"}).status == 201
    denied = embedded("POST", "/runs", {}, headers={"falaj-as": "zayed"})
    assert denied.json()["code"] == "access.denied"
    nobody = embedded("GET", "/status", headers={"falaj-as": "nobody"})
    assert (nobody.status, nobody.json()["code"]) == (401, "access.unknown-identity")
    forged = embedded("GET", "/status", headers={"authorization": "Bearer x"})
    assert forged.status == 401, "a token that does not hold is refused, also here"


def test_the_openapi_document_knows_every_route_and_no_address(asking):
    assert asking("GET", "/openapi.json").status == 401
    heard = asking("GET", "/openapi.json", by="zayed")
    assert heard.status == 200
    document = heard.json()
    listed = {
        (method.upper(), path) for path, verbs in document["paths"].items() for method in verbs
    }
    wanted = {
        (method, path.replace(":str", ""))
        for method, path, _ in declared(asking.app)
        if not path.startswith("/openapi.json")
    }
    assert listed == wanted
    names = [verb["operationId"] for verbs in document["paths"].values() for verb in verbs.values()]
    assert len(names) == len(set(names))
    assert {"show_status", "approve", "start_rollout"} <= set(names)
    assert b"http://" not in heard.body
    assert b"https://" not in heard.body


@pytest.mark.parametrize("path", ["/", "/schema", "/schema/swagger", "/docs", "/redoc", "/swagger"])
def test_there_is_no_page_that_could_load_something(asking, path):
    assert asking("GET", path, by="owner").status == 404
