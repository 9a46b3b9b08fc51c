from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.facts.serving import Boot, Counts
from falaj.serving import journal, spool
from falaj.serving.journal import CountsFile, LogFile
from falaj.serving.labels import LabelFile, is_known, read
from falaj.serving.schema import Refusal
from falaj.serving.spool import LogRow

NOW = datetime(2026, 11, 24, tzinfo=UTC)
BOOT = "0123456789abcdef"
REQUEST = BOOT + "0001" + "000000000001"


def row(number=0, size=3):
    return LogRow(
        at=NOW,
        request=REQUEST,
        row=number,
        model="m",
        release="r",
        assigned="stable",
        arm="stable",
        outcome="ok",
        latency_us=5,
        stratum=1,
        step=0,
        rollout="",
        x=[1.0, None, 3.0] * size,
        y=[0.5],
    )


def count(seq, *, metric="errors", x_c=0, stratum=1):
    return Counts(
        source=BOOT,
        seq=seq,
        model="m",
        rollout="r",
        stratum=stratum,
        zone="z",
        step=0,
        metric=metric,
        n_c=9,
        x_c=x_c,
        n_s=9,
        x_s=0,
    )


@given(
    st.lists(st.binary(max_size=20).filter(lambda b: b"\n" not in b), max_size=10),
    st.binary(max_size=20),
)
def test_lines_are_whole_and_offsets_go_on(tmp_path_factory, texts, torn):
    torn = torn.replace(b"\n", b"")
    path = tmp_path_factory.mktemp("lines") / "f"
    path.write_bytes(b"".join(text + b"\n" for text in texts) + torn)
    found = list(spool.lines(path))
    assert [line for _, line in found] == texts
    for at, (offset, _) in enumerate(found):
        assert [line for _, line in spool.lines(path, offset)] == texts[at + 1 :]


def test_a_torn_line_is_read_once_it_is_whole(tmp_path):
    log = LogFile(tmp_path, BOOT)
    log.add(1, lambda: [row(1)])
    log.flush()
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + whole[:40])
    marks = list(spool.log(tmp_path))
    assert [mark.fact.row for mark in marks] == [1]
    positions = {marks[-1].name: marks[-1].offset}
    log.path.write_bytes(whole + whole)
    assert len(list(spool.log(tmp_path, positions))) == 1


def test_a_position_outlives_the_rename(tmp_path):
    log = LogFile(tmp_path, BOOT)
    log.add(1, lambda: [row(1)])
    log.flush()
    (first,) = spool.log(tmp_path)
    log.add(1, lambda: [row(2)])
    log.flush()
    log.rotate()
    log.add(1, lambda: [row(3)])
    log.flush()
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".jsonl", ".part"]
    later = list(spool.log(tmp_path, {first.name: first.offset}))
    assert [mark.fact.row for mark in later] == [2, 3]
    assert later[0].fact.x == [1.0, None, 3.0] * 3


def test_segments_turn_over_at_their_size(tmp_path):
    log = LogFile(tmp_path, BOOT, segment=2000)
    for number in range(50):
        log.add(1, lambda number=number: [row(number)])
        log.flush(1)
    assert len(list(tmp_path.iterdir())) > 3
    assert [mark.fact.row for mark in spool.log(tmp_path)] == list(range(50))


def test_a_full_log_drops_and_counts(tmp_path):
    log = LogFile(tmp_path, BOOT, total=1500)
    for number in range(50):
        log.add(1, lambda number=number: [row(number)])
        log.flush(1)
    written = len(list(spool.log(tmp_path)))
    assert written == log.rows
    assert log.dropped == {"space": 50 - written}
    for _ in range(journal.LOG_WAITING + 5):
        log.add(1, list)
    assert log.dropped["queue"] == 5


def test_a_broken_disk_drops_and_counts(tmp_path):
    log = LogFile(tmp_path / "missing", BOOT)
    log.add(1, lambda: [row()])
    log.flush()
    assert log.dropped == {"disk": 1}


def test_a_damaged_line_does_not_hide_the_next(tmp_path):
    good = msgspec.json.encode(count(1)) + b"\n"
    (tmp_path / f"counts-{BOOT}-000000.jsonl").write_bytes(
        b"{broken\n\n" + good + b'{"source":1}\n'
    )
    assert [mark.fact.seq for mark in spool.counts(tmp_path)] == [1]


@given(st.lists(st.integers(1, 30), max_size=20), st.randoms())
def test_repeats_and_disorder_change_nothing(seqs, random):
    lines = [count(seq, x_c=seq) for seq in seqs]
    again = lines + lines
    random.shuffle(again)
    assert spool.newest(iter(again)) == spool.newest(iter(lines))
    assert all(line.x_c == max(seqs) for line in spool.newest(iter(again)).values())


