"""Runs of pipelines."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import Response

from falaj.app import Works
from falaj.doors.api.asked import EXPLAIN_RUN, START_RUN, StartRun, explain, start
from falaj.doors.api.route import Limit, get, post
from falaj.facts.access import Action, Permit, ResourceKind
from falaj.facts.runs import Image, KeptFile, Plot, Run

__all__ = ["ROUTES", "Points", "StartRun", "StepLog"]


class Points(msgspec.Struct):
    steps: list[int]
    times: list[float]
    values: list[float]


class StepLog(msgspec.Struct):
    text: str


@post(START_RUN.path, needs=START_RUN.needs, on=ResourceKind.PROJECT, status=START_RUN.status)
def start_run(works: Works, permit: Permit, data: StartRun) -> Run:
    """Run the pipeline now; unchanged steps come from the cache."""
    return start(works, permit, data)


@post(EXPLAIN_RUN.path, needs=EXPLAIN_RUN.needs, on=ResourceKind.PROJECT)
def explain_run(works: Works, permit: Permit, data: StartRun) -> list[dict[str, Any]]:
    """Say for each step whether it would run, and why; nothing is run."""
    return explain(works, permit, data)


@get("/runs", needs=Action.READ, on=ResourceKind.PROJECT)
def list_runs(
    works: Works, limit: Limit = 50, after: str = "", where: str = "", order: str = ""
) -> list[Run]:
    """Newest first; `where` and `order` ask by metrics and parameters."""
    from falaj.journeys import runs

    if where or order:
        return runs.find(works.ground, where, order, min(limit, 1000))
    return works.ground.store.find(Run, limit=min(limit, 1000), after=after)


@get("/runs/{run:str}", needs=Action.READ, on=ResourceKind.PROJECT)
def show_run(works: Works, run: str) -> Run:
    from falaj.journeys import runs

    return runs.shown(works.ground, fact_of(works, run))


def fact_of(works: Works, run: str) -> Run:
    from falaj.journeys import train

    return works.ground.store.get(Run, train.named(works.ground, run)).fact


@get("/runs/{run:str}/diff/{other:str}", needs=Action.READ, on=ResourceKind.PROJECT)
def diff_runs(works: Works, run: str, other: str) -> list[dict[str, Any]]:
    """Every part in which the second run differs from the first."""
    from falaj.journeys import runs

    return runs.diff(fact_of(works, run), fact_of(works, other))


@get("/runs/{run:str}/plots", needs=Action.READ, on=ResourceKind.PROJECT)
def plots_of_run(works: Works, run: str) -> list[Plot]:
    from falaj.journeys import runs

    return runs.plots(works.ground, fact_of(works, run))


@get("/runs/{run:str}/pictures", needs=Action.READ, on=ResourceKind.PROJECT)
def pictures_of_run(works: Works, run: str) -> list[Image]:
    """What steps drew, in base64; at most 16 MiB."""
    from falaj.journeys import runs

    return runs.pictures(works.ground, fact_of(works, run))


@get("/runs/{run:str}/files", needs=Action.READ, on=ResourceKind.PROJECT)
def files_of_run(works: Works, run: str) -> list[KeptFile]:
    """What steps kept beside their answers: names, digests and sizes."""
    from falaj.journeys import runs

    return runs.files(works.ground, fact_of(works, run))


@get("/runs/{run:str}/file", needs=Action.READ, on=ResourceKind.PROJECT)
def file_of_run(works: Works, run: str, step: str, name: str) -> Response[bytes]:
    """The bytes of a kept file, always as a download: it is the work of a step's code."""
    from falaj.journeys import runs

    found = runs.file(works.ground, fact_of(works, run), step, name)
    headers = {"content-disposition": "attachment", "x-content-type-options": "nosniff"}
    return Response(found, media_type="application/octet-stream", headers=headers)


@get("/runs/{run:str}/points", needs=Action.READ, on=ResourceKind.PROJECT)
def points_of_run(works: Works, run: str, name: str) -> Points:
    """The points of one metric, in the order they were logged."""
    from falaj.journeys import runs

    found = runs.points(works.ground, fact_of(works, run), name)
    return Points(list(found.steps), list(found.times), list(found.values))


@get("/runs/{run:str}/log", needs=Action.READ, on=ResourceKind.PROJECT)
def log_of_step(works: Works, run: str, step: str, attempt: int = 0) -> StepLog:
    """What a step printed; attempt 0 is the last."""
    from falaj.journeys import runs

    return StepLog(runs.log(works.ground, fact_of(works, run), step, attempt))


ROUTES: Final = (
    *(start_run, explain_run, list_runs, show_run, diff_runs),
    *(plots_of_run, pictures_of_run, files_of_run, file_of_run, points_of_run, log_of_step),
)
