"""Speaking HTTP with servers of others. None is trusted: each answer has a limit and an end.

httpx is imported on use. TLS takes the system's authorities, and those that SSL_CERT_FILE names.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

from falaj.base.errors import Exit, FalajError, Unverified

if TYPE_CHECKING:
    import httpx

__all__ = [
    "CONNECT_S",
    "LEAST_RATE",
    "SILENCE_S",
    "Again",
    "Away",
    "Refused",
    "TooSlow",
    "bad_certificate",
    "blocks",
    "client",
    "content",
    "hostile",
    "patiently",
    "plain",
]

CONNECT_S: Final = 5.0
SILENCE_S: Final = 30.0
LEAST_RATE: Final = 32 << 10  # bytes a second; slower than that is silence
TRIES: Final = 4
LONGEST_PAUSE_S: Final = 30.0
BLOCK: Final = 1 << 18
T = TypeVar("T")


class Away(FalajError):
    """The other server cannot be used now; whoever asked comes back later."""

    exit = Exit.CONFLICT
    status = 503


class Again(Away):
    """It may go better in a moment. `after`: seconds that the server asks for."""

    after = 0.0


class Refused(FalajError):
    """The other server understood, and does not take this one thing; asking again changes nothing."""


class TooSlow(Exception):
    """Fewer bytes come than anybody waits for."""


def client(silence_s: float, headers: Mapping[str, str] | None = None) -> httpx.Client:
    """No proxy from the environment, no redirect followed unseen."""
    import httpx

    return httpx.Client(
        verify=ssl.create_default_context(),
        timeout=httpx.Timeout(silence_s, connect=CONNECT_S),
        headers={"Accept-Encoding": "identity", "User-Agent": "falaj", **(headers or {})},
        follow_redirects=False,
        trust_env=False,
    )


def blocks(
    answer: httpx.Response,
    root: str,
    most: int,
    end: float,
    *,
    plainly: tuple[str, ...] = ("identity",),
) -> Iterator[bytes]:
    """A body of at most `most` bytes, before `end` of the monotonic clock.

    plainly: encodings that change no byte. Raises Unverified for another one and for a byte too
    many, TooSlow.
    """
    if answer.headers.get("content-encoding", "identity") not in plainly:
        raise hostile(root, "it packs its answers although it was asked not to")
    got = 0
    for block in answer.iter_raw():
        got += len(block)
        if got > most:
            raise hostile(root, f"more than the {most} bytes came that were to come")
        if time.monotonic() > end:
            raise TooSlow
        yield block


def patiently(what: Callable[[], T], pause: Callable[[float], None] = time.sleep) -> T:
    """Try four times, where that may help. A server that asks for a long pause is left alone."""
    for turn in range(TRIES - 1):
        try:
            return what()
        except Again as error:
            if error.after > LONGEST_PAUSE_S:
                raise
            pause(max(error.after, 0.5 * 2**turn))
    return what()


def content(opened: Callable[[], BinaryIO], size: int) -> Iterator[bytes]:
    """Exactly `size` bytes of a file of a release, in blocks."""
    left = size
    with opened() as file:
        while left:
            block = file.read(min(BLOCK, left))
            if not block:
                raise Unverified(
                    "remote.changed",
                    "a file of the release became shorter while it was sent",
                    why="a release never changes; nothing was made visible there",
                    fix="verify the folder, then push again",
                )
            left -= len(block)
            yield block


def bad_certificate(name: str, error: BaseException) -> Unverified | None:
    """What to say when the server could not show who it is; None when it failed in another way."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Unverified(
                "remote.bad-certificate",
                f"{name} cannot show that it is who it should be",
                why=plain(cause.verify_message or cause.reason),
                fix="an authority of your own: SSL_CERT_FILE names its certificate",
            )
        cause = cause.__cause__ or cause.__context__
    return None


def plain(words: Any) -> str:
    """One short line of what a stranger wrote."""
    text = "".join(sign if sign.isprintable() else " " for sign in str(words)[:400])
    return " ".join(text.split())[:200]


def hostile(root: str, why: str) -> Unverified:
    return Unverified(
        "remote.hostile",
        f"{root} does what no honest server does",
        why=plain(why),
        fix="nothing was kept; do not use it before somebody has looked at it",
    )
