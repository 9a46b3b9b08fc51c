"""Reads what servers left in their spool: log, ground truth, counts, boot records. Pure readers.

Files only grow, one JSON object a line. A last line without its end was torn by a crash and is
not read. `log-*.jsonl.part` becomes `log-*.jsonl` when it is full; both have one name here, so a
position outlives the rename. Positions are plain data: keep them and go on where you stopped.

A log that was sealed (`.fenc`) is read frame by frame, each one verified. A file that does not open is
left and named, and the others are read: who alters one file must not hide all of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from falaj.base import fenclog
from falaj.base.errors import Unverified
from falaj.base.fenc import Unsealable
from falaj.base.time import Instant
from falaj.facts.serving import Boot, Counts

__all__ = [
    "LabelRow",
    "LogRow",
    "Mark",
    "boots",
    "counts",
    "counts_in",
    "labels",
    "latencies",
    "lines",
    "log",
    "newest",
]

T = TypeVar("T")
CHUNK: Final = 1 << 20
SEALED: Final = ".fenc"


class LogRow(msgspec.Struct, gc=False, kw_only=True):
    """One answered row. x: inputs in schema order as sent, null where null. y: all outputs.

    assigned, arm: stable or canary; they differ when stable rescued. outcome: ok, rescued or a
    code. score: probability of the last class, or the value. stratum: -1 outside the counts.
    """

    at: Instant
    request: str
    row: int
    model: str
    release: str
    assigned: str
    arm: str
    outcome: str
    latency_us: int
    stratum: int
    step: int
    rollout: str
    event_time: Instant | None = None
    x: list[Any]
    y: list[Any]
    score: float | None = None
    rows: int = 1  # of the whole request; at most 64 of them are logged


class LabelRow(msgspec.Struct, gc=False, kw_only=True):
    """One piece of ground truth. at: when the outcome was known; received: by the server."""

    model: str
    request: str
    row: int
    value: float
    at: Instant | None = None
    source: str = ""
    received: Instant


class Mark(NamedTuple):
    """A line and where the next one starts: `positions[name] = offset` goes on behind it."""

    name: str
    offset: int
    fact: Any


def lines(path: Path, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Whole lines from `offset` on, each with the offset behind it; a torn last line is left."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(offset)
        rest = b""
        while chunk := file.read(CHUNK):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                offset += len(line) + 1
                yield offset, line


def log(
    spool: Path,
    positions: Mapping[str, int] | None = None,
    *,
    key: fenclog.Opener | None = None,
    refused: Callable[[str, str], None] | None = None,
) -> Iterator[Mark]:
    """Rows of the inference log behind `positions` (segment name -> offset).

    key: opens sealed segments. refused: hears the name of one that does not open, and why; the
    others are read. Without `refused` the first such segment raises Unverified.
    """
    since = positions or {}
    for name, path in sorted(_files(spool, "log-").items()):
        if not name.endswith(SEALED):
            yield from _facts(path, name, LogRow, since.get(name, 0))
            continue
        try:
            yield from _unsealed(path, name, since.get(name, 0), key)
        except ValueError as error:
            if refused is None:
                raise Unverified(
                    "serving.log-segment",
                    f"{name}: {error}",
                    why="a segment of the inference log is read whole as it was sealed, or not at all",
                    fix="put the file back from a copy; after an erasure nothing brings it back",
                ) from None
            refused(name, str(error))


def _unsealed(path: Path, name: str, offset: int, key: fenclog.Opener | None) -> Iterator[Mark]:
    """Offsets: behind the last line of a frame the frame's end, before it some place inside."""
    decoder = msgspec.json.Decoder(LogRow)
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        whole = path.suffix != ".part"
        for frame in fenclog.frames(file, key or _no_key, object=name, offset=offset, whole=whole):
            at = frame.start
            for line in frame.data.split(b"\n")[:-1]:
                at += len(line) + 1
                end = frame.end if at == frame.start + len(frame.data) else at
                if end <= offset:
                    continue
                with contextlib.suppress(msgspec.MsgspecError):  # of a newer version
                    yield Mark(name, end, decoder.decode(line))


