"""The routes of the Open Inference Protocol v2 and the ones beside it, asked of a real server."""

from __future__ import annotations

import html.parser
import json
import time

import pytest
from servers import expected, infer_body

from falaj.serving import spool
from falaj.serving.requests import which_release

ROW = (30.0, 733.0, 14.0)


def test_server_metadata(running):
    status, _, told = running.get("/v2")
    assert (status, told["name"], told["extensions"]) == (200, "falaj", ["binary_tensor_data"])


def test_live_and_ready(running):
    assert running.get("/v2/health/live")[2] == {"live": True}
    status, _, told = running.get("/v2/health/ready")
    assert (status, told["live"], told["ready"], told["problem"]) == (200, True, True, "")
    assert told["models"]["delay"] == {"stable": running.release.id, "canary": ""}


@pytest.mark.parametrize("path", ["/v2/models/delay", "/v2/models/delay/versions/1"])
def test_model_metadata_names_tensors_and_columns(running, path):
    status, headers, told = running.get(path)
    assert status == 200
    assert told["versions"] == ["1"]
    (given,) = told["inputs"]
    assert (given["name"], given["datatype"], given["shape"]) == ("x", "FP32", [-1, 3])
    assert [column["name"] for column in given["parameters"]["columns"]] == [
        "dep_delay",
        "distance",
        "hour",
    ]
    assert [one["name"] for one in told["outputs"]] == ["label", "probabilities"]
    assert headers["falaj-release"] == running.release.id


def test_model_ready(running):
    assert running.get("/v2/models/delay/ready")[2] == {"name": "delay", "ready": True}
    assert running.get("/v2/models/delay/versions/1/ready")[0] == 200


def test_infer_answers_in_form(running):
    status, headers, told = running.infer(ROW, (None, 5.0, 6.0), id="my-7")
    assert status == 200
    assert (told["model_name"], told["model_version"], told["id"]) == ("delay", "1", "my-7")
    label, probabilities = told["outputs"]
    assert (label["datatype"], label["shape"]) == ("INT64", [2])
    assert (probabilities["datatype"], probabilities["shape"]) == ("FP32", [2, 2])
    flat = probabilities["data"]
    assert flat[1] == pytest.approx(expected(ROW), abs=1e-6)
    assert flat[3] == pytest.approx(expected((None, 5.0, 6.0)), abs=1e-6)
    assert label["data"] == [int(p > 0.5) for p in (flat[1], flat[3])]
    assert headers["falaj-release"] == running.release.id
    assert len(headers["falaj-request"]) == 32
    assert headers["content-type"] == "application/json"


def test_an_id_is_echoed_only_when_sent(running):
    assert "id" not in running.infer(ROW)[2]
    assert running.infer(ROW, id='"},{')[2]["id"] == '"},{'


def test_only_the_outputs_asked_for(running):
    told = running.infer(ROW, outputs=[{"name": "probabilities"}])[2]
    assert [one["name"] for one in told["outputs"]] == ["probabilities"]


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 300, 5000])
def test_every_size_answers_the_same(running, n):
    rows = [(float(i % 50), 700.0 + i, float(i % 24)) for i in range(n)]
    status, _, told = running.infer(*rows)
    assert status == 200
    got = told["outputs"][1]["data"][1::2]
    assert got == pytest.approx([expected(row) for row in rows], abs=1e-5)


def test_a_named_version_must_be_live(running):
    body = infer_body(ROW)
    assert running.post("/v2/models/delay/versions/1/infer", body)[0] == 200
    status, _, told = running.post("/v2/models/delay/versions/9/infer", body)
    assert (status, told["code"]) == (404, "serving.no-version")


def test_another_spelling_of_the_address(running):
    assert running.post("/v2/models/d%65lay/infer", infer_body(ROW))[0] == 200
    assert running.post("/v2/models/delay/infer?x=1", infer_body(ROW))[0] == 200


