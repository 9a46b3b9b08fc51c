"""The Python client against a real server, and against one that fails in every way."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import House, expected, graph, infer_body
from tensors import mirror, sample

from falaj.client import AsyncClient, Client, Policy, Refused, Unreachable, pause
from falaj.facts.models import Datatype
from falaj.serving import spool

ROWS = [{"dep_delay": 30, "distance": 733, "hour": 14}, {"distance": 5, "hour": 6}]
WANTED = [expected((30, 733, 14)), expected((None, 5, 6))]
QUICK = Policy(retries=2, first_s=0.01)


@pytest.fixture
def served(running):
    with Client(running.url) as client:
        client.release = running.release
        yield client


def test_rows(served):
    answer = served.predict(ROWS, model="delay")
    assert [one["probability"] for one in answer.predictions] == pytest.approx(WANTED, abs=1e-6)
    assert (answer.model, answer.version, answer.release) == ("delay", "1", served.release.id)
    told = served.truth("delay", [{"request": answer.request, "row": 0, "value": 1}])
    assert told == {"accepted": 1, "rejected": []}


def test_tensors(served):
    x = np.array([[30, 733, 14]], np.float32)
    found = served.infer("delay", {"x": x}, outputs=["probabilities"])
    assert list(found) == ["probabilities"]
    assert found["probabilities"][0, 1] == pytest.approx(WANTED[0], abs=1e-6)
    assert served.infer("delay", {"x": x}, version="1")["label"].shape == (1,)


def test_what_is_live(served):
    assert served.ready()
    assert served.models() == ["delay"]
    assert served.metadata("delay")["inputs"][0]["name"] == "x"


def test_every_type_there_and_back(tmp_path):
    kinds = [kind for kind in Datatype if kind is not Datatype.BF16]
    house = House(tmp_path)
    schema, data = mirror(*kinds)
    house.apply(house.release("1", onnx_bytes=data, schema=schema, task="other"))
    with Client(house.start().url) as client:
        arrays = {f"x_{kind.lower()}": sample(kind, (3, 2)) for kind in kinds}
        found = client.infer("delay", arrays)
    house.close()
    for kind in kinds:
        assert np.array_equal(found[f"y_{kind.lower()}"], arrays[f"x_{kind.lower()}"])


def test_all_findings_are_in_the_error(served):
    with pytest.raises(Refused) as caught:
        served.predict([{"distance": -1, "hour": 99}], model="delay")
    error = caught.value
    assert (error.answered, error.code) == (400, "serving.range")
    assert [one["field"] for one in error.findings] == ["distance", "hour"]
    assert len(error.problems) == 2


def test_the_same_calls_to_be_awaited(running):
    async def main():
        async with AsyncClient(running.url) as client:
            answers = await asyncio.gather(*(client.predict(ROWS) for _ in range(20)))
            x = np.array([[30, 733, 14]], np.float32)
            found = await client.infer("delay", {"x": x})
            assert await client.ready()
            assert await client.models() == ["delay"]
            assert (await client.metadata("delay"))["name"] == "delay"
            told = await client.truth(
                "delay", [{"request": answers[0].request, "row": 0, "value": 0}]
            )
            return answers, found, told

    answers, found, told = asyncio.run(main())
    assert all(answer.predictions[0]["probability"] == pytest.approx(WANTED[0], abs=1e-6) for answer in answers)  # fmt: skip
    assert found["probabilities"][0, 1] == pytest.approx(WANTED[0], abs=1e-6)
    assert told["accepted"] == 1


class Failing(BaseHTTPRequestHandler):
    """Answers as the list of the server says: a status, `cut`, or seconds of silence."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        told = self.server.script.pop(0)
        self.server.heard.append(self.headers.get("falaj-attempt"))
        if told == "cut":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if isinstance(told, float):
            time.sleep(told)
            told = 200
        body = json.dumps(
            {"predictions": [], "model": "m", "version": "1", "release": "r", "request": "q"}
            if told in (200, 202)
            else {"error": "no", "code": "serving.overload"}
        ).encode()
        self.send_response(told)
        if told in (429, 503):
            self.send_header("retry-after", self.server.after)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


@pytest.fixture
def failing():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Failing)
    server.heard, server.after = [], "0"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()


SAFE = {
    "overload": ([503, 200], [None, "1"]),
    "overload twice": ([503, 503, 200], [None, "1", "2"]),
    "too many requests": ([429, 200], [None, "1"]),
}


