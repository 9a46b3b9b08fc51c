from __future__ import annotations

import asyncio
import json
import shutil
from datetime import timedelta
from typing import Any, NamedTuple

import pytest

from falaj.app import Works
from falaj.doors.api.app import create


class Heard(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Asking:
    """Requests to one application, without a network. token_of: made once an identity."""

    def __init__(self, works: Works, *, embedded: bool = False) -> None:
        self.works = works
        self.app = create(works, embedded=embedded)
        self._tokens: dict[str, str] = {}

    def token_of(self, name: str) -> str:
        if name not in self._tokens:
            self._tokens[name] = self.works.access.token(name, timedelta(minutes=15))
        return self._tokens[name]

    def __call__(self, method, path, body=None, *, by="", raw=None, headers=(), query="") -> Heard:
        content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        given = {"host": "falaj", "content-type": "application/json", **dict(headers)}
        if by:
            given["authorization"] = f"Bearer {self.token_of(by)}"
        return asyncio.run(self._ask(method, path, query, given, content))

    async def _ask(self, method, path, query, headers, content) -> Heard:
        told: dict[str, Any] = {"body": b""}

        async def receive():
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message):
            if message["type"] == "http.response.start":
                told["status"] = message["status"]
                told["headers"] = {k.decode().lower(): v.decode() for k, v in message["headers"]}
            else:
                told["body"] += message.get("body", b"")

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
            "scheme": "http", "path": path, "raw_path": path.encode(), "root_path": "",
            "query_string": query.encode(), "client": ("203.0.113.7", 1), "server": ("falaj", 80),
            "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()], "state": {},
        }  # fmt: skip
        await self.app(scope, receive, send)
        return Heard(told["status"], told["headers"], told["body"])


@pytest.fixture
def asking_of():
    """Makes the asking of an application over works that are open."""
    return Asking


@pytest.fixture(scope="module")
def asking(prepared, tmp_path_factory):
    """A server application over a copy of the small project."""
    works = Works.open(shutil.copytree(prepared, tmp_path_factory.mktemp("api") / "project"))
    yield Asking(works)
    works.close()


@pytest.fixture
def embedded(workspace):
    works = Works.open(workspace)
    yield Asking(works, embedded=True)
    works.close()
