"""Advisories come in; every released model is looked at again. A new finding opens an alert once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from falaj.base import canonical, digests, time
from falaj.base.errors import Conflict, FalajError, NotFound, Unverified
from falaj.base.locks import Lock, Pin, normalised
from falaj.evaluation import scans, vulnerabilities
from falaj.facts.access import Permit
from falaj.facts.checks import Verdict
from falaj.facts.monitoring import Alert, AlertState
from falaj.facts.releases import Release, Trust
from falaj.facts.rollouts import LiveMove
from falaj.facts.scans import AdvisoryDatabase, AdvisoryStatement, Scan, Vulnerability
from falaj.facts.trust import (
    BadTrust,
    identity_of,
    is_stale,
    keys_for,
    open_trust,
    roots_of,
    threshold_of,
)
from falaj.facts.wire import digest
from falaj.ports.advisories import Advisories
from falaj.ports.ground import Ground
from falaj.ports.store import Unit
from falaj.releases import verify

__all__ = ["KIND", "Rescan", "TakenIn", "look", "rescan", "take_in"]

ROLE: Final = "vulndb"
KIND: Final = "vulnerabilities"
WORKER: Final = "worker:advisories"
AHEAD: Final = timedelta(days=1)  # of clocks that differ
BILL: Final = "mlbom.cdx.json"
MOST_NAMED: Final = 3


class TakenIn(NamedTuple):
    """database: what holds now. age_days: of it. known: it was here already. told: of the rescan."""

    database: AdvisoryDatabase
    age_days: float
    known: bool
    told: tuple[str, ...]


def look(ground: Ground, permit: Permit, what: Sequence[str]) -> Scan:
    """Scan the project now and keep what was found, whatever it is."""
    made = scans.scan(ground, permit.person, what)
    with ground.store.begin() as unit:
        unit.add(made)
        told = {
            "digest": digest(made),
            "verdict": str(made.verdict),
            "lock": made.lock,
            "database": made.database,
            "tree": made.tree,
        }
        unit.append(ground.event("scan.finished", permit.person, f"scan/{made.id}", told))
    return made


def take_in(ground: Ground, permit: Permit, bundle: bytes, trust: str) -> TakenIn:
    """Verify a bundle and use its database from now on; then look at all released models again.

    trust: text of the trust root whose keys of role `vulndb` may sign; nothing: the workspace's own.
    1. The signature holds, by a key of that role. 2. It is about the packages that a lock pins.
    3. It is not of the future, and not older than the one before: a replayed bundle would hide what
    became known since. 4. The database is the one that was signed.
    """
    shelf = ground.advisories
    if shelf is None:
        raise FalajError("scans.no-shelf", "this workspace keeps no advisories")
    now = ground.now()
    root = trusted(ground, trust)
    with TemporaryDirectory(dir=ground.state) as scratch:
        file = Path(scratch, "bundle.zip")
        file.write_bytes(bundle)
        stated, hint = shelf.look(file, keys_for(root, ROLE, now))
        refuse_wrong_times(ground, stated)
        shelf.keep(file, stated)
    database = AdvisoryDatabase(
        id=stated.sha256,
        ecosystem=stated.ecosystem,
        records=stated.records,
        built_at=stated.built_at,
        newest=stated.newest,
        source=stated.source,
        source_sha256=stated.source_sha256,
        signer=identity_of(root, hint),
        key=hint,
        person=permit.person,
        at=now,
        trust=root.version,
        roots=tuple(sorted(roots_of(root))),
    )
    known = False
    with ground.store.begin() as unit:
        last = next(iter(unit.find(AdvisoryDatabase, ecosystem=scans.ECOSYSTEM, limit=1)), None)
        if last is not None:
            refuse_older(last, stated)
        if last is not None and last.id == database.id:
            database, known = last, True
        else:
            unit.add(database)
            told = {
                "built_at": time.text(database.built_at),
                "records": database.records,
                "source": database.source_sha256,
                "signer": database.signer,
                "key": hint,
            }
            unit.append(
                ground.event(
                    "advisories.imported",
                    permit.person,
                    f"advisories/{digests.short(database.id)}",
                    {**told, "digest": database.id},
                )
            )
    for older in ground.store.find(AdvisoryDatabase):
        if older.id != database.id:
            shelf.forget(older.id)
    age = (now - database.built_at) / timedelta(days=1)
    return TakenIn(database, round(max(age, 0.0), 3), known, tuple(rescan(ground)))


def trusted(ground: Ground, text: str) -> Trust:
    """The trust root that a person brought along, never older than one seen before."""
    if not text:
        found = ground.keys.trust()
    else:
        try:
            found = open_trust(text.encode(), now=ground.now())
        except (BadTrust, ValueError) as error:
            raise bad_trust(str(error)) from None
        roots = set(roots_of(found))
        seen = [d.trust for d in ground.store.find(AdvisoryDatabase) if roots & set(d.roots)]
        if found.version < max(seen, default=0):
            why = f"it is version {found.version}, version {max(seen)} was seen before"
            raise bad_trust(why)
    if is_stale(found, ground.now()):
        raise bad_trust("its list of revocations is too old: a key of it may have been revoked")
    if threshold_of(found, ROLE) > 1:
        raise bad_trust(f"it asks for {threshold_of(found, ROLE)} signers, a bundle carries one")
    return found


def bad_trust(why: str) -> Unverified:
    return Unverified(
        "scans.bad-trust",
        "the trust root of the bundle is refused",
        why=why,
        fix="ask who signs the bundles for a new trust root, by a way of its own",
    )


def refuse_wrong_times(ground: Ground, stated: AdvisoryStatement) -> None:
    if stated.ecosystem != scans.ECOSYSTEM:
        raise FalajError(
            "scans.other-ecosystem",
            f"the bundle is about {stated.ecosystem}",
            why=f"a lock of a project pins packages of {scans.ECOSYSTEM}",
            fix=f"build one of {scans.ECOSYSTEM}: falaj scan database build all.zip",
        )
    if stated.built_at > ground.now() + AHEAD:
        raise Unverified(
            "scans.database-from-future",
            f"the bundle says it was built at {time.text(stated.built_at)}",
            why="it would keep every later one out",
            fix="look at the clock of the machine that builds the bundles, and of this one",
        )
    last = scans.newest_database(ground)
    if last is not None:
        refuse_older(last, stated)


def refuse_older(last: AdvisoryDatabase, stated: AdvisoryStatement) -> None:
    same = stated.sha256 == last.id and stated.built_at == last.built_at
    if not same and stated.built_at <= last.built_at:
        raise Conflict(
            "scans.older-database",
            f"the bundle was built at {time.text(stated.built_at)}, and a newer one is here",
            why=f"that of {time.text(last.built_at)}: an old one hides what became known since",
            fix="take the newest bundle; the database that is here stays in use",
        )


class Rescan:
    """The worker's memory of what was looked at, so that a turn costs two queries."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._done: tuple[str, str] | None = None

    def is_due(self) -> bool:
        now = self._now()
        return now[0] != "" and now != self._done

    def turn(self) -> list[str]:
        now = self._now()
        said = rescan(self._ground)
        self._done = now
        return said

    def _now(self) -> tuple[str, str]:
        database = scans.newest_database(self._ground)
        newest = next(iter(self._ground.store.find(Release, limit=1)), None)
        return (database.id if database else "", newest.id if newest else "")


