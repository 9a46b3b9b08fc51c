"""MLflow's REST API in plain HTTP. The server is not trusted: every answer has a limit.

Tried with MLflow 3.17.2. Errors are JSON with `error_code` and `message`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from falaj.base.errors import FalajError
from falaj.base.strangers import Away, Refused, client, plain
from falaj.facts.project import MlflowTable

if TYPE_CHECKING:
    import httpx

__all__ = ["ARTIFACTS", "Client"]

API: Final = "/api/2.0/mlflow/"
FILES: Final = "/api/2.0/mlflow-artifacts/artifacts"
ARTIFACTS: Final = "mlflow-artifacts:/"
MOST_ANSWER: Final = 16 << 20  # bytes of one JSON document
MOST_TOKEN: Final = 64 << 10
ANSWER_S: Final = 20.0  # of silence, and of one whole document
FILE_S: Final = 600.0  # of one whole file
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


def never() -> bool:
    return False


class Client:
    """One server. stop: asked before each request; where it says yes, the caller is sent away."""

    def __init__(
        self,
        table: MlflowTable,
        root: Path,
        *,
        stop: Callable[[], bool] = never,
        answer_s: float = ANSWER_S,
    ) -> None:
        self.url = table.url.rstrip("/")
        self._table, self._root, self._stop, self._answer_s = table, root, stop, answer_s
        self._http: httpx.Client | None = None

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None

    def get(self, call: str, **words: str) -> dict[str, Any]:
        return self._document("GET", API + call, params=words)

    def post(self, call: str, body: Mapping[str, Any], *, method: str = "POST") -> dict[str, Any]:
        return self._document(method, API + call, body=body)

    def list_files(self, folder: str) -> dict[str, Any]:
        return self._document("GET", FILES, params={"path": folder})

    def put_file(self, path: str, data: bytes) -> None:
        self._document("PUT", f"{FILES}/{quote(path)}", content=data)

    def get_file(self, path: str, size: int, to: Path) -> str:
        """Write exactly `size` bytes to a new file; return their digest. Raises Refused."""
        address = f"{FILES}/{quote(path)}"
        hasher, got = hashlib.sha256(), 0
        with to.open("xb") as sink:
            for block in self._blocks("GET", address, most=size, seconds=FILE_S):
                got += len(block)
                hasher.update(block)
                sink.write(block)
        if got != size:
            raise too_odd(self.url, f"{path}: {size} bytes were announced, {got} came")
        return f"sha256:{hasher.hexdigest()}"

    def _document(
        self,
        method: str,
        address: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: bytes | None = None,
    ) -> dict[str, Any]:
        if body is not None:
            content = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
        kind = "application/json" if body is not None else "application/octet-stream"
        answer = b"".join(
            self._blocks(
                method,
                address,
                most=MOST_ANSWER,
                seconds=self._answer_s,
                params=params,
                content=content,
                headers={"Content-Type": kind} if content is not None else {},
            )
        )
        if not answer:
            return {}
        try:
            found = json.loads(answer)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Away(
                "tracking.bad-answer",
                f"{self.url} answers, but not as MLflow does",
                why=f"{method} {address.partition('?')[0]}: no JSON object",
                fix="is this the address of the tracking server? [links.mlflow] url",
            )
        return found

    def _blocks(
        self,
        method: str,
        address: str,
        *,
        most: int,
        seconds: float,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[bytes]:
        """The body of a good answer, never more than `most` bytes nor longer than `seconds`."""
        import httpx

        if self._stop():
            raise Away("tracking.unreachable", f"{self.url}: this worker is about to end")
        end = time.monotonic() + seconds
        try:
            with self._opened().stream(
                method,
                self.url + address,
                params=dict(params) if params else None,
                content=content,
                headers={**self._credentials(), **(headers or {})},
            ) as answer:
                if answer.headers.get("content-encoding", "identity") != "identity":
                    raise too_odd(self.url, "it packs its answers although it was asked not to")
                if answer.status_code != 200:
                    raise self._failed(method, address, answer, end)
                got = 0
                for block in answer.iter_raw(1 << 16):
                    got += len(block)
                    if got > most:
                        raise too_odd(self.url, f"more than {most} bytes came for {address}")
                    if time.monotonic() > end:
                        raise self._silent("it is too slow")
                    yield block
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise self._silent(type(error).__name__) from None

    def _opened(self) -> httpx.Client:
        if self._http is None:
            parts = urlsplit(self.url)
            if parts.scheme != "https" and parts.hostname not in LOOPBACK:
                raise Away(
                    "tracking.plain-http",
                    f"[links.mlflow] url is {self.url}",
                    why="runs, models and a token would travel in the clear",
                    fix="use https, or an address of this machine",
                )
            self._http = client(self._answer_s)
        return self._http

    def _credentials(self) -> dict[str, str]:
        """Read anew each time, so that a changed token is used at once."""
        table = self._table
        if not table.token_file:
            return {}
        path = self._root / table.token_file
        try:
            token = path.read_bytes()[:MOST_TOKEN].decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise no_token(table.token_file, getattr(error, "strerror", "no text")) from None
        if not token.isprintable() or not token or (" " in token and not table.user):
            raise no_token(table.token_file, "it holds no token")
        if table.user:
            pair = base64.b64encode(f"{table.user}:{token}".encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        return {"Authorization": f"Bearer {token}"}

    def _silent(self, why: str) -> Away:
        return Away(
            "tracking.unreachable",
            f"{self.url} does not answer",
            why=why,
            fix="nothing is lost; start it, or mend [links.mlflow] url",
        )

    def _failed(self, method: str, address: str, answer: httpx.Response, end: float) -> FalajError:
        status = answer.status_code
        where = f"{method} {address.partition('?')[0]}"
        if status in (401, 403):
            return Away(
                "tracking.denied",
                f"{self.url} does not let us in ({status})",
                why=where,
                fix="look at [links.mlflow] token_file and user, and at the server's allowed hosts",
            )
        if 300 <= status < 400:
            return too_odd(self.url, "it points at another address, which is never followed")
        said = said_by(answer, end)
        if status >= 500 or status in (408, 429) or said is None:
            return self._silent(f"it answers {status} to {where}")
        return Refused(
            "tracking.refused",
            f"{self.url} refuses: {plain(said.get('message'))}",
            why=f"{plain(said.get('error_code'))}, {where}",
            fix="look at the server's log; what is refused is left out and counted",
        )


def said_by(answer: httpx.Response, end: float) -> dict[str, Any] | None:
    """What MLflow says about its error; None where it is not MLflow that speaks."""
    parts: list[bytes] = []
    for block in answer.iter_raw(1 << 16):
        parts.append(block)
        if sum(map(len, parts)) > MOST_TOKEN or time.monotonic() > end:
            return None
    try:
        found = json.loads(b"".join(parts))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and "error_code" in found else None


def too_odd(url: str, why: str) -> Refused:
    return Refused(
        "tracking.hostile",
        f"{url} does what no MLflow does",
        why=plain(why),
        fix="do not import from this server before somebody has looked at it",
    )


def no_token(file: str, why: str) -> Away:
    return Away(
        "tracking.no-token",
        f"[links.mlflow] token_file is {file}: {why}",
        why="the project file holds the address of the secret, never the secret",
        fix="write the token into that file, readable by this account only",
    )
