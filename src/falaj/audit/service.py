"""The integrator: gives events their places, and signs what the tree has become."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

from falaj.base import merkle, note, tlog
from falaj.base.errors import FalajError, NotFound
from falaj.base.files import write_atomic
from falaj.base.tlog import Checkpoint, Growth, Proof
from falaj.base.trust import ROOT, RootKey, note_keys
from falaj.ports.ground import Ground
from falaj.ports.log import LogStore, LogUnavailable, Signed
from falaj.ports.signer import Keys
from falaj.ports.store import Store

__all__ = ["BATCH", "Log"]

BATCH: Final = 100  # events that one checkpoint covers, at most
EVERY_S: Final = 1.0  # at the latest, where a worker turns
ROLE: Final = "log"
LATEST: Final = "latest"


class Log:
    """The audit log of one project.

    memory: a file outside the database with the last checkpoint that was signed, so that a store
    put back from a copy, or written anew, is not signed as if nothing had been.
    """

    def __init__(
        self,
        store: Store,
        log: LogStore,
        keys: Keys,
        *,
        project: str,
        now: Callable[[], datetime],
        memory: Path,
    ) -> None:
        self.store, self.log = store, log
        self._keys, self._project, self._now, self._memory = keys, project, now, memory
        self._signed_at: datetime | None = None
        self._origin = ""

    @classmethod
    def of(cls, ground: Ground) -> Log:
        if ground.log is None:
            raise RuntimeError("this project was wired without a log")
        return cls(
            ground.store,
            ground.log,
            ground.keys,
            project=ground.name,
            now=ground.now,
            memory=ground.state / "log.checkpoint",
        )

    # --- going on ---

    def turn(self) -> Signed | None:
        """A worker's turn: place what waits; sign after a full batch, or when a second has passed."""
        signed = None
        while self.log.waiting():
            size = self.store.integrate(limit=BATCH)
            if self._unsigned(size) >= BATCH:
                signed = self.seal()
        if self._unsigned(self.log.size()) and self._due():
            signed = self.seal()
        return signed

    def _unsigned(self, size: int) -> int:
        last = self.log.last()
        return size - (last.size if last else 0)

    def _due(self) -> bool:
        at = self._signed_at
        return at is None or (self._now() - at).total_seconds() >= EVERY_S

    def cover(self) -> Signed | None:
        """Place and sign all that there is now. Raises LogUnavailable; then nobody may go on.

        None while the log is empty.
        """
        signed = None
        while self.log.waiting():
            self.store.integrate(limit=BATCH)
            signed = self.seal()
        return signed or self.seal()

    def seal(self) -> Signed | None:
        """Sign the tree as it is.

        1. What was signed last, here and in the file beside the database, is ours. 2. The tree is
        its continuation, proven from the nodes. 3. The checkpoint is kept before it is remembered,
        so whoever dies between the two signs the same again.
        """
        name, signer = self._key()
        size, root = self._head()
        last = self._last(name)
        if size == 0 and last is None:
            return None
        if last is not None and (last.size, last.root) == (size, root) and self._holds(last, name):
            self._remember(last)
            return last
        if last is not None:
            parts = merkle.consistency_parts(last.size, size) if last.size < size else ()
            proof = self._proof(parts)
            if not merkle.verify_consistency(last.size, size, last.root, root, proof):
                raise self._forked(last, size)
        text = tlog.text_of(Checkpoint(name.name, size, root))
        signed = Signed(size, root, note.write_note(text, [note.sign(text, name, signer)]))
        self.log.keep(signed)
        self._remember(signed)
        self._signed_at = self._now()
        return signed

    def _remember(self, signed: Signed) -> None:
        known = self.remembered()
        if known is None or known.size < signed.size or self._same(known, signed):
            write_atomic(self._memory, signed.note, mode=0o600)

    @staticmethod
    def _same(known: Signed, signed: Signed) -> bool:
        """Signed anew by a later key."""
        return known[:2] == signed[:2] and known.note != signed.note

    @staticmethod
    def _holds(signed: Signed, key: note.Key) -> bool:
        """Whether it is signed by the key of now: one that was retired or revoked counts no more."""
        try:
            note.open_note(signed.note, (key,))
        except note.BadNote:
            return False
        return True

    def _head(self) -> tuple[int, bytes]:
        size = self.log.size()
        return size, self._root(size)

    def _root(self, size: int) -> bytes:
        return merkle.fold(self._nodes(merkle.subtrees(0, size)))

    def _nodes(self, wanted: Iterable[tuple[int, int]]) -> list[bytes]:
        asked = tuple(wanted)
        found = self.log.nodes(asked)
        missing = [place for place in asked if place not in found]
        if missing:
            level, idx = missing[0]
            raise LogUnavailable(
                "audit.log-damaged",
                f"the log has lost node {idx} of level {level}",
                why="without it nothing can be proven, and nothing more is signed",
                fix="`falaj audit verify` names what differs; put the store back from a copy",
            )
        return [found[place] for place in asked]

    def _proof(self, parts: tuple[tuple[int, int], ...]) -> tuple[bytes, ...]:
        wanted = tuple(dict.fromkeys(p for a, b in parts for p in merkle.subtrees(a, b)))
        found = dict(zip(wanted, self._nodes(wanted), strict=True))
        return merkle.proof_of(parts, lambda level, idx: found[level, idx])

    def _last(self, key: note.Key) -> Signed | None:
        """The larger of what the database and the file say was signed last, by a key of ours."""
        found = [known for known in (self.log.last(), self.remembered()) if known is not None]
        if not found:
            return None
        last = max(found, key=lambda known: known.size)
        try:
            opened = note.open_note(last.note, self.ever())
            told = tlog.read_checkpoint(opened.text)
        except note.BadNote as error:
            raise LogUnavailable(
                "audit.log-forked",
                f"the last checkpoint of the log is not one of ours: {error}",
                why="it must be signed by a key of role log in the trust root of this workspace",
                fix="put the store and the keys back from copies that belong together",
            ) from None
        if told != Checkpoint(key.name, last.size, last.root):
            raise LogUnavailable(
                "audit.log-forked",
                "the last checkpoint of the log tells another size or root than its signed text",
                why="the database was written by somebody else",
                fix="`falaj audit verify` names what differs; put the store back from a copy",
            )
        return last

    def remembered(self) -> Signed | None:
        """What was signed last, as the file beside the database says; nobody has verified it."""
        try:
            data = self._memory.read_bytes()
        except FileNotFoundError:
            return None
        try:
            told = tlog.read_checkpoint(note.read_note(data).text)
        except note.BadNote as error:
            raise LogUnavailable(
                "audit.log-forked",
                f"{self._memory.name}: {error}",
                why="it holds the checkpoint that was signed last, and was changed",
                fix="put it back from a copy",
            ) from None
        return Signed(told.size, told.root, data)

    def _forked(self, last: Signed, size: int) -> LogUnavailable:
        shorter = size < last.size
        return LogUnavailable(
            "audit.log-forked",
            f"the log has {size} events, signed were {last.size}"
            if shorter
            else f"the log of {size} events is no continuation of the {last.size} that were signed",
            why="events were removed, changed or put between others: nothing more is signed",
            fix="`falaj audit verify` names what differs; put the store back from a newer copy",
        )

    # --- keys ---

    def trusted(self) -> tuple[note.Key, ...]:
        """The keys that may sign checkpoints here, now."""
        return note_keys(self._keys.trust(), ROLE, self._now(), note.ED25519)

    def ever(self) -> tuple[note.Key, ...]:
        """Every key that this log ever had: what it signed last was signed by one of them."""
        origin = self.origin
        found = (
            note.key_of_pem(key.identity, note.ED25519, key.public.encode())
            for key in self._keys.trust().keys
            if key.identity == origin and ROLE in key.roles
        )
        return tuple(key for key in found if key is not None)

    @property
    def origin(self) -> str:
        """The name of this log. It stays, whatever key signs."""
        if not self._origin:
            prefix = f"{ROLE}/{self._project}/"
            trusted: tuple[RootKey, ...] = tuple(self._keys.trust().keys)
            known = [
                k.identity for k in trusted if ROLE in k.roles and k.identity.startswith(prefix)
            ]
            first = next(key for key in trusted if ROOT in key.roles)
            own = hashlib.sha256(first.public.encode()).hexdigest()[:12]
            self._origin = known[-1] if known else prefix + own
        return self._origin

    def _key(self) -> tuple[note.Key, Callable[[bytes], bytes]]:
        origin = self.origin
        self._keys.create(origin, (ROLE,))
        signer = self._keys.signer(origin)
        key = note.key_of_pem(origin, note.ED25519, signer.public)
        if key is None:
            raise LogUnavailable(
                "audit.log-key",
                f"the key of {origin} is not an Ed25519 key",
                why="checkpoints are signed in the form of signed notes",
                fix="put the key back from a copy",
            )
        return key, signer.sign

    # --- proofs ---

    def prove(self, event: str) -> Proof:
        """That an event (or the `latest`) stands in the log, below the newest checkpoint."""
        signed = self.cover()
        index = self.log.place(event)
        if event == LATEST and signed is not None:
            index = signed.size - 1
        if index is None or signed is None:
            raise NotFound(
                "audit.no-such-event",
                f"there is no event {event!r} in the log",
                fix="`falaj audit list` shows their ids",
            )
        return self._proven(event, index, signed)

    def first_seen(self, event: str) -> Proof | None:
        """The same below the first checkpoint that a witness has cosigned, if one has."""
        index = self.log.place(event)
        held = (self.log.newest(name) for name in self.log.witnesses())
        newest = max((receipt.size for receipt in held if receipt), default=0)
        size = newest + 1 if index is None else index + 1
        while index is not None and size <= newest:
            signed = self.log.signed(size)
            if signed is None:
                break
            if self.cosigned(signed) != signed.note:
                return self._proven(event, index, signed)
            size = signed.size + 1
        return None

    def _proven(self, event: str, index: int, signed: Signed) -> Proof:
        hashes = self._proof(merkle.inclusion_parts(index, signed.size))
        found = next(self.log.leaves(index, index + 1), None)
        if found is None or not merkle.verify_inclusion(
            merkle.leaf(found.body), index, signed.size, hashes, signed.root
        ):
            raise LogUnavailable(
                "audit.log-damaged",
                f"event {event} is not the one that stands at place {index} of the tree",
                why="its body, or a node above it, was changed",
                fix="`falaj audit verify` names what differs",
            )
        return Proof(index, hashes, self.cosigned(signed), found.body)

    def growth(self, old: int) -> Growth:
        """That the newest checkpoint continues the log as it was with `old` events."""
        signed = self.cover()
        if signed is None or not 0 <= old <= signed.size:
            raise FalajError(
                "audit.no-such-size",
                f"the log never had {old} events; it has {signed.size if signed else 0}",
                fix="take the size from the second line of the checkpoint that you hold",
            )
        return self.growth_to(signed, old)

    def growth_to(self, signed: Signed, old: int) -> Growth:
        parts = merkle.consistency_parts(old, signed.size)
        return Growth(old, self._proof(parts), self.cosigned(signed))

    def cosigned(self, signed: Signed) -> bytes:
        """The checkpoint with the signatures of its witnesses beneath."""
        lines = "".join(
            receipt.line
            for receipt in self.log.receipts(signed.size)
            if receipt.line.startswith("—")
        )
        return signed.note + lines.encode()
