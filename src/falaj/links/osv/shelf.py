"""ports/advisories.py: databases of advisories in a folder, each under its digest."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec

from falaj.base import canonical, digests, dsse
from falaj.base.errors import NotFound, Unverified
from falaj.base.files import replacing
from falaj.facts.scans import AdvisoryStatement

__all__ = ["OsvDatabase", "OsvShelf"]

LARGEST_STATEMENT: Final = 1 << 20
LARGEST_DATABASE: Final = 4 << 30


class OsvDatabase:
    """Advisories of one ecosystem. The bytes were checked when it was opened."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def of(self, package: str) -> Sequence[Mapping[str, Any]]:
        query = (
            "SELECT body FROM record JOIN package ON record = id WHERE name = ? ORDER BY record.id"
        )
        with closing(
            sqlite3.connect(f"{self._path.as_uri()}?mode=ro&immutable=1", uri=True)
        ) as base:
            rows = base.execute(query, (package,)).fetchall()
        return [msgspec.json.decode(body) for (body,) in rows]


class OsvShelf:
    """folder: below it lies `<64 hex>.db` of every database that was taken in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def look(self, bundle: Path, keys: Mapping[str, bytes]) -> tuple[AdvisoryStatement, str]:
        # Every command opens a project, and few of them a bundle.
        from falaj.links.osv.records import BROKEN, ENVELOPE, KIND, open_bundle

        try:
            with open_bundle(bundle) as packed, packed.open(ENVELOPE) as member:
                text = member.read(LARGEST_STATEMENT + 1)
        except (*BROKEN, OSError) as error:
            raise _refused("scans.bad-bundle", bundle, f"it is no bundle: {error}") from None
        if len(text) > LARGEST_STATEMENT:
            raise _refused("scans.bad-bundle", bundle, "its statement is larger than 1 MiB")
        try:
            opened = dsse.open_envelope(canonical.loads(text), keys, kind=KIND)
            stated = msgspec.convert(opened.payload, AdvisoryStatement)
        except (canonical.NotCanonical, UnicodeDecodeError) as error:
            raise _refused("scans.bad-bundle", bundle, str(error)) from None
        except dsse.BadEnvelope as error:
            raise _refused("scans.bundle-signature", bundle, str(error)) from None
        except msgspec.ValidationError as error:
            raise _refused("scans.bad-bundle", bundle, f"its statement: {error}") from None
        if stated.v != 1 or not digests.is_digest(stated.sha256):
            raise _refused("scans.bad-bundle", bundle, f"its form is {stated.v}, expected 1")
        return stated, opened.hint

    def keep(self, bundle: Path, stated: AdvisoryStatement) -> None:
        from falaj.links.osv.records import BROKEN, DATABASE, open_bundle

        if not 0 < stated.bytes <= LARGEST_DATABASE:
            raise _refused("scans.bad-bundle", bundle, f"it states {stated.bytes} bytes")
        total, size = hashlib.sha256(), 0
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with (
                open_bundle(bundle) as packed,
                packed.open(DATABASE) as source,
                replacing(self._place(stated.sha256), mode=0o600) as sink,
            ):
                while part := source.read(1 << 20):
                    total.update(part)
                    size += len(part)
                    if size > stated.bytes:
                        break
                    sink.write(part)
                found = f"sha256:{total.hexdigest()}"
                if size != stated.bytes or found != stated.sha256:
                    why = f"the database is {found}, signed was {stated.sha256}"
                    raise _refused("scans.bundle-changed", bundle, why)
        except BROKEN as error:
            raise _refused("scans.bundle-changed", bundle, f"the database: {error}") from None

    def forget(self, digest: str) -> None:
        self._place(digest).unlink(missing_ok=True)

    def opened(self, digest: str) -> OsvDatabase:
        path = self._place(digest)
        if not path.is_file():
            raise NotFound(
                "scans.no-database",
                f"the advisories {digests.short(digest)} are not on this machine",
                why="the record of their import is here, their file is not",
                fix="falaj scan database import BUNDLE",
            )
        if digests.of_file(path) != digest:
            raise Unverified(
                "scans.database-damaged",
                f"the advisories {digests.short(digest)} were changed on this machine",
                why=f"{path.name} is not what was imported",
                fix=f"remove {path} and import the bundle again",
            )
        return OsvDatabase(path)

    def _place(self, digest: str) -> Path:
        return self._folder / f"{digest.removeprefix('sha256:')}.db"


def _refused(code: str, bundle: Path, why: str) -> Unverified:
    return Unverified(
        code,
        f"the bundle {bundle.name} is refused",
        why=why,
        fix="take a bundle of `falaj scan database build` and the trust root of who signed it",
    )
