"""The control plane's application: every route with its permission, one error form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin

from falaj.access import engine
from falaj.doors.api import problems, route
from falaj.doors.api.body import StrictRequest
from falaj.doors.api.routes import (
    access,
    audit,
    changes,
    data,
    gates,
    imports,
    keys,
    models,
    monitoring,
    releases,
    rollouts,
    runs,
    scans,
    status,
    sweep,
    tests,
)
from falaj.facts.access import Action, Principal, ResourceKind

if TYPE_CHECKING:
    from falaj.app import Works

__all__ = ["VERSION", "create"]

VERSION = "1"
PAGES = (
    *(access, audit, changes, data, gates, imports, monitoring, releases, rollouts, runs, status),
    *(keys, models, scans, sweep, tests),
)


def works_of(state: State) -> Any:
    """The project that this application serves; a dependency of handlers."""
    return state.works


def create(works: Works, *, embedded: bool) -> Litestar:
    """Make the application. embedded: called inside the owner's own process, without a token.

    Raises RuntimeError when any route does not say what it needs, ValueError when the policies
    do not fit their schema: a control plane without rules does not start.
    """
    engine.bundle()
    app = Litestar(
        route_handlers=[handler for page in PAGES for handler in page.ROUTES],
        dependencies={
            "works": Provide(works_of, sync_to_thread=False),
            "permit": Provide(route.permit_of, sync_to_thread=False),
            "principal": Provide(route.principal_of, sync_to_thread=False),
        },
        exception_handlers=problems.HANDLERS,
        request_class=StrictRequest,
        state=State({"works": works, "embedded": embedded}),
        type_encoders={Principal: msgspec.to_builtins},
        logging_config=None,
        openapi_config=OpenAPIConfig(
            title="Falaj",
            version=VERSION,
            render_plugins=[JsonRenderPlugin(path=["/", "/openapi.json"])],
            # A place of its own: the framework adds a page for everything unknown below it.
            openapi_router=Router(
                "/openapi.json",
                route_handlers=[],
                guards=[route.guard],
                include_in_schema=False,
                opt={"needs": Action.READ, "on": ResourceKind.PROJECT, "by": ""},
            ),
        ),
    )
    route.refuse_open_routes(app)
    return app
