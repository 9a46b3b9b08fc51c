"""A small log of its own for tests of witnesses: it can grow, and it can be forked."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from falaj.base import merkle, note, tlog
from falaj.base.tlog import Checkpoint, Growth

PRIVATE = Ed25519PrivateKey.from_private_bytes(b"\7" * 32)
PUBLIC = PRIVATE.public_key().public_bytes_raw()
FORK_AT = 3


def key_of(origin):
    return note.Key(origin, note.ED25519, PUBLIC)


class GrowingLog:
    """Leaves are made as they are wanted; those of the fork differ from the fourth on."""

    def __init__(self, origin):
        self.origin, self.key = origin, key_of(origin)

    def leaves(self, size, *, fork=False):
        return [
            merkle.leaf(f"{self.origin} {n}{' forked' if fork and n >= FORK_AT else ''}".encode())
            for n in range(size)
        ]

    def head(self, size, *, fork=False):
        return Checkpoint(self.origin, size, merkle.root(self.leaves(size, fork=fork)))

    def note(self, head):
        text = tlog.text_of(head)
        return note.write_note(text, [note.sign(text, self.key, PRIVATE.sign)])

    def growth(self, old, size, *, fork=False):
        """What a witness is shown: the proof from `old`, and the checkpoint."""
        head = self.head(size, fork=fork)
        proof = merkle.consistency(self.leaves(size, fork=fork), old)
        return Growth(old, proof, self.note(head)), head
