"""HTTP to one repository of one registry. The registry is not trusted: each answer has a limit.

OCI Distribution 1.1 (https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md),
tokens as docker's registries give them (https://distribution.github.io/distribution/spec/auth/token/).
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

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
from falaj.links.oci.address import Address
from falaj.links.oci.credentials import Login

if TYPE_CHECKING:
    import httpx

__all__ = ["Answer", "Wire"]

MOST_DOCUMENT: Final = 4 << 20  # bytes of a manifest, as registries limit them
MOST_TOKEN: Final = 64 << 10
MOST_WORDS: Final = 16 << 10  # of an error's body
REDIRECTS: Final = 3
HERE: Final = ("127.0.0.1", "localhost", "::1")
CHALLENGE: Final = re.compile(r'([a-z_]+)="([^"]{0,2000})"')


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class Wire:
    """credentials: asked once, when the registry wants to know who we are."""

    def __init__(
        self,
        address: Address,
        *,
        plain: bool,
        credentials: Callable[[str], Login | None],
        pause: Callable[[float], None] = time.sleep,
        silence_s: float = SILENCE_S,
    ) -> None:
        self.host, self.repository = address.host, address.repository
        self.plain = plain
        self.root = f"{'http' if plain else 'https'}://{address.host}"
        self._base = f"{self.root}/v2/{address.repository}/"
        self._credentials, self.pause, self._silence_s = credentials, pause, silence_s
        self._login: Login | None = None
        self._looked = False
        self._authorization = ""
        self._http: httpx.Client | None = None

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None

    def ask(
        self,
        method: str,
        path: str,
        *,
        good: tuple[int, ...] = (200,),
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        most: int = MOST_DOCUMENT,
        patient: bool = True,
    ) -> Answer:
        """A small answer. patient: try again where that is no harm and may help."""

        def once() -> Answer:
            end = time.monotonic() + self._silence_s + most / LEAST_RATE
            with self._sent(method, self._base + path, headers, lambda: content) as answer:
                if answer.status_code not in good:
                    raise self._failed(method, path, answer)
                body = b"".join(self._blocks(answer, most, end)) if method != "HEAD" else b""
                return Answer(answer.status_code, dict(answer.headers), body)

        return patiently(once, self.pause) if patient else once()

    def download(self, digest: str, size: int, begin: int) -> Iterator[tuple[int, bytes]]:
        """Blocks of a blob with where each begins, from `begin` on where the registry can do that.

        Never more than `size` bytes in all.
        """
        asked = {"Range": f"bytes={begin}-"} if begin else {}
        end = time.monotonic() + self._silence_s + (size - begin) / LEAST_RATE
        path = f"blobs/{digest}"
        with self._sent("GET", self._base + path, asked, lambda: None) as answer:
            if answer.status_code == 206:
                told = answer.headers.get("content-range", "")
                if not begin or told != f"bytes {begin}-{size - 1}/{size}":
                    raise hostile(self.root, f"{path}: another part came than was asked for")
            elif answer.status_code == 200:
                begin = 0
            else:
                raise self._failed("GET", path, answer)
            at = begin
            for block in self._blocks(answer, size - begin, end):
                yield at, block
                at += len(block)

    def upload(self, digest: str, size: int, opened: Callable[[], BinaryIO]) -> bool:
        """Bring one blob, when it is not there. Says whether bytes were sent."""

        def there() -> bool:
            found = self.ask("HEAD", f"blobs/{digest}", good=(200, 404))
            if found.status == 404:
                return False
            told = found.headers.get("content-length", str(size))
            if told != str(size):
                raise hostile(self.root, f"{digest} has {told} bytes there, and {size} here")
            return True

        if there():
            return False

        def once() -> None:
            begun = self.ask(
                "POST",
                "blobs/uploads/",
                good=(202,),
                headers={"Content-Length": "0"},
                patient=False,
            )
            where = self._place(begun.headers.get("location", ""))
            where += f"{'&' if '?' in where else '?'}digest={quote(digest, safe='')}"
            headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
            with self._sent("PUT", where, headers, lambda: content(opened, size)) as answer:
                if answer.status_code != 201:
                    raise self._failed("PUT", "blobs/uploads/", answer)
                told = answer.headers.get("docker-content-digest", digest)
            if told != digest:
                raise hostile(self.root, f"it took {digest} and says that it is {told[:80]}")

        first = True

        def again() -> None:
            nonlocal first
            if first or not there():  # what was lost may have been the answer alone
                first = False
                once()

        patiently(again, self.pause)
        return True

    @contextmanager
    def _sent(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        body: Callable[[], bytes | Iterator[bytes] | None],
    ) -> Iterator[httpx.Response]:
        """One request, with who we are; a second one when the registry wants to know that first."""
        import httpx

        try:
            answer = self._go(method, url, headers, body())
            if answer.status_code == 401 and self._introduce(answer, method):
                answer.close()
                answer = self._go(method, url, headers, body())
            # Blobs may lie in a storage of their own; everything else has to be where it is.
            left = (
                REDIRECTS
                if method in ("GET", "HEAD") and url.startswith(f"{self._base}blobs/")
                else 0
            )
            while left and 300 <= answer.status_code < 400:
                url, left = self._elsewhere(url, answer), left - 1
                answer.close()
                answer = self._go(method, url, headers, None)
            try:
                yield answer
            finally:
                answer.close()
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise self._silent(error) from None

    def _go(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        body: bytes | Iterator[bytes] | None,
    ) -> httpx.Response:
        http = self._opened()
        own = f"{url}/".startswith(f"{self.root}/")
        who = {"Authorization": self._authorization} if own and self._authorization else {}
        request = http.build_request(method, url, headers={**(headers or {}), **who}, content=body)
        return http.send(request, stream=True)

    def _opened(self) -> httpx.Client:
        if self._http is None:
            self._http = client(self._silence_s)
        return self._http

    def _blocks(self, answer: httpx.Response, most: int, end: float) -> Iterator[bytes]:
        try:
            yield from blocks(answer, self.root, most, end)
        except TooSlow:
            raise self._again(
                f"{self.host} is too slow", "fewer than 32 KiB come in a second"
            ) from None

    # --- who we are ---

    def _introduce(self, answer: httpx.Response, method: str) -> bool:
        """Find out how, from the 401. Whether it is worth asking again."""
        if not self._looked:
            self._looked, self._login = True, self._credentials(self.host)
        challenge = answer.headers.get("www-authenticate", "")
        kind = challenge.partition(" ")[0].lower()
        before = self._authorization
        if kind == "basic" and self._login and self._login.user:
            self._authorization = basic(self._login)
        elif kind == "bearer":
            self._authorization = f"Bearer {self._token(challenge, method)}"
        return self._authorization not in ("", before)

    def _token(self, challenge: str, method: str) -> str:
        """Ask the place that the registry names for a token over our own repository alone."""
        words = dict(CHALLENGE.findall(challenge.partition(" ")[2]))
        realm = words.get("realm", "")
        parts = urlsplit(realm)
        allowed = ("https",) if not self.plain else ("https", "http")
        if parts.scheme not in allowed or not parts.hostname or "@" in parts.netloc:
            raise hostile(self.root, f"it sends us for a token to {plain(realm)!r}")
        if parts.scheme == "http" and parts.hostname not in (*HERE, urlsplit(self.root).hostname):
            raise hostile(self.root, f"it sends us in the clear to {plain(realm)!r}")
        doing = "pull" if method in ("GET", "HEAD") else "pull,push"
        asked = {
            "service": words.get("service", ""),
            "scope": f"repository:{self.repository}:{doing}",
        }
        login = self._login
        http = self._opened()
        if login and login.identity:
            form = {"grant_type": "refresh_token", "client_id": "falaj", **asked}
            request = http.build_request(
                "POST", realm, data={**form, "refresh_token": login.identity}
            )
        else:
            who = {"Authorization": basic(login)} if login else {}
            request = http.build_request("GET", realm, params=asked, headers=who)
        end = time.monotonic() + self._silence_s
        answer = http.send(request, stream=True)
        try:
            if answer.status_code in (401, 403):
                raise self._denied(answer.status_code, "it refuses us a token")
            if answer.status_code != 200:
                raise self._again(f"no token for {self.host}", f"{answer.status_code} for a token")
            found = json.loads(b"".join(self._blocks(answer, MOST_TOKEN, end)))
        except (ValueError, RecursionError):
            found = None
        finally:
            answer.close()
        told: dict[str, Any] = found if isinstance(found, dict) else {}
        token: object = told.get("token") or told.get("access_token")
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]{1,32768}", token):
            raise hostile(self.root, "what it calls a token is none")
        return str(token)

    # --- where it sends us ---

    def _place(self, location: str) -> str:
        """Where an upload goes on: the same registry, or nowhere."""
        where = urljoin(f"{self._base}blobs/uploads/", location)
        if not location or not where.startswith(f"{self.root}/"):
            raise hostile(self.root, f"it wants the upload to go to {plain(location)!r}")
        return where.partition("#")[0]

    def _elsewhere(self, url: str, answer: httpx.Response) -> str:
        """Where a blob lies. Who we are is not told there."""
        where: str = urljoin(url, answer.headers.get("location", ""))
        now, then = urlsplit(url), urlsplit(where)
        if then.scheme != now.scheme or not then.hostname or "@" in then.netloc:
            raise hostile(self.root, f"it points from {now.scheme} to {plain(where)!r}")
        if self.plain and then.hostname != urlsplit(self.root).hostname:
            raise hostile(self.root, "it points in the clear to another machine")
        return where

    # --- what went wrong ---

    def _failed(self, method: str, path: str, answer: httpx.Response) -> FalajError:
        status, said = answer.status_code, self._said(answer)
        where = f"{method} {path} in {self.repository}"
        why = f"{said}; {where}" if said else where
        if status in (401, 403):
            return self._denied(status, why)
        if status == 404:
            return NotFound(
                "remote.not-found",
                f"{self.host} has nothing there (404)",
                why=why,
                fix="look at the repository, the tag and the digest; some registries want a "
                "repository to be made first",
            )
        if status == 429:
            error = Again(
                "remote.busy",
                f"{self.host} asks us to come less often (429)",
                why=why,
                fix="come back later; what was brought there is not brought twice",
            )
            error.after = seconds(answer.headers.get("retry-after", ""))
            return error
        if status >= 500 or status == 408:
            return self._again(f"{self.host} fails ({status})", why)
        if 300 <= status < 400:
            return hostile(self.root, "it points at another address, which is not followed")
        return Refused(
            "remote.refused",
            f"{self.host} refuses: {status}",
            why=why,
            fix="look at what the registry says, and at its own log",
        )

    def _said(self, answer: httpx.Response) -> str:
        """The registry's own words, if they are the form of OCI."""
        import httpx

        got = b""
        try:
            for block in answer.iter_raw(4096):
                got += block
                if len(got) > MOST_WORDS:
                    return ""
            told = json.loads(got)["errors"][0]
            return plain(f"{told.get('code', '')} {told.get('message', '')}")
        except (
            httpx.HTTPError,
            ValueError,
            RecursionError,
            LookupError,
            TypeError,
            AttributeError,
        ):
            return ""

    def _denied(self, status: int, why: str) -> Refused:
        known = self._login is not None
        return Refused(
            "remote.denied",
            f"{self.host} does not let us in ({status})"
            + (", with the name from the auth file" if known else ", without a name"),
            why=why,
            fix="is this account allowed to do that in this repository?"
            if known
            else f"docker login {self.host}, or an auth file that REGISTRY_AUTH_FILE names",
        )

    def _again(self, message: str, why: str) -> Again:
        return Again(
            "remote.failed",
            message,
            why=why,
            fix="nothing is half done; run it again when the registry is well",
        )

    def _silent(self, error: Exception) -> FalajError:
        return bad_certificate(self.host, error) or Again(
            "remote.unreachable",
            f"{self.host} does not answer",
            why=type(error).__name__,
            fix="nothing is half done; is the address right, and does it speak "
            + ("plain HTTP?" if self.plain else "HTTPS?"),
        )


def basic(login: Login) -> str:
    pair = base64.b64encode(f"{login.user}:{login.secret}".encode()).decode()
    return f"Basic {pair}"


def seconds(text: str) -> float:
    return float(text) if re.fullmatch(r"[0-9]{1,6}", text) else 0.0
