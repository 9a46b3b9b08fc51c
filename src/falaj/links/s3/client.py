"""A few calls of S3 in plain HTTP, signed with Signature Version 4. The server is not trusted.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html. Addresses are
path-style, which every compatible store takes.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote, urlsplit

from falaj.base import time

if TYPE_CHECKING:
    import httpx

__all__ = ["Answer", "Bucket", "Credentials", "Unanswered", "signed_headers"]

MOST_ANSWER: Final = 4 << 20
SECONDS: Final = 30.0
CONNECT_S: Final = 3.0
CODE: Final = re.compile(rb"<Code>([A-Za-z0-9]{1,64})</Code>")
KEY: Final = re.compile(rb"<Key>([^<]{1,1024})</Key>")


class Credentials(NamedTuple):
    key: str
    secret: str


class Answer(NamedTuple):
    """code: the store's own word for a refusal, such as PreconditionFailed."""

    status: int
    body: bytes
    code: str
    etag: str


class Unanswered(OSError):
    """It cannot be reached, or answers without end."""


class Bucket:
    """One bucket of one store."""

    def __init__(
        self,
        url: str,
        bucket: str,
        credentials: Credentials,
        *,
        region: str = "us-east-1",
        now: Callable[[], datetime] = time.now,
    ) -> None:
        self.url, self.bucket = url.rstrip("/"), bucket
        self._credentials, self._region, self._now = credentials, region, now

    def with_secret(self, secret: str) -> Bucket:
        """The same, with another secret: what a store that looks at signatures refuses."""
        other = Credentials(self._credentials.key, secret)
        return Bucket(self.url, self.bucket, other, region=self._region, now=self._now)

    def put(self, key: str, data: bytes, *, only_new: bool = False) -> Answer:
        return self._ask("PUT", key, data, {"if-none-match": "*"} if only_new else {})

    def get(self, key: str) -> Answer:
        return self._ask("GET", key)

    def delete(self, key: str) -> Answer:
        return self._ask("DELETE", key)

    def first(self, prefix: str) -> tuple[Answer, str | None]:
        """The first key of that prefix in the store's order, by its bytes."""
        query = {"list-type": "2", "max-keys": "1", "prefix": prefix}
        answer = self._ask("GET", "", query=query)
        found = KEY.search(answer.body) if answer.status == 200 else None
        return answer, found[1].decode(errors="replace") if found else None

    def _ask(
        self,
        method: str,
        key: str,
        data: bytes = b"",
        more: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Answer:
        import httpx

        path = f"/{self.bucket}" + (f"/{quote(key, safe='/-_.~')}" if key else "")
        said = "&".join(
            f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}"
            for k, v in sorted((query or {}).items())
        )
        headers = signed_headers(
            self._credentials,
            method,
            urlsplit(self.url).netloc,
            path,
            said,
            data,
            region=self._region,
            now=self._now(),
            more=more or {},
        )
        address = f"{self.url}{path}{'?' if said else ''}{said}"
        try:
            with (
                self._client() as client,
                client.stream(method, address, content=data, headers=headers) as answer,
            ):
                body = b""
                for block in answer.iter_raw():
                    body += block
                    if len(body) > MOST_ANSWER:
                        raise Unanswered("its answer is too large")
                code = CODE.search(body) if answer.status_code >= 300 else None
                return Answer(
                    answer.status_code,
                    body,
                    code[1].decode() if code else "",
                    answer.headers.get("etag", ""),
                )
        except httpx.HTTPError as error:
            raise Unanswered(f"it does not answer: {type(error).__name__}") from None

    @staticmethod
    def _client() -> httpx.Client:
        import httpx

        limits = httpx.Timeout(SECONDS, connect=CONNECT_S)
        return httpx.Client(timeout=limits, trust_env=False, follow_redirects=False)


def signed_headers(
    credentials: Credentials,
    method: str,
    host: str,
    path: str,
    query: str,
    data: bytes,
    *,
    region: str,
    now: datetime,
    more: Mapping[str, str],
    service: str = "s3",
    content: str = "",
) -> dict[str, str]:
    """Headers of one request. path and query: as they travel, percent-encoded; query sorted.

    content: SHA-256 of the body in hex, where `data` is not the body.
    """
    at = now.strftime("%Y%m%dT%H%M%SZ")
    content = content or hashlib.sha256(data).hexdigest()
    headers = {
        **{name.lower(): value for name, value in more.items()},
        "host": host,
        "x-amz-content-sha256": content,
        "x-amz-date": at,
    }
    names = ";".join(sorted(headers))
    asked = "\n".join(
        [
            method,
            path,
            query,
            *(f"{name}:{headers[name].strip()}" for name in sorted(headers)),
            "",
            names,
            content,
        ]
    )
    scope = f"{at[:8]}/{region}/{service}/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", at, scope, hashlib.sha256(asked.encode()).hexdigest()])
    key = f"AWS4{credentials.secret}".encode()
    for word in (at[:8], region, service, "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    return {
        **headers,
        "accept-encoding": "identity",
        "authorization": f"AWS4-HMAC-SHA256 Credential={credentials.key}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}",
    }
