"""Runs of pipelines."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from falaj.app import Works
from falaj.doors.api.route import Limit, get, post
from falaj.facts.access import Action, Permit, ResourceKind
from falaj.facts.runs import Run

__all__ = ["ROUTES", "StartRun"]


class StartRun(msgspec.Struct, forbid_unknown_fields=True):
    parameters: dict[str, Any] = {}
    pipeline: str = ""
    seed: int | None = None


@post("/runs", needs=Action.RUN_PIPELINE, on=ResourceKind.PROJECT, status=201)
def start_run(works: Works, permit: Permit, data: StartRun) -> Run:
    """Run the pipeline now; unchanged steps come from the cache."""
    from falaj.journeys import train

    return train.run(works.ground, permit, data.parameters, pipeline=data.pipeline, seed=data.seed)


@post("/runs/explain", needs=Action.READ, on=ResourceKind.PROJECT)
def explain_run(works: Works, data: StartRun) -> list[dict[str, Any]]:
    """Say for each step whether it would run, and why; nothing is run."""
    from falaj.journeys import train

    return train.explain(works.ground, data.parameters, pipeline=data.pipeline, seed=data.seed)


@get("/runs", needs=Action.READ, on=ResourceKind.PROJECT)
def list_runs(works: Works, limit: Limit = 50, after: str = "") -> list[Run]:
    return works.ground.store.find(Run, limit=min(limit, 1000), after=after)


@get("/runs/{run:str}", needs=Action.READ, on=ResourceKind.PROJECT)
def show_run(works: Works, run: str) -> Run:
    from falaj.journeys import train

    return works.ground.store.get(Run, train.named(works.ground, run)).fact


ROUTES: Final = (start_run, explain_run, list_runs, show_run)
