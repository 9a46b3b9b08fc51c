"""Scans of lock and code, and the advisories that they are held against."""

from __future__ import annotations

from datetime import timedelta
from importlib.metadata import version
from typing import Final, Literal

import msgspec
from litestar import Response

from falaj.app import Works
from falaj.doors.api.route import Limit, get, post
from falaj.facts.access import Action, Permit, ResourceKind
from falaj.facts.scans import AdvisoryDatabase, Scan

__all__ = ["ROUTES", "ImportAdvisories", "LookNow"]

LARGEST_BUNDLE: Final = 512 << 20


class LookNow(msgspec.Struct, forbid_unknown_fields=True):
    what: tuple[Literal["dependencies", "code"], ...] = ("dependencies", "code")


class ImportAdvisories(msgspec.Struct, forbid_unknown_fields=True):
    bundle: bytes  # base64
    trust: str = ""  # text of the trust root; nothing: the workspace's own


class Advisories(msgspec.Struct):
    """database: nothing where none was imported. alerts: what the look at all releases opened."""

    database: AdvisoryDatabase | None
    age_days: float | None = None
    known: bool = True
    alerts: tuple[str, ...] = ()


@post("/scans", needs=Action.CHECK_GATE, on=ResourceKind.PROJECT, status=201)
def look_now(works: Works, permit: Permit, data: LookNow) -> Scan:
    """Hold lock, licences and code against advisories and rules, now."""
    from falaj.journeys import advisories

    return advisories.look(works.ground, permit, data.what)


@get("/scans", needs=Action.READ, on=ResourceKind.PROJECT)
def list_scans(works: Works, release: str = "", limit: Limit = 50) -> list[Scan]:
    """Newest first; of a release by its id: each look at its bill of material."""
    where = {"release": release} if release else {}
    return works.ground.store.find(Scan, limit=min(limit, 1000), **where)


@get("/scans/{scan:str}/sarif", needs=Action.READ, on=ResourceKind.PROJECT)
def show_sarif(works: Works, scan: str) -> Response[bytes]:
    """A scan as SARIF 2.1.0, for code hosts and editors."""
    from falaj.evaluation.sarif import sarif

    made = sarif(works.ground.store.get(Scan, scan).fact, version("falaj"))
    return Response(msgspec.json.encode(made), media_type="application/sarif+json")


@get("/advisories", needs=Action.READ, on=ResourceKind.PROJECT)
def show_advisories(works: Works) -> Advisories:
    """The database in use, and how old it is."""
    from falaj.evaluation.scans import newest_database

    database = newest_database(works.ground)
    if database is None:
        return Advisories(None)
    age = (works.ground.now() - database.built_at) / timedelta(days=1)
    return Advisories(database, round(max(age, 0.0), 3))


@post(
    "/advisories",
    needs=Action.IMPORT_ADVISORIES,
    on=ResourceKind.PROJECT,
    status=201,
    most_bytes=LARGEST_BUNDLE,
)
def import_advisories(works: Works, permit: Permit, data: ImportAdvisories) -> Advisories:
    """Take in a signed bundle, never an older one; look at all released models again."""
    from falaj.journeys import advisories

    found = advisories.take_in(works.ground, permit, data.bundle, data.trust)
    return Advisories(found.database, found.age_days, found.known, found.told)


ROUTES: Final = (look_now, list_scans, show_sarif, show_advisories, import_advisories)
