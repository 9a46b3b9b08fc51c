"""`.fenc`: round trips at the edges of segments, and every alteration refused before it is read."""

from __future__ import annotations

import io
import json
import struct

import pytest

from falaj.base.fenc import MAGIC, SEG, Unsealable, opened, seal

KEY = bytes(range(32))
SIZES = [0, 1, SEG - 1, SEG, SEG + 1, 3 * SEG, 3 * SEG + 5]


def sealed(data, key=KEY, **labels):
    target = io.BytesIO()
    seal(io.BytesIO(data), target, key, {"object": "o", **labels})
    return target.getvalue()


def read(data, key=KEY, object="o"):
    return b"".join(opened(io.BytesIO(data), key, object=object))


def content(size):
    return (b"0123456789abcdef" * (size // 16 + 1))[:size]


@pytest.mark.parametrize("size", SIZES)
def test_what_was_sealed_comes_back(size):
    assert read(sealed(content(size))) == content(size)


def test_the_same_bytes_are_sealed_differently_each_time():
    assert sealed(b"x") != sealed(b"x")


def segments(data):
    """The head, and the segments behind it."""
    start = len(MAGIC) + 4
    (size,) = struct.unpack(">I", data[len(MAGIC) : start])
    head, rest = data[: start + size], data[start + size :]
    return head, [rest[i : i + SEG + 16] for i in range(0, len(rest), SEG + 16)]


def relabelled(data):
    head, parts = segments(data)
    said = json.loads(head[len(MAGIC) + 4 :])
    text = json.dumps({**said, "residency": "us"}, sort_keys=True, separators=(",", ":")).encode()
    return MAGIC + struct.pack(">I", len(text)) + text + b"".join(parts)


def rebuilt(order):
    def change(data):
        head, parts = segments(data)
        return head + b"".join(parts[i] for i in order)

    return change


ALTERED = {
    "cut by a byte": lambda d: d[:-1],
    "cut by a segment": rebuilt([0, 1, 2]),
    "the first alone": rebuilt([0]),
    "swapped": rebuilt([1, 0, 2, 3]),
    "doubled": rebuilt([0, 0, 1, 2, 3]),
    "left out": rebuilt([0, 2, 3]),
    "a byte more": lambda d: d + b"\0",
    "a segment more": lambda d: d + d[-21:],
    "relabelled": relabelled,
    "no magic": lambda d: b"X" + d[1:],
    "empty": lambda d: b"",
    "only the magic": lambda d: MAGIC,
    "a header without end": lambda d: MAGIC + b"\xff\xff\xff\xff" + d[12:],
    "a header that is no JSON": lambda d: MAGIC + struct.pack(">I", 2) + b"{]",
    "a header that is a list": lambda d: MAGIC + struct.pack(">I", 2) + b"[]",
}


@pytest.mark.parametrize("change", ALTERED.values(), ids=ALTERED)
def test_altered_files_are_refused(change):
    with pytest.raises(Unsealable):
        read(change(sealed(content(3 * SEG + 5), residency="ae")))


def test_every_byte_counts():
    data = sealed(b"a short text")
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1
        with pytest.raises(Unsealable):
            read(bytes(flipped))


def test_another_key_or_object_is_refused():
    with pytest.raises(Unsealable, match="another key"):
        read(sealed(b"x"), key=bytes(32))
    with pytest.raises(Unsealable, match="another object"):
        read(sealed(b"x"), object="p")


def test_nothing_of_a_bad_segment_is_handed_out():
    head, parts = segments(sealed(content(2 * SEG)))
    bad = bytearray(parts[1])
    bad[5] ^= 1
    given = opened(io.BytesIO(head + parts[0] + bytes(bad)), KEY, object="o")
    assert next(given) == content(SEG)
    with pytest.raises(Unsealable, match="segment 1"):
        next(given)
