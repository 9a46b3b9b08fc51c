"""When a release was signed, by the word of others: proofs of the audit log that lie beside its folder.

`<folder>.seen` holds, for every signature, the event of the log that names its digest, below a
checkpoint that a witness has cosigned. What lies there is believed by its signatures alone, so it may
come from anywhere; what does not hold proves nothing, and the time is then only the signer's own word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from falaj.base import bundle, canonical, digests, note, tlog
from falaj.base.checkpoints import Signers, open_checkpoint, stands
from falaj.base.files import write_atomic
from falaj.base.note import BadNote
from falaj.base.trust import note_keys
from falaj.facts.releases import Trust

__all__ = ["beside", "is_told", "keep", "seen_at", "signatures_of"]

MOST: Final = 1 << 20  # bytes of all proofs
SAID: Final = frozenset({"falaj.release.created", "falaj.release.signed"})


def beside(folder: Path) -> Path:
    """Where the proofs of a release folder lie."""
    return folder.with_name(f"{folder.name}.seen")


def signatures_of(folder: Path) -> dict[str, str]:
    """Path -> digest of the signatures of a release, for the event that says that it was signed."""
    return {name: digests.of_bytes(path.read_bytes()) for name, path in _signatures(folder)}


def is_told(folder: Path) -> bool:
    """Whether what lies beside the folder is not older than the signatures in it."""
    try:
        told = beside(folder).stat().st_mtime_ns
    except FileNotFoundError:
        return False
    return all(path.stat().st_mtime_ns <= told for _, path in _signatures(folder))


def _signatures(folder: Path) -> list[tuple[str, Path]]:
    found = [folder / bundle.SIGNATURE, *(folder / bundle.SIGNATURES).glob("*")]
    return [(path.relative_to(folder).as_posix(), path) for path in found if path.is_file()]


def keep(folder: Path, proofs: Iterable[tlog.Proof]) -> None:
    """Write the proofs beside the folder; each holds its event."""
    told = [tlog.write_proof(proof).decode() for proof in proofs]
    write_atomic(beside(folder), canonical.dumps({"proofs": told}))


def seen_at(
    folder: Path, trust: Trust, files: Mapping[str, str], *, now: datetime
) -> datetime | None:
    """The earliest time at which witnesses have seen all signatures of the release.

    files: path -> digest of everything in the folder, as it was hashed. None when nobody has seen
    them, when only some were seen, or what lies beside the folder does not hold.
    """
    wanted = {path: digest for path, digest in files.items() if bundle.is_bundle(path)}
    signers = Signers(
        note_keys(trust, "log", now, note.ED25519),
        note_keys(trust, "witness", now, note.COSIGNATURE),
        at_least=1,
    )
    subject = f"release/{files.get(bundle.RELEASE, '')}"
    times: dict[str, int] = {}
    try:
        for proof in _read(beside(folder)):
            named, at = _judged(proof, signers, subject)
            for path, digest in wanted.items():
                if named.get(path) == digest:
                    times[path] = min(at, times.get(path, at))
        if not wanted or set(times) != set(wanted):
            return None
        found = datetime.fromtimestamp(max(times.values()), UTC)
    except (BadNote, OSError, OverflowError, ValueError):
        return None
    return found if found <= now else None


def _read(path: Path) -> list[tlog.Proof]:
    with path.open("rb") as source:
        data = source.read(MOST + 1)
    match bundle.spelled(data) if len(data) <= MOST else None:
        case {"proofs": [*told], **more} if not more:
            return [tlog.read_proof(str(one).encode()) for one in told]
        case _:
            raise BadNote("it holds no proofs")


def _judged(proof: tlog.Proof, signers: Signers, subject: str) -> tuple[Mapping[str, object], int]:
    """Signatures (path -> digest) that the event names, and when a witness saw it. Raises BadNote."""
    seen = open_checkpoint(proof.note, signers)
    body = proof.extra or b""
    if not stands(proof, body, seen.checkpoint):
        raise BadNote("the event does not stand in the log")
    match bundle.spelled(body):
        case {"type": str(kind), "subject": str(about), "data": {"signatures": dict(named)}}:
            if kind in SAID and about == subject:
                return named, min(at for _, at in seen.witnesses)
        case _:
            pass
    raise BadNote("the event says nothing of this release")