def _no_key(_: Mapping[str, str]) -> bytes:
    raise Unsealable("it is sealed, and its key is not here")


def labels(spool: Path, positions: Mapping[str, int] | None = None) -> Iterator[Mark]:
    """Ground truth behind `positions`. The newest value of a (request, row, source) counts."""
    yield from _read(spool, "labels-", LabelRow, positions or {})


def counts(spool: Path, positions: Mapping[str, int] | None = None) -> Iterator[Mark]:
    """Cumulative counts behind `positions`.

    A grown file gives way to a new one that starts with the newest lines; `newest` makes the
    repeated ones harmless.
    """
    yield from _read(spool, "counts-", Counts, positions or {})


def counts_in(path: Path, offset: int = 0) -> Iterator[Mark]:
    """Counts of one file."""
    yield from _facts(path, path.name, Counts, offset)


def newest(
    lines: Iterator[Counts], known: dict[tuple[Any, ...], Counts] | None = None
) -> dict[tuple[Any, ...], Counts]:
    """Keep the highest `seq` of each (source, model, rollout, stratum, step, zone, metric)."""
    found = {} if known is None else known
    for line in lines:
        key = (
            line.source,
            line.model,
            line.rollout,
            line.stratum,
            line.step,
            line.zone,
            line.metric,
        )
        old = found.get(key)
        if old is None or line.seq > old.seq:
            found[key] = line
    return found


def boots(spool: Path) -> list[Boot]:
    """Boot records of all processes that ever answered from here, oldest first."""
    found = []
    for path in sorted(spool.glob("boot-*.json")):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=Boot))
        except (OSError, msgspec.MsgspecError):
            continue  # written atomically, so this is not one of ours
    return sorted(found, key=lambda boot: boot.at)


def latencies(spool: Path) -> dict[str, dict[str, tuple[list[int], list[int]]]]:
    """Model -> release -> (edges in microseconds, counts), added over all processes."""
    added: dict[str, dict[str, dict[int, int]]] = {}
    for path in sorted(spool.glob("latency-*.json")):
        try:
            told = msgspec.json.decode(path.read_bytes())
        except (OSError, msgspec.MsgspecError):
            continue
        for model, entry in told.items():
            into = added.setdefault(model, {}).setdefault(entry["release"], {})
            for edge, count in zip(entry["edges_us"], entry["counts"], strict=True):
                into[edge] = into.get(edge, 0) + count
    return {
        model: {
            release: (sorted(cells), [cells[edge] for edge in sorted(cells)])
            for release, cells in releases.items()
        }
        for model, releases in added.items()
    }


def _read(
    spool: Path, prefix: str, kind: type[Any], positions: Mapping[str, int]
) -> Iterator[Mark]:
    for name, path in sorted(_files(spool, prefix).items()):
        yield from _facts(path, name, kind, positions.get(name, 0))


def _facts(path: Path, key: str, kind: type[Any], offset: int) -> Iterator[Mark]:
    decoder = msgspec.json.Decoder(kind)
    for end, line in lines(path, offset):
        try:
            fact = decoder.decode(line)
        except msgspec.MsgspecError:
            continue  # a line of a newer version, or damaged: the next ones still count
        yield Mark(key, end, fact)


def _files(spool: Path, prefix: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in spool.iterdir() if spool.is_dir() else ():
        name = path.name
        if name.startswith(prefix) and name.removesuffix(".part").endswith((".jsonl", SEALED)):
            if name.endswith(".part"):
                # Renamed between listing and opening: the finished name is the same file.
                done = path.with_name(name.removesuffix(".part"))
                found[done.name] = path if path.exists() else done
            else:
                found[name] = path
    return found
