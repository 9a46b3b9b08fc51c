"""content1: the digest of a table's values, whatever file or chunks they came in. Buffers in, hex out.

For each column three running SHA-256: `valid` (one byte a row), `values` (fixed width, little
endian, nulls as 0) and `blob` (bytes of strings). A column's digest is over
    u64 length of name | name | u64 length of class | class | u64 rows | valid | values | blob
and the table's over `content1\\n` and the column digests in order. Row order counts.

Classes and the width of their values:
    bool u8 · int i64 · uint u64 (only when a value is beyond i64) · float f64 (one NaN, -0.0 kept)
    date i64 days · time i64 nanoseconds · duration, ts, tsz i64 microseconds (tsz: UTC)
    str, bin, json u32 byte lengths, the bytes in `blob` · null nothing
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

__all__ = ["CLASSES", "ColumnDigest", "Content", "changed", "table"]

Buffer: TypeAlias = bytes | bytearray | memoryview

CLASSES: Final = frozenset(
    (
        *("bool", "int", "uint", "float", "date", "time", "duration", "ts", "tsz"),
        *("str", "bin", "json", "null"),
    )
)


class Content(NamedTuple):
    """Identity of a table. content: `content1:<hex>`. columns: name -> `sha256:<hex>`, in order."""

    content: str
    columns: dict[str, str]
    rows: int


class ColumnDigest:
    """The three running hashes of one column; `feed` may be called any number of times."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows = 0
        self._valid = hashlib.sha256()
        self._values = hashlib.sha256()
        self._blob = hashlib.sha256()

    def feed(self, rows: int, valid: Buffer, values: Buffer, blob: Buffer = b"") -> None:
        self.rows += rows
        self._valid.update(valid)
        self._values.update(values)
        self._blob.update(blob)

    def hexdigest(self, kind: str) -> str:
        """Close the column as class `kind`. Raises ValueError for an unknown class."""
        if kind not in CLASSES:
            raise ValueError(f"class: got {kind!r}, expected one of {', '.join(sorted(CLASSES))}")
        total = hashlib.sha256()
        for text in (self.name.encode(), kind.encode()):
            total.update(struct.pack("<Q", len(text)) + text)
        total.update(struct.pack("<Q", self.rows))
        for part in (self._valid, self._values, self._blob):
            total.update(part.digest())
        return total.hexdigest()


def table(columns: Iterable[tuple[str, str]], rows: int) -> Content:
    """Join column digests (name, hex) in their order."""
    total = hashlib.sha256(b"content1\n")
    found: dict[str, str] = {}
    for name, digest in columns:
        total.update(bytes.fromhex(digest))
        found[name] = "sha256:" + digest
    return Content("content1:" + total.hexdigest(), found, rows)


def changed(old: dict[str, str], new: dict[str, str]) -> tuple[str, ...]:
    """Names of columns that were added, removed or have other values, in the order seen."""
    names = list(dict.fromkeys([*old, *new]))
    return tuple(name for name in names if old.get(name) != new.get(name))
