"""The tree of RFC 6962: leaf and node hashes, roots, proofs of inclusion and consistency. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

__all__ = [
    "EMPTY",
    "START",
    "Edge",
    "Node",
    "consistency",
    "consistency_parts",
    "fold",
    "grow",
    "inclusion",
    "inclusion_parts",
    "leaf",
    "node",
    "proof_of",
    "root",
    "root_of",
    "subtrees",
    "verify_consistency",
    "verify_inclusion",
]

EMPTY: Final = hashlib.sha256(b"").digest()


class Node(NamedTuple):
    """A complete subtree: the 2**level leaves from idx * 2**level on."""

    level: int
    idx: int
    hash: bytes


class Edge(NamedTuple):
    """A tree of `size` leaves, by its complete subtrees, largest first: one a set bit of size."""

    size: int
    subtrees: tuple[bytes, ...]


START: Final = Edge(0, ())


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


def consistency(leaves: Sequence[bytes], old: int) -> tuple[bytes, ...]:
    """Proof that the tree of the first `old` leaves is a beginning of the whole (RFC 6962, 2.1.2)."""
    parts = consistency_parts(old, len(leaves))
    return tuple(root(leaves[start:end]) for start, end in parts)


def verify_consistency(
    old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Tell whether the tree of `old` leaves is a beginning of that of `new` (RFC 9162, 2.1.4.2).

    old 0: every tree begins with the empty one, and the proof is empty.
    """
    if not 0 <= old <= new:
        return False
    if old in (0, new):
        return not proof and old_root == (new_root if old == new else EMPTY)
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        return False
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    was = now = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            was, now = node(sibling, was), node(sibling, now)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            now = node(now, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and was == old_root and now == new_root


# --- proofs from stored subtrees ---


def inclusion_parts(index: int, size: int) -> tuple[tuple[int, int], ...]:
    """The ranges [start, end) whose roots make the proof of leaf `index`, deepest first."""
    start, end = 0, size
    found: list[tuple[int, int]] = []
    while end - start > 1:
        middle = start + split(end - start)
        if index < middle:
            found.append((middle, end))
            end = middle
        else:
            found.append((start, middle))
            start = middle
    return tuple(reversed(found))


def consistency_parts(old: int, new: int) -> tuple[tuple[int, int], ...]:
    """The ranges whose roots prove that `old` leaves are a beginning of `new` ones."""
    if old in (0, new):
        return ()
    start, end, whole = 0, new, True
    found: list[tuple[int, int]] = []
    while end != old:
        middle = start + split(end - start)
        if old <= middle:
            found.append((middle, end))
            end = middle
        else:
            found.append((start, middle))
            start, whole = middle, False
    if not whole:  # else the verifier knows it: it is the old root itself
        found.append((start, end))
    return tuple(reversed(found))


def subtrees(start: int, end: int) -> tuple[tuple[int, int], ...]:
    """(level, idx) of the complete subtrees that a range of a proof is folded from, largest first."""
    found: list[tuple[int, int]] = []
    while start < end:
        level = (end - start).bit_length() - 1
        found.append((level, start >> level))
        start += 1 << level
    return tuple(found)


def proof_of(
    parts: Sequence[tuple[int, int]], stored: Callable[[int, int], bytes]
) -> tuple[bytes, ...]:
    """The hashes of a proof. stored: hash of the complete subtree (level, idx)."""
    return tuple(
        fold([stored(level, idx) for level, idx in subtrees(start, end)]) for start, end in parts
    )


# --- what an append-only tree keeps: its right edge ---


def grow(edge: Edge, leaves: Iterable[bytes]) -> tuple[Edge, tuple[Node, ...]]:
    """Append leaf hashes; return the new edge and every subtree that became complete, in order."""
    size, stack = edge.size, list(edge.subtrees)
    made: list[Node] = []
    for leaf_hash in leaves:
        total, level = leaf_hash, 0
        made.append(Node(0, size, leaf_hash))
        while size >> level & 1:
            total = node(stack.pop(), total)
            level += 1
            made.append(Node(level, size >> level, total))
        stack.append(total)
        size += 1
    return Edge(size, tuple(stack)), tuple(made)


def root_of(edge: Edge) -> bytes:
    return fold(edge.subtrees)