def rescan(ground: Ground) -> list[str]:
    """Hold the ML-BOM of every release against the newest advisories, once each."""
    database = scans.newest_database(ground)
    if database is None or ground.advisories is None:
        return []
    said: list[str] = []
    opened: Advisories | None = None
    for release in reversed(ground.store.find(Release, limit=1_000_000)):
        if is_looked_at(ground, release, database):
            continue
        opened = opened or ground.advisories.opened(database.id)
        said += looked_again(ground, release, database, opened)
    return said


def is_looked_at(ground: Ground, release: Release, database: AdvisoryDatabase) -> bool:
    try:
        ground.store.get(Scan, scans.scan_id(release.id, database.id))
    except NotFound:
        return False
    return True


def looked_again(
    ground: Ground, release: Release, database: AdvisoryDatabase, advisories: Advisories
) -> list[str]:
    """One release; scan, alert and their events are one transaction, so that each comes once."""
    lock, trouble = bill_of(ground, release)
    found = vulnerabilities.find(lock, advisories)
    now = ground.now()
    with ground.store.begin() as unit:
        before = unit.find(Scan, release=release.id)
        if any(one.database == database.id for one in before):
            return []  # another worker was quicker
        known = {(v.package, name) for one in before for v in one.vulnerabilities for name in v.ids}
        new = [v for v in found if not any((v.package, name) in known for name in v.ids)]
        lost = trouble if trouble and not any(one.trouble for one in before) else ""
        made = Scan(
            id=scans.scan_id(release.id, database.id),
            at=now,
            person=WORKER,
            lock="",
            packages=len(lock.pins),
            unread=lock.unread,
            database=database.id,
            built_at=database.built_at,
            vulnerabilities=found,
            verdict=Verdict.ERROR if trouble else Verdict.FAIL if found else Verdict.PASS,
            release=release.id,
            trouble=trouble,
            new=tuple(f"{one.package} {one.id}" for one in new),
        )
        unit.add(made)
        told = {
            "scan": made.id,
            "database": database.id,
            "packages": made.packages,
            "findings": len(found),
            "new": len(new),
        }
        unit.append(ground.event("release.rescanned", WORKER, f"release/{release.id}", told))
        close_what_is_gone(ground, unit, release, before, found)
        if not new and not lost:
            return []
        alert = alert_of(ground, release, made, new, lost)
        unit.add(alert)
        unit.append(
            ground.event(
                "alert.opened",
                WORKER,
                f"alert/{alert.id}",
                {"kind": KIND, "of": release.id, "scan": made.id, "reasons": list(alert.reasons)},
            )
        )
    return [alert.title]


