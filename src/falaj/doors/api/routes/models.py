"""Models looked into: what moves the answers of one, how two differ."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from falaj.app import Works
from falaj.doors.api.route import post
from falaj.facts.access import Action, ResourceKind
from falaj.facts.explanations import Comparison, Explanation

__all__ = ["ROUTES", "Compare", "Explain"]


class Explain(msgspec.Struct, forbid_unknown_fields=True):
    run: str = ""
    metric: str = ""
    together: tuple[str, ...] = ()
    seed: Annotated[int, Meta(ge=0, le=2**53 - 1)] = 0
    repeats: Annotated[int, Meta(ge=1, le=100)] = 5
    rows: Annotated[int, Meta(ge=1, le=1_000_000)] = 2000


class Compare(msgspec.Struct, forbid_unknown_fields=True):
    run: str = ""
    other: str = ""  # a release's version, or a run; nothing: what is live


@post("/explanations", needs=Action.CHECK_GATE, on=ResourceKind.PROJECT)
def explain_model(works: Works, data: Explain) -> Explanation:
    """Tell what moves the answers of a run's model; asked again, it is read from the cache."""
    from falaj.journeys import models, train

    question = models.Question(data.metric, data.together, data.seed, data.repeats, data.rows)
    run = train.named(works.ground, data.run) if data.run else ""
    return models.explain(works.ground, run, question)


@post("/comparisons", needs=Action.CHECK_GATE, on=ResourceKind.PROJECT)
def compare_models(works: Works, data: Compare) -> Comparison:
    """Compare a run's model with another on the same held-out rows; nothing is decided."""
    from falaj.journeys import models, train

    run = train.named(works.ground, data.run) if data.run else ""
    return models.compare(works.ground, run, data.other)


ROUTES: Final = (explain_model, compare_models)
