"""A server in the process of the test that answers honestly, unless it is told how to lie."""

from __future__ import annotations

import contextlib
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

__all__ = ["Liar"]


class Liar:
    """lies: [(method, regex of the path, function(handler) -> True when it has answered)].

    Whoever is one says `answer(handler)`, the truth, and `error(code)`, the body of a refusal.
    """

    def __init__(self, *, tls=None):
        self.lies, self.asked = [], []
        liar = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            server_version, sys_version = "own", ""
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

            def wrong(self, status, code, **headers):
                self.answer(status, liar.error(code), **headers)

            def do(self):
                self.body = self.rfile.read(int(self.headers.get("content-length", "0")))
                liar.asked.append((self.command, self.path, dict(self.headers)))
                for method, pattern, lie in liar.lies:
                    if method == self.command and re.search(pattern, self.path) and lie(self):
                        return
                liar.answer(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do  # noqa: N815 http.server's names

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        self.scheme = "http" if tls is None else "https"
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
