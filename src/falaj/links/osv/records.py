"""From an export of OSV records to a signed bundle: outside, where there is a network.

Records: https://ossf.github.io/osv-schema/ (1.7). A bundle is a zip file of two members: the
database (SQLite) and a DSSE envelope of role `vulndb` that states its digest and date.
"""

from __future__ import annotations

import io
import re
import sqlite3
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec

from falaj.base import canonical, digests, dsse, time
from falaj.base.errors import FalajError
from falaj.base.files import replacing
from falaj.base.locks import normalised
from falaj.facts.scans import AdvisoryStatement
from falaj.facts.wire import plain

__all__ = ["BROKEN", "DATABASE", "ENVELOPE", "KIND", "build", "open_bundle"]

KIND: Final = "application/vnd.falaj.vulndb+json"
DATABASE: Final = "advisories.db"
ENVELOPE: Final = "vulndb.dsse.json"
LARGEST: Final = 16 << 20  # one record
EPOCH: Final = (1980, 1, 1, 0, 0, 0)
BROKEN: Final = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
KEPT: Final = (
    *("id", "modified", "published", "withdrawn", "aliases", "upstream", "summary", "severity"),
    "database_specific",
)
LICENCES: Final = {"PyPI": "CC-BY-4.0"}  # of the records, as their sources state it
SCHEMA: Final = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE record (id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE package (name TEXT, record TEXT, PRIMARY KEY (name, record)) WITHOUT ROWID;
"""


def build(
    archive: Path, bundle: Path, *, ecosystem: str, signer: dsse.Signs, now: datetime
) -> AdvisoryStatement:
    """Read an export (a zip file of JSON records) and write the bundle, whole or not at all.

    Raises FalajError for an archive that cannot be read to its end, or says nothing about
    `ecosystem`: an empty database would let everything through.
    """
    with TemporaryDirectory(prefix="falaj-advisories-") as scratch:
        file = Path(scratch, DATABASE)
        records, withdrawn, newest = _database(archive, file, ecosystem, now)
        stated = AdvisoryStatement(
            ecosystem=ecosystem,
            records=records,
            withdrawn=withdrawn,
            built_at=now,
            newest=newest,
            source=archive.name,
            source_sha256=digests.of_file(archive),
            sha256=digests.of_file(file),
            bytes=file.stat().st_size,
            licence=LICENCES.get(ecosystem, ""),
        )
        sealed = dsse.seal(plain(stated), signer, kind=KIND)
        with replacing(bundle) as sink, zipfile.ZipFile(sink, "w") as packed:
            packed.writestr(zipfile.ZipInfo(ENVELOPE, EPOCH), canonical.dumps(sealed))
            info = zipfile.ZipInfo(DATABASE, EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            with packed.open(info, "w", force_zip64=True) as to, file.open("rb") as source:
                while part := source.read(1 << 20):
                    to.write(part)
    return stated


def _database(
    archive: Path, file: Path, ecosystem: str, now: datetime
) -> tuple[int, int, datetime | None]:
    count = withdrawn = 0
    newest: datetime | None = None
    with closing(sqlite3.connect(file)) as base, base:
        base.executescript(SCHEMA)
        about = {"ecosystem": ecosystem, "built_at": time.text(now), "form": "1"}
        base.executemany("INSERT INTO about VALUES (?, ?)", sorted(about.items()))
        for name, record in _records(archive):
            affected, packages = _about(record, ecosystem)
            if not packages:
                continue
            body = {key: record[key] for key in KEPT if key in record} | {"affected": affected}
            try:
                base.execute(
                    "INSERT INTO record VALUES (?, ?)", (record["id"], msgspec.json.encode(body))
                )
            except sqlite3.IntegrityError:
                raise _bad(archive, f"{name}: the record {record['id']} stands twice") from None
            base.executemany(
                "INSERT INTO package VALUES (?, ?)", [(one, record["id"]) for one in packages]
            )
            count, withdrawn = count + 1, withdrawn + ("withdrawn" in record)
            changed = _instant(record.get("modified"))
            if changed is not None and (newest is None or changed > newest):
                newest = changed
    if not count:
        raise _bad(archive, f"it holds no record about {ecosystem}")
    with closing(sqlite3.connect(file)) as base:
        base.execute("VACUUM")
    return count, withdrawn, newest


def _records(archive: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every record by the name of its member, in the order of the names."""
    try:
        with zipfile.ZipFile(archive) as packed:
            infos = [info for info in packed.infolist() if info.filename.endswith(".json")]
            for info in sorted(infos, key=lambda info: info.filename):
                if info.file_size > LARGEST:
                    raise _bad(archive, f"{info.filename} is larger than 16 MiB")
                with packed.open(info) as member:
                    text = member.read(LARGEST + 1)
                try:
                    record = msgspec.json.decode(text)
                except (msgspec.DecodeError, RecursionError) as error:
                    raise _bad(archive, f"{info.filename} is no JSON: {error}") from None
                if not isinstance(record, dict) or not isinstance(record.get("id"), str):
                    raise _bad(archive, f"{info.filename} is no record: it has no id")
                yield info.filename, record
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError) as error:
        raise _bad(archive, f"it is no zip file that can be read: {error}") from None


def _about(record: dict[str, Any], ecosystem: str) -> tuple[list[Any], list[str]]:
    """What the record says about this ecosystem, and the packages that it names."""
    affected: list[Any] = []
    names: set[str] = set()
    said = record.get("affected")
    for entry in said if isinstance(said, list) else []:
        match entry:
            case {"package": {"ecosystem": str(where), "name": str(name)}} if where == ecosystem:
                affected.append(entry)
                names.add(normalised(name))
            case _:
                continue
    return affected, sorted(names)


def _instant(said: object) -> datetime | None:
    if not isinstance(said, str) or not re.fullmatch(r"[0-9T:.+Z-]{10,40}", said):
        return None
    try:
        return time.parse_instant(said)
    except ValueError:
        return None


def _bad(archive: Path, why: str) -> FalajError:
    return FalajError(
        "scans.bad-archive",
        f"no database can be built from {archive.name}",
        why=why,
        fix="fetch the export again (all.zip of one ecosystem of the OSV data) and repeat",
    )


def open_bundle(bundle: Path) -> zipfile.ZipFile:
    """Raises zipfile.BadZipFile unless it holds the two members and nothing else."""
    packed = zipfile.ZipFile(io.BytesIO(bundle.read_bytes()))
    if sorted(packed.namelist()) != [DATABASE, ENVELOPE]:
        raise zipfile.BadZipFile("it does not hold the two members of a bundle")
    return packed
