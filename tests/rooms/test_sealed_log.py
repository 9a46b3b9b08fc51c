"""The sealed inference log: written by one who cannot read it, read to its last whole frame, never altered."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.base.errors import Unverified
from falaj.base.fenc import MAGIC, Unsealable
from falaj.base.fenclog import END, LogWriter, frames, public_of
from falaj.facts.serving import LogKey
from falaj.serving import spool
from falaj.serving.journal import LogFile
from falaj.serving.spool import LogRow

PRIVATE = bytes(range(32))
OTHER = bytes(range(1, 33))
BOOT = "0123456789abcdef"
NAME = f"log-{BOOT}-000000.fenc"


def written(blocks, *, last=True, object="o"):
    """The file in pieces: its head, its frames."""
    writer = LogWriter(public_of(PRIVATE), {"object": object, "scope": "s", "scope_version": "1"})
    pieces = [writer.head, *(writer.frame(block) for block in blocks)]
    return [*pieces, writer.frame(b"", last=True)] if last else pieces


def read(data, *, key=PRIVATE, object="o", whole=True, offset=0):
    found = frames(io.BytesIO(data), lambda _: key, object=object, whole=whole, offset=offset)
    return [frame.data for frame in found]


BLOCKS = [b"one\n", b"two\n", b"three\n" * 9]


@given(st.lists(st.binary(min_size=1, max_size=99), max_size=6))
def test_what_was_written_is_read(blocks):
    assert read(b"".join(written(blocks))) == blocks


@given(st.integers(0, 400))
def test_a_file_whose_writer_was_killed_is_read_to_its_last_whole_frame(kept):
    pieces = written(BLOCKS, last=False)
    data = b"".join(pieces)[:kept]
    ends = [len(b"".join(pieces[: n + 1])) for n in range(len(pieces))]
    assert read(data, whole=False) == [b for b, end in zip(BLOCKS, ends[1:], strict=True) if end <= len(data)]  # fmt: skip


def relabelled(pieces):
    said = json.loads(pieces[0][len(MAGIC) + 4 :])
    text = json.dumps({**said, "scope": "t"}, sort_keys=True, separators=(",", ":")).encode()
    return [MAGIC + struct.pack(">I", len(text)) + text, *pieces[1:]]


def foreign(pieces):
    """The frames of another file of the same name, behind this one's head."""
    return [pieces[0], *written(BLOCKS)[1:]]


ALTERED = {
    "the end is missing": lambda p: p[:-1],
    "a frame and the end are missing": lambda p: p[:-2],
    "cut inside a frame": lambda p: [*p[:-1], p[-1][:-1]],
    "a frame left out": lambda p: [p[0], p[2], p[3], p[4]],
    "swapped": lambda p: [p[0], p[2], p[1], *p[3:]],
    "doubled": lambda p: [p[0], p[1], p[1], *p[2:]],
    "ended twice": lambda p: [*p, p[-1]],
    "a frame behind the end": lambda p: [*p, p[1]],
    "bytes behind the end": lambda p: [*p, b"\0"],
    "relabelled": relabelled,
    "another file's frames": foreign,
    "no head": lambda p: p[1:],
    "nothing": lambda p: [],
    "a length beyond all bounds": lambda p: [p[0], b"\xff\xff\xff\xff", *p[1:]],
    "a header without end": lambda p: [MAGIC, b"\xff\xff\xff\xff"],
    "a header that is a list": lambda p: [MAGIC, struct.pack(">I", 2), b"[]"],
}


@pytest.mark.parametrize("change", ALTERED.values(), ids=ALTERED)
def test_altered_files_are_refused(change):
    with pytest.raises(Unsealable):
        read(b"".join(change(written(BLOCKS))))


def test_every_byte_counts():
    data = b"".join(written([b"a row\n"]))
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1
        with pytest.raises(Unsealable):
            read(bytes(flipped))


def test_nothing_of_a_bad_frame_is_handed_out():
    pieces = written(BLOCKS)
    bad = bytearray(pieces[2])
    bad[6] ^= 1
    data = io.BytesIO(b"".join([pieces[0], pieces[1], bytes(bad), *pieces[3:]]))
    given = frames(data, lambda _: PRIVATE, object="o", whole=True)
    assert next(given).data == BLOCKS[0]
    with pytest.raises(Unsealable, match="frame 1"):
        next(given)


def test_another_key_or_name_is_refused():
    data = b"".join(written(BLOCKS))
    with pytest.raises(Unsealable, match="frame 0"):
        read(data, key=OTHER)
    with pytest.raises(Unsealable, match="another file"):
        read(data, object="p")


def test_what_the_writer_holds_opens_nothing():
    data = b"".join(written(BLOCKS))
    with pytest.raises(Unsealable):
        read(data, key=public_of(PRIVATE))


