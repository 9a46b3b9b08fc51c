"""Values that the fuzzer found: each was an error of the server once, and is the client's."""

from __future__ import annotations

import struct

import fuzzing
import pytest

from falaj.base.errors import FalajError
from falaj.serving import plan
from falaj.serving.refusals import Refusal
from falaj.serving.wire import v2
from falaj.serving.wire.frames import HEAD, BadFrame, Frames

LONG = b"1" * 400  # a whole number beyond float64
FOUND = {
    "half a character in a text": (
        v2.decode,
        1,
        b'{"inputs":[{"name":"iBYTES","datatype":"BYTES","shape":[1,1],"data":["\xed\xa0\x80"]}]}',
        "serving.data",
    ),
    "a number beyond float64 by name": (
        v2.decode_rows,
        0,
        b'{"rows":[{"a":1,"b":1,"c":%b}]}' % LONG,
        "serving.range",
    ),
    "a number beyond float64 in a tensor": (
        v2.decode,
        0,
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[1,1,%b]}]}' % LONG,
        "serving.range",
    ),
}


@pytest.mark.parametrize(("decode", "reader", "data", "code"), FOUND.values(), ids=FOUND)
def test_refused_in_words(decode, reader, data, code):
    with pytest.raises(Refusal) as refused:
        decode(fuzzing.READERS[reader], data)
    assert refused.value.findings[0].code in (code, "serving.data", "serving.type")


@pytest.mark.parametrize("at", ["environment", "models"])
def test_half_a_surrogate_pair_in_a_plan_is_told_in_words_that_can_be_printed(at):
    payload = {"seq": 1, "environment": "a", "zone": "a", "issued": "2026-11-23T10:00:00Z"}
    payload |= {"models": {"\ud800": {}}} if at == "models" else {"environment": "\ud800"}
    with pytest.raises(FalajError) as refused:
        plan.read(payload)
    assert refused.value.problems[0].message.encode()


def test_a_tensor_of_nothing_with_axes_beyond_all_bounds_is_no_frame():
    tensor = struct.pack("<BBH", 11, 3, 0) + struct.pack("<3I", 0, 1 << 31, 1 << 31) + bytes(8)
    with pytest.raises(BadFrame, match="shape"):
        Frames().feed(HEAD.pack(HEAD.size - 4 + len(tensor), 1, 1, 1, 7, 0, 0) + tensor)
