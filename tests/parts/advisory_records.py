"""Advisories in OSV form, archives like OSV's export, and bundles of them."""

from __future__ import annotations

import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from falaj.links.keyring.keys import KeyRing
from falaj.links.osv.records import build

__all__ = ["BUILT", "archive", "bundle", "events", "record"]

BUILT = datetime(2026, 3, 1, 6, tzinfo=UTC)


def events(*pairs: tuple[str, str], kind: str = "ECOSYSTEM") -> dict[str, Any]:
    return {"type": kind, "events": [{name: version} for name, version in pairs]}


def record(
    id: str,
    package: str,
    *ranges: dict[str, Any],
    versions: tuple[str, ...] = (),
    aliases: tuple[str, ...] = (),
    severity: str | None = "HIGH",
    ecosystem: str = "PyPI",
    **more: Any,
) -> dict[str, Any]:
    """severity: the word of those who keep the record; None: nobody has rated it."""
    made: dict[str, Any] = {
        "schema_version": "1.7.0",
        "id": id,
        "modified": "2026-02-27T10:00:00Z",
        "summary": f"a flaw of {package}",
        "aliases": list(aliases),
        "affected": [
            {
                "package": {"ecosystem": ecosystem, "name": package},
                "ranges": list(ranges),
                "versions": list(versions),
            }
        ],
        **more,
    }
    if severity is not None:
        made["database_specific"] = {"severity": severity}
    return made


def archive(path: Path, *records: Any) -> Path:
    """An export as the OSV project publishes it: one JSON file a record."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for number, one in enumerate(records):
            text = one if isinstance(one, bytes) else json.dumps(one).encode()
            name = one.get("id", number) if isinstance(one, dict) else number
            packed.writestr(f"{name}.json", text)
    return path


def bundle(
    folder: Path, ring: KeyRing, *records: Any, at: datetime = BUILT, signer: str = "vulndb"
) -> Path:
    """A signed bundle of these records, built at that time."""
    ring.create(signer, (signer,))
    source = archive(folder / "all.zip", *records)
    made = folder / f"bundle-{at:%Y%m%d%H%M%S}.zip"
    build(source, made, ecosystem="PyPI", signer=ring.signer(signer), now=at)
    return made