def test_a_grown_counts_file_is_compacted_without_loss(tmp_path):
    file = CountsFile(tmp_path, BOOT, size=3000)
    positions = {}
    seen = {}
    for seq in range(1, 200):
        file.write([count(seq, x_c=seq, stratum=seq // 100)])
        if seq % 7 == 0:
            for mark in spool.counts(tmp_path, positions):
                positions[mark.name] = mark.offset
                spool.newest(iter([mark.fact]), seen)
    for mark in spool.counts(tmp_path, positions):
        spool.newest(iter([mark.fact]), seen)
    assert file.path.stat().st_size < 10_000
    assert sorted((c.stratum, c.x_c) for c in seen.values()) == [(0, 99), (1, 199)]
    assert len(positions) > 1


def test_counts_wait_while_the_disk_is_full(tmp_path):
    file = CountsFile(tmp_path / "later", BOOT)
    file.write([count(1, x_c=1)])
    file.write([count(2, x_c=2)])
    assert len(file.waiting) == 1
    (tmp_path / "later").mkdir()
    file.write([])
    (mark,) = spool.counts(tmp_path / "later")
    assert mark.fact.x_c == 2


def test_latencies_of_all_processes_are_added(tmp_path):
    told = {"m": {"release": "r", "edges_us": [10, 20], "counts": [1, 2]}}
    journal.write_latencies(tmp_path, "a" * 16, told)
    other = {"m": {"release": "r", "edges_us": [20, 30], "counts": [5, 1]}}
    journal.write_latencies(tmp_path, "b" * 16, other)
    assert spool.latencies(tmp_path) == {"m": {"r": ([10, 20, 30], [1, 7, 1])}}


def test_boot_records_come_back_oldest_first(tmp_path):
    for day, name in ((2, "a" * 16), (1, "b" * 16)):
        at = datetime(2026, 1, day, tzinfo=UTC)
        journal.write_boot(tmp_path, Boot(boot=name, at=at, pid=1, slots={"1": "r"}))
    (tmp_path / "boot-x.json").write_text("{")
    assert [boot.boot for boot in spool.boots(tmp_path)] == ["b" * 16, "a" * 16]


def body(*rows):
    return msgspec.json.encode({"rows": list(rows)})


def known(request):
    boots = {BOOT: Boot(boot=BOOT, at=NOW, pid=1, slots={"1": "r", "2": "other"})}
    return is_known(request, boots, own=BOOT, counter=5, releases={"other"})


GOOD = {"request": REQUEST, "row": 0, "value": 1}
REJECTED = {
    "no request": ({"row": 0, "value": 1}, "request"),
    "a request that is no id": ({**GOOD, "request": "x"}, "32 lower-case"),
    "another boot": ({**GOOD, "request": "f" * 32}, "unknown request"),
    "a number not given yet": ({**GOOD, "request": REQUEST[:-1] + "6"}, "unknown request"),
    "a refused request": ({**GOOD, "request": BOOT + "0000" + REQUEST[20:]}, "no release"),
    "another model's request": ({**GOOD, "request": BOOT + "0002" + REQUEST[20:]}, "another model"),
    "a negative row": ({**GOOD, "row": -1}, "row"),
    "a row that is no number": ({**GOOD, "row": "0"}, "row"),
    "no value": ({"request": REQUEST, "row": 0}, "value"),
    "a text as value": ({**GOOD, "value": "late"}, "value"),
    "a time that is none": ({**GOOD, "at": "soon"}, "at"),
    "a long source": ({**GOOD, "source": "s" * 129}, "source"),
    "an unknown field": ({**GOOD, "rows": 1}, "unknown field"),
}


@pytest.mark.parametrize(("bad", "words"), REJECTED.values(), ids=REJECTED)
def test_a_bad_label_is_rejected_alone_and_why(bad, words):
    taken, rejected = read("m", body(bad, GOOD), known, NOW)
    assert [(one.index, words in one.reason) for one in rejected] == [(0, True)]
    assert [label.value for label in taken] == [1.0]


def test_more_than_ten_thousand_labels_are_refused():
    with pytest.raises(Refusal, match="10001"):
        read("m", body(*[GOOD] * 10_001), known, NOW)


def test_the_same_label_again_is_written_once_also_after_a_restart(tmp_path):
    taken, _ = read("m", body(GOOD, {**GOOD, "row": 1}), known, NOW)
    file = LabelFile(tmp_path, BOOT)
    assert file.write(taken) == 2
    assert file.write(taken) == 0
    assert LabelFile(tmp_path, "f" * 16).write(taken) == 0
    changed, _ = read("m", body({**GOOD, "value": 0}), known, NOW)
    assert file.write(changed) == 1
    assert [mark.fact.value for mark in spool.labels(tmp_path)] == [1.0, 1.0, 0.0]


def test_labels_are_not_promised_when_the_disk_refuses(tmp_path):
    taken, _ = read("m", body(GOOD), known, NOW)
    file = LabelFile(tmp_path / "missing", BOOT)
    with pytest.raises(OSError, match="No such"):
        file.write(taken)
    (tmp_path / "missing").mkdir()
    assert file.write(taken) == 1
