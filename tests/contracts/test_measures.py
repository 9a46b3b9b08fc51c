"""What every server of numbers promises; over the documented API of Prometheus, and over a real one."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import threading
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

import pytest

import parts
from falaj.links.prometheus.client import Prometheus
from falaj.ports.measures import NoMeasure

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Listening:
    """An HTTP server of this test in a thread; `answer` is (status, body) or makes one of a query."""

    def __init__(self, answer):
        self.asked = []
        told = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                text = self.rfile.read(int(self.headers["content-length"])).decode()
                told.asked.append((self.path, {k: v[0] for k, v in parse_qs(text).items()}))
                status, body = answer(told.asked[-1][1]) if callable(answer) else answer
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

            def do_GET(self):
                self.send_response(200)
                self.send_header("content-type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(answer(None)[1])

            def log_message(self, *_):
                """Nobody listens."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def success(kind, result):
    return 200, {"status": "success", "data": {"resultType": kind, "result": result}}


SAID = {  # answers of the API as documented -> the value
    "one series": (success("vector", [{"metric": {}, "value": [1.0, "42"]}]), 42.0),
    "several are summed": (
        success("vector", [{"metric": {"zone": z}, "value": [1.0, "1.5"]} for z in "ab"]), 3.0),
    "none": (success("vector", []), None),
    "a scalar": (success("scalar", [1.0, "7"]), 7.0),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "value"), SAID.values(), ids=SAID)
def test_a_number_at_a_time(answer, value):
    with Listening(answer) as server:
        assert Prometheus(server.url + "/prom/").value('up{job="a b"}', AT) == value
    ((path, sent),) = server.asked
    assert path == "/prom/api/v1/query"
    assert (sent["query"], sent["time"]) == ('up{job="a b"}', f"{AT.timestamp():.3f}")


REFUSED = {
    "an error of the query": (
        (400, {"status": "error", "errorType": "bad_data", "error": "parse error"}), "parse error"),
    "too busy": ((503, {"status": "error", "error": "query timed out"}), "timed out"),
    "a matrix": (success("matrix", []), "matrix"),
    "a string": (success("string", [1.0, "x"]), "string"),
    "not a number": (success("vector", [{"value": [1.0, "NaN"]}]), "no number"),
    "infinite": (success("scalar", [1.0, "+Inf"]), "no number"),
    "no JSON": ((200, b"<html>"), "JSONDecodeError"),
    "no data": ((200, {"status": "success"}), "without data"),
    "another form": (success("vector", [{"values": 3}]), "documented form"),
    "a redirect": ((302, {"status": "moved"}), "answered 302"),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "why"), REFUSED.values(), ids=REFUSED)
def test_anything_else_is_no_measure(answer, why):
    with Listening(answer) as server, pytest.raises(NoMeasure, match=why):
        Prometheus(server.url).value("up", AT)


def test_nobody_there_is_no_measure():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(NoMeasure, match="ConnectionRefusedError"):
        Prometheus(f"http://127.0.0.1:{port}").value("up", AT)


# --- the real one ---


@pytest.fixture
def real(tmp_path):
    """Prometheus that scrapes counters of this test each 200 ms; and the counters."""
    program = parts.program("prometheus")
    counters = {"all": 0, "bad": 0}

    def exposition(_):
        lines = [
            f'orders_{name}_total{{release="sha256:new"}} {value}\n'
            for name, value in counters.items()
        ]
        return 200, "".join(lines).encode()

    with Listening(exposition) as scraped, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        place = scraped.url.removeprefix("http://")
        (tmp_path / "p.yml").write_text(
            "scrape_configs:\n- job_name: t\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n"
            f"  static_configs:\n  - targets: ['{place}']\n"
        )
        child = subprocess.Popen(
            [
                program, f"--config.file={tmp_path / 'p.yml'}",
                f"--storage.tsdb.path={tmp_path / 'd'}", f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        try:
            until(lambda: is_ready(url))
            yield url, counters
        finally:
            child.terminate()
            child.wait(timeout=10)


def until(check, seconds=15.0):
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end
        time.sleep(0.1)


def is_ready(url):
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_the_real_one_tells_how_a_counter_grew_between_two_times(real):
    url, counters = real
    server = Prometheus(url)
    query = 'orders_all_total{release="sha256:new"}'
    counters["all"] = 100
    until(lambda: server.value(query, datetime.now(UTC)) == 100.0)
    first = datetime.now(UTC)
    counters["all"], counters["bad"] = 150, 7
    until(lambda: server.value(query, datetime.now(UTC)) == 150.0)
    second = datetime.now(UTC)
    assert server.value(query, second) - server.value(query, first) == 50.0
    assert server.value('sum(orders_bad_total{release="sha256:new"})', second) == 7.0
    assert server.value('orders_all_total{release="sha256:other"}', second) is None
    assert server.value(query, first - timedelta(hours=2)) is None
    with pytest.raises(NoMeasure, match="answered 400"):
        server.value("orders_all_total{", second)
    with pytest.raises(NoMeasure, match="matrix"):
        server.value(f"{query}[1m]", second)
