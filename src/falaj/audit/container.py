"""A zip file with one spelling: stored members in order, no dates, no free byte.

Any zip tool reads it. The reader here takes nothing else: every header is built anew from what the
directory says and compared, so a byte changed anywhere is a finding and no hidden bytes fit in.
Format: PKWARE APPNOTE 6.3.10, sections 4.3.7, 4.3.12, 4.3.16.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from falaj.base import paths
from falaj.base.errors import FalajError
from falaj.base.files import sync_folder

__all__ = ["BadContainer", "Member", "read_members", "write_container"]

LOCAL: Final = struct.Struct("<4s5H3I2H")
CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
END: Final = struct.Struct("<4s4H2IH")
UTF8, STORED, NO_TIME, NO_DATE = 0x0800, 0, 0, 0x21  # 1980-01-01, the oldest a zip can state
MADE_BY_UNIX, NEEDS = 0x0314, 20
PLAIN_FILE: Final = 0o100644 << 16
MOST_MEMBERS: Final = 60_000
MOST_BYTES: Final = (1 << 32) - (1 << 26)  # zip without the 64-bit extension
CHUNK: Final = 1 << 20


class BadContainer(ValueError):
    """Not a container in its one spelling. `member` is the file concerned, if one can be named."""

    def __init__(self, member: str, message: str) -> None:
        self.member = member
        super().__init__(message)


class Member(NamedTuple):
    name: str
    size: int
    crc: int
    start: int  # of the bytes in the file


def local_header(name: bytes, crc: int, size: int) -> bytes:
    return (
        LOCAL.pack(b"PK\3\4", NEEDS, UTF8, STORED, NO_TIME, NO_DATE, crc, size, size, len(name), 0)
        + name
    )


def central_header(name: bytes, crc: int, size: int, offset: int) -> bytes:
    return (
        CENTRAL.pack(
            b"PK\1\2",
            MADE_BY_UNIX,
            NEEDS,
            UTF8,
            STORED,
            NO_TIME,
            NO_DATE,
            crc,
            size,
            size,
            len(name),
            0,
            0,
            0,
            0,
            PLAIN_FILE,
            offset,
        )
        + name
    )


def end_record(count: int, size: int, offset: int) -> bytes:
    return END.pack(b"PK\5\6", 0, 0, count, count, size, offset, 0)


def write_container(path: Path, members: Mapping[str, bytes | Path]) -> None:
    """Write all members, sorted by name, to a neighbour of `path`, then move it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
    try:
        with part.open("xb") as sink:
            _write(sink, members)
            sink.flush()
            os.fsync(sink.fileno())
        part.replace(path)
        sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _write(sink: BinaryIO, members: Mapping[str, bytes | Path]) -> None:
    directory: list[bytes] = []
    for name in sorted(members):
        source = members[name]
        raw = name.encode()
        crc, size = _measure(source)
        offset = sink.tell()
        if offset + size > MOST_BYTES or len(directory) >= MOST_MEMBERS:
            raise FalajError(
                "audit.pack-too-large",
                f"the evidence pack would hold more than {MOST_BYTES >> 20} MiB or {MOST_MEMBERS} files",
                why="a pack is one plain zip file that any tool can read",
                fix="export fewer releases at once",
            )
        sink.write(local_header(raw, crc, size))
        if isinstance(source, bytes):
            sink.write(source)
        else:
            with source.open("rb") as file:
                shutil.copyfileobj(file, sink, CHUNK)
        if sink.tell() != offset + LOCAL.size + len(raw) + size:
            raise OSError(f"{name} changed while it was written")
        directory.append(central_header(raw, crc, size, offset))
    start = sink.tell()
    body = b"".join(directory)
    sink.write(body)
    sink.write(end_record(len(directory), len(body), start))


def _measure(source: bytes | Path) -> tuple[int, int]:
    if isinstance(source, bytes):
        return zlib.crc32(source), len(source)
    crc = size = 0
    with source.open("rb") as file:
        while block := file.read(CHUNK):
            crc, size = zlib.crc32(block, crc), size + len(block)
    return crc, size


def read_members(file: BinaryIO) -> list[Member]:
    """Read the directory strictly. Raises BadContainer for the first byte out of place.

    The bytes of the members themselves are not read here: see `digest_of`.
    """
    file.seek(0, os.SEEK_END)
    total = file.tell()
    if not END.size <= total <= MOST_BYTES + (1 << 26):
        raise BadContainer("", f"{total} bytes cannot be an evidence pack")
    file.seek(total - END.size)
    end = file.read(END.size)
    _, _, _, _, count, size, start, _ = END.unpack(end)
    if end != end_record(count, size, start) or start + size != total - END.size:
        raise BadContainer("", "the end of the zip file is damaged or something was added")
    file.seek(start)
    directory = file.read(size)
    found: list[Member] = []
    at = position = 0
    for _ in range(count):
        member, at = _entry(directory, at, position, found[-1].name if found else "")
        header = local_header(member.name.encode(), member.crc, member.size)
        file.seek(position)
        if file.read(len(header)) != header:
            raise BadContainer(
                member.name, f"{member.name}: its header in the zip file was changed"
            )
        position = member.start + member.size
        found.append(member)
    if at != len(directory) or position != start:
        raise BadContainer("", "the zip file holds bytes that belong to no file")
    return found


def _entry(directory: bytes, at: int, position: int, before: str) -> tuple[Member, int]:
    if at + CENTRAL.size > len(directory):
        raise BadContainer("", "the directory of the zip file is cut off")
    parts = CENTRAL.unpack_from(directory, at)
    crc, size, length, offset = parts[7], parts[9], parts[10], parts[16]
    raw = directory[at + CENTRAL.size : at + CENTRAL.size + length]
    name = raw.decode(errors="replace")
    if directory[at : at + CENTRAL.size + length] != central_header(raw, crc, size, offset):
        raise BadContainer(name, f"{name}: its entry in the zip directory was changed")
    why = paths.trouble(name)
    if why or name.encode() != raw:
        raise BadContainer(name, f"{name!r} {why or 'is not UTF-8'}")
    if name <= before:
        raise BadContainer(name, f"{name}: stands twice or out of order")
    if offset != position:
        raise BadContainer(name, f"{name}: hidden or shared bytes before it in the zip file")
    return Member(name, size, crc, offset + LOCAL.size + length), at + CENTRAL.size + length


def digest_of(file: BinaryIO, member: Member) -> tuple[str, bool]:
    """SHA-256 of a member's bytes, and whether its CRC holds."""
    hasher, crc, left = hashlib.sha256(), 0, member.size
    file.seek(member.start)
    while left and (block := file.read(min(CHUNK, left))):
        hasher.update(block)
        crc, left = zlib.crc32(block, crc), left - len(block)
    return "sha256:" + hasher.hexdigest(), crc == member.crc and not left


def bytes_of(file: BinaryIO, member: Member, *, most: int) -> bytes:
    """The bytes of a small member; at most `most` + 1 of them."""
    file.seek(member.start)
    return file.read(min(member.size, most + 1))
