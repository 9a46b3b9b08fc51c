"""The command line is a client of the API: in this process, or over HTTP with FALAJ_URL."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit

import click
import msgspec

from falaj.base.errors import Exit, FalajError, Place, Problem

if TYPE_CHECKING:
    from falaj.app import Works

__all__ = ["Client", "connect", "project_root"]

TIMEOUT_S: Final = 3600.0  # a pipeline may run that long; the server answers when it is done
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class Client(ABC):
    """Speaks the API and raises the errors that it answers with."""

    def __init__(self, identity: str | None = None) -> None:
        self._identity = identity

    def get(self, path: str, **params: Any) -> Any:
        return msgspec.json.decode(self.raw("GET", path, params=params))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return msgspec.json.decode(self.raw("POST", path, body=body or {}))

    def raw(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Bytes of the answer. Raises FalajError as the server told it."""
        query = urlencode({k: v for k, v in (params or {}).items() if v not in ("", None)})
        content = msgspec.json.encode(body) if body is not None else b""
        status, answer = self.send(method, path, query, content)
        if status >= 400:
            raise told(answer, status)
        return answer

    @abstractmethod
    def send(self, method: str, path: str, query: str, content: bytes) -> tuple[int, bytes]:
        """Status and bytes of the answer."""


class Embedded(Client):
    """The whole control plane inside this process; the local owner needs no token."""

    def __init__(self, works: Works, identity: str | None = None) -> None:
        super().__init__(identity)
        self.works = works

    @cached_property
    def _app(self) -> Any:
        from falaj.doors.api.app import create

        return create(self.works, embedded=True)

    def send(self, method: str, path: str, query: str, content: bytes) -> tuple[int, bytes]:
        from falaj.doors.api import asked

        answer = asked.answer(self.works, self._identity, method, path, content)
        if answer is not None:
            return answer
        import asyncio

        headers = [(b"content-type", b"application/json"), (b"host", b"embedded")]
        if self._identity:
            headers.append((b"falaj-as", self._identity.encode()))
        return asyncio.run(call(self._app, method, path, query, headers, content))


async def call(
    app: Any,
    method: str,
    path: str,
    query: str,
    headers: list[tuple[bytes, bytes]],
    content: bytes,
) -> tuple[int, bytes]:
    """One request to an ASGI application, without a network."""
    status, parts = 500, []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            parts.append(message.get("body", b""))

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": headers,
        "client": ("embedded", 0),
        "server": ("embedded", 0),
        "state": {},
    }
    await app(scope, receive, send)
    return status, b"".join(parts)


class Remote(Client):
    """A Falaj somewhere else; plain HTTP to loopback only."""

    def __init__(self, url: str, identity: str | None = None) -> None:
        import httpx

        super().__init__(identity)
        if identity:
            raise FalajError(
                "cli.as-is-local",
                "--as works inside this machine's workspace only",
                why=f"FALAJ_URL is set to {url}, where a token says who you are",
                fix="unset FALAJ_URL, or use that identity's token",
            )
        parts = urlsplit(url)
        if parts.scheme != "https" and parts.hostname not in LOOPBACK:
            raise FalajError(
                "cli.plain-http",
                f"FALAJ_URL is {url}",
                why="a token would travel in the clear",
                fix="use https, or an address of this machine",
            )
        self._url = url
        token = read_token()
        self._http = httpx.Client(
            base_url=url,
            timeout=httpx.Timeout(TIMEOUT_S, connect=10.0),
            headers={"Authorization": f"Bearer {token}"} if token else {},
            trust_env=False,
        )

    def send(self, method: str, path: str, query: str, content: bytes) -> tuple[int, bytes]:
        import httpx

        try:
            answer = self._http.request(
                method,
                f"{path}?{query}" if query else path,
                content=content,
                headers={"Content-Type": "application/json"},
            )
        except httpx.TransportError as error:
            raise FalajError(
                "cli.unreachable",
                f"{self._url} does not answer: {type(error).__name__}",
                fix="is `falaj up` running there? Without FALAJ_URL, falaj works in this folder",
            ) from None
        return answer.status_code, answer.content


def read_token() -> str:
    """FALAJ_TOKEN_FILE is the address of the secret; the secret itself is in no environment."""
    path = os.environ.get("FALAJ_TOKEN_FILE")
    if not path:
        return ""
    try:
        token = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FalajError(
            "cli.no-token-file",
            f"FALAJ_TOKEN_FILE is {path}: {getattr(error, 'strerror', 'no text')}",
        ) from None
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise FalajError("cli.no-token-file", f"FALAJ_TOKEN_FILE is {path}: it holds no token")
    return token


def connect(
    ctx: click.Context,
    *,
    on_step: Callable[[str, str, float], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Client:
    """The client for this command: remote with FALAJ_URL, embedded otherwise.

    on_step: hears of the steps of a run in this process. tell: hears how far a long walk is.
    """
    identity = (ctx.find_root().obj or {}).get("as")
    url = os.environ.get("FALAJ_URL")
    if url:
        return Remote(url, identity)
    from falaj.app import Works

    root = project_root()
    heard: dict[str, Any] = {"on_step": on_step, "tell": tell}
    given = {name: who for name, who in heard.items() if who is not None}
    works = Works.open(root, around=beside_steps, **given)
    ctx.call_on_close(works.close)
    return Embedded(works, identity)


def beside_steps(protected: bool) -> Any:
    """What steps in this process find beside them: an endpoint for `mlflow.*`, where it is installed."""
    from falaj.doors.worker.steps import for_mlflow

    return for_mlflow(protected)


def project_root() -> Path:
    """The project of this command: in FALAJ_CONFIG, else here or above."""
    from falaj.app import find_root

    return find_root(Path(os.environ.get("FALAJ_CONFIG", ".")))


def told(answer: bytes, status: int) -> FalajError:
    """The server's problem as the error it was there."""
    try:
        problem = msgspec.json.decode(answer)
        found = tuple(one(item) for item in (problem, *problem.get("errors", [])[1:]))
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return FalajError("cli.not-falaj", f"the answer ({status}) is not Falaj's")
    error = FalajError.of(found)
    error.exit = int(problem.get("exit", Exit.USAGE))  # type: ignore[misc]
    error.status = status  # type: ignore[misc]
    return error


def one(item: Mapping[str, Any]) -> Problem:
    place = item.get("place")
    return Problem(
        code=item["code"],
        message=item.get("detail", ""),
        why=item.get("why", ""),
        fix=item.get("fix", ""),
        place=Place(
            file=place["file"],
            line=place["line"],
            column=place["column"],
            excerpt=tuple((int(n), text) for n, text in place.get("excerpt", ())),
            note=place.get("note", ""),
        )
        if place
        else None,
    )
