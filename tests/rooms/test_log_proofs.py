"""Proofs of the tree: every one for small trees, by law for large ones, and none that lies."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falaj.base import merkle
from falaj.base.merkle import START, grow, root_of

MOST = 70
LEAVES = [merkle.leaf(str(n).encode()) for n in range(3000)]
ROOTS = [merkle.root(LEAVES[:size]) for size in range(MOST + 1)]
OTHER = hashlib.sha256(b"other").digest()


def stored(size):
    _, nodes = grow(START, LEAVES[:size])
    found = {(node.level, node.idx): node.hash for node in nodes}
    return lambda level, idx: found[level, idx]


@pytest.mark.parametrize("size", range(1, MOST))
def test_every_inclusion(size):
    node = stored(size)
    for index in range(size):
        proof = merkle.proof_of(merkle.inclusion_parts(index, size), node)
        assert proof == merkle.inclusion(LEAVES[:size], index)
        assert merkle.verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size])


@pytest.mark.parametrize("new", range(MOST))
def test_every_consistency(new):
    node = stored(new)
    for old in range(new + 1):
        proof = merkle.proof_of(merkle.consistency_parts(old, new), node)
        assert proof == merkle.consistency(LEAVES[:new], old)
        assert merkle.verify_consistency(old, new, ROOTS[old], ROOTS[new], proof)


@pytest.mark.parametrize("size", range(1, 33))
def test_no_inclusion_of_another_leaf_place_size_or_root(size):
    for index in range(size):
        proof = merkle.inclusion(LEAVES[:size], index)
        good = (LEAVES[index], index, size, proof, ROOTS[size])
        bad = [
            (OTHER, index, size, proof, ROOTS[size]),
            (LEAVES[index], index, size, proof, OTHER),
            (LEAVES[index], index, size, (*proof, OTHER), ROOTS[size]),
            (LEAVES[index], size, size, proof, ROOTS[size]),
            (LEAVES[index], -1, size, proof, ROOTS[size]),
            *((LEAVES[index], at, size, proof, ROOTS[size]) for at in range(size) if at != index),
            *(
                (LEAVES[index], index, size, (*proof[:n], OTHER, *proof[n + 1 :]), ROOTS[size])
                for n in range(len(proof))
            ),
            *((LEAVES[index], index, size, proof[:n], ROOTS[size]) for n in range(len(proof))),
        ]
        assert merkle.verify_inclusion(*good)
        assert [case for case in bad if merkle.verify_inclusion(*case)] == []


@pytest.mark.parametrize("new", range(1, 33))
def test_no_consistency_of_another_tree(new):
    for old in range(1, new):
        proof = merkle.consistency(LEAVES[:new], old)
        bad = [
            (old, new, OTHER, ROOTS[new], proof),
            (old, new, ROOTS[old], OTHER, proof),
            (old, new, ROOTS[old], ROOTS[new], (*proof, OTHER)),
            (new, old, ROOTS[new], ROOTS[old], proof),
            (-1, new, ROOTS[old], ROOTS[new], proof),
            *((old, new, ROOTS[old], ROOTS[new], proof[:n]) for n in range(len(proof))),
            *(
                (old, new, ROOTS[old], ROOTS[new], (*proof[:n], OTHER, *proof[n + 1 :]))
                for n in range(len(proof))
            ),
            *((o, new, ROOTS[o], ROOTS[new], proof) for o in range(1, new) if o != old),
        ]
        assert [case for case in bad if merkle.verify_consistency(*case)] == []


def test_the_same_size_has_the_same_root_and_no_proof():
    assert merkle.verify_consistency(5, 5, ROOTS[5], ROOTS[5], ())
    assert not merkle.verify_consistency(5, 5, ROOTS[5], ROOTS[6], ())
    assert not merkle.verify_consistency(5, 5, ROOTS[5], ROOTS[5], (OTHER,))
    assert merkle.verify_consistency(0, 5, merkle.EMPTY, ROOTS[5], ())
    assert not merkle.verify_consistency(0, 5, OTHER, ROOTS[5], ())
    assert not merkle.verify_consistency(0, 5, merkle.EMPTY, ROOTS[5], (OTHER,))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_large_trees(data):
    new = data.draw(st.integers(MOST, len(LEAVES)))
    old = data.draw(st.integers(0, new))
    index = data.draw(st.integers(0, new - 1))
    asked = []
    node = stored(new)

    def counted(level, idx):
        asked.append((level, idx))
        return node(level, idx)

    root = root_of(grow(START, LEAVES[:new])[0])
    proof = merkle.proof_of(merkle.inclusion_parts(index, new), counted)
    assert merkle.verify_inclusion(LEAVES[index], index, new, proof, root)
    assert len(proof) <= (new - 1).bit_length()
    assert len(asked) <= 2 * new.bit_length(), "more reads than the tree is deep"
    growth = merkle.proof_of(merkle.consistency_parts(old, new), node)
    was = root_of(grow(START, LEAVES[:old])[0])
    assert merkle.verify_consistency(old, new, was, root, growth)
    assert not merkle.verify_consistency(old, new, OTHER, root, growth)
