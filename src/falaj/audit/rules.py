"""Arithmetic of the log: what an append-only tree keeps at its right edge. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from falaj.base import merkle

__all__ = ["EMPTY", "Edge", "Node", "grow", "root_of"]


class Node(NamedTuple):
    """A complete subtree: the 2**level leaves from idx * 2**level on."""

    level: int
    idx: int
    hash: bytes


class Edge(NamedTuple):
    """A tree of `size` leaves, by its complete subtrees, largest first: one a set bit of size."""

    size: int
    subtrees: tuple[bytes, ...]


EMPTY = Edge(0, ())


def grow(edge: Edge, leaves: Iterable[bytes]) -> tuple[Edge, tuple[Node, ...]]:
    """Append leaf hashes; return the new edge and every subtree that became complete, in order."""
    size, stack = edge.size, list(edge.subtrees)
    made: list[Node] = []
    for leaf in leaves:
        total, level = leaf, 0
        made.append(Node(0, size, leaf))
        while size >> level & 1:
            total = merkle.node(stack.pop(), total)
            level += 1
            made.append(Node(level, size >> level, total))
        stack.append(total)
        size += 1
    return Edge(size, tuple(stack)), tuple(made)


def root_of(edge: Edge) -> bytes:
    return merkle.fold(edge.subtrees)
