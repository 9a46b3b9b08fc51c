"""Zip archives, read by our own strict reader: two readers cannot see two archives.

Every byte belongs to one member or to the one directory: members stand without a gap from the first
byte on, the directory follows, nothing stands behind it. A member's local header says what the
directory says. Stored or deflated only, no encryption, no archive in an archive, sizes bounded.
Format: APPNOTE.TXT 6.3.10 (PKWARE).
"""

from __future__ import annotations

import struct
import zlib
from typing import Final, NamedTuple

from falaj.base import paths
from falaj.evaluation.formats.verdict import MOST_RATIO, MOST_UNPACKED, Refused

__all__ = ["Archive", "Member"]

END: Final = struct.Struct("<4s4H2IH")
END64: Final = struct.Struct("<4sQ2H2I4Q")
LOCATOR: Final = struct.Struct("<4sIQI")
CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
LOCAL: Final = struct.Struct("<4s5H3I2H")
ENCRYPTED: Final = 0x0001 | 0x0040 | 0x2000
# deflate's level, sizes behind the data, UTF-8
FLAGS: Final = 0x0002 | 0x0004 | 0x0008 | 0x0800
BEHIND: Final = 0x0008
# Zip64, times, owners, and the padding of torch ("FB"). A second name (0x7075) is not among them.
EXTRAS: Final = {0x0001, 0x4246, 0x5455, 0x7875}
MOST_MEMBERS: Final = 100_000
ARCHIVES: Final = (
    b"PK\3\4",
    b"\x1f\x8b\x08",
    b"BZh",
    b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd",
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!",
)


class Member(NamedTuple):
    name: str
    start: int
    packed: int
    size: int
    method: int
    crc: int


class Entry(NamedTuple):
    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int


