"""Writes the spool of one server process. Nothing here may slow or fail an answer."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from falaj.base.fenclog import LogWriter
from falaj.base.files import write_atomic
from falaj.facts.serving import Boot, Counts, LogKey
from falaj.serving import spool
from falaj.serving.spool import LogRow

__all__ = ["CountsFile", "LogFile", "write_boot", "write_latencies"]

LOG_SEGMENT: Final = 8 << 20
LOG_TOTAL: Final = 2 << 30
LOG_WAITING: Final = 65_536
LOG_ROOM: Final = 1 << 16  # bytes that must fit before a full log counts as empty again
LOG_BLOCK: Final = 128  # rows that are written out at once: keeps the loop's stall below 1 ms
COUNTS_SIZE: Final = 4 << 20

encode: Final = msgspec.json.Encoder().encode


def write_boot(folder: Path, boot: Boot) -> None:
    """Make the boot record durable; done before a request is answered under a new slot."""
    write_atomic(folder / f"boot-{boot.boot}.json", encode(boot))


def write_latencies(folder: Path, boot: str, told: dict[str, Any]) -> None:
    """Replace the histogram without fsync: after a crash the last quarter second is missing."""
    path = folder / f"latency-{boot}.json"
    part = path.with_suffix(".json.part")
    part.write_bytes(encode(told))
    part.replace(path)


def append(path: Path, data: bytes) -> None:
    """Append whole lines in one write."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
    finally:
        os.close(handle)


class CountsFile:
    """`counts-<boot>-<n>.jsonl`: cumulative lines; a grown file gives way to one of the newest."""

    def __init__(self, folder: Path, boot: str, *, size: int = COUNTS_SIZE) -> None:
        self.folder = folder
        self.boot = boot
        self.number = 0
        self.size = size
        self.compact_at = size
        self.waiting: list[Counts] = []
        self.failed = 0
        self.torn = False

    @property
    def path(self) -> Path:
        return self.folder / f"counts-{self.boot}-{self.number:06d}.jsonl"

    def write(self, changed: list[Counts]) -> None:
        """Lines that could not be written (disk full) wait for the next call."""
        self.waiting.extend(changed)
        if not self.waiting:
            return
        # After a failed write half a line may stand at the end: end it, so that it spoils no other.
        mend = b"\n" if self.torn else b""
        try:
            append(self.path, mend + b"".join(encode(line) + b"\n" for line in self.waiting))
            self.waiting.clear()
            self.torn = False
            if self.path.stat().st_size > self.compact_at:
                self._compact()
        except OSError:
            # Counts are cumulative: only the newest line of each cell has to wait.
            self.failed += 1
            self.torn = True
            self.waiting = list(spool.newest(iter(self.waiting)).values())

    def _compact(self) -> None:
        kept = spool.newest(mark.fact for mark in spool.counts_in(self.path))
        data = b"".join(encode(line) + b"\n" for line in kept.values())
        # A new name, not the old one: inodes are used again, so nothing else tells files apart.
        old = self.path
        self.number += 1
        write_atomic(self.path, data)
        old.unlink()
        self.compact_at = max(self.size, 2 * len(data))


