"""The project's own tests: run them, and what they said."""

from __future__ import annotations

from typing import Final

import msgspec
from litestar import Response

from falaj.app import Works
from falaj.doors.api.route import Limit, get, post
from falaj.facts.access import Action, Permit, ResourceKind
from falaj.facts.runs import Run
from falaj.facts.testing import TestReport

__all__ = ["ROUTES", "RunTests"]


class RunTests(msgspec.Struct, forbid_unknown_fields=True):
    paths: tuple[str, ...] = ()  # files or folders; nothing: all
    keyword: str = ""  # as pytest's -k
    run: str = ""  # whose model the tests ask; nothing: the newest


# The tests are the project's code, as its steps are.


@post("/tests", needs=Action.RUN_PIPELINE, on=ResourceKind.PROJECT, status=201)
def run_tests(works: Works, permit: Permit, data: RunTests) -> TestReport:
    """Run the project's tests of its data and models; the report is kept whatever it says."""
    from falaj.journeys import testing, train

    named = train.named(works.ground, data.run) if data.run else ""
    return testing.run(works.ground, permit, paths=data.paths, keyword=data.keyword, of_run=named)


@get("/tests", needs=Action.READ, on=ResourceKind.PROJECT)
def list_tests(works: Works, run: str = "", limit: Limit = 50) -> list[TestReport]:
    """Reports, newest first; of the very code of a run."""
    from falaj.journeys import testing, train

    known = None
    if run:
        known = works.ground.store.get(Run, train.named(works.ground, run)).fact
    return testing.find(works.ground, of_run=known, limit=min(limit, 1000))


@get("/tests/{report:str}", needs=Action.READ, on=ResourceKind.PROJECT)
def show_tests(works: Works, report: str) -> TestReport:
    return works.ground.store.get(TestReport, report).fact


@get("/tests/{report:str}/junit", needs=Action.READ, on=ResourceKind.PROJECT)
def junit_of_tests(works: Works, report: str) -> Response[bytes]:
    kept = works.ground.store.get(TestReport, report).fact
    return Response(works.ground.blobs.get(kept.junit), media_type="application/xml")


@get("/tests/{report:str}/log", needs=Action.READ, on=ResourceKind.PROJECT)
def log_of_tests(works: Works, report: str) -> Response[bytes]:
    """All that pytest printed; nothing where data is protected."""
    kept = works.ground.store.get(TestReport, report).fact
    said = works.ground.blobs.get(kept.log) if kept.log else b""
    return Response(said, media_type="text/plain; charset=utf-8")


ROUTES: Final = (run_tests, list_tests, show_tests, junit_of_tests, log_of_tests)
