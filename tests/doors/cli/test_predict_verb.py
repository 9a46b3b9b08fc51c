"""`falaj predict` against a real server: rows in every form, words for people and machines."""

from __future__ import annotations

import io
import json
import sys

import pytest
from servers import House, expected

WANTED = expected((30, 733, 14))
FORMS = {
    "CSV": "dep_delay,distance,hour\n30,733,14\n,5,6\n",
    "a list": json.dumps([{"dep_delay": 30, "distance": 733, "hour": 14}, {"distance": 5, "hour": 6}]),
    "rows": json.dumps({"rows": [{"dep_delay": 30, "distance": 733, "hour": 14}, {"distance": 5, "hour": 6}]}),
    "an object a line": '{"dep_delay":30,"distance":733,"hour":14}\n{"distance":5,"hour":6}\n',
}  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    made = House(tmp_path_factory.mktemp("predict-verb"))
    release = made.release("1")
    made.apply(release)
    client = made.start()
    client.release = release
    yield client
    made.close()


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_rows_of_a_file(here, served, tmp_path, text):
    (tmp_path / "rows").write_text(text)
    for batch in ("1", "500"):
        done = here(tmp_path, "predict", "rows", "--url", served.url, "--batch", batch, "--json")
        told = done.json()["data"]
        assert done.code == 0, done.err
        assert [one["row"] for one in told["predictions"]] == [0, 1]
        assert told["predictions"][0]["probability"] == pytest.approx(WANTED, abs=1e-6)
        assert told["releases"] == [served.release.id]


def test_a_table_for_people(here, served, tmp_path):
    words = ("predict", "dep_delay=30", "distance=733", "hour=14", "--url", served.url)
    done = here(tmp_path, *words)
    assert done.code == 0, done.err
    assert "probability" in done.out
    assert f"{WANTED:.4f}" in done.out
    assert served.release.id[7:19] in done.out


def test_rows_of_standard_input(here, served, tmp_path):
    kept = sys.stdin
    sys.stdin = io.StringIO(FORMS["CSV"])
    try:
        done = here(tmp_path, "predict", "-", "--url", served.url, "--json")
    finally:
        sys.stdin = kept
    assert len(done.json()["data"]["predictions"]) == 2


def test_what_does_not_fit_is_said_in_the_callers_words(here, served, tmp_path):
    done = here(tmp_path, "predict", "distance=-1", "hour=99", "--url", served.url)
    assert done.code == 2
    assert "distance: row 0: got -1" in done.err
    assert "hour: row 0: got 99" in done.err


def test_a_refusal_in_a_later_request_says_where(here, served, tmp_path):
    (tmp_path / "rows").write_text("distance,hour\n1,2\n3,4\n5,99\n")
    done = here(tmp_path, "predict", "rows", "--url", served.url, "--batch", "2")
    assert done.code == 2
    assert "of the rows from 2 on: hour: row 0: got 99" in done.err


BAD = {
    "no such file": ("gone.csv", None),
    "no rows": ("empty", ""),
    "broken JSON": ("broken", "[1, 2"),
    "rows that are none": ("numbers", "[1, 2]"),
    "ragged lines": ("ragged", "a,b\n1\n"),
}


@pytest.mark.parametrize(("name", "text"), BAD.values(), ids=BAD)
def test_rows_that_cannot_be_read(here, tmp_path, name, text):
    if text is not None:
        (tmp_path / name).write_text(text)
    done = here(tmp_path, "predict", name, "--url", "http://127.0.0.1:9", "--json")
    assert (done.code, done.json()["code"]) == (2, "cli.rows")


def test_nobody_there(here, tmp_path):
    done = here(
        tmp_path, "predict", "a=1", "--url", "http://127.0.0.1:9", "--retries", "0", "--json"
    )
    assert done.json()["code"] == "serving.unreachable"
    assert "Traceback" not in done.err


def test_a_token_of_a_file(here, served, tmp_path):
    words = ("predict", "distance=1", "hour=2", "--url", served.url, "--token-file")
    (tmp_path / "token").write_text("abc\n")
    assert here(tmp_path, *words, "token").code == 0
    assert here(tmp_path, *words, "gone").code == 2
