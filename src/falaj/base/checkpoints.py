"""Judge signed checkpoints of a log, and entries below them. Who may sign comes with the caller."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from falaj.base import merkle, note, tlog
from falaj.base.note import COSIGNATURE, BadNote
from falaj.base.tlog import Checkpoint, Proof

__all__ = ["Seen", "Signers", "open_checkpoint", "stands"]


class Signers(NamedTuple):
    """logs: who may sign checkpoints. witnesses: whose cosignatures count; at_least of them must."""

    logs: Collection[note.Key]
    witnesses: Collection[note.Key] = ()
    at_least: int = 0


class Seen(NamedTuple):
    checkpoint: Checkpoint
    witnesses: tuple[tuple[str, int], ...]  # name, Unix seconds


def open_checkpoint(data: bytes, signers: Signers) -> Seen:
    """A checkpoint that a key of the log has signed, and enough witnesses. Raises BadNote.

    The signer bears the name of the log: a key of another log never speaks for this one.
    """
    read = note.read_note(data)
    told = tlog.read_checkpoint(read.text)
    logs = [key for key in signers.logs if key.name == told.origin]
    if not logs:
        raise BadNote(f"no key of {told.origin} is trusted now")
    opened = note.open_note(data, logs)
    seen: tuple[tuple[str, int], ...] = ()
    known = {(key.name, key.id) for key in signers.witnesses if key.kind == COSIGNATURE}
    if any((one.name, one.id) in known for one in read.signatures):
        held = note.open_note(data, signers.witnesses)
        seen = tuple((key.name, at) for key, at in held.by)
    if len(dict(seen)) < signers.at_least:
        raise BadNote(f"{len(dict(seen))} witnesses have cosigned, wanted are {signers.at_least}")
    return Seen(tlog.read_checkpoint(opened.text), seen)


def stands(proof: Proof, body: bytes, head: Checkpoint) -> bool:
    """Whether the entry stands at its place in the tree of that checkpoint."""
    return merkle.verify_inclusion(
        merkle.leaf(body), proof.place, head.size, proof.hashes, head.root
    )
