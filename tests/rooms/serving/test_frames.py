"""Frames: what is packed comes back, however it is cut; what is bent by one byte is refused or harmless."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy

from falaj.serving.wire.frames import BadFrame, Frames, Kind, blob, pack, text_of

KINDS = ["?", "u1", "<u2", "<u4", "<u8", "i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8"]
shapes = of_numpy.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4)
numbers = st.sampled_from(KINDS).flatmap(lambda kind: of_numpy.arrays(np.dtype(kind), shapes))
texts = of_numpy.arrays(object, shapes, elements=st.text(max_size=9))
tensors = st.lists(numbers | texts, max_size=4)
frames = st.tuples(
    st.sampled_from(Kind),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    tensors,
    st.integers(0, 2**32 - 1),
)


def same(one, other):
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and (
            one.tolist() == other.tolist()
            if one.dtype == object
            else one.tobytes() == other.tobytes()
        )
    )


@given(st.lists(frames, max_size=3), st.data())
def test_what_was_packed_comes_back_however_the_bytes_are_cut(made, data):
    sent = b"".join(pack(*one) for one in made)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=6)))
    reader = Frames()
    found = []
    for begin, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        found += reader.feed(sent[begin:end])
    assert not reader.rest
    assert len(found) == len(made)
    for got, (kind, batch, rows, arrays, budget) in zip(found, made, strict=True):
        assert (got.kind, got.batch, got.rows, got.budget_us) == (kind, batch, rows, budget)
        assert all(map(same, got.tensors, arrays))
        assert len(got.tensors) == len(arrays)


@settings(max_examples=300)
@given(frames, st.data())
def test_bent_bytes_are_refused_or_are_another_frame_of_the_same_size(made, data):
    """Whatever arrives: BadFrame, nothing yet, or arrays whose bytes were all there."""
    sent = bytearray(pack(*made))
    for _ in range(data.draw(st.integers(1, 4))):
        sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
    reader = Frames()
    try:
        found = reader.feed(bytes(sent))
    except BadFrame:
        return
    for frame in found:
        assert sum(t.nbytes for t in frame.tensors if t.dtype != object) <= len(sent)


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_noise_is_refused_or_waits(noise):
    try:
        found = Frames().feed(noise)
    except BadFrame:
        return
    assert sum(len(frame.tensors) for frame in found) * 16 <= len(noise)


HEAD = struct.Struct("<IBBHQII")


def frame(body=b"", *, length=None, kind=1, version=1, count=0):
    size = 20 + len(body) if length is None else length
    return HEAD.pack(size, kind, version, count, 7, 1, 0) + body


def tensor(code, shape, data, *, zero=0, size=None, pad=b"\0"):
    head = struct.pack("<BBH", code, len(shape), zero) + struct.pack(f"<{len(shape)}I", *shape)
    head += pad * (-len(head) % 8)
    head += struct.pack("<Q", len(data) if size is None else size)
    return head + data + b"\0" * (-len(data) % 8)


BENT = {
    "longer than any frame": frame(length=(64 << 20) + 1),
    "shorter than its own head": frame(length=19),
    "a kind that nobody knows": frame(kind=9),
    "kind zero": frame(kind=0),
    "another version": frame(version=2),
    "more tensors than there are": frame(count=1),
    "ten thousand tensors": frame(count=10_000),
    "bytes behind the last tensor": frame(b"\0" * 8),
    "a type that nobody knows": frame(tensor(99, (1,), b"\0" * 4), count=1),
    "a pickle's type": frame(tensor(0, (1,), b"\x80\x04N."), count=1),
    "a size that disagrees with the shape": frame(tensor(11, (2,), b"\0" * 4), count=1),
    "a size beyond the frame": frame(tensor(11, (1,), b"\0" * 4, size=1 << 40), count=1),
    "a shape beyond all memory": frame(tensor(11, (2**32 - 1,) * 4, b"\0" * 4), count=1),
    "forty axes": frame(tensor(11, (1,) * 40, b"\0" * 4), count=1),
    "a field that must be zero": frame(tensor(11, (1,), b"\0" * 4, zero=1), count=1),
    "padding that says something": frame(tensor(11, (1, 1), b"\0" * 4, pad=b"x"), count=1),
    "a truth value of 2": frame(tensor(1, (1,), b"\2"), count=1),
    "text that is cut short": frame(tensor(13, (1,), struct.pack("<I", 9) + b"abc"), count=1),
    "text that is no UTF-8": frame(tensor(13, (1,), struct.pack("<I", 1) + b"\xff"), count=1),
    "text and more": frame(tensor(13, (1,), struct.pack("<I", 1) + b"ab"), count=1),
    "a million texts in no bytes": frame(tensor(13, (10**6,), b""), count=1),
}


@pytest.mark.parametrize("sent", BENT.values(), ids=BENT)
def test_a_frame_that_disagrees_with_itself_is_refused(sent):
    with pytest.raises(BadFrame):
        Frames().feed(sent)


def test_an_announced_giant_is_refused_before_its_bytes_are_kept():
    reader = Frames(limit=1000)
    with pytest.raises(BadFrame, match="length"):
        reader.feed(struct.pack("<I", 1001))


def test_what_no_frame_can_hold_is_not_packed():
    with pytest.raises(ValueError, match="too large"):
        pack(Kind.RUN, 1, 1, [np.zeros((1 << 23,), np.float64)])
    with pytest.raises(ValueError, match="no form"):
        pack(Kind.RUN, 1, 1, [np.zeros(1, np.complex64)])
    with pytest.raises(ValueError, match="no form"):
        pack(Kind.RUN, 1, 1, [np.zeros(1, "datetime64[s]")])


def test_bytes_travel_as_a_tensor():
    (found,) = Frames().feed(pack(Kind.HELLO, 0, 0, [blob(b'{"a":1}')]))
    assert text_of(found.tensors[0]) == b'{"a":1}'
    (found,) = Frames().feed(pack(Kind.HELLO, 0, 0, [np.zeros(3)]))
    with pytest.raises(BadFrame):
        text_of(found.tensors[0])
