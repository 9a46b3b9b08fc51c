"""Objects of any size in one bucket, in bounded memory. The store is not trusted.

Signing is `client.signed_headers`; here bodies are streams, and what goes wrong is said in words.
"""

from __future__ import annotations

import html
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple
from urllib.parse import quote, urlsplit

from falaj.base import time as clock
from falaj.base.errors import FalajError, NotFound
from falaj.base.strangers import (
    LEAST_RATE,
    SILENCE_S,
    Again,
    Refused,
    TooSlow,
    bad_certificate,
    blocks,
    client,
    content,
    hostile,
    patiently,
    plain,
)
from falaj.links.s3.client import Credentials, signed_headers

if TYPE_CHECKING:
    import httpx

__all__ = ["Objects"]

MOST_LIST: Final = 4 << 20  # bytes of one page of a listing
MOST_PAGES: Final = 20
MOST_WORDS: Final = 16 << 10
EMPTY: Final = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
CONTENTS: Final = re.compile(r"<Contents>(.*?)</Contents>", re.DOTALL)
FIELD: Final = re.compile(r"<(Key|Size)>([^<]{1,1100})</")
NEXT: Final = re.compile(r"<NextContinuationToken>([^<]{1,2000})</")
SAID: Final = re.compile(rb"<(Code|Message)>([^<]{1,300})</")


class Head(NamedTuple):
    status: int
    headers: Mapping[str, str]


