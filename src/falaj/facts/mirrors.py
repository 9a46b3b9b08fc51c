"""How far another server has been shown what happened here."""

from __future__ import annotations

from falaj.base.time import Instant
from falaj.facts.wire import Fact

__all__ = ["MirrorState"]


class MirrorState(Fact, frozen=True, kw_only=True):
    """One a link. Written when something was shown or refused, or when the server went away.

    cursor: place in the log of the last event that was worked off. trouble: why nothing can be
    shown now, and since when. refused: what may not be there, or was not taken, and is left out;
    refusal: the last reason.
    """

    id: str  # the link, such as `mlflow`
    server: str
    cursor: int = -1
    shown: int = 0
    refused: int = 0
    refusal: str = ""
    trouble: str = ""
    since: Instant | None = None
