"""Parquet and Arrow files: their metadata read through, everything inside the file, rows bounded.

A column that lies in another file, an encrypted footer and the extension type that is a pickle
(`arrow.py_extension_type`, CVE-2023-47248) are refused.
Formats: parquet.thrift of parquet-format 2.11; Arrow columnar format 1.5 (File.fbs, Message.fbs).
"""

from __future__ import annotations

import base64
import binascii
import struct
from itertools import pairwise
from typing import Any, Final

from falaj.evaluation.formats.verdict import MOST_UNPACKED, Format, Refused

__all__ = ["judge_arrow", "judge_parquet"]

MOST_ROWS: Final = 1_000_000_000
MOST_FOOTER: Final = 64 << 20
MOST_DEPTH: Final = 32
PICKLED: Final = b"py_extension_type"


def judge_parquet(data: bytes) -> Format:
    if len(data) < 12 or data[-4:] != b"PAR1":
        raise Refused("Parquet that is cut off or has bytes behind its end")
    length = int.from_bytes(data[-8:-4], "little")
    start = len(data) - 8 - length
    if length > MOST_FOOTER or start < 4:
        raise Refused("Parquet whose footer does not fit into the file")
    thrift = Thrift(data[start : start + length])
    footer = thrift.struct(0)
    if thrift.at != length:
        raise Refused("Parquet with bytes behind its footer")
    rows, groups = footer.get(3), footer.get(4)
    if 8 in footer or 9 in footer:
        raise Refused("Parquet that is encrypted or signed by itself")
    if not isinstance(rows, int) or not 0 <= rows <= MOST_ROWS or not isinstance(groups, list):
        raise Refused(f"Parquet that says no number of rows, or more than {MOST_ROWS:,}")
    for note in footer.get(5) or []:
        notes(note)
    seen = unpacked = 0
    spans: list[tuple[int, int]] = []
    for group in groups:
        seen += whole(group.get(3))
        for chunk in group.get(1) or []:
            unpacked += column(chunk, start, spans)
    if seen != rows:
        raise Refused("Parquet whose row groups hold another number of rows")
    if unpacked > MOST_UNPACKED:
        raise Refused("Parquet that grows too large when unpacked")
    spans.sort()
    if any(one[1] > two[0] for one, two in pairwise(spans)):
        raise Refused("Parquet with columns that overlap")
    return Format("parquet", {"bytes": len(data), "rows": rows, "columns": len(spans)})


def notes(note: Any) -> None:
    """A key and its value; the schema of Arrow lies in base64 among them."""
    key, value = note.get(1, b""), note.get(2, b"")
    if key == b"ARROW:schema":
        try:
            value = base64.b64decode(value, validate=True)
        except binascii.Error:
            raise Refused("Parquet whose Arrow schema is not base64") from None
    if PICKLED in value or PICKLED in key:
        raise Refused("Parquet with an extension type that is a pickle")


def column(chunk: Any, stop: int, spans: list[tuple[int, int]]) -> int:
    if chunk.get(1):
        raise Refused("Parquet with a column in another file")
    if 8 in chunk or 9 in chunk:
        raise Refused("Parquet with an encrypted column")
    about = chunk.get(3)
    if not isinstance(about, dict):
        raise Refused("Parquet with a column that does not say where it lies")
    begin = whole(about.get(9))
    dictionary = about.get(11)
    if isinstance(dictionary, int) and 4 <= dictionary < begin:
        begin = dictionary
    end = begin + whole(about.get(7))
    if not 4 <= begin <= end <= stop:
        raise Refused("Parquet with a column outside of the file")
    spans.append((begin, end))
    return whole(about.get(6))


def whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Refused("Parquet with a number that is missing or negative")
    return value