@pytest.mark.parametrize("kind", ["blocking", "awaited"])
@pytest.mark.parametrize(("script", "heard"), SAFE.values(), ids=SAFE)
def test_what_nobody_began_is_sent_again_and_says_so(failing, kind, script, heard):
    failing.script = list(script)
    assert ask(failing.url, kind).model == "m"
    assert failing.heard == heard


def ask(url, kind, **about):
    about = {"policy": QUICK, "timeout_s": 5.0, **about}
    if kind == "blocking":
        with Client(url, **about) as client:
            return client.predict(ROWS)

    async def main():
        async with AsyncClient(url, **about) as client:
            return await client.predict(ROWS)

    return asyncio.run(main())


UNSAFE = {
    "a mistake of the server": ([500, 200], Refused),
    "out of time there": ([504, 200], Refused),
    "a refusal": ([400, 200], Refused),
    "a cut connection": (["cut", 200], Unreachable),
    "overload for ever": ([503, 503, 503, 200], Refused),
}


@pytest.mark.parametrize("kind", ["blocking", "awaited"])
@pytest.mark.parametrize(("script", "error"), UNSAFE.values(), ids=UNSAFE)
def test_what_may_have_run_is_never_sent_again(failing, kind, script, error):
    failing.script = list(script)
    with pytest.raises(error):
        ask(failing.url, kind)
    assert failing.script == [200]


@pytest.mark.parametrize("kind", ["blocking", "awaited"])
def test_silence_ends_and_is_not_asked_again(failing, kind):
    failing.script = [1.0, 200]
    begun = time.monotonic()
    with pytest.raises(Unreachable, match=r"no answer within 0\.2 s"):
        ask(failing.url, kind, timeout_s=0.2)
    assert time.monotonic() - begun < 0.9
    assert failing.script == [200]


def test_ground_truth_is_sent_again_after_a_cut(failing):
    failing.script = ["cut", 202]
    with Client(failing.url, policy=QUICK) as client:
        client.truth("m", [])
    assert failing.heard == [None, "1"]


def test_a_pause_that_is_longer_than_the_time_left_is_not_begun(failing):
    failing.script, failing.after = [503, 200], "60"
    begun = time.monotonic()
    with pytest.raises(Refused):
        ask(failing.url, "blocking")
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize("kind", ["blocking", "awaited"])
def test_nobody_there_is_asked_again_then_said(kind):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(Unreachable, match="does not answer") as caught:
        ask(url, kind)
    assert caught.value.code == "serving.unreachable"


@given(
    st.integers(1, 9),
    st.sampled_from([0, -1, 200, 400, 429, 500, 503, 504]),
    st.sampled_from(["", "0", "3", "x", "-1", "9" * 9, "Wed, 21 Oct 2026 07:28:00 GMT"]),
    st.integers(0, 100),
)
def test_pauses_are_bounded_and_only_for_safe_errors(attempt, status, after, left):
    policy = Policy(retries=3)
    wait = pause(policy, attempt, status, after, left)
    if wait is None:
        return
    assert attempt <= 3
    assert status in (0, 429, 503)
    assert 0 < wait < left
    assert wait >= (3 if after == "3" else 0)


def test_a_token_does_not_travel_in_the_clear():
    from falaj.base.errors import FalajError

    with pytest.raises(FalajError, match="in the clear"):
        Client("http://models.example.org", token="secret")
    Client("http://127.0.0.1:1", token="secret").close()
    Client("https://models.example.org", token="secret").close()


@pytest.mark.parametrize("told", [{}, {"falaj-attempt": "0"}, {"falaj-attempt": "1"}, {"grpc-previous-rpc-attempts": "2"}])  # fmt: skip
def test_a_repeated_request_is_rescued_and_left_out_of_the_counts(house, told):
    stable = house.release("1")
    house.apply(stable, house.release("2", onnx_bytes=graph(trouble="crash")), 10_000)
    client = house.start()
    body = infer_body((1.0, 2.0, 13.0))
    status, headers, _ = client.ask("POST", "/v2/models/delay/infer", body, told)
    assert (status, headers["falaj-release"]) == (200, stable.id)
    client.terminate()
    counted = {mark.fact.x_c for mark in spool.counts(house.root / "spool") if mark.fact.metric == "errors"}  # fmt: skip
    assert counted == (set() if told and "0" not in told.values() else {1})
