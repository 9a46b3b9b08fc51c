"""The tree of RFC 6962: leaf and node hashes, roots, proofs of inclusion and consistency. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

__all__ = ["EMPTY", "fold", "inclusion", "leaf", "node", "root", "verify_inclusion"]

EMPTY: Final = hashlib.sha256(b"").digest()


def leaf(body: bytes) -> bytes:
    return hashlib.sha256(b"\0" + body).digest()


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def split(size: int) -> int:
    """Return the largest power of two below `size` (size >= 2)."""
    return 1 << ((size - 1).bit_length() - 1)


def root(leaves: Sequence[bytes]) -> bytes:
    """Root over leaf hashes."""
    if not leaves:
        return EMPTY
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return node(root(leaves[:k]), root(leaves[k:]))


def fold(subtrees: Sequence[bytes]) -> bytes:
    """Root from the complete subtrees of a size, largest first."""
    if not subtrees:
        return EMPTY
    total = subtrees[-1]
    for left in reversed(subtrees[:-1]):
        total = node(left, total)
    return total


def inclusion(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Proof that leaf `index` is in the tree of `leaves`, deepest sibling first."""
    if len(leaves) == 1:
        return ()
    k = split(len(leaves))
    if index < k:
        return (*inclusion(leaves[:k], index), root(leaves[k:]))
    return (*inclusion(leaves[k:], index - k), root(leaves[:k]))


def verify_inclusion(
    leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], expected: bytes
) -> bool:
    """Tell whether `proof` leads from the leaf to the root (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    at, last, total = index, size - 1, leaf_hash
    for sibling in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            total = node(sibling, total)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            total = node(total, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and total == expected