def test_a_point_of_small_order_is_refused():
    pieces = written(BLOCKS)
    said = json.loads(pieces[0][len(MAGIC) + 4 :])
    said["by"] = base64.b64encode(bytes(32)).decode()
    text = json.dumps(said).encode()
    with pytest.raises(Unsealable, match="header"):
        read(MAGIC + struct.pack(">I", len(text)) + text + b"".join(pieces[1:]))


# --- the log of a server -----------------------------------------------------------------------


def key(private=PRIVATE, version=1):
    public = base64.b64encode(public_of(private)).decode()
    return LogKey(scope="inference/production/2026-11", version=version, public=public)


def row(number):
    return LogRow(
        at=datetime(2026, 11, 24, tzinfo=UTC), request="r", row=number, model="m", release="r",
        assigned="stable", arm="stable", outcome="ok", latency_us=5, stratum=1, step=0, rollout="",
        x=["hessa", 1.0], y=[0.5],
    )  # fmt: skip


def put(log, *numbers):
    log.add(len(numbers), lambda: [row(n) for n in numbers])
    log.flush()


def opener(said):
    assert said["scope"] == "inference/production/2026-11"
    return {"1": PRIVATE, "2": OTHER}[said["scope_version"]]


def numbers(folder, positions=None, **how):
    return [mark.fact.row for mark in spool.log(folder, positions, key=opener, **how)]


@pytest.fixture
def log(tmp_path):
    made = LogFile(tmp_path, BOOT)
    made.use(key())
    return made


def test_rows_are_sealed_from_the_first_byte_and_read_while_the_file_grows(log, tmp_path):
    positions = {}
    for start in (0, 3, 6):
        put(log, start, start + 1, start + 2)
        assert b"hessa" not in log.path.read_bytes()
        marks = list(spool.log(tmp_path, positions, key=opener))
        assert [m.fact.row for m in marks] == [start, start + 1, start + 2]
        positions = {marks[-1].name: marks[-1].offset}
    log.rotate()
    assert [p.name for p in tmp_path.iterdir()] == [NAME]
    assert numbers(tmp_path, positions) == []
    assert numbers(tmp_path) == list(range(9))


@pytest.mark.parametrize("finished", [False, True])
def test_a_reader_goes_on_from_wherever_it_stopped(log, tmp_path, finished):
    put(log, 0, 1, 2)
    put(log, 3, 4)
    if finished:
        log.rotate()
    for mark in list(spool.log(tmp_path, key=opener)):
        assert numbers(tmp_path, {mark.name: mark.offset}) == list(range(mark.fact.row + 1, 5))


def test_a_new_key_starts_a_new_segment(log, tmp_path):
    put(log, 0)
    log.use(key(OTHER, 2))
    put(log, 1)
    log.use(None)
    put(log, 2)
    log.rotate()
    assert numbers(tmp_path) == [0, 1, 2]
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".fenc", ".fenc", ".jsonl"]


def test_an_altered_segment_is_named_and_the_others_are_read(log, tmp_path):
    for number in range(3):
        put(log, number)
        log.rotate()
    second = tmp_path / f"log-{BOOT}-000001.fenc"
    data = bytearray(second.read_bytes())
    data[-END - 5] ^= 1
    second.write_bytes(data)
    refused = {}
    assert numbers(tmp_path, refused=refused.__setitem__) == [0, 2]
    assert list(refused) == [second.name]
    with pytest.raises(Unverified, match=second.name) as caught:
        numbers(tmp_path)
    assert caught.value.problems[0].code == "serving.log-segment"


def moved(folder):
    (folder / NAME).rename(folder / f"log-{BOOT}-000007.fenc")


def cut(folder):
    os.truncate(folder / NAME, (folder / NAME).stat().st_size - END)


def plain(folder):
    (folder / NAME).write_bytes(b'{"row":1}\n')


@pytest.mark.parametrize("harm", [moved, cut, plain])
def test_a_finished_segment_is_whole_and_in_its_place(log, tmp_path, harm):
    put(log, 0)
    log.rotate()
    harm(tmp_path)
    refused = {}
    assert numbers(tmp_path, refused=refused.__setitem__) in ([], [0])
    assert len(refused) == 1


def test_without_the_key_nothing_is_read_and_the_reason_is_told(log, tmp_path):
    put(log, 0)

    def erased(said):
        raise Unsealable(f"the key of scope {said['scope']!r} was erased")

    for how, words in ((None, "its key is not here"), (erased, "was erased")):
        refused = {}
        assert list(spool.log(tmp_path, key=how, refused=refused.__setitem__)) == []
        assert words in refused[NAME]


def test_a_full_disk_tears_one_segment_and_the_next_is_whole(log, tmp_path):
    put(log, 0)
    torn = log.path
    kept = torn.read_bytes()
    torn.unlink()
    torn.mkdir()  # it cannot be appended to
    put(log, 1)
    torn.rmdir()
    torn.write_bytes(kept + b"\0\0\1")
    put(log, 2)
    log.rotate()
    assert log.dropped == {"disk": 1}
    assert torn.name.endswith(".part"), "it lacks the frame that ends it"
    assert numbers(tmp_path) == [0, 2]
