"""A small client of the data plane, for programs: rows in, answers out, with safe retries.

    from falaj.client import Client

    with Client("http://127.0.0.1:8080") as client:
        answer = client.predict([{"hour": 18, "distance": 733}], model="flight-delay")
        print(answer.predictions[0], answer.release, answer.request)

`AsyncClient` has the same calls. Asked again is only what nobody has begun to answer: a refused
connection, 503 and 429. A request that may have run is never sent twice; ground truth is, because
the server knows what it has. A repeated request says so in `falaj-attempt`, and is not counted.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import ssl
import time
from collections.abc import Mapping, Sequence
from itertools import count
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import quote, urlsplit

import httpx
import msgspec
from numpy.typing import NDArray

from falaj.base.errors import Exit, FalajError, Problem
from falaj.facts.models import Datatype
from falaj.serving.raw import from_raw, to_raw

__all__ = ["Answer", "AsyncClient", "Client", "Policy", "Refused", "Unreachable", "pause"]

JSON: Final = {"content-type": "application/json"}
AGAIN: Final = (429, 503)
KINDS: Final = {
    "b1": Datatype.BOOL,
    "f2": Datatype.FP16,
    "f4": Datatype.FP32,
    "f8": Datatype.FP64,
    **{f"i{size}": Datatype(f"INT{8 * size}") for size in (1, 2, 4, 8)},
    **{f"u{size}": Datatype(f"UINT{8 * size}") for size in (1, 2, 4, 8)},
}


class Unreachable(FalajError):
    """No answer: nothing listens there, or it took too long, or the connection was cut."""

    exit = Exit.CONFLICT
    status = 503


class Refused(FalajError):
    """The server answered with an error. `findings`: all it found, with field and row."""

    def __init__(self, status: int, told: Mapping[str, Any], fix: str = "") -> None:
        self.answered = status
        self.request = str(told.get("request", ""))
        self.findings: list[dict[str, Any]] = list(told.get("findings") or ())
        code = str(told.get("code", "serving.refused"))
        words = str(told.get("error", f"HTTP {status}"))
        more = tuple(
            Problem(code=str(one.get("code", code)), message=str(one.get("message", "")))
            for one in self.findings[1:]
        )
        super().__init__(code, words, fix=fix, more=more)


class Policy(NamedTuple):
    """retries: how often a request is sent again at most. Pauses in seconds, doubling from `first_s`."""

    retries: int = 3
    first_s: float = 0.1
    longest_s: float = 5.0


class Answer(NamedTuple):
    """What a model said. predictions: one a row, in their order. request: its name, for ground truth."""

    predictions: list[dict[str, Any]]
    model: str
    version: str
    release: str
    request: str


class Ask(NamedTuple):
    """One request. again: sending it twice does no harm."""

    method: str
    path: str
    content: bytes = b""
    headers: Mapping[str, str] = JSON
    again: bool = False


def pause(policy: Policy, attempt: int, status: int, after: str, left_s: float) -> float | None:
    """Seconds to wait before the request is sent again, or None: not again.

    attempt: how often it was sent, from 1. status: 0 for a refused connection. after: what
    `Retry-After` says; dates are not read.
    """
    if attempt > policy.retries or status not in (0, *AGAIN):
        return None
    wait = min(policy.first_s * 2 ** (attempt - 1), policy.longest_s)
    if after.isdigit() and len(after) < 7:
        wait = max(wait, float(after))
    return wait if wait < left_s else None


class Base:
    """What both clients share: requests are made, answers are read, nothing is sent."""

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        timeout_s: float = 10.0,
        policy: Policy | None = None,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self.url = url.rstrip("/")
        if token and not self.url.startswith("https://") and not _on_this_machine(self.url):
            words = f"{self.url}: a token does not travel in the clear"
            raise FalajError("serving.plain", words, fix="use https://")
        self.timeout_s = timeout_s
        self.policy = policy or Policy()
        self.settings: dict[str, Any] = {
            "base_url": self.url,
            "headers": {"user-agent": "falaj", **({"authorization": f"Bearer {token}"} if token else {})},
            "follow_redirects": False,
            "trust_env": False,
            "verify": verify,
            # Shorter than the server keeps idle connections: one of these cannot be half closed.
            "limits": httpx.Limits(keepalive_expiry=30.0),
        }  # fmt: skip

    def _headers(self, ask: Ask, attempt: int, left_s: float) -> dict[str, str]:
        headers = {**ask.headers, "falaj-timeout-ms": str(max(1, int(left_s * 1000)))}
        if attempt > 1:
            headers["falaj-attempt"] = str(attempt - 1)
        return headers

    def _failed(self, error: httpx.TransportError, ask: Ask) -> tuple[int, Unreachable]:
        """Status for `pause`, and the error when it is not sent again."""
        kind = type(error).__name__
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            words = f"{self.url} does not answer: {kind}"
            return 0, Unreachable("serving.unreachable", words, fix="is a server running there?")
        why = "it may have been answered and counted, so it is not sent again"
        if isinstance(error, httpx.TimeoutException):
            words = f"{self.url}{ask.path}: no answer within {self.timeout_s:g} s"
            return (0 if ask.again else -1), Unreachable("serving.no-answer", words, why=why)
        words = f"{self.url}{ask.path}: the connection was cut: {kind}"
        return (0 if ask.again else -1), Unreachable("serving.no-answer", words, why=why)

    def _refused(self, answer: httpx.Response) -> Refused:
        try:
            told = msgspec.json.decode(answer.content, type=dict[str, Any])
        except msgspec.MsgspecError:
            told = {"error": f"HTTP {answer.status_code} from {self.url}"}
        return Refused(answer.status_code, told)

    @staticmethod
    def _rows(rows: Sequence[Mapping[str, Any]], model: str, event_time: str) -> Ask:
        path = f"/predict?model={quote(model, safe='')}" if model else "/predict"
        body: dict[str, Any] = {"rows": rows}
        if event_time:
            body["parameters"] = {"event_time": event_time}
        return Ask("POST", path, msgspec.json.encode(body))

    @staticmethod
    def _answer(response: httpx.Response) -> Answer:
        told = msgspec.json.decode(response.content, type=dict[str, Any])
        return Answer(**{name: told[name] for name in Answer._fields})

    @staticmethod
    def _tensors(
        model: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str], version: str
    ) -> Ask:
        told, data = [], []
        for name, array in inputs.items():
            kind = KINDS.get(f"{array.dtype.kind}{array.dtype.itemsize}", Datatype.BYTES)
            data.append(to_raw(kind, array))
            told.append(
                {
                    "name": name,
                    "datatype": kind.value,
                    "shape": array.shape,
                    "parameters": {"binary_data_size": len(data[-1])},
                }
            )
        body: dict[str, Any] = {"inputs": told, "parameters": {"binary_data_output": True}}
        if outputs:
            body["outputs"] = [{"name": name} for name in outputs]
        text = msgspec.json.encode(body)
        at = f"/versions/{quote(version, safe='')}" if version else ""
        head = {
            "content-type": "application/octet-stream",
            "inference-header-content-length": str(len(text)),
        }
        path = f"/v2/models/{quote(model, safe='')}{at}/infer"
        return Ask("POST", path, b"".join((text, *data)), head)

    @staticmethod
    def _arrays(response: httpx.Response) -> dict[str, NDArray[Any]]:
        size = int(response.headers["inference-header-content-length"])
        rest = memoryview(response.content)[size:]
        found: dict[str, NDArray[Any]] = {}
        for one in msgspec.json.decode(response.content[:size])["outputs"]:
            part = rest[: one["parameters"]["binary_data_size"]]
            rest = rest[len(part) :]
            array = from_raw(one["name"], Datatype(one["datatype"]), one["shape"], part)
            found[one["name"]] = array.astype(array.dtype.newbyteorder("="), copy=False)
        return found

    @staticmethod
    def _truth(model: str, rows: Sequence[Mapping[str, Any]]) -> Ask:
        content = msgspec.json.encode({"rows": rows})
        return Ask("POST", f"/ground-truth/{quote(model, safe='')}", content, again=True)

    @staticmethod
    def _get(path: str) -> Ask:
        return Ask("GET", path, again=True)


def _on_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Client(Base):
    """Blocking calls. One client keeps its connections; use it from one thread or many."""

    def __init__(self, url: str, **about: Any) -> None:
        super().__init__(url, **about)
        self.http = httpx.Client(**self.settings)

    def predict(
        self, rows: Sequence[Mapping[str, Any]], *, model: str = "", event_time: str = ""
    ) -> Answer:
        """Ask about named rows. Raises Refused with all findings, Unreachable."""
        return self._answer(self.send(self._rows(rows, model, event_time)))

    def infer(
        self,
        model: str,
        inputs: Mapping[str, NDArray[Any]],
        *,
        outputs: Sequence[str] = (),
        version: str = "",
    ) -> dict[str, NDArray[Any]]:
        """Ask with tensors, in binary both ways; text is arrays of str. Outputs by name."""
        return self._arrays(self.send(self._tensors(model, inputs, outputs, version)))

    def truth(self, model: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Tell what really happened: rows of request, row, value, at. Sent twice it counts once."""
        told: dict[str, Any] = msgspec.json.decode(self.send(self._truth(model, rows)).content)
        return told

    def metadata(self, model: str) -> dict[str, Any]:
        """Inputs and outputs of a model, with columns, units and ranges."""
        path = f"/v2/models/{quote(model, safe='')}"
        told: dict[str, Any] = msgspec.json.decode(self.send(self._get(path)).content)
        return told

    def models(self) -> list[str]:
        """Names of the models that are live there."""
        told: list[str] = msgspec.json.decode(self.send(self._get("/v1/models")).content)["models"]
        return told

    def ready(self) -> bool:
        """Tell whether the server takes requests; one that cannot be reached does not."""
        try:
            return self.http.get("/v2/health/ready", timeout=self.timeout_s).status_code == 200
        except httpx.TransportError:
            return False

    def send(self, ask: Ask) -> httpx.Response:
        """Send until there is an answer that is final. Raises Refused, Unreachable."""
        until = time.monotonic() + self.timeout_s
        for attempt in count(1):
            left = until - time.monotonic()
            failure: FalajError
            after = ""
            try:
                answer = self.http.request(
                    ask.method,
                    ask.path,
                    content=ask.content,
                    headers=self._headers(ask, attempt, left),
                    timeout=max(left, 0.001),
                )
            except httpx.TransportError as error:
                status, failure = self._failed(error, ask)
            else:
                if answer.is_success:
                    return answer
                status, failure = answer.status_code, self._refused(answer)
                after = answer.headers.get("retry-after", "")
            wait = pause(self.policy, attempt, status, after, until - time.monotonic())
            if wait is None:
                raise failure
            time.sleep(wait * random.uniform(1.0, 1.25))  # noqa: S311 -- spreads callers, no secret
        raise AssertionError  # the loop has no end of its own

    def close(self) -> None:
        self.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncClient(Base):
    """The same calls, to be awaited."""

    def __init__(self, url: str, **about: Any) -> None:
        super().__init__(url, **about)
        self.http = httpx.AsyncClient(**self.settings)

    async def predict(
        self, rows: Sequence[Mapping[str, Any]], *, model: str = "", event_time: str = ""
    ) -> Answer:
        """Ask about named rows. Raises Refused with all findings, Unreachable."""
        return self._answer(await self.send(self._rows(rows, model, event_time)))

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, NDArray[Any]],
        *,
        outputs: Sequence[str] = (),
        version: str = "",
    ) -> dict[str, NDArray[Any]]:
        """Ask with tensors, in binary both ways; text is arrays of str. Outputs by name."""
        return self._arrays(await self.send(self._tensors(model, inputs, outputs, version)))

    async def truth(self, model: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Tell what really happened: rows of request, row, value, at. Sent twice it counts once."""
        answer = await self.send(self._truth(model, rows))
        told: dict[str, Any] = msgspec.json.decode(answer.content)
        return told

    async def metadata(self, model: str) -> dict[str, Any]:
        """Inputs and outputs of a model, with columns, units and ranges."""
        answer = await self.send(self._get(f"/v2/models/{quote(model, safe='')}"))
        told: dict[str, Any] = msgspec.json.decode(answer.content)
        return told

    async def models(self) -> list[str]:
        """Names of the models that are live there."""
        answer = await self.send(self._get("/v1/models"))
        told: list[str] = msgspec.json.decode(answer.content)["models"]
        return told

    async def ready(self) -> bool:
        """Tell whether the server takes requests; one that cannot be reached does not."""
        try:
            answer = await self.http.get("/v2/health/ready", timeout=self.timeout_s)
        except httpx.TransportError:
            return False
        return answer.status_code == 200

    async def send(self, ask: Ask) -> httpx.Response:
        """Send until there is an answer that is final. Raises Refused, Unreachable."""
        until = time.monotonic() + self.timeout_s
        for attempt in count(1):
            left = until - time.monotonic()
            failure: FalajError
            after = ""
            try:
                answer = await self.http.request(
                    ask.method,
                    ask.path,
                    content=ask.content,
                    headers=self._headers(ask, attempt, left),
                    timeout=max(left, 0.001),
                )
            except httpx.TransportError as error:
                status, failure = self._failed(error, ask)
            else:
                if answer.is_success:
                    return answer
                status, failure = answer.status_code, self._refused(answer)
                after = answer.headers.get("retry-after", "")
            wait = pause(self.policy, attempt, status, after, until - time.monotonic())
            if wait is None:
                raise failure
            await asyncio.sleep(wait * random.uniform(1.0, 1.25))  # noqa: S311 -- spreads callers
        raise AssertionError  # the loop has no end of its own

    async def close(self) -> None:
        await self.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
