"""ports/witness.py: a witness that speaks https://c2sp.org/tlog-witness, such as another Falaj."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from falaj.base import note, tlog
from falaj.base.tlog import Checkpoint, Growth
from falaj.ports.witness import Away, Behind, Held, Refused

if TYPE_CHECKING:
    import httpx

__all__ = ["HttpWitness"]

MOST_ANSWER: Final = 64 << 10
MOST_TOKEN: Final = 64 << 10
SECONDS: Final = 20.0
CONNECT_S: Final = 3.0
SIZE: Final = "text/x.tlog.size"


class HttpWitness:
    """It answers with a cosignature, which is verified with the key that the configuration names.

    Its answers are not trusted: they have a limit, and nothing in them is followed.
    """

    def __init__(
        self, name: str, url: str, key: note.Key, *, token_file: Path | None = None
    ) -> None:
        self.name, self._url, self._key, self._token = name, url.rstrip("/"), key, token_file

    @property
    def where(self) -> str:
        return f"{self._url} ({self._key.name})"

    def latest(self, origin: str) -> Checkpoint | None:
        """Nothing: a witness tells a size when a proof begins elsewhere, and never a root."""
        del origin
        return None

    def add(self, growth: Growth, checkpoint: Checkpoint) -> Held:
        status, kind, body = self._post(tlog.write_growth(growth))
        if status == 409 and kind == SIZE:
            raise Behind(self._size(body, checkpoint))
        if status in (409, 422):
            raise Refused(
                "audit.witness-refuses",
                f"witness {self.name!r} refuses the checkpoint of {checkpoint.size} events",
                why="what it has seen of this log is not continued by it: the log was forked, or "
                "another log uses this name",
                fix="`falaj audit verify` names what differs; this is a finding, not a fault of the "
                "witness",
            )
        if status in (401, 403, 404):
            raise Refused(
                "audit.witness-unknown-log",
                f"witness {self.name!r} does not know {checkpoint.origin} ({status})",
                why="a witness answers logs only whose name and key its operator has entered",
                fix="hand its operator the line that `falaj audit witness list` prints",
            )
        if status != 200:
            raise self._away(f"it answered {status}")
        text = tlog.text_of(checkpoint)
        try:
            signatures = note.read_signatures(body.decode())
            ((_, at),) = note.verified(text, signatures, (self._key,))
        except (note.BadNote, UnicodeDecodeError, ValueError) as error:
            raise Refused(
                "audit.witness-bad-cosignature",
                f"witness {self.name!r} answered without a cosignature that holds: {error}",
                why=f"expected is one by {note.write_key(self._key)}",
                fix="ask its operator for its key, by another way than the network",
            ) from None
        ours = next(s for s in signatures if (s.name, s.id) == (self._key.name, self._key.id))
        return Held(ours.line(), at)

    def probe(self) -> tuple[str, ...]:
        """An empty request is malformed to every witness: 400 says that one is there."""
        status, _, _ = self._post(b"")
        if status != 400:
            raise self._away(f"it answered {status} to a malformed request, expected 400")
        return ("it answers as a witness does",)

    def _size(self, body: bytes, checkpoint: Checkpoint) -> int:
        try:
            words = body.decode("ascii")
            size = note.number(words.removesuffix("\n"))
        except (UnicodeDecodeError, note.BadNote):
            raise self._away("it told a size that is no number") from None
        if size > checkpoint.size:
            raise Refused(
                "audit.witness-refuses",
                f"witness {self.name!r} holds a checkpoint of {size} events, there are only "
                f"{checkpoint.size}",
                why="events that it has seen are gone from the log, or another log uses this name",
                fix="put the store back from a newer copy",
            )
        return size

    def _post(self, body: bytes) -> tuple[int, str, bytes]:
        import httpx

        headers = {"Content-Type": "text/plain; charset=utf-8", "Accept-Encoding": "identity"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._read_token(self._token)}"
        try:
            with (
                self._client() as client,
                client.stream(
                    "POST", f"{self._url}/add-checkpoint", content=body, headers=headers
                ) as answer,
            ):
                found = b""
                for block in answer.iter_raw():
                    found += block
                    if len(found) > MOST_ANSWER:
                        raise self._away("its answer is too large")
                kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
                return answer.status_code, kind, found
        except httpx.HTTPError as error:
            raise self._away(f"it does not answer: {type(error).__name__}") from None

    @staticmethod
    def _client() -> httpx.Client:
        import httpx

        limits = httpx.Timeout(SECONDS, connect=CONNECT_S)
        return httpx.Client(timeout=limits, trust_env=False, follow_redirects=False)

    def _read_token(self, path: Path) -> str:
        try:
            with path.open("rb") as file:
                words = file.read(MOST_TOKEN).decode("ascii").strip()
        except (OSError, UnicodeDecodeError):
            words = ""
        if not words or not words.isprintable() or " " in words:
            raise Refused(
                "audit.witness-token",
                f"witness {self.name!r}: {path} holds no token",
                fix="write the bearer token there, readable by this user only",
            )
        return words

    def _away(self, said: str) -> Away:
        host = urlsplit(self._url).netloc
        return Away(
            "audit.witness-away",
            f"witness {self.name!r}: {host}: {said}",
            fix="checkpoints that it missed are shown to it when it answers again",
        )