class Archive:
    """The members of a zip file in the order of their places. Raises Refused, also on `read`."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        try:
            entries, directory = self._directory()
            self.members = self._members(entries, directory)
        except struct.error:
            raise Refused("a zip file that is damaged: a header is cut off") from None
        self.names = {member.name for member in self.members}

    def read(self, member: Member, *, nested: bool = False) -> bytes | memoryview:
        """Bytes of a member, its checksum held against them. nested: may begin like an archive."""
        raw = memoryview(self.data)[member.start : member.start + member.packed]
        found: bytes | memoryview
        if member.method == 0:
            found = raw
        else:
            pump = zlib.decompressobj(-15)
            try:
                found = pump.decompress(raw, member.size + 1)
            except zlib.error as error:
                raise Refused(f"a zip file that is damaged: {error}") from None
            if pump.unconsumed_tail or pump.unused_data or not pump.eof:
                raise Refused(f"a zip file whose member {member.name!r} is not as long as it says")
        if len(found) != member.size:
            raise Refused(f"a zip file whose member {member.name!r} is not as long as it says")
        if zlib.crc32(found) != member.crc:
            raise Refused(f"a zip file that is damaged: bad CRC-32 of {member.name!r}")
        if not nested and bytes(found[:8]).startswith(ARCHIVES):
            raise Refused(f"a zip file with an archive in it: {member.name!r}")
        return found

    def _directory(self) -> tuple[list[Entry], int]:
        data = self.data
        at = len(data) - END.size
        if at < 0 or data[at : at + 4] != b"PK\5\6":
            raise Refused("a zip file with bytes behind its end, or cut off")
        _, disk, first, here, count, size, start, comment = END.unpack_from(data, at)
        if comment or disk or first or here != count:
            raise Refused("a zip file in parts or with a comment")
        stop = at
        if at >= LOCATOR.size and data[at - LOCATOR.size : at - LOCATOR.size + 4] == b"PK\6\7":
            _, disk, where, disks = LOCATOR.unpack_from(data, at - LOCATOR.size)
            stop = where
            sign, length, _, _, d1, d2, here, many, large, far = END64.unpack_from(data, where)
            if (
                sign != b"PK\6\6"
                or where + 12 + length != at - LOCATOR.size
                or length != END64.size - 12
                or (disk, disks, d1, d2) != (0, 1, 0, 0)
                or here != many
                or count not in (many, 0xFFFF)
                or size not in (large, 0xFFFFFFFF)
                or start not in (far, 0xFFFFFFFF)
            ):
                raise Refused("a zip file whose two ends say different things")
            count, size, start = many, large, far
        if start + size != stop:
            raise Refused("a zip file with bytes that no directory names")
        if not 0 < count <= MOST_MEMBERS:
            raise Refused("a zip file without members" if not count else "a zip file of too many")
        entries = []
        at = start
        for _ in range(count):
            entry, at = self._entry(at, stop)
            entries.append(entry)
        if at != stop:
            raise Refused("a zip file whose directory is longer than it says")
        return entries, start

    def _entry(self, at: int, stop: int) -> tuple[Entry, int]:
        got = CENTRAL.unpack_from(self.data, at)
        sign, _, _, flags, method, _, _, crc, packed, size, n, x, c, disk, _, mode, offset = got
        after = at + CENTRAL.size + n + x + c
        if sign != b"PK\1\2" or after > stop:
            raise Refused("a zip file that is damaged: its directory")
        if c or disk:
            raise Refused("a zip file in parts or with comments")
        if (mode >> 16) & 0o170000 == 0o120000:
            raise Refused("a zip file with a link in it")
        name = self.data[at + CENTRAL.size : at + CENTRAL.size + n]
        wide = self._extra(at + CENTRAL.size + n, x)
        values = []
        for value in (size, packed, offset):
            if value == 0xFFFFFFFF:
                if len(wide) < 8:
                    raise Refused("a zip file that is damaged: a size is missing")
                values.append(int.from_bytes(wide[:8], "little"))
                wide = wide[8:]
            else:
                values.append(value)
        return Entry(name, flags, method, crc, values[1], values[0], values[2]), after

    def _extra(self, at: int, length: int) -> bytes:
        """The Zip64 part of an extra field; parts nobody knows are refused."""
        wide = b""
        stop = at + length
        while at < stop:
            kind, size = struct.unpack_from("<2H", self.data, at)
            if at + 4 + size > stop:
                raise Refused("a zip file that is damaged: an extra field")
            if kind not in EXTRAS:
                raise Refused(f"a zip file with an unusual extra field (0x{kind:04x})")
            if kind == 1:
                wide = self.data[at + 4 : at + 4 + size]
            at += 4 + size
        return wide

    def _members(self, entries: list[Entry], directory: int) -> list[Member]:
        found = []
        expected = unpacked = 0
        for entry in sorted(entries, key=lambda one: one.offset):
            if entry.offset != expected:
                raise Refused("a zip file with hidden or overlapping members")
            member, expected = self._member(entry, directory)
            unpacked += member.size
            if unpacked > MOST_UNPACKED:
                raise Refused("a zip file that grows too large when unpacked")
            found.append(member)
        if expected != directory:
            raise Refused("a zip file with bytes that no directory names")
        names = [member.name for member in found]
        if len(set(names)) != len(names) or paths.collisions(names):
            raise Refused("a zip file with doubled members")
        return found

    def _member(self, entry: Entry, directory: int) -> tuple[Member, int]:
        head = LOCAL.unpack_from(self.data, entry.offset)
        sign, _, flags, method, _, _, crc, packed, size, n, x = head
        start = entry.offset + LOCAL.size + n + x
        after = start + entry.packed
        if sign != b"PK\3\4" or after > directory:
            raise Refused("a zip file that is damaged: a member is cut off")
        if (entry.flags | flags) & ENCRYPTED:
            raise Refused("an encrypted zip file")
        if self.data[entry.offset + LOCAL.size : entry.offset + LOCAL.size + n] != entry.name:
            raise Refused("a zip file whose members have two names")
        if flags != entry.flags or method != entry.method or flags & ~FLAGS:
            raise Refused("a zip file whose two headers say different things")
        wide = self._extra(entry.offset + LOCAL.size + n, x)
        if size == 0xFFFFFFFF and len(wide) >= 16:
            size, packed = struct.unpack_from("<2Q", wide)
        said = (crc, packed, size)
        true = (entry.crc, entry.packed, entry.size)
        if flags & BEHIND:
            if any(s not in (0, t) for s, t in zip(said, true, strict=True)):
                raise Refused("a zip file whose two headers say different things")
            after += self._behind(after, true)
        elif said != true:
            raise Refused("a zip file whose two headers say different things")
        try:
            name = entry.name.decode("utf-8" if flags & 0x0800 else "ascii")
        except UnicodeDecodeError:
            raise Refused("a zip file with a name that is not UTF-8") from None
        if paths.trouble(name):
            raise Refused(f"a zip file with the member {name!r}, which {paths.trouble(name)}")
        if method not in (0, 8):
            raise Refused("a zip file with an unusual compression")
        if method == 0 and entry.packed != entry.size:
            raise Refused("a zip file that is damaged: a stored member of two sizes")
        if entry.size > max(16 << 20, MOST_RATIO * entry.packed):
            raise Refused("a zip file that grows too large when unpacked")
        return Member(name, start, entry.packed, entry.size, method, entry.crc), after

    def _behind(self, at: int, true: tuple[int, int, int]) -> int:
        """Length of the sizes behind a member: with a sign or without, of 4 or 8 bytes."""
        crc, packed, size = true
        for sign in (b"PK\7\x08", b""):
            for form in ("<I2Q", "<3I"):
                if form == "<3I" and max(packed, size) > 0xFFFFFFFF:
                    continue
                wanted = sign + struct.pack(form, crc, packed, size)
                if self.data[at : at + len(wanted) + 2] == wanted + b"PK":
                    return len(wanted)
        raise Refused("a zip file whose sizes behind a member differ")