ERRORS = {  # method, path, body -> status, code, field, row
    "no such model": ("POST", "/v2/models/x/infer", infer_body(ROW), 404, "serving.no-model", None, None),
    "no such model, metadata": ("GET", "/v2/models/x", None, 404, "serving.no-model", None, None),
    "no such address": ("GET", "/v3", None, 404, "serving.address", None, None),
    "wrong method": ("GET", "/v2/models/delay/infer", None, 405, "serving.method", None, None),
    "wrong method, cold": ("POST", "/v2", {}, 405, "serving.method", None, None),
    "an unheard-of method": ("PROPFIND", "/v2", None, 405, "serving.method", None, None),
    "load by address": ("POST", "/v2/repository/models/x/load", {}, 405, "serving.method", None, None),
    "no JSON": ("POST", "/v2/models/delay/infer", b"{", 400, "serving.body", None, None),
    "out of range": ("POST", "/v2/models/delay/infer", infer_body(ROW, (1, -1, 3)), 400, "serving.range", "distance", 1),
    "null": ("POST", "/v2/models/delay/infer", infer_body((1, 2, None)), 400, "serving.null", "hour", 0),
    "large and wrong": ("POST", "/v2/models/delay/infer", infer_body(*[ROW] * 3000, (1, 2, 99)), 400, "serving.range", "hour", 3000),
    "rows without a column": ("POST", "/predict", {"rows": [{"hour": 1}]}, 400, "serving.missing", "distance", 0),
    "no such model, rows": ("POST", "/predict?model=x", {"rows": [{}]}, 404, "serving.no-model", None, None),
}  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "field", "row"), ERRORS.values(), ids=ERRORS
)
def test_errors_have_the_form_clients_read(running, method, path, body, status, code, field, row):
    got, headers, told = running.ask(method, path, body)
    assert (got, told["code"], told.get("field"), told.get("row")) == (status, code, field, row)
    assert isinstance(told["error"], str)
    assert headers["content-type"] == "application/json"
    assert (status == 405) == ("allow" in headers)


def test_predict_takes_named_rows_in_any_order(running):
    rows = [
        {"hour": 14, "distance": 733, "dep_delay": 30},
        {"hour": 20, "distance": 1, "dep_delay": 90},
    ]
    for path in ("/predict", "/predict?model=delay"):
        status, headers, told = running.post(path, {"rows": rows})
        assert status == 200
        assert told["release"] == running.release.id == headers["falaj-release"]
        assert told["request"] == headers["falaj-request"]
        first, second = told["predictions"]
        assert first["probability"] == pytest.approx(expected(ROW), abs=1e-6)
        assert second == {
            "probability": pytest.approx(expected((90, 1, 20)), abs=1e-6),
            "label": 1,
        }


def test_the_label_follows_the_threshold_of_the_release(house):
    house.apply(house.release("1", threshold="0.05"))
    client = house.start()
    told = client.post("/predict", {"rows": [{"hour": 1, "distance": 2}]})[2]
    assert told["predictions"][0]["probability"] < 0.5
    assert told["predictions"][0]["label"] == 1


def test_x_request_id_is_echoed_only_when_harmless(running):
    ask = running.ask
    path, body = "/v2/models/delay/infer", infer_body(ROW)
    assert ask("POST", path, body, {"x-request-id": "abc.7-X_"})[1]["x-request-id"] == "abc.7-X_"
    for bad in ("a b", "x" * 65, '"', "a\tb"):
        assert "x-request-id" not in ask("POST", path, body, {"x-request-id": bad})[1]


def log_row(client, request):
    end = time.monotonic() + 5
    while time.monotonic() < end:
        for mark in spool.log(client.house.root / "spool"):
            if mark.fact.request == request:
                return mark.fact
        time.sleep(0.05)
    raise AssertionError("not logged")


def test_the_log_has_what_was_asked_and_answered(running):
    when = "2013-01-05T07:00:00Z"
    _, headers, told = running.infer((None, 733.5, 14.0), parameters={"event_time": when})
    row = log_row(running, headers["falaj-request"])
    assert row.x == [None, 733.5, 14.0]
    assert row.y == [told["outputs"][0]["data"][0], *told["outputs"][1]["data"]]
    assert row.score == row.y[2]
    assert row.event_time.isoformat() == "2013-01-05T07:00:00+00:00"
    assert (row.assigned, row.arm, row.outcome, row.row) == ("stable", "stable", "ok", 0)
    assert row.release == running.release.id


def test_of_a_large_request_64_rows_are_logged(running):
    _, headers, _ = running.infer(*[(float(i % 60), 7.0, 8.0) for i in range(1000)])
    request = headers["falaj-request"]
    log_row(running, request)
    rows = [m.fact for m in spool.log(running.house.root / "spool") if m.fact.request == request]
    assert len({row.row for row in rows}) == 64
    assert all(row.x[0] == row.row % 60 and row.rows == 1000 for row in rows)


