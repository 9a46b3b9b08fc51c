"""A seeded mutator and what every parser of strange bytes must hold: an answer or a refusal in words.

`python tests/parts/fuzzing.py 1000000` runs all targets, prints what it found and how long it took.
"""

from __future__ import annotations

import json
import random
import resource
import struct
import sys
import time
from datetime import UTC, datetime, timedelta

import numpy as np

from falaj.base import canonical
from falaj.base.errors import FalajError
from falaj.doors.predict.http import Connection, Desk
from falaj.facts.models import Column, Datatype, Schema, Tensor
from falaj.facts.releases import Trust
from falaj.serving.plan import open_plan, read
from falaj.serving.refusals import Refusal
from falaj.serving.schema import Reader
from falaj.serving.wire import instances, v2
from falaj.serving.wire.frames import BadFrame, Frames, Kind, blob, pack

__all__ = ["TARGETS", "Sink", "answers_in", "run"]

SLOWEST_S = 2.0
INTERESTING = (
    b"0 -1 255 256 65535 65536 2147483647 2147483648 4294967295 4294967296 9223372036854775807 "
    b'18446744073709551616 1e39 -1e400 NaN null true [] {} "" 99999999999999999999999'
).split()
KINDS = tuple(kind for kind in Datatype)
MATRIX = Schema(
    inputs=(
        Tensor(
            name="x",
            datatype=Datatype.FP32,
            shape=(-1, 3),
            columns=(Column(name="a", nullable=True), Column(name="b", minimum=0.0, maximum=9.0),
                     Column(name="c")),
        ),
    ),
    outputs=(Tensor(name="y", datatype=Datatype.FP32, shape=(-1,)),),
)  # fmt: skip
MANY = Schema(
    inputs=tuple(Tensor(name=f"i{k.value}", datatype=k, shape=(-1, -1)) for k in KINDS),
    outputs=MATRIX.outputs,
)
READERS = (Reader(MATRIX), Reader(MANY))


class Sink:
    """A transport that keeps what is written."""

    def __init__(self):
        self.written = b""
        self.closed = False

    def write(self, data):
        assert not self.closed
        self.written += data

    def write_eof(self):
        self.closed = True

    close = abort = write_eof

    def can_write_eof(self):
        return True

    def get_extra_info(self, name):
        return None

    def set_write_buffer_limits(self, high):
        pass

    def pause_reading(self):
        pass

    resume_reading = pause_reading


def answers_in(data):
    """Read answers strictly: status line, headers, as many bytes as said. Returns statuses."""
    found = []
    while data:
        head, mark, rest = data.partition(b"\r\n\r\n")
        assert mark, data[:80]
        first, *lines = head.split(b"\r\n")
        version, status, _ = first.split(b" ", 2)
        assert version == b"HTTP/1.1", first
        if status == b"100":
            data = rest
            continue
        fields = dict(line.split(b": ", 1) for line in lines)
        size = int(fields[b"content-length"])
        body, data = rest[:size], rest[size:]
        if status != b"200":
            told = json.loads(body)
            assert told["error"], told
            assert told["code"].startswith("serving."), told
        found.append(int(status))
    return found


# Targets: each takes bytes, and raises only what is a fault of ours.


def http(data, rng):
    """Any bytes in any pieces: well-formed answers, and never more kept than the limits say."""
    desk = Desk(lambda request, connection: connection.answer(200, b""))
    connection, sink = Connection(desk), Sink()
    connection.connection_made(sink)
    at = 0
    while at < len(data) and not sink.closed:
        size = rng.choice((1, 7, 100, 1 << 16))
        connection.data_received(data[at : at + size])
        at += size
    answers_in(sink.written)
    held = sum(len(name) + len(value) for name, value in connection.fields)
    assert held <= desk.limits.head + (1 << 16), held


def refused(decode, reader, data, size=-1):
    try:
        decode(reader, data, size)
    except Refusal as refusal:
        assert refusal.findings
        for finding in refusal.findings:
            assert finding.code.startswith("serving."), finding
            assert finding.message
            json.dumps(finding._asdict()).encode("ascii")
            assert len(finding.message) < 4096, len(finding.message)


def v2_json(data, rng):
    refused(v2.decode, rng.choice(READERS), data)


def v2_rows(data, rng):
    refused(v2.decode_rows, rng.choice(READERS), data)


