"""The whole log computed anew from its events: what a stored tree is worth."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from falaj.audit.service import Log
from falaj.base import canonical, merkle, note, time
from falaj.base.bundle import Finding
from falaj.base.checkpoints import Signers, open_checkpoint
from falaj.facts.events import Event
from falaj.ports.log import Leaf, LogStore, Signed

__all__ = ["Whole", "verify_log"]

MOST: Final = 20  # findings of one kind; the first index that differs is what counts


class Whole(NamedTuple):
    """first: the first place that differs, None when none does."""

    size: int
    root: bytes
    checkpoints: int
    witnessed: int
    waiting: int
    first: int | None
    findings: tuple[Finding, ...]


def verify_log(log: Log, witnesses: Collection[note.Key] = ()) -> Whole:
    """Compute everything anew.

    1. Places have no gap. 2. Each body is what its leaf says, and what is searched beside it is what
    it says. 3. Every stored subtree is the one computed, and there is none besides. 4. Each
    checkpoint tells the root of its size, signed by this log. 5. Each cosignature of a witness that
    is known holds. 6. The checkpoint remembered beside the database is one of these.
    """
    check = Check(log, Signers(log.trusted(), witnesses))
    return check.run()


class Check:
    def __init__(self, log: Log, signers: Signers) -> None:
        self.log, self.store, self.signers = log, log.log, signers
        self.ever = Signers(log.ever())  # an old checkpoint may be signed by a key of then
        self.found: list[Finding] = []
        self.first: int | None = None

    def say(self, index: int | None, message: str, code: str = "audit.log-differs") -> None:
        if index is not None:
            self.first = index if self.first is None else min(self.first, index)
        if len(self.found) < MOST:
            self.found.append(Finding(code, "" if index is None else str(index), message))

    def run(self) -> Whole:
        size = self.store.size()  # what comes meanwhile is not judged
        levels = Levels(self.store)
        signed = iter(self.store.checkpoints())
        next_ = next(signed, None)
        edge, checkpoints, witnessed = merkle.START, 0, 0
        expected = 0
        for leaf in self.store.leaves(0, size):
            if leaf.idx != expected:
                self.say(expected, f"place {expected} of the log is empty")
                expected = leaf.idx
            self._leaf(leaf)
            edge, made = merkle.grow(edge, [merkle.leaf(leaf.body)])
            for node in made:
                if levels.next(node.level) != (node.idx, node.hash):
                    self.say(
                        leaf.idx,
                        f"node {node.idx} of level {node.level}, complete with event {leaf.idx}, "
                        "is not the one computed",
                    )
            expected += 1
            while next_ is not None and next_.size <= edge.size:
                witnessed += self._checkpoint(next_, edge)
                checkpoints += 1
                next_ = next(signed, None)
        now = self.store.size()
        while next_ is not None:
            if next_.size > now:
                self.say(
                    edge.size, f"a checkpoint of {next_.size} events was signed, {now} are here"
                )
            next_ = next(signed, None)
        extra = levels.rest(size, now)
        if extra is not None:
            self.say(edge.size, f"node {extra[1]} of level {extra[0]} belongs to no event")
        self._memory(edge)
        for event in self.store.remarks_that_differ():
            self.say(
                self.store.place(event), f"the remark of event {event} is not the one it binds"
            )
        return Whole(
            edge.size,
            merkle.root_of(edge),
            checkpoints,
            witnessed,
            self.store.waiting(),
            self.first,
            tuple(self.found),
        )

    def _leaf(self, leaf: Leaf) -> None:
        if merkle.leaf(leaf.body) != leaf.leaf:
            self.say(leaf.idx, f"event {leaf.idx} ({leaf.id}): its body was changed")
            return
        try:
            event = Event.from_cloud(leaf.body)
            told = {
                "at": time.text(event.at),
                "project": event.project,
                "type": event.type,
                "actor": event.actor,
                "subject": event.subject,
            }
        except (canonical.NotCanonical, KeyError, TypeError, ValueError, AttributeError):
            self.say(leaf.idx, f"event {leaf.idx} ({leaf.id}) is not a CloudEvent")
            return
        for name, value in {**told, "id": event.id}.items():
            kept = leaf.id if name == "id" else leaf.columns[name]
            if kept != value:
                self.say(
                    leaf.idx,
                    f"event {leaf.idx} ({leaf.id}): {name} is kept as {kept!r}, it says {value!r}",
                )

    def _checkpoint(self, signed: Signed, edge: merkle.Edge) -> int:
        """How many witnesses have seen it."""
        place = max(signed.size - 1, 0)
        if signed.size != edge.size or signed.root != merkle.root_of(edge):
            self.say(place, f"the checkpoint of {signed.size} events tells another root")
        lines = self.store.receipts(signed.size)
        try:
            open_checkpoint(signed.note, self.ever)
        except note.BadNote as error:
            self.say(place, f"the checkpoint of {signed.size} events: {error}")
            return 0
        told = note.read_note(signed.note)
        for receipt in lines:
            if not receipt.line.startswith("—"):
                continue
            try:
                (one,) = note.read_signatures(receipt.line)
                known = [k for k in self.signers.witnesses if (k.name, k.id) == (one.name, one.id)]
                if known:
                    note.verified(told.text, (one,), known)
            except (note.BadNote, ValueError) as error:
                self.say(
                    place,
                    f"the cosignature of {receipt.witness} over {signed.size} events: {error}",
                )
        return len(lines)

    def _memory(self, edge: merkle.Edge) -> None:
        known = self.log.remembered()
        if known is None:
            return
        kept = self.store.signed(known.size)
        if kept is None or (kept.size, kept.root) != (known.size, known.root):
            self.say(
                min(known.size, edge.size),
                f"a checkpoint of {known.size} events was signed, and is not in the store",
            )


class Levels:
    """The stored subtrees of each level, taken in order as the tree is computed."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._of: dict[int, Iterator[tuple[int, bytes]]] = {}

    def next(self, level: int) -> tuple[int, bytes] | None:
        if level not in self._of:
            self._of[level] = self._store.level(level)
        return next(self._of[level], None)

    def rest(self, size: int, now: int) -> tuple[int, int] | None:
        """(level, idx) of a subtree that belongs to none of the `size` leaves, nor to later ones."""
        for level in range(self._store.levels()):
            while (found := self.next(level)) is not None:
                end = (found[0] + 1) << level
                if not size < end <= now:
                    return level, found[0]
        return None
