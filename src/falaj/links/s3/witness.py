"""ports/witness.py: objects of an S3-compatible store that are written once."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from typing import Final, TypeVar

from falaj.base import ids, note, tlog
from falaj.base.tlog import Checkpoint, Growth
from falaj.links.s3.client import Answer, Bucket, Unanswered
from falaj.ports.witness import Away, Behind, Held, Refused

__all__ = ["S3Witness"]

A = TypeVar("A")
HIGHEST: Final = 10**19 - 1
NAME: Final = re.compile(r"[0-9]{19}-([0-9]{1,19})\.checkpoint")


class S3Witness:
    """One object a checkpoint.

    Names begin with what is missing to the highest number: the first of a listing is the newest.
    A store that takes a second object under a taken name, though it was asked not to, is refused:
    there a checkpoint could be replaced by whoever may write.
    """

    def __init__(self, name: str, bucket: Callable[[], Bucket], prefix: str = "") -> None:
        """bucket: opened when it is wanted, because that reads the credentials."""
        self.name, self._open, self._prefix = name, bucket, prefix.strip("/")
        self._probed = False

    @property
    def where(self) -> str:
        bucket = self._open()
        return f"{bucket.url}/{bucket.bucket}/{self._prefix}".rstrip("/")

    def latest(self, origin: str) -> Checkpoint | None:
        bucket, folder = self._open(), self._folder(origin)
        answer, key = self._heard(lambda: bucket.first(folder))
        self._wanted(answer, 200)
        if key is None:
            return None
        found = NAME.fullmatch(key.removeprefix(folder))
        body = self._wanted(self._heard(lambda: bucket.get(key)), 200).body
        try:
            told = tlog.read_checkpoint(note.read_note(body).text)
            if found is None or told.size != int(found[1]):
                raise note.BadNote("its name tells another size")
        except note.BadNote as error:
            raise Refused(
                "audit.witness-damaged",
                f"witness {self.name!r}: {key} is no checkpoint: {error}",
                why="objects below that prefix are written by this log alone",
                fix="look who may write there",
            ) from None
        return told

    def add(self, growth: Growth, checkpoint: Checkpoint) -> Held:
        if not self._probed:
            self.probe()
        held = self.latest(checkpoint.origin)
        if held != checkpoint:
            try:
                tlog.judge(held, growth, checkpoint)
            except tlog.Elsewhere as error:
                raise Behind(error.size) from None
            except tlog.Forked as error:
                raise Refused(
                    "audit.witness-refuses",
                    f"witness {self.name!r} refuses: {error}",
                    why="what it holds was signed by this log, and the log is no continuation of it",
                    fix="`falaj audit verify` names what differs",
                ) from None
        bucket = self._open()
        key = f"{self._folder(checkpoint.origin)}{HIGHEST - checkpoint.size:019}-{checkpoint.size}.checkpoint"
        if held != checkpoint:
            answer = self._heard(lambda: bucket.put(key, growth.note, only_new=True))
            if answer.status in (409, 412):  # another worker was quicker; the next turn sees it
                raise Behind(checkpoint.size)
            self._wanted(answer, 200)
            # What lies there is read again: some stores accept a wrong checksum.
            if self._wanted(self._heard(lambda: bucket.get(key)), 200).body != growth.note:
                raise self._away("it gave back other bytes than it was given")
        return Held(key, int(time.time()))

    def probe(self) -> tuple[str, ...]:
        """A second put under one name must fail, and a wrong secret must open nothing."""
        bucket = self._open()
        key = f"{self._prefix}/falaj-probe/{ids.new()}".lstrip("/")
        first, second = secrets.token_bytes(32), secrets.token_bytes(32)
        self._wanted(self._heard(lambda: bucket.put(key, first, only_new=True)), 200)
        try:
            again = self._heard(lambda: bucket.put(key, second, only_new=True))
            there = self._heard(lambda: bucket.get(key)).body
        finally:
            self._heard(lambda: bucket.delete(key))  # where deleting is forbidden, it stays
        if again.status not in (409, 412) or there != first:
            raise Refused(
                "audit.witness-not-append-only",
                f"witness {self.name!r}: the store at {bucket.url} overwrites what is there "
                f"(it answered {again.status} to If-None-Match)",
                why="a checkpoint that can be replaced unseen proves nothing",
                fix="use a store that knows conditional writes, or another kind of witness",
            )
        stranger = bucket.with_secret(secrets.token_hex(20))
        if self._heard(lambda: stranger.first(self._prefix))[0].status == 200:
            raise Refused(
                "audit.witness-open-to-all",
                f"witness {self.name!r}: the store at {bucket.url} does not look at signatures",
                why="a request signed with a wrong secret was answered: anybody may write there",
                fix="turn authentication on in that store",
            )
        self._probed = True
        return ("a taken name is not written again", "a wrong secret opens nothing")

    def _folder(self, origin: str) -> str:
        return f"{self._prefix}/{origin.replace('/', '_')}/".lstrip("/")

    def _heard(self, ask: Callable[[], A]) -> A:
        try:
            return ask()
        except Unanswered as error:
            raise self._away(str(error)) from None

    def _wanted(self, answer: Answer, status: int) -> Answer:
        if answer.status in (401, 403):
            raise Refused(
                "audit.witness-token",
                f"witness {self.name!r}: the store says {answer.code or answer.status}",
                why="the credentials are not good for this bucket",
                fix="see credentials_file of this witness in falaj.toml",
            )
        if answer.status != status:
            raise self._away(f"it answered {answer.status} {answer.code}".strip())
        return answer

    def _away(self, said: str) -> Away:
        return Away(
            "audit.witness-away",
            f"witness {self.name!r}: {said}",
            fix="checkpoints that it missed are shown to it when it answers again",
        )