class Objects:
    """login: asked before the first request."""

    def __init__(
        self,
        endpoint: str,
        bucket: str,
        login: Callable[[], tuple[Credentials, str]],
        *,
        region: str,
        pause: Callable[[float], None] = time.sleep,
        silence_s: float = SILENCE_S,
    ) -> None:
        self.root, self.bucket = endpoint.rstrip("/"), bucket
        self._login, self._region, self._pause, self._silence_s = login, region, pause, silence_s
        self._known: tuple[Credentials, str] | None = None
        self._http: httpx.Client | None = None

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None

    def send(
        self, key: str, size: int, digest: str, opened: Callable[[], BinaryIO], *, only_new: bool
    ) -> bool:
        """Put one object. False: it was there, and the store did not touch it."""
        more = {"content-length": str(size), **({"if-none-match": "*"} if only_new else {})}

        def once() -> bool:
            body = lambda: content(opened, size)  # noqa: E731 made anew for each try
            with self._sent("PUT", key, more=more, body=body, hashed=digest) as answer:
                if answer.status_code in (409, 412):
                    return False
                if answer.status_code not in (200, 201):
                    raise self._failed("PUT", key, answer)
                return True

        return bool(patiently(once, self._pause))

    def probe_content(self, key: str) -> bool:
        """Whether the store refuses a body that is not the one that was signed."""
        wrong = "sha256:" + "0" * 64
        more = {"content-length": "1"}
        try:
            with self._sent(
                "PUT", key, more=more, body=lambda: iter([b"x"]), hashed=wrong
            ) as answer:
                taken = answer.status_code in (200, 201)
        finally:
            self.remove(key)
        return not taken

    def remove(self, key: str) -> None:
        """Where deleting is forbidden, it stays."""
        with self._sent("DELETE", key):
            pass

    def read(self, key: str, most: int) -> Iterator[bytes]:
        """Blocks of an object, never more than `most` bytes. Not repeated when the line breaks."""
        end = time.monotonic() + self._silence_s + most / LEAST_RATE
        with self._sent("GET", key) as answer:
            if answer.status_code != 200:
                raise self._failed("GET", key, answer)
            yield from self._blocks(answer, most, end)

    def whole(self, key: str, most: int) -> bytes:
        return bytes(patiently(lambda: b"".join(self.read(key, most)), self._pause))

    def size_of(self, key: str) -> int | None:
        """None: there is no such object."""

        def once() -> int | None:
            with self._sent("HEAD", key) as answer:
                if answer.status_code == 404:
                    return None
                if answer.status_code != 200:
                    raise self._failed("HEAD", key, answer)
                told = answer.headers.get("content-length", "")
                return int(told) if re.fullmatch(r"[0-9]{1,15}", told) else -1

        found: int | None = patiently(once, self._pause)
        return found

    def listed(self, prefix: str) -> dict[str, int]:
        """Key -> size of all objects below a prefix."""
        found: dict[str, int] = {}
        query = {"list-type": "2", "prefix": prefix}
        for _ in range(MOST_PAGES):
            page = self._page(query)
            for block in CONTENTS.findall(page):
                fields = dict(FIELD.findall(block))
                key, size = html.unescape(fields.get("Key", "")), fields.get("Size", "")
                if not key.startswith(prefix) or not re.fullmatch(r"[0-9]{1,15}", size):
                    raise hostile(self.root, "its listing is none")
                found[key] = int(size)
            token = NEXT.search(page)
            if token is None:
                return found
            query["continuation-token"] = html.unescape(token[1])
        raise hostile(self.root, "its listing has no end")

    def _page(self, query: Mapping[str, str]) -> str:
        def once() -> str:
            end = time.monotonic() + self._silence_s
            with self._sent("GET", "", query=query) as answer:
                if answer.status_code != 200:
                    raise self._failed("GET", "", answer)
                return b"".join(self._blocks(answer, MOST_LIST, end)).decode(errors="replace")

        return str(patiently(once, self._pause))

    @contextmanager
    def _sent(
        self,
        method: str,
        key: str,
        *,
        query: Mapping[str, str] | None = None,
        more: Mapping[str, str] | None = None,
        body: Callable[[], Iterator[bytes]] | None = None,
        hashed: str = "",
    ) -> Iterator[httpx.Response]:
        import httpx

        path = f"/{self.bucket}" + (f"/{quote(key, safe='/-_.~')}" if key else "")
        said = "&".join(
            f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}"
            for k, v in sorted((query or {}).items())
        )
        if self._known is None:
            self._known = self._login()
        credentials, token = self._known
        headers = signed_headers(
            credentials,
            method,
            urlsplit(self.root).netloc,
            path,
            said,
            b"",
            region=self._region,
            now=clock.now(),
            more={**(more or {}), **({"x-amz-security-token": token} if token else {})},
            content=hashed.removeprefix("sha256:") or EMPTY,
        )
        address = f"{self.root}{path}{'?' if said else ''}{said}"
        try:
            request = self._opened().build_request(
                method, address, headers=headers, content=body() if body else None
            )
            answer = self._opened().send(request, stream=True)
            try:
                yield answer
            finally:
                answer.close()
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise self._silent(error) from None

    def _opened(self) -> httpx.Client:
        if self._http is None:
            self._http = client(self._silence_s)
        return self._http

    def _blocks(self, answer: httpx.Response, most: int, end: float) -> Iterator[bytes]:
        try:
            yield from blocks(answer, self.root, most, end, plainly=("identity", "aws-chunked"))
        except TooSlow:
            raise Again(
                "remote.failed", f"{self.root} is too slow", fix="run it again later"
            ) from None

    def _failed(self, method: str, key: str, answer: httpx.Response) -> FalajError:
        import httpx

        status, got = answer.status_code, b""
        try:
            for block in answer.iter_raw(4096):
                got += block
                if len(got) > MOST_WORDS:
                    got = b""
                    break
        except httpx.HTTPError:
            got = b""
        words = " ".join(text.decode(errors="replace") for _, text in SAID.findall(got))
        why = plain(f"{words}; {method} {self.bucket}/{key}".removeprefix("; "))
        if status in (401, 403):
            return Refused(
                "remote.denied",
                f"{self.root} does not let us in ({status})",
                why=why,
                fix="look at the key, its policy for this bucket, and the clock of this machine",
            )
        if status == 404:
            return NotFound(
                "remote.not-found",
                f"{self.root} has nothing there (404)",
                why=why,
                fix="look at the bucket, the prefix, the tag and the digest",
            )
        if status == 429 or b"SlowDown" in got:
            return Again(
                "remote.busy",
                f"{self.root} asks us to come less often",
                why=why,
                fix="come back later",
            )
        if status >= 500 or status == 408:
            return Again(
                "remote.failed", f"{self.root} fails ({status})", why=why, fix="run it again later"
            )
        if 300 <= status < 400:
            return hostile(self.root, "it points at another address, which is not followed")
        return Refused(
            "remote.refused",
            f"{self.root} refuses: {status}",
            why=why,
            fix="look at what the store says, and at its own log",
        )

    def _silent(self, error: Exception) -> FalajError:
        return bad_certificate(self.root, error) or Again(
            "remote.unreachable",
            f"{self.root} does not answer",
            why=type(error).__name__,
            fix="nothing is half done; is the address right?",
        )
