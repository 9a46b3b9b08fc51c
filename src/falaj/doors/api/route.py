"""Routes that carry their permission: what is asked, on which thing, is part of the declaration.

There is no default. `refuse_open_routes` runs at start-up and stops the application when a handler
was made any other way, so that a forgotten permission can never be an open door.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Final

from litestar import HttpMethod, Litestar
from litestar.connection import ASGIConnection, Request
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.params import Parameter

from falaj.access.service import OWNER, NotSignedIn
from falaj.facts.access import Action, Permit, Principal, Resource, ResourceKind

if TYPE_CHECKING:
    from falaj.app import Works

__all__ = ["Limit", "get", "permit_of", "post", "principal_of", "refuse_open_routes"]

MOST_BYTES: Final = 10_000_000  # the framework's own limit
KEYS: Final = frozenset({"needs", "on", "by"})
# What must not be done unseen.
COVERED: Final = frozenset(
    {
        Action.APPROVE,
        Action.REJECT,
        Action.WAIVE,
        Action.START_ROLLOUT,
        Action.STEER_ROLLOUT,
        Action.ROLL_BACK,
        Action.MANAGE_ACCESS,
        Action.RETRACT,
        Action.REVIEW,
        Action.PREAPPROVE,
    }
)
# How many at most; one below zero would mean "all" to the store.
Limit = Annotated[int, Parameter(ge=1)]


def get(path: str, *, needs: Action, on: ResourceKind, by: str = "") -> Callable[..., Any]:
    """A reading route. by: the path parameter that names the resource; empty: the project."""
    return declared(HttpMethod.GET, path, needs, on, by, 200)


def post(
    path: str,
    *,
    needs: Action,
    on: ResourceKind,
    by: str = "",
    status: int = 200,
    most_bytes: int = MOST_BYTES,
) -> Callable[..., Any]:
    """A route that changes something. most_bytes: of the request's body."""
    return declared(HttpMethod.POST, path, needs, on, by, status, most_bytes)


def declared(
    method: HttpMethod,
    path: str,
    needs: Action,
    on: ResourceKind,
    by: str,
    status: int,
    most_bytes: int = MOST_BYTES,
) -> Callable[..., Any]:
    def handler(function: Callable[..., Any]) -> HTTPRouteHandler:
        if needs in COVERED:
            function = covered(function)
        return HTTPRouteHandler(
            path,
            http_method=method,
            status_code=status,
            guards=[guard],
            opt={"needs": needs, "on": on, "by": by},
            sync_to_thread=True,
            request_max_body_size=most_bytes,
            operation_id=function.__name__,
            summary=(function.__doc__ or function.__name__.replace("_", " ")).partition("\n")[0],
        )(function)

    return handler


def covered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Answer only when a signed checkpoint covers what was done.

    The log is asked before, too: when it cannot go on, nothing is done that needs it.
    """

    @wraps(function)
    def handler(*args: Any, works: Works, **words: Any) -> Any:
        works.log.cover()
        answer = function(*args, works=works, **words)
        works.log.cover()
        return answer

    return handler


def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Who is asking, and may they? Leaves the permit for the handler; raises otherwise."""
    works = connection.app.state.works
    principal = signed_in(connection)
    on: ResourceKind = handler.opt["on"]
    by: str = handler.opt["by"]
    resource = (
        works.resource(on, str(connection.path_params[by]))
        if by
        else Resource(kind=on, id=works.ground.name)
    )
    permit = works.access.permit(principal, handler.opt["needs"], resource)
    connection.scope["falaj.permit"] = permit  # type: ignore[typeddict-unknown-key]
    connection.scope["falaj.principal"] = principal  # type: ignore[typeddict-unknown-key]


def signed_in(connection: ASGIConnection[Any, Any, Any, Any]) -> Principal:
    access = connection.app.state.works.access
    header = connection.headers.get("authorization", "")
    if header:
        kind, _, token = header.partition(" ")
        if kind.lower() != "bearer":
            raise NotSignedIn("access.bad-token", f"got {kind!r}, expected a bearer token")
        found: Principal = access.bearer(token.strip())
        return found
    if connection.app.state.embedded:
        # In the process of the local owner: the operating system has already asked who it is.
        local: Principal = access.principal(connection.headers.get("falaj-as", OWNER))
        return local
    raise NotSignedIn(
        "access.no-token",
        "this server wants to know who you are",
        fix="make a token where the server runs: `falaj access token`, then set FALAJ_TOKEN",
    )


def permit_of(request: Request[Any, Any, Any]) -> Permit:
    """What the guard decided; a dependency of handlers."""
    permit: Permit = request.scope["falaj.permit"]  # type: ignore[typeddict-item]
    return permit


def principal_of(request: Request[Any, Any, Any]) -> Principal:
    principal: Principal = request.scope["falaj.principal"]  # type: ignore[typeddict-item]
    return principal


def refuse_open_routes(app: Litestar) -> None:
    """Stop the start when a route has no permission, or an option that nobody reads.

    Sockets and bare ASGI handlers count as well: whatever answers has to ask first.
    """
    for route in app.routes:
        one = getattr(route, "route_handler", None)
        for handler in getattr(route, "route_handlers", None) or [one]:
            if not (says_what_it_needs(handler, route.path) or only_options(handler)):
                raise RuntimeError(
                    f"route {route.path} ({handler}) does not say what it needs; "
                    "declare it with falaj.doors.api.route"
                )


def says_what_it_needs(handler: Any, path: str) -> bool:
    opt = handler.opt
    return (
        isinstance(handler, HTTPRouteHandler)
        and set(opt) == KEYS
        and isinstance(opt["needs"], Action)
        and isinstance(opt["on"], ResourceKind)
        and (not opt["by"] or f"{{{opt['by']}:str}}" in path)
        and guard in map(unwrapped, handler.resolve_guards())
    )


def unwrapped(function: Any) -> Any:
    """The function that was declared; the framework wraps it, some of them twice."""
    while hasattr(function, "func"):
        function = function.func
    return function


def only_options(handler: Any) -> bool:
    """Made by the framework for each path; answers with the methods alone."""
    return (
        isinstance(handler, HTTPRouteHandler)
        and handler.http_methods == {HttpMethod.OPTIONS}
        and unwrapped(handler.fn).__module__.startswith("litestar.")
    )
