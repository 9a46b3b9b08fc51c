"""Ground truth on its way in: which rows are taken, which are refused and why."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from falaj.base.time import parse_instant
from falaj.facts.serving import Boot
from falaj.serving import spool
from falaj.serving.requests import parts
from falaj.serving.schema import Finding, Refusal
from falaj.serving.spool import LabelRow
from falaj.serving.wire.v2 import parse

__all__ = ["MAX_ROWS", "LabelFile", "Rejected", "read"]

MAX_ROWS: Final = 10_000
REMEMBERED: Final = 262_144
ROOM: Final = 256 << 20  # bytes of ground truth that may wait in a spool: never dropped, so refused


class Rejected(msgspec.Struct):
    """A row that was not taken."""

    index: int
    reason: str


class Given(msgspec.Struct, gc=False):
    rows: list[dict[str, Any]]


GIVEN: Final = msgspec.json.Decoder(Given)


def read(
    model: str, body: bytes, known: Callable[[str], str], now: datetime
) -> tuple[list[LabelRow], list[Rejected]]:
    """Read a body of ground truth. `known(request)`: why a request is refused, or nothing.

    Raises Refusal when the body as a whole cannot be read or has more than 10,000 rows.
    """
    given: Given = parse(GIVEN, body)
    if len(given.rows) > MAX_ROWS:
        words = f"rows: got {len(given.rows)}, expected at most {MAX_ROWS}"
        raise Refusal(Finding("serving.too-many", words, "rows"))
    taken: list[LabelRow] = []
    rejected: list[Rejected] = []
    for index, row in enumerate(given.rows):
        try:
            label = _row(model, row, now)
        except (ValueError, OverflowError) as error:
            rejected.append(Rejected(index, str(error)))
            continue
        why = known(label.request)
        if why:
            rejected.append(Rejected(index, why))
        else:
            taken.append(label)
    return taken, rejected


def _row(model: str, row: dict[str, Any], now: datetime) -> LabelRow:
    extra = set(row) - {"request", "row", "value", "at", "source"}
    if extra:
        raise ValueError(f"unknown field {min(extra)[:60]!r}")
    request, number, value = row.get("request"), row.get("row", 0), row.get("value")
    if not isinstance(request, str):
        raise ValueError("request: expected the request's id")  # noqa: TRY004 -- told to the client
    parts(request)
    if type(number) is not int or not 0 <= number < 1 << 24:
        raise ValueError("row: expected a whole number, 0 or more")
    if type(value) not in (int, float, bool) or not math.isfinite(float(value or 0)):
        raise ValueError("value: expected a finite number")
    source = row.get("source", "")
    if not isinstance(source, str) or len(source) > 128:
        raise ValueError("source: expected at most 128 characters")
    at = row.get("at")
    try:
        when = None if at is None else parse_instant(at)
    except (TypeError, ValueError):
        raise ValueError("at: expected a time such as 2026-11-23T10:00:00Z") from None
    return LabelRow(
        model=model,
        request=request,
        row=number,
        value=float(value),  # type: ignore[arg-type]  # checked above
        at=when,
        source=source,
        received=now,
    )


def is_known(
    request: str, boots: dict[str, Boot], *, own: str, counter: int, releases: set[str]
) -> str:
    """Why ground truth about a request is refused; empty when the request is known.

    own, counter: this process and how many requests it has named. releases: of the other models.
    """
    boot, slot, number = parts(request)
    record = boots.get(boot)
    if record is None or (boot == own and not 0 < number <= counter):
        return "unknown request"
    release = record.slots.get(str(slot))
    if release is None:
        return "unknown request: no release answered it"
    if release in releases:
        return "this request was answered by another model"
    return ""


class LabelFile:
    """`labels-<boot>.jsonl`: nothing is confirmed before it is on disk. For one thread."""

    def __init__(self, folder: Path, boot: str, *, room: int = ROOM) -> None:
        self.folder = folder
        self.room = room
        self.path = folder / f"labels-{boot}.jsonl"
        self.values: dict[tuple[str, int, str], float] = {}
        self.positions: dict[str, int] = {}

    def write(self, rows: list[LabelRow]) -> int:
        """Append what is new and fsync; returns how many lines were written. Raises OSError."""
        for mark in spool.labels(self.folder, self.positions):
            self.positions[mark.name] = mark.offset
            self._remember(mark.fact)
        fresh: dict[tuple[str, int, str], LabelRow] = {}
        for row in rows:
            key = (row.request, row.row, row.source)
            old = fresh[key].value if key in fresh else self.values.get(key)
            if old != row.value:
                fresh[key] = row
        if fresh:
            self._append(b"".join(msgspec.json.encode(row) + b"\n" for row in fresh.values()))
            # Only what is on disk is remembered: a retry after an error must write again.
            for row in fresh.values():
                self._remember(row)
        return len(fresh)

    def _append(self, data: bytes) -> None:
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            size = os.fstat(handle).st_size
            if (
                sum(path.stat().st_size for path in self.folder.glob("labels-*")) + len(data)
                > self.room
            ):
                raise OSError(errno.ENOSPC, "the spool holds as much ground truth as it may")
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(handle, view) :]
                os.fsync(handle)
            except OSError:
                # Half a line must not stay in front of later ones; and nothing was promised.
                os.ftruncate(handle, size)
                raise
        finally:
            os.close(handle)

    def _remember(self, row: LabelRow) -> None:
        if len(self.values) >= REMEMBERED:
            del self.values[next(iter(self.values))]
        self.values[row.request, row.row, row.source] = row.value
