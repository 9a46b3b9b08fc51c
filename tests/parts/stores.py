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
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from liar import Liar

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


class OwnStore(Liar):
    """In memory. Knows conditional writes and checks content unless it lies."""

    def __init__(self, *, checks=True):
        self.objects, self.checks = {}, checks
        self.credentials = KEY
        super().__init__()
        self.endpoint = f"http://{self.host}"

    def error(self, code):
        return f"<Error><Code>{code}</Code></Error>".encode()

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
