"""Runs asked for, without the web framework: its routes call this, and so does the command line.

`falaj run` in its own process needs no HTTP: loading the framework would cost more than twenty cached
steps. The permission asked, the answer's bytes and the errors' are those of the route.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from falaj.access.service import OWNER
from falaj.base.errors import FalajError
from falaj.base.problems import document
from falaj.facts.access import Action, Permit, Resource, ResourceKind
from falaj.facts.runs import Run

if TYPE_CHECKING:
    from falaj.app import Works

__all__ = ["EXPLAIN_RUN", "START_RUN", "Asked", "StartRun", "answer", "explain", "start"]


class StartRun(msgspec.Struct, forbid_unknown_fields=True):
    parameters: dict[str, Any] = {}
    pipeline: str = ""
    seed: int | None = None
    only: str = ""  # a step; the others run only as far as it needs them
    fail_fast: bool = False  # the first failure ends the steps that run
    parent: str = ""  # the run whose parameters these are


def start(works: Works, permit: Permit, data: StartRun) -> Run:
    """Run the pipeline now; unchanged steps come from the cache."""
    from falaj.journeys import train

    return train.run(
        works.ground,
        permit,
        data.parameters,
        pipeline=data.pipeline,
        seed=data.seed,
        parent=train.named(works.ground, data.parent) if data.parent else "",
        only=data.only,
        fail_fast=data.fail_fast,
    )


def explain(works: Works, _permit: Permit, data: StartRun) -> list[dict[str, Any]]:
    """Say for each step whether it would run, and why; nothing is run."""
    from falaj.journeys import train

    return train.explain(
        works.ground,
        data.parameters,
        pipeline=data.pipeline,
        seed=data.seed,
        only=data.only,
        against=train.named(works.ground, data.parent) if data.parent else "",
    )


class Asked(NamedTuple):
    """What the route declares as well. needs: on the project."""

    path: str
    needs: Action
    status: int
    does: Callable[[Works, Permit, StartRun], Any]


START_RUN: Final = Asked("/runs", Action.RUN_PIPELINE, 201, start)
EXPLAIN_RUN: Final = Asked("/runs/explain", Action.READ, 200, explain)


def answer(
    works: Works, identity: str | None, method: str, path: str, content: bytes
) -> tuple[int, bytes] | None:
    """Status and bytes of the answer; None for what only the framework answers.

    A body of another form is the framework's too, so that its words are the same everywhere.
    """
    asked = next((a for a in (START_RUN, EXPLAIN_RUN) if ("POST", a.path) == (method, path)), None)
    if asked is None:
        return None
    try:
        data = msgspec.json.decode(content, type=StartRun)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    try:
        permit = works.access.permit(
            works.access.principal(identity or OWNER),
            asked.needs,
            Resource(kind=ResourceKind.PROJECT, id=works.ground.name),
        )
        return asked.status, msgspec.json.encode(asked.does(works, permit, data))
    except FalajError as error:
        return error.status, msgspec.json.encode(document(error))