def v2_binary(data, rng):
    size = rng.choice((0, len(data), len(data) // 2, data.find(b"]}") + 2, rng.randrange(1 << 20)))
    refused(v2.decode, rng.choice(READERS), data, max(size, 0))


def v1_and_mlflow(data, rng):
    decode = rng.choice((instances.decode_instances, instances.decode_invocation))
    refused(decode, rng.choice(READERS), data)


NOW = datetime(2026, 11, 24, tzinfo=UTC)


def plan_payload(data, rng):
    """What a signer of plans may have written by mistake: refused by name or taken."""
    del rng
    try:
        read(canonical.loads(data))
    except canonical.NotCanonical:
        pass
    except FalajError as error:
        assert error.problems[0].code == "serving.plan-field"
        assert error.problems[0].message.encode("utf-8")


def plan_file(data, rng):
    """What anybody may have written there."""
    del rng
    trust = Trust(version=1, expires=NOW + timedelta(days=1), keys=())
    try:
        open_plan(data, trust, now=NOW)
    except FalajError as error:
        assert error.problems[0].code.startswith("serving.plan")
    else:
        raise AssertionError("a plan that nobody has signed was taken")


def frames(data, rng):
    """What a model process may send: frames, or the end of it."""
    reader = Frames()
    at = 0
    try:
        while at < len(data):
            size = rng.choice((1, 9, 64, 1 << 16))
            for frame in reader.feed(data[at : at + size]):
                assert sum(tensor.size for tensor in frame.tensors) <= len(data)
            assert len(reader.rest) <= len(data)
            at += size
    except BadFrame as error:
        assert str(error)


def body(kind, shape, data):
    one = {"name": f"i{kind}", "datatype": kind, "shape": shape, "data": data}
    return json.dumps({"id": "a", "inputs": [one]}).encode()


def binary(kind, shape, data):
    one = {"name": f"i{kind}", "datatype": kind, "shape": shape,
           "parameters": {"binary_data_size": len(data)}}  # fmt: skip
    return json.dumps({"inputs": [one]}).encode() + data


HEAD = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: a\r\n"
HTTP_SEEDS = (
    b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    b"HEAD /v2 HTTP/1.0\r\n\r\n",
    HEAD + b"content-length: 2\r\n\r\n{}",
    HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n3;a=b\r\nabc\r\n0\r\nx: y\r\n\r\n",
    HEAD + b"expect: 100-continue\r\ncontent-length: 1\r\n\r\nxGET / HTTP/1.1\r\nhost: a\r\n\r\n",
    HEAD + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-encoding: gzip\r\n\r\n",
    HEAD + b"inference-header-content-length: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
)
HTTP_WORDS = (
    b"\r\n", b"\r", b"\n", b"\0", b": ", b"host: b\r\n", b"content-length: 5\r\n", b"content-length: +5\r\n",
    b"transfer-encoding: chunked\r\n", b"Transfer-Encoding:\tchunked\r\n", b"transfer-encoding: x\r\n",
    b"HTTP/1.0", b"HTTP/2.0", b"CONNECT ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"0\r\n\r\n", b";" * 50,
    b"connection: close\r\n", b"connection: keep-alive\r\n", b"upgrade: x\r\n", b"x: " + b"a" * 20_000,
    b"\x16\x03\x01", b"ffffffffffffffff\r\n", b" HTTP/1.1", b"GET ", b"a" * 9000,
)  # fmt: skip
JSON_SEEDS = (
    json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 3],
                            "data": [1, 2.5, None, -0.0, 1e30, 3]}]}).encode(),
    body("INT64", [1, 2], [1, 2]),
    body("BYTES", [1, 2], ["a", "\u00e9\u4e2d"]),
    body("BOOL", [2, 1], [[True], [False]]),
    body("UINT8", [1, 3], [0, 255, 7]),
    json.dumps({"rows": [{"a": None, "b": 1, "c": 2}]}).encode(),
)  # fmt: skip
WORDS = (
    b"[", b"]", b"{", b"}", b'"', b",", b":", b"\\u0000", b"\\ud800", b'"shape":[', b'"data":', b"null",
    b'"datatype":"BYTES"', b'"datatype":"FP16"', b"[" * 2000, b"1" * 400, b"\xff\xfe", b'"name":"x"',
    b'"parameters":{"binary_data_size":', b'"parameters":{"event_time":"2026"}', b"\xed\xa0\x80",
    b'{"a":' * 500, b'"outputs":[{"name":"y"}],', b"-", b"e999999999",
)  # fmt: skip
BINARY_SEEDS = (
    binary("FP32", [1, 2], struct.pack("<2f", 1, 2)),
    binary("BYTES", [1, 2], struct.pack("<I1sI3s", 1, b"a", 3, b"abc")),
    binary("BF16", [2, 2], bytes(8)),
    binary("BOOL", [1, 3], b"\0\1\1"),
    struct.pack("<6f", *range(6)),
)
LINES = (
    b'{"instances":[{"a":1,"b":2,"c":3},[1,2,3]]}',
    b'{"dataframe_split":{"columns":["a","b","c"],"data":[[1,2,3]]}}',
    b'{"dataframe_records":[{"a":1,"b":2,"c":3}]}',
    b'{"inputs":{"a":[1],"b":[2],"c":[3]}}',
    b'a,b,c\n1,2,3\n"x",,nan\n',
)
ARM = {"release": "sha256:" + "a" * 64, "folder": "releases/a", "weight_bp": 500}
PLAN = json.dumps(
    {
        "v": 1, "seq": 1, "environment": "production", "zone": "a", "issued": "2026-11-23T10:00:00Z",
        "models": {"m": {"stable": ARM, "canary": ARM, "rollout": "r", "latency_us": [1, 2],
                         "split": {"salt": "AAAAAAAAAAAAAAAAAAAAAAAAAAA="}}},
        "access": {"issuers": [{"issuer": "i", "audience": "a", "keys": {}}],
                   "allow": [["role:x", "infer", "m"]], "roles": {"p": ["x"]}, "rate": {"p": 9}},
    }
).encode()  # fmt: skip
ENVELOPE = b'{"payload":"e30=","payloadType":"application/vnd.falaj.plan+json","signatures":[{"keyid":"a","sig":"AAAA"}]}'


