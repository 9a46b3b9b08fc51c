"""The right edge of the tree: grown leaf by leaf it has the root of RFC 6962."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.base import merkle
from falaj.base.merkle import START as EMPTY
from falaj.base.merkle import grow, root_of


def leaves(count):
    return [merkle.leaf(str(n).encode()) for n in range(count)]


@pytest.mark.parametrize("size", range(70))
def test_the_root_is_that_of_the_whole_tree(size):
    edge, _ = grow(EMPTY, leaves(size))
    assert edge.size == size
    assert root_of(edge) == merkle.root(leaves(size))
    assert len(edge.subtrees) == size.bit_count()


@given(sizes=st.lists(st.integers(0, 40), max_size=6))
def test_growing_in_parts_is_growing_at_once(sizes):
    all_leaves = leaves(sum(sizes))
    edge, nodes, at = EMPTY, [], 0
    for size in sizes:
        edge, made = grow(edge, all_leaves[at : at + size])
        nodes += made
        at += size
    once, all_nodes = grow(EMPTY, all_leaves)
    assert edge == once
    assert tuple(nodes) == all_nodes


@given(size=st.integers(1, 200))
def test_every_complete_subtree_is_told_once_and_right(size):
    all_leaves = leaves(size)
    _, nodes = grow(EMPTY, all_leaves)
    assert len({(node.level, node.idx) for node in nodes}) == len(nodes)
    assert len(nodes) == sum(size >> level for level in range(size.bit_length()))
    for node in nodes:
        width = 1 << node.level
        assert node.hash == merkle.root(all_leaves[node.idx * width : (node.idx + 1) * width])


def test_a_changed_dropped_or_moved_leaf_changes_the_root():
    good = leaves(9)
    want = root_of(grow(EMPTY, good)[0])
    for other in (good[:-1], good[1:], [*good, good[0]], [good[1], good[0], *good[2:]]):
        assert root_of(grow(EMPTY, other)[0]) != want
