"""What the servers of one environment say together: metrics added up, counts of their common spool."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from falaj.serving import spool
from falaj.serving.refusals import Finding, Refusal

__all__ = ["ask", "merged", "summaries"]

ASK_S: Final = 1.0
MOST: Final = 16 << 20
LINES: Final = 5_000
# Of a gauge of several servers the one that has to be looked at: the largest, but for these.
LEAST: Final = ("falaj_plan_seq", "falaj_verified_timestamp_seconds")
ADDED: Final = ("falaj_connections", "falaj_spool_bytes")


async def ask(url: str, path: str) -> bytes | None:
    """GET from a listener on this machine; None when nothing comes in time."""
    place = urlsplit(url)
    try:
        async with asyncio.timeout(ASK_S):
            reader, writer = await asyncio.open_connection(place.hostname, place.port, limit=MOST)
            try:
                writer.write(
                    f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode()
                )
                answer = await reader.read(MOST)
                while part := await reader.read(MOST):
                    answer += part
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    return body if head.startswith(b"HTTP/1.1 200 ") else None


def merged(texts: list[bytes], *, missing: int = 0) -> bytes:
    """Add up OpenMetrics texts of our own making. missing: servers that did not answer."""
    heads: dict[str, list[str]] = {}
    values: dict[str, dict[str, float]] = {}
    notes: dict[str, str] = {}
    kinds: dict[str, str] = {}
    for text in texts:
        family = ""
        for line in text.decode().splitlines():
            if line.startswith("# EOF"):
                continue
            if line.startswith("# "):
                _, word, family, rest = line.split(" ", 3)
                if word == "TYPE":
                    kinds[family] = rest
                kept = heads.setdefault(family, [])
                if line not in kept and len(kept) < 2:
                    kept.append(line)
                continue
            series, value, note = _parsed(line)
            known = values.setdefault(family, {})
            if series not in known:
                known[series] = value
            elif family in LEAST:
                known[series] = min(known[series], value)
            elif family in ADDED or kinds.get(family) in ("counter", "histogram"):
                known[series] += value
            else:
                known[series] = max(known[series], value)
            if note and _size(note) > _size(notes.get(series, "")):
                notes[series] = note
    lines: list[str] = []
    for family, head in heads.items():
        lines += head
        for series, value in values.get(family, {}).items():
            number = str(int(value)) if value == int(value) else repr(value)
            lines.append(f"{series} {number}{notes.get(series, '')}")
    lines += [
        "# TYPE falaj_servers gauge",
        "# HELP falaj_servers Servers of this environment.",
        f'falaj_servers{{state="answering"}} {len(texts)}',
        f'falaj_servers{{state="silent"}} {missing}',
        "# EOF\n",
    ]
    return "\n".join(lines).encode()


def _parsed(line: str) -> tuple[str, float, str]:
    """Series, value and exemplar. Values of labels may hold anything but the end of a line."""
    at, quoted = 0, False
    while at < len(line) and (quoted or line[at] != " "):
        if line[at] == "\\" and quoted:
            at += 1
        elif line[at] == '"':
            quoted = not quoted
        at += 1
    value, mark, note = line[at + 1 :].partition(" # ")
    return line[:at], float(value), mark + note


def _size(note: str) -> float:
    return float(note.rpartition(" ")[2]) if note else -1.0


def summaries(folder: Path, after: str) -> bytes:
    """Counts behind a position, at most 5,000 lines; `after` of the answer is the next position.

    Lines are cumulative: of each cell the one with the highest `seq` counts. Raises Refusal.
    """
    positions = _positions(after)
    found: list[Any] = []
    for mark in spool.counts(folder, positions):
        positions[mark.name] = mark.offset
        found.append(mark.fact)
        if len(found) >= LINES:
            break
    following = base64.urlsafe_b64encode(msgspec.json.encode(positions)).decode()
    more = len(found) >= LINES
    return msgspec.json.encode({"after": following, "more": more, "counts": found})


def _positions(after: str) -> dict[str, int]:
    if not after:
        return {}
    with contextlib.suppress(ValueError, msgspec.MsgspecError):
        told = msgspec.json.decode(base64.urlsafe_b64decode(after), type=dict[str, int])
        if all(0 <= at < 1 << 62 and "/" not in name for name, at in told.items()):
            return told
    raise Refusal(Finding("serving.after", "after: expected what an earlier answer gave", "after"))