def frame_seeds():
    tensors = [np.zeros((2, 3), "<f4"), np.array(["a", "bc"], object), np.arange(4)]
    made = pack(Kind.RUN, 7, 2, tensors, 9)
    return (made, pack(Kind.HELLO, 0, 0, [blob(b"{}")]))


SIZES = tuple(struct.pack("<I", n) for n in (0, 1, 8, 255, 1 << 16, (1 << 31) - 1, (1 << 32) - 1))
TARGETS = {  # name -> target, seeds, words of its language
    "http": (http, HTTP_SEEDS, HTTP_WORDS),
    "v2 json": (v2_json, JSON_SEEDS, WORDS),
    "named rows": (v2_rows, JSON_SEEDS, WORDS),
    "v2 binary": (v2_binary, BINARY_SEEDS, WORDS + SIZES),
    "v1 and mlflow": (v1_and_mlflow, LINES, (*WORDS, b"\n", b",", b'"')),
    "plan payload": (plan_payload, (PLAN,), WORDS),
    "plan file": (plan_file, (ENVELOPE, PLAN), WORDS),
    "frames": (frames, frame_seeds(), SIZES),
}


def mutated(rng, seeds, words):
    """One input: a seed after one to six strokes."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at = rng.randrange(len(data) + 1)
        to = min(len(data), at + rng.choice((1, 1, 2, 4, 16, 64)))
        match rng.randrange(8):
            case 0:
                data[at:to] = rng.randbytes(to - at)
            case 1:
                del data[at:to]
            case 2:
                data[at:at] = data[at:to] * rng.choice((1, 2, 9))
            case 3:
                data[at:to] = rng.choice(words)
            case 4:
                data[at:at] = rng.choice(words)
            case 5:
                data[at:to] = rng.choice(INTERESTING)
            case 6:
                other = rng.choice(seeds)
                data[at:] = other[rng.randrange(len(other) + 1) :]
            case _:
                if at < len(data):
                    data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


def run(name, count, seed):
    """Feed `count` inputs to one target. Returns seconds; an AssertionError names the input."""
    target, seeds, words = TARGETS[name]
    rng = random.Random(seed)
    begun = time.perf_counter()
    for number in range(count):
        data = mutated(rng, seeds, words)
        before = time.perf_counter()
        try:
            target(data, rng)
        except Exception as error:
            words_ = f"{name}, seed {seed}, input {number}: {type(error).__name__}: {error}: {data[:400]!r}"
            raise AssertionError(words_) from error
        assert time.perf_counter() - before < SLOWEST_S, (name, seed, number, data[:400])
    return time.perf_counter() - begun


def memory_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(total):
    each = total // len(TARGETS) + 1
    for name in TARGETS:
        run(name, 500, 0)
    begun = memory_mb()
    for name in TARGETS:
        seconds, failed, done, seed = 0.0, [], 0, 1
        while done < each:
            part = min(10_000, each - done)
            try:
                seconds += run(name, part, seed)
            except AssertionError as error:
                failed.append(str(error))
            done, seed = done + part, seed + 1
        print(
            f"{name:14} {each} inputs {seconds:6.1f} s, {memory_mb() - begun:+.0f} MB, {len(failed)} failures"
        )
        for words in failed[:5]:
            print("   ", words[:600])


if __name__ == "__main__":
    main(int(sys.argv[1]))