class LogFile:
    """`log-<boot>-<n>.jsonl.part`, renamed at 8 MiB or a new plan. Full means dropped, counted.

    Under a plan with a key it is `.fenc.part`, sealed from its first byte, block by block.
    """

    def __init__(
        self, folder: Path, boot: str, *, segment: int = LOG_SEGMENT, total: int = LOG_TOTAL
    ) -> None:
        self.folder = folder
        self.boot = boot
        self.number = 0
        self.segment = segment
        self.total = total
        self.size = 0
        self.written = 0
        self.rows = 0
        self.waiting: list[Callable[[], list[LogRow]]] = []
        self.waiting_rows = 0
        self.dropped: dict[str, int] = {}
        self.full = False  # the next rows would be dropped
        self.failing = ""  # reason of the last drop, until a write succeeds
        self.key: LogKey | None = None
        self.writer: LogWriter | None = None

    @property
    def name(self) -> str:
        return f"log-{self.boot}-{self.number:06d}.{'fenc' if self.key else 'jsonl'}"

    @property
    def path(self) -> Path:
        return self.folder / f"{self.name}.part"

    def use(self, key: LogKey | None) -> None:
        """From the next row on seal under this key; None: write in the clear."""
        self.rotate()
        self.key = key

    def add(self, rows: int, make: Callable[[], list[LogRow]]) -> None:
        """Remember how to make the rows of one request; they are made when there is time."""
        if self.waiting_rows + rows > LOG_WAITING:
            self._drop("queue", rows)
            self.full = True
            return
        self.waiting.append(make)
        self.waiting_rows += rows

    def flush(self, limit: int = LOG_BLOCK) -> bool:
        """Write out some of what waits; True when more is left."""
        if not self.waiting:
            return False
        made: list[bytes] = []
        used = 0
        for make in self.waiting:
            rows = make()
            made.extend(encode(row) for row in rows)
            used += 1
            if len(made) >= limit:
                break
        del self.waiting[:used]
        self.waiting_rows = max(0, self.waiting_rows - len(made)) if self.waiting else 0
        made.append(b"")
        data = b"\n".join(made)
        if self.written + len(data) > self.total:
            self._drop("space", len(made) - 1)
            return bool(self.waiting)
        try:
            data = self._sealed(data)
            append(self.path, data)
        except OSError:
            # A part of a line may be on disk: start a new file, so that it stays the last one.
            self._drop("disk", len(made) - 1)
            self._next(torn=True)
            return bool(self.waiting)
        self.size += len(data)
        self.written += len(data)
        self.rows += len(made) - 1
        self.failing = ""
        self.full = self.waiting_rows >= LOG_WAITING
        if self.size >= self.segment:
            self.rotate()
        return bool(self.waiting)

    def probe(self) -> None:
        """Find out whether there is room again: without rows no write would tell. Each tick."""
        if not self.full or (self.waiting_rows and not self.failing):
            return
        if self.failing == "space":
            self.written = self._on_disk()
            if self.written + LOG_ROOM > self.total:
                return
        elif self.failing:
            path = self.folder / f".probe-{self.boot}"
            try:
                append(path, bytes(LOG_ROOM))
            except OSError:
                return
            finally:
                with contextlib.suppress(OSError):
                    path.unlink()
        self.failing, self.full = "", False

    def _on_disk(self) -> int:
        """Bytes of the log in the folder: who ships it away makes room."""
        found = 0
        with contextlib.suppress(OSError):
            for path in self.folder.glob(f"log-{self.boot}-*"):
                with contextlib.suppress(OSError):
                    found += path.stat().st_size
        return found

    def rotate(self) -> None:
        """Finish the segment, if it holds anything."""
        if self.size:
            self._next()

    def _sealed(self, data: bytes) -> bytes:
        if self.key is None:
            return data
        if self.writer is not None:
            return self.writer.frame(data)
        labels = {
            "object": self.name,
            "scope": self.key.scope,
            "scope_version": str(self.key.version),
            "classification": self.key.classification,
            "residency": self.key.residency,
        }
        self.writer = LogWriter(base64.b64decode(self.key.public), labels)
        return self.writer.head + self.writer.frame(data)

    def _next(self, *, torn: bool = False) -> None:
        writer, self.writer = self.writer, None
        with contextlib.suppress(OSError):
            if writer is not None and not torn:
                append(self.path, writer.frame(b"", last=True))
            # A sealed file that is torn keeps its `.part`: it lacks the frame that ends it.
            if self.key is None or not torn:
                self.path.replace(self.path.with_suffix(""))
        self.number += 1
        self.size = 0
        self.written = self._on_disk()

    def _drop(self, reason: str, rows: int) -> None:
        if reason != "queue":
            self.failing, self.full = reason, True
        self.dropped[reason] = self.dropped.get(reason, 0) + rows


def moment(ns: int) -> datetime:
    """Unix nanoseconds as an instant."""
    return datetime.fromtimestamp(ns / 1e9, UTC)