def test_ground_truth_is_on_disk_before_202(running):
    request = running.infer(ROW)[1]["falaj-request"]
    refused = running.infer((1, -1, 1))[2]["request"]
    rows = [
        {"request": request, "row": 0, "value": 1, "at": "2013-01-05T09:00:00Z"},
        {"request": refused, "row": 0, "value": 1},
        {"request": "f" * 32, "row": 0, "value": 1},
        {"request": request, "row": 0, "value": True},
    ]
    for _ in range(2):
        status, _, told = running.post("/ground-truth/delay", {"rows": rows})
        assert (status, told["accepted"]) == (202, 2)
        assert [one["index"] for one in told["rejected"]] == [1, 2]
        labels = [mark.fact for mark in spool.labels(running.house.root / "spool")]
        mine = [label for label in labels if label.request == request]
        assert [(label.row, label.value) for label in mine] == [(0, 1.0)]


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/ground-truth/x", {"rows": []}, {}, 404),
        ("/ground-truth/delay", {}, {}, 400),
        ("/ground-truth/delay", {"rows": [{}] * 10_001}, {}, 400),
        ("/ground-truth/delay", {"rows": []}, {"content-type": "text/plain"}, 415),
    ],
    ids=["no such model", "no rows", "too many rows", "a type that browsers send unasked"],
)
def test_ground_truth_that_is_refused_whole(running, path, body, headers, status):
    assert running.ask("POST", path, body, headers)[0] == status


def test_which_release_answered_every_request(running):
    boots = spool.boots(running.house.root / "spool")
    for _ in range(5):
        headers = running.infer(ROW)[1]
        assert which_release(headers["falaj-request"], boots) == headers["falaj-release"]


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)


def test_the_page_says_what_a_person_wants_to_know(running):
    status, headers, text = running.get("/")
    words = text.decode()
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in headers["content-security-policy"]
    for expected_words in (
        "answers requests",
        "delay",
        running.release.id[7:19],
        "dep_delay",
        "curl",
    ):
        assert expected_words in words
    tags = Tags()
    tags.feed(words)
    assert not {"script", "img", "link", "iframe"} & set(tags.tags)
    assert "form-action 'self'" in headers["content-security-policy"]


FORM = {"content-type": "application/x-www-form-urlencoded"}


def test_the_form_of_the_page_asks_like_any_other(running):
    body = b"dep_delay=30&distance=733&hour=14"
    status, headers, text = running.ask("POST", "/try/delay", body, FORM)
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert f"{expected(ROW):.6g}"[:-1] in text.decode()
    assert running.release.id in text.decode()
    assert log_row(running, headers["falaj-request"]).x == [30.0, 733.0, 14.0]
    assert running.ask("POST", "/try/delay", b"dep_delay=&distance=1&hour=2", FORM)[0] == 200


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"distance=-1&hour=2", "at least 0.0"),
        (b"hour=2", "distance: missing"),
        (b"distance=x&hour=2", "expected FP32"),
        (b"distance=1&hour=2&%3Cb%3E=1", "&lt;b&gt;"),
        (b"\xff", "no fields of a form"),
    ],
    ids=["range", "missing", "no number", "an unknown name stays words", "no form"],
)
def test_the_form_says_what_does_not_fit(running, body, words):
    status, headers, text = running.ask("POST", "/try/delay", body, FORM)
    assert (status, headers["content-type"]) == (400, "text/html; charset=utf-8")
    assert words in text.decode()
    assert "<b>" not in text.decode()


def test_pages_of_other_addresses_cannot_send_the_form(running):
    head = {**FORM, "sec-fetch-site": "cross-site"}
    status, _, told = running.ask("POST", "/try/delay", b"distance=1&hour=2", head)
    assert (status, told["code"]) == (403, "serving.origin")
    assert running.ask("POST", "/try/x", b"", FORM)[0] == 404


def test_names_in_the_page_stay_words(house):
    evil = "1<script>alert(1)</script>"
    house.apply(house.release(evil.replace("/", "-")))
    text = house.start().get("/")[2].decode()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_metrics_are_openmetrics_and_count(running):
    running.infer(ROW)
    status, headers, text = running.get("/metrics")
    lines = text.decode().splitlines()
    assert status == 200
    assert headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert lines[-1] == "# EOF"
    assert any(line.startswith("falaj_requests_total{") and 'code="ok"' in line for line in lines)
    assert all(line.startswith("# ") or len(line.rsplit(" ", 1)) == 2 for line in lines)


def test_head_has_no_body(running):
    answer = running.raw(b"HEAD /v2 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"content-length: " in head
    assert body == b""


def test_many_models_are_told_apart(house):
    one, other = house.release("1"), house.release("1", model="other")
    house.place(one)
    house.place(other)
    second = house.plan(other, model="other").models
    house.write(house.plan(one, more=second.items()))
    client = house.start()
    assert client.infer(ROW, model="other")[1]["falaj-release"] == other.id
    assert client.infer(ROW)[1]["falaj-release"] == one.id
    rows = {"rows": [{"hour": 1, "distance": 2}]}
    assert client.post("/predict?model=other", rows)[2]["release"] == other.id
    assert client.post("/predict", rows)[2]["code"] == "serving.no-model"
    request = client.infer(ROW)[1]["falaj-request"]
    body = {"rows": [{"request": request, "row": 0, "value": 1}]}
    told = client.post("/ground-truth/other", body)[2]
    assert "another model" in json.dumps(told["rejected"])
