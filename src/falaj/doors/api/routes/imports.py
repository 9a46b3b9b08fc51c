"""Models of other registries come under governance."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from falaj.app import Works
from falaj.doors.api.route import post
from falaj.facts.access import Action, Permit, ResourceKind
from falaj.facts.runs import Run

__all__ = ["ROUTES", "ImportModel"]


class ImportModel(msgspec.Struct, forbid_unknown_fields=True):
    """As `falaj import mlflow` asks; see there."""

    name: str
    evaluation: str
    label: str
    where: str = ""
    reference: str = ""
    threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5
    columns: tuple[str, ...] = ()
    output: str = ""
    trust: tuple[str, ...] = ()


@post("/imports", needs=Action.IMPORT_MODEL, on=ResourceKind.PROJECT, status=201)
def import_model(works: Works, permit: Permit, data: ImportModel) -> Run:
    """Fetch a model version from the tracking server and make a model version of it here."""
    from falaj.journeys.imports import Asked

    return works.bring(permit, Asked(**msgspec.structs.asdict(data)))


ROUTES: Final = (import_model,)
