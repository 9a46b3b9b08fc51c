"""An MLflow-shaped endpoint inside a worker: `mlflow.*` in a step lands in the run's own record.

It listens on 127.0.0.1 alone and knows one token at a time, that of the step that runs. Where the
workspace holds data of class personal or above it speaks TLS, as plain loopback is refused then.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import os
import secrets
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from falaj.doors.worker.certificate import Certificate
from falaj.doors.worker.mlrecord import EXPERIMENT, MOST_FILE, Record, Refused, too_large
from falaj.pipelines.context import Running
from falaj.ports.executor import Order

__all__ = ["Endpoint"]

FILES: Final = "/api/2.0/mlflow-artifacts/artifacts/"
MOST_BODY: Final = 4 * 1024 * 1024  # the client sends 1 MB at most
MOST_READ: Final = 4 * MOST_FILE  # read and forgotten, so that the client hears why
PIECE: Final = 1 << 20
USER: Final = "falaj"
SPOKEN: Final = "3.17.2"
# Of the person's own server: with them the client would not send our token, or not to us.
HIDDEN: Final = (
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_AUTH",
    "MLFLOW_TRACKING_AWS_SIGV4",
    "MLFLOW_TRACKING_INSECURE_TLS",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "MLFLOW_WORKSPACE",
)
PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy")


class Endpoint:
    """Opened with the first step, closed with the process.

    tls: with a certificate of its own, made here and kept in no file.
    """

    def __init__(self, *, tls: bool = False) -> None:
        self._tls = tls
        self._server: _Server | None = None
        self._proof: Certificate | None = None

    @contextlib.contextmanager
    def around(self, running: Running, order: Order) -> Iterator[None]:
        """Let a client inside find this step's record. A tracking server of theirs stays theirs."""
        if os.environ.get("MLFLOW_TRACKING_URI"):
            yield
            return
        server = self._opened()
        record, token = Record(running, secrets.token_hex(16)), secrets.token_urlsafe(32)
        before, client = dict(os.environ), _Client()
        ours = self._variables(server, record, order, token)
        server.now = (token, record)
        for name in HIDDEN:
            os.environ.pop(name, None)
        os.environ |= ours
        status = "FAILED"
        try:
            yield
            status = "FINISHED"
        finally:
            client.finish(status, used=record.calls > 0)
            server.now = None
            record.close()
            _restore(before, {*HIDDEN, *ours})

    def close(self) -> None:
        """Not an error twice."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _opened(self) -> _Server:
        if self._server is None:
            if self._tls:
                self._proof = Certificate.made()
            self._server = _Server(self._proof)
            threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self._server

    def _variables(
        self, server: _Server, record: Record, order: Order, token: str
    ) -> dict[str, str]:
        context = {
            "falaj.run": order.run,
            "falaj.step": order.id,
            "mlflow.parentRunId": record.run,
        }
        found = {
            "MLFLOW_TRACKING_URI": server.url,
            "MLFLOW_TRACKING_TOKEN": token,
            "MLFLOW_RUN_ID": record.run,
            "MLFLOW_EXPERIMENT_ID": EXPERIMENT,
            "MLFLOW_RUN_CONTEXT": json.dumps(context),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # there is no page behind it
        }
        if self._proof is not None:
            found["MLFLOW_TRACKING_SERVER_CERT_PATH"] = self._proof.path
        if Path(os.environ.get("HOME", "/"), ".mlflow", "credentials").exists():
            # A name and a password kept there would be sent instead of the token.
            found |= {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": token}
        if any(os.environ.get(n) or os.environ.get(n.upper()) for n in PROXIES):
            # The token is nothing for a proxy.
            known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
            both = known if "127.0.0.1" in known else ",".join(filter(None, (known, "127.0.0.1")))
            found |= {"no_proxy": both, "NO_PROXY": both}
        return found


def _restore(before: dict[str, str], names: set[str]) -> None:
    for name in names:
        if name in before:
            os.environ[name] = before[name]
        else:
            os.environ.pop(name, None)


class _Client:
    """The client library of this process, where the step imported it: no step inherits its state.

    A warm worker runs many steps. Active runs, autologging and an address that one step sets would
    reach into the next, which then were another step in a fresh worker.
    """

    def __init__(self) -> None:
        self._uri = self._theirs()
        self._logging = {name: dict(config) for name, config in self._integrations().items()}

    @staticmethod
    def _theirs() -> Any:
        module = sys.modules.get("mlflow.tracking._tracking_service.utils")
        return getattr(module, "_tracking_uri", None)

    @staticmethod
    def _integrations() -> dict[str, dict[str, Any]]:
        module = sys.modules.get("mlflow.utils.autologging_utils")
        found: dict[str, dict[str, Any]] = getattr(module, "AUTOLOGGING_INTEGRATIONS", {})
        return found

    def finish(self, status: str, *, used: bool) -> None:
        """Wait for what is logged in the background, end runs that are open, and forget."""
        mlflow: Any = sys.modules.get("mlflow")
        if mlflow is None:
            return
        moved = self._theirs() != self._uri
        for name, config in self._integrations().items():
            if config and config != self._logging.get(name):
                config.update({"disable": True, **self._logging.get(name, {})})
        try:
            if used or moved:
                mlflow.flush_async_logging()
                while mlflow.active_run() is not None:
                    mlflow.end_run(status)
            if moved:
                mlflow.set_tracking_uri(self._uri)
        except Exception as error:  # the client's own; the step's outcome stands
            print(f"mlflow: {type(error).__name__}: {error}", file=sys.stderr)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, proof: Certificate | None) -> None:
        self.now: tuple[str, Record] | None = None
        self._context = proof.context if proof else None
        super().__init__(("127.0.0.1", 0), _Handler)
        scheme = "https" if proof else "http"
        self.url = f"{scheme}://127.0.0.1:{self.server_address[1]}"

    def server_bind(self) -> None:
        """Without asking the resolver for this machine's name."""
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def get_request(self) -> tuple[Any, Any]:
        accepted, address = super().get_request()
        if self._context is None:
            return accepted, address
        # The handshake is the handler's: whoever does not finish one keeps nobody else waiting.
        wrapped = self._context.wrap_socket(
            accepted, server_side=True, do_handshake_on_connect=False
        )
        return wrapped, address

    def handle_error(self, _request: Any, _address: Any) -> None:
        """A connection that broke is the client's matter; the log is the step's."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 300
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """What the step prints is the step's own."""

    def version_string(self) -> str:
        return "falaj"

    def _serve(self) -> None:
        self._read = False
        try:
            status, kind, body = 200, "application/json", self._answer()
            if isinstance(body, bytes):
                kind = "application/octet-stream"
            elif isinstance(body, str):
                kind, body = "text/plain", body.encode()
            else:
                body = json.dumps(body).encode()
        except Refused as refused:
            status, kind = refused.status, "application/json"
            body = json.dumps({"error_code": refused.code, "message": refused.message}).encode()
            self._forget()
        head = (
            f"HTTP/1.1 {status} {self.responses[status][0]}\r\nServer: falaj\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
            f"{'Connection: close' + chr(13) + chr(10) if self.close_connection else ''}\r\n"
        )
        self.wfile.write(head.encode() + (b"" if self.command == "HEAD" else body))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve  # noqa: N815

    def _answer(self) -> dict[str, Any] | bytes | str:
        record = self._known()
        address = urlsplit(self.path)
        if address.path == "/version":
            return SPOKEN
        if address.path.startswith(FILES) and self.command in ("GET", "PUT"):
            name = unquote(address.path.removeprefix(FILES), errors="surrogateescape")
            if self.command == "GET":
                return record.get(name)
            record.put(name, b"".join(self._body(MOST_FILE)))
            return {}
        asked = dict(parse_qsl(address.query, keep_blank_values=True))
        said: Any = {}
        if self.command != "GET":
            try:
                said = json.loads(b"".join(self._body(MOST_BODY)) or b"{}")
            except (ValueError, RecursionError):
                raise Refused(400, "BAD_REQUEST", "the body is not JSON") from None
        if not isinstance(said, dict):
            raise Refused(400, "BAD_REQUEST", "the body is not an object of JSON")
        return record.answer(self.command, address.path, asked, said)

    def _known(self) -> Record:
        """The record of the step that runs, for who has its token."""
        kind, _, given = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "basic":
            with contextlib.suppress(ValueError):
                given = base64.b64decode(given, validate=True).decode().removeprefix(f"{USER}:")
        now = self.server.now
        if now is None or not hmac.compare_digest(given.strip().encode(), now[0].encode()):
            raise Refused(
                401,
                "UNAUTHENTICATED",
                "the token is none, or not that of the step that runs: this endpoint is for "
                "`mlflow.*` inside the step, while it runs",
            )
        return now[1]

    def _body(self, most: int) -> Iterator[bytes]:
        """In pieces, at most `most` bytes. Raises Refused before it keeps more."""
        self._read = True
        length = self.headers.get("Content-Length")
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            pieces = self._chunks()  # so comes an empty file
        elif length is not None and length.isdecimal() and len(length) < 16:
            pieces = self._exactly(int(length))
        elif length is None:
            pieces = iter(())
        else:
            self.close_connection = True
            raise Refused(400, "BAD_REQUEST", "the length of the body is no number")
        size, over = 0, False
        for piece in pieces:
            size += len(piece)
            over = over or size > most
            if size > MOST_READ:
                self.close_connection = True
                break
            if not over:
                yield piece
        if over:
            if most == MOST_FILE:
                raise too_large("a file")
            raise Refused(413, "INVALID_PARAMETER_VALUE", f"a body has at most {most >> 20} MiB")

    def _exactly(self, length: int) -> Iterator[bytes]:
        while length:
            piece = self.rfile.read(min(length, PIECE))
            if not piece:
                self.close_connection = True
                raise Refused(400, "BAD_REQUEST", "the body is shorter than it says")
            length -= len(piece)
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        while True:
            line = self.rfile.readline(80).split(b";")[0].strip()
            try:
                size = int(line, 16) if line[:1] not in (b"-", b"+") else -1
            except ValueError:
                size = -1
            if size < 0:
                self.close_connection = True
                raise Refused(400, "BAD_REQUEST", "a chunk of the body has no size")
            yield from self._exactly(size)
            if self.rfile.readline(80).strip():
                self.close_connection = True
                raise Refused(400, "BAD_REQUEST", "a chunk of the body is longer than it says")
            if not size:
                return

    def _forget(self) -> None:
        """Read a small body that nobody asked for, so that the client hears the answer."""
        length = self.headers.get("Content-Length", "0")
        if self._read:
            return
        if length.isdecimal() and len(length) < 16 and int(length) <= MOST_BODY:
            self.rfile.read(int(length))
        else:
            self.close_connection = True
        if "Transfer-Encoding" in self.headers:
            self.close_connection = True
