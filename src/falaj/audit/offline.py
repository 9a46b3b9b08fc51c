"""Check what a log handed out, on another machine. Runs with base alone.

Who may sign comes with the caller, never with the files: keys of role `log` and of witnesses.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from falaj.base import bundle, canonical, merkle, time, tlog
from falaj.base.bundle import Finding
from falaj.base.checkpoints import Seen, Signers, open_checkpoint, stands
from falaj.base.note import BadNote

__all__ = ["Checked", "check_export", "check_growth", "check_proof"]

LONGEST: Final = 1 << 16  # of one entry in a bundle of entries
EVENTS: Final = "events.jsonl"
CHECKPOINT: Final = "checkpoint"


class Checked(NamedTuple):
    """facts: what was found to hold, for people. It holds when there is no finding."""

    facts: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        return not self.findings


def check_proof(data: bytes, signers: Signers, *, entry: bytes | None = None) -> Checked:
    """Judge a `.tlog-proof`. entry: the event, when the reader has it; else the one in the file."""
    try:
        proof = tlog.read_proof(data)
        seen = open_checkpoint(proof.note, signers)
    except BadNote as error:
        return _bad("audit.proof", str(error))
    body = proof.extra if entry is None else entry
    if body is None:
        return _bad("audit.proof", "the proof does not hold the event: give it beside it")
    head = seen.checkpoint
    if not stands(proof, body, head):
        return _bad(
            "audit.proof",
            f"the event does not stand at place {proof.place} of the {head.size} that were signed",
        )
    told = _event(body)
    if told is None:
        return _bad("audit.proof", "what stands in the log there is no event")
    return Checked((f"event {told}", f"place {proof.place} of {_words(seen)}"), ())


def check_growth(data: bytes, held: bytes, signers: Signers) -> Checked:
    """Judge a proof of growth against the checkpoint that the reader has kept."""
    try:
        growth = tlog.read_growth(data)
        new = open_checkpoint(growth.note, signers)
        # Witnesses count for the new one; what was kept needs no second witness.
        old = open_checkpoint(held, signers._replace(at_least=0)).checkpoint
        tlog.judge(old, growth, new.checkpoint)
    except (BadNote, tlog.Elsewhere, tlog.Forked) as error:
        return _bad("audit.growth", str(error))
    return Checked(
        (
            f"the {old.size} events that were held are the first of {_words(new)}",
            "none of them was removed, changed or put elsewhere",
        ),
        (),
    )


def check_export(folder: Path, signers: Signers) -> Checked:
    """Judge an exported log: every entry, every tile, the checkpoint. Names the first that differs."""
    try:
        seen = open_checkpoint((folder / CHECKPOINT).read_bytes(), signers)
    except OSError as error:
        return _bad("audit.export", f"{CHECKPOINT}: {error.strerror}", CHECKPOINT)
    except BadNote as error:
        return _bad("audit.export", f"{CHECKPOINT}: {error}", CHECKPOINT)
    try:
        return _export(folder, seen)
    except OSError as error:
        name = Path(str(error.filename)).name if error.filename else EVENTS
        return _bad("audit.export", f"{name}: {error.strerror}", name)


def _export(folder: Path, seen: Seen) -> Checked:
    head = seen.checkpoint
    found: list[Finding] = []
    levels: list[list[bytes]] = []
    leaves: list[bytes] = []
    bundles = Bundles(folder, head.size)
    for index, body in enumerate(_lines(folder / EVENTS)):
        leaves.append(merkle.leaf(body))
        why = bundles.differs(index, body)
        if why:
            found.append(
                Finding("audit.export", why, f"{why}: entry {index} differs from {EVENTS}")
            )
            break
    if len(leaves) != head.size:
        found.append(
            Finding(
                "audit.export",
                EVENTS,
                f"{EVENTS} holds {len(leaves)} events, signed are {head.size}",
            )
        )
    edge, _ = merkle.grow(merkle.START, leaves)
    if not found and merkle.root_of(edge) != head.root:
        found.append(
            Finding("audit.export", EVENTS, f"{EVENTS} does not lead to the root that was signed")
        )
    levels.append(leaves)
    while len(levels[-1]) >= tlog.WIDTH:
        below = levels[-1]
        levels.append(
            [
                merkle.root(below[at : at + tlog.WIDTH])
                for at in range(0, len(below) - tlog.WIDTH + 1, tlog.WIDTH)
            ]
        )
    told: list[str] = []
    for tile in tlog.tiles(head.size):
        name = tlog.tile_path(*tile)
        told.append(name)
        path = folder / name
        data = path.read_bytes() if path.is_file() else b""
        start = tile.number * tlog.WIDTH
        want = levels[tile.level][start : start + tile.width] if tile.level < len(levels) else []
        if data != b"".join(want):
            found.append(_tile(name, data, want, start))
    if found:
        return Checked((), tuple(_first(found)))
    return Checked((f"{_words(seen)}, every entry and {len(told)} tiles",), ())


def _tile(name: str, data: bytes, want: list[bytes], start: int) -> Finding:
    if not data:
        return Finding("audit.export", name, f"{name} is missing")
    for at, hash_ in enumerate(want):
        if data[32 * at : 32 * at + 32] != hash_:
            return Finding("audit.export", name, f"{name}: hash {start + at} of its level differs")
    return Finding("audit.export", name, f"{name} holds more than the log has")


def _first(found: list[Finding]) -> Iterator[Finding]:
    """One a file, in the order found."""
    yield from {finding.file: finding for finding in reversed(found)}.values()


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            yield line.removesuffix(b"\n")


class Bundles:
    """Entries as the tiles' specification has them: two bytes of length, then the entry."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self._size = folder, size
        self._name, self._data, self._at = "", b"", 0

    def differs(self, index: int, body: bytes) -> str:
        """The name of the bundle when it says something else; bundles that are not there say nothing."""
        if index % tlog.WIDTH == 0:
            number = index // tlog.WIDTH
            self._name = tlog.tile_path("entries", number, min(tlog.WIDTH, self._size - index))
            path = self._folder / self._name
            self._data, self._at = (path.read_bytes() if path.is_file() else b""), 0
        if not self._data:
            return ""
        want = len(body).to_bytes(2, "big") + body if len(body) < LONGEST else b""
        end = self._at + len(want)
        if not want or self._data[self._at : end] != want:
            return self._name
        self._at = end
        last = index % tlog.WIDTH == tlog.WIDTH - 1 or index == self._size - 1
        return self._name if last and end != len(self._data) else ""


def _event(body: bytes) -> str | None:
    try:
        match bundle.spelled(body):
            case {"id": str(id_), "type": str(kind), "subject": str(subject), "time": str(at)}:
                time.parse_instant(at)
                return f"{id_}: {kind.removeprefix('falaj.')} of {subject} at {at}"
            case _:
                return None
    except (canonical.NotCanonical, ValueError, OverflowError):
        return None


def _words(seen: Seen) -> str:
    head = seen.checkpoint
    words = f"the {head.size} events of {head.origin}, root {head.root.hex()[:16]}"
    if not seen.witnesses:
        return words + ", seen by no witness"
    return words + "".join(f", seen by {name} at {_at(at)}" for name, at in seen.witnesses)


def _at(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return "a time beyond the calendar"


def _bad(code: str, message: str, file: str = "") -> Checked:
    return Checked((), (Finding(code, file, message),))
