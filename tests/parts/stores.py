"""Stores that speak S3 for tests: moto and rclone as processes, and one of our own that can lie."""

from __future__ import annotations

import contextlib
import hashlib
import html
import http.client
import os
import re
import signal
import subprocess
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import parts
from falaj.links.s3.client import Credentials, signed_headers

KEY = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY")
BUCKET = "models"
SILENT = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}


class Store:
    """A process that speaks S3 at `endpoint`; `credentials` open the bucket `models`."""

    def __init__(self, folder, words, endpoint, **env):
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log"
        self.endpoint, self.credentials = endpoint, KEY
        self.process = subprocess.Popen(
            words, cwd=folder, env={**SILENT, "HOME": str(folder), **env}, stdin=subprocess.DEVNULL,
            stdout=self.log.open("wb"), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def until(self, ready, seconds=60):
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(OSError):
                if ready():
                    return
            time.sleep(0.05)
        self.close()
        raise AssertionError("it did not start:\n" + self.log.read_text()[-2000:])

    def ask(self, method, path, data=b"", headers=None, credentials=None, query=""):
        host = urlsplit(self.endpoint).netloc
        if credentials is not None:
            from datetime import UTC, datetime

            headers = signed_headers(
                credentials, method, host, path, query, data,
                region="us-east-1", now=datetime.now(UTC), more={},
            )  # fmt: skip
        line = http.client.HTTPConnection(host, timeout=20)
        try:
            line.request(method, path + (f"?{query}" if query else ""), data, headers or {})
            answer = line.getresponse()
            return answer.status, answer.read()
        finally:
            line.close()

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(8)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


def free_port():
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def moto(folder):
    """It looks at signatures: three free calls make a user, then only that user's key opens it."""
    program, port = parts.environment("s3") / "moto_server", free_port()
    words = [program, "-H", "127.0.0.1", "-p", str(port)]
    store = Store(folder, words, f"http://127.0.0.1:{port}", INITIAL_NO_AUTH_ACTION_COUNT="3")
    store.until(lambda: store.ask("GET", "/moto-api/data.json")[0] == 200)
    scope = "Credential=x/20260101/us-east-1/iam/aws4_request"
    head = {
        "Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=x",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    policy = '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}'
    told = b""
    for action in (
        {"Action": "CreateUser", "UserName": "u"},
        {"Action": "PutUserPolicy", "UserName": "u", "PolicyName": "p", "PolicyDocument": policy},
        {"Action": "CreateAccessKey", "UserName": "u"},
    ):
        body = urlencode({**action, "Version": "2010-05-08"})
        status, told = store.ask("POST", "/", body.encode(), head)
        assert status == 200, told
    key, secret = (
        re.search(f"<{name}>([^<]+)<".encode(), told)[1].decode()
        for name in ("AccessKeyId", "SecretAccessKey")
    )
    store.credentials = Credentials(key, html.unescape(secret))
    assert store.ask("PUT", f"/{BUCKET}", credentials=store.credentials)[0] == 200
    return store


def rclone(folder):
    """It overwrites whatever is there, whatever it is asked."""
    program, port = parts.environment("s3") / "rclone", free_port()
    (folder / "s3").mkdir(parents=True)
    words = [
        program, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key",
        f"{KEY.key},{KEY.secret}", "--config", str(folder / "none.conf"), str(folder / "s3"),
    ]  # fmt: skip
    store = Store(folder, words, f"http://127.0.0.1:{port}")
    store.until(lambda: store.ask("GET", "/", credentials=KEY)[0] == 200)
    assert store.ask("PUT", f"/{BUCKET}", credentials=KEY)[0] == 200
    return store


class OwnStore:
    """In memory. Knows conditional writes and checks content unless it lies."""

    def __init__(self, *, checks=True):
        self.objects, self.lies, self.asked, self.checks = {}, [], [], checks
        self.credentials = KEY
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_):
                pass

            def handle_one_request(self):
                with contextlib.suppress(ConnectionError, TimeoutError):
                    super().handle_one_request()

            def answer(self, status, body=b"", **headers):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                if "Content_Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def wrong(self, status, code):
                self.answer(status, f"<Error><Code>{code}</Code></Error>".encode())

            def do(self):
                self.body = self.rfile.read(int(self.headers.get("content-length", "0")))
                store.asked.append((self.command, self.path, dict(self.headers)))
                for method, pattern, lie in store.lies:
                    if method == self.command and re.search(pattern, self.path) and lie(self):
                        return
                store.answer(self)

            do_GET = do_HEAD = do_PUT = do_DELETE = do  # noqa: N815 http.server's names

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)

    def lie(self, method, pattern, function):
        self.lies.append((method, pattern, function))

    def count(self, method, pattern):
        return sum(m == method and bool(re.search(pattern, p)) for m, p, _ in self.asked)

    def answer(self, h):
        if KEY.key not in h.headers.get("authorization", ""):
            return h.wrong(403, "InvalidAccessKeyId")
        parts_ = urlsplit(h.path)
        key = unquote(parts_.path).removeprefix(f"/{BUCKET}").removeprefix("/")
        if h.command == "GET" and not key:
            return self.listing(h, parse_qs(parts_.query))
        if h.command == "PUT":
            if h.headers.get("if-none-match") == "*" and key in self.objects:
                return h.wrong(412, "PreconditionFailed")
            told = h.headers["x-amz-content-sha256"]
            if self.checks and hashlib.sha256(h.body).hexdigest() != told:
                return h.wrong(400, "XAmzContentSHA256Mismatch")
            self.objects[key] = h.body
            return h.answer(200)
        if h.command == "DELETE":
            self.objects.pop(key, None)
            return h.answer(204)
        if key not in self.objects:
            return h.wrong(404, "NoSuchKey")
        return h.answer(200, self.objects[key])

    def listing(self, h, query, page=3):
        keys = sorted(k for k in self.objects if k.startswith(query["prefix"][0]))
        at = int(query.get("continuation-token", ["0"])[0])
        told = "".join(
            f"<Contents><Key>{html.escape(k)}</Key><Size>{len(self.objects[k])}</Size></Contents>"
            for k in keys[at : at + page]
        )
        if at + page < len(keys):
            told += f"<NextContinuationToken>{at + page}</NextContinuationToken>"
        h.answer(200, f"<ListBucketResult>{told}</ListBucketResult>".encode())