def alert_of(
    ground: Ground, release: Release, made: Scan, new: Sequence[Vulnerability], lost: str
) -> Alert:
    named = [one.id for one in new[:MOST_NAMED]]
    more = f" and {len(new) - MOST_NAMED} more" if len(new) > MOST_NAMED else ""
    what = f"{', '.join(named)}{more} became known about" if new else "no scan can be made of"
    return Alert(
        id=f"vulns-{made.id}",
        kind=KIND,
        environment=where_live(ground, release),
        model=release.model,
        release=release.id,
        state=AlertState.OPEN,
        title=f"{what} {release.model} {release.version}",
        reasons=(*(vulnerabilities.told_in_short(one) for one in new), *((lost,) if lost else ())),
        at=made.at,
    )


def where_live(ground: Ground, release: Release) -> str:
    """The last environment, in the order of the file, that the release answers in; or nothing."""
    for environment in reversed(list(ground.project.environments)):
        live = ground.store.find(LiveMove, environment=environment, model=release.model, limit=1)
        if live and live[0].stable == release.id:
            return environment
    return ""


def close_what_is_gone(
    ground: Ground,
    unit: Unit,
    release: Release,
    before: Sequence[Scan],
    found: Sequence[Vulnerability],
) -> None:
    """An alert ends when none of what opened it is found any more, such as withdrawn advisories."""
    still = {f"{one.package} {name}" for one in found for name in one.ids}
    for scan in before:
        if not scan.new or still & set(scan.new):
            continue
        try:
            kept = unit.get(Alert, f"vulns-{scan.id}")
        except NotFound:
            continue
        if kept.fact.state is AlertState.OPEN:
            now = ground.now()
            unit.replace(kept, replace(kept.fact, state=AlertState.CLOSED, closed=now))
            unit.append(
                ground.event(
                    "alert.closed",
                    WORKER,
                    f"alert/{kept.fact.id}",
                    {"kind": KIND, "of": release.id},
                )
            )


def bill_of(ground: Ground, release: Release) -> tuple[Lock, str]:
    """What the signed ML-BOM of a release pins, or why it cannot be believed."""
    folder = ground.root / release.folder
    nothing = Lock((), ())
    try:
        text = (folder / "release.json").read_bytes()
        if digests.of_bytes(text) != release.id:
            return nothing, "release.json is not the one that was released"
        wanted = verify.read_manifest(text).files.get(BILL, "")
        bill = (folder / BILL).read_bytes()
        if digests.of_bytes(bill) != wanted:
            return nothing, f"{BILL} is not the one that was signed"
        return pins_of(canonical.loads(bill)), ""
    except (OSError, ValueError) as error:
        return nothing, f"its folder cannot be read: {error}"


def pins_of(bill: Mapping[str, Any]) -> Lock:
    parts = [
        Pin(normalised(str(part["name"])), str(part["version"]), ())
        for part in bill.get("components", ())
        if str(part.get("purl", "")).startswith("pkg:pypi/")
    ]
    root = bill.get("metadata", {}).get("component", {})
    unread = [
        str(one["value"])
        for one in root.get("properties", ())
        if one.get("name") == "falaj:not-pinned"
    ]
    return Lock(tuple(parts), tuple(unread))