class Thrift:
    """Compact protocol, read only: structs as field number -> value."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.left = 4_000_000

    def varint(self) -> int:
        value = shift = 0
        while True:
            if self.at >= len(self.data) or shift > 63:
                raise Refused("Parquet with a footer that is cut off")
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def zigzag(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def struct(self, depth: int) -> dict[int, Any]:
        if depth > MOST_DEPTH:
            raise Refused("Parquet with a footer that is nested too deep")
        found: dict[int, Any] = {}
        number = 0
        while True:
            head = self.byte()
            if head == 0:
                return found
            kind = head & 15
            number = number + (head >> 4) if head >> 4 else self.zigzag()
            if number in found:
                raise Refused("Parquet with a field that stands twice")
            found[number] = kind == 1 if kind in (1, 2) else self.value(kind, depth)

    def byte(self) -> int:
        if self.at >= len(self.data):
            raise Refused("Parquet with a footer that is cut off")
        self.at += 1
        return self.data[self.at - 1]

    def value(self, kind: int, depth: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise Refused("Parquet with a footer of too many fields")
        if kind in (1, 2, 3):
            return self.byte()
        if kind in (4, 5, 6):
            return self.zigzag()
        if kind == 7:
            return self.take(8)
        if kind == 8:
            return self.take(self.varint())
        if kind in (9, 10):
            head = self.byte()
            count = head >> 4 if head >> 4 != 15 else self.varint()
            if count > len(self.data):
                raise Refused("Parquet with a list longer than its footer")
            return [self.value(head & 15, depth + 1) for _ in range(count)]
        if kind == 12:
            return self.struct(depth + 1)
        raise Refused(f"Parquet with a footer of unknown kind {kind}")

    def take(self, size: int) -> bytes:
        if self.at + size > len(self.data):
            raise Refused("Parquet with a footer that is cut off")
        self.at += size
        return self.data[self.at - size : self.at]


# Arrow: magic, messages one behind the other, footer (a flatbuffer), its length, magic.
MAGIC: Final = b"ARROW1"
RECORDS, DICTIONARY, SCHEMA = 3, 2, 1  # MessageHeader


def judge_arrow(data: bytes) -> Format:
    if len(data) < 26 or data[-6:] != MAGIC or data[6:8] != b"\0\0":
        raise Refused("Arrow that is cut off or has bytes behind its end")
    length = int.from_bytes(data[-10:-6], "little", signed=True)
    start = len(data) - 10 - length
    if not 0 < length <= MOST_FOOTER or start < 8:
        raise Refused("Arrow whose footer does not fit into the file")
    footer = data[start : start + length]
    if PICKLED in footer:
        raise Refused("Arrow with an extension type that is a pickle")
    root = Flat.root(footer)
    blocks = sorted([*root.blocks(2), *root.blocks(3)])
    rows = sum(batch(data, start, *block) for block in blocks)
    if any(one + size + body > two for (one, size, body), (two, *_) in pairwise(blocks)):
        raise Refused("Arrow with batches that overlap")
    if rows > MOST_ROWS:
        raise Refused(f"Arrow with more than {MOST_ROWS:,} rows")
    return Format("arrow", {"bytes": len(data), "rows": rows, "batches": len(root.blocks(3))})


def batch(data: bytes, stop: int, at: int, size: int, body: int) -> int:
    """Rows of one block; it lies between the magic and the footer."""
    if at < 8 or size < 8 or body < 0 or at + size + body > stop:
        raise Refused("Arrow with a batch outside of the file")
    head = data[at : at + size]
    if PICKLED in head:
        raise Refused("Arrow with an extension type that is a pickle")
    skip = 8 if head[:4] == b"\xff\xff\xff\xff" else 4
    message = Flat.root(head[skip:])
    if message.number(3, "<q") != body:
        raise Refused("Arrow with a batch of two lengths")
    kind = message.number(1, "<B")
    if kind not in (RECORDS, DICTIONARY):
        raise Refused("Arrow with a block that is no batch")
    rows = message.table(2).number(0, "<q") if kind == RECORDS else 0
    if rows < 0:
        raise Refused("Arrow with a negative number of rows")
    return rows


class Flat:
    """One table of a flatbuffer, every offset held against the end."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at
        self.fields = at - self.read("<i", at)
        self.size = self.read("<H", self.fields)

    @classmethod
    def root(cls, data: bytes) -> Flat:
        if len(data) < 8:
            raise Refused("Arrow with metadata that is cut off")
        return cls(data, int.from_bytes(data[:4], "little"))

    def read(self, form: str, at: int) -> int:
        if not 0 <= at <= len(self.data) - struct.calcsize(form):
            raise Refused("Arrow with metadata that leads out of itself")
        found: int = struct.unpack_from(form, self.data, at)[0]
        return found

    def place(self, number: int) -> int:
        slot = 4 + 2 * number
        offset = self.read("<H", self.fields + slot) if slot + 2 <= self.size else 0
        return self.at + offset if offset else 0

    def number(self, number: int, form: str) -> int:
        place = self.place(number)
        return self.read(form, place) if place else 0

    def table(self, number: int) -> Flat:
        place = self.place(number)
        if not place:
            raise Refused("Arrow with metadata that is missing")
        return Flat(self.data, place + self.read("<I", place))

    def blocks(self, number: int) -> list[tuple[int, int, int]]:
        """Structs of offset (8), metadata's length (4), padding (4), body's length (8)."""
        place = self.place(number)
        if not place:
            return []
        begin = place + self.read("<I", place)
        count = self.read("<I", begin)
        if count * 24 > len(self.data):
            raise Refused("Arrow with more batches than its footer has room for")
        return [
            (
                self.read("<q", begin + 4 + 24 * i),
                self.read("<i", begin + 12 + 24 * i),
                self.read("<q", begin + 20 + 24 * i),
            )
            for i in range(count)
        ]
