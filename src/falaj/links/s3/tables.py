"""Tables and parts of batch jobs in a bucket: brought whole into a folder, sent with the end last.

The store is not trusted: what it gives is hashed as the job's input, and what lies there already under
the name of a part has to be that very part.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from falaj.base import digests
from falaj.base.errors import Conflict, FalajError
from falaj.links.s3.client import Credentials
from falaj.links.s3.credentials import store_login
from falaj.links.s3.objects import Objects

__all__ = ["S3Tables"]

ADDRESS: Final = re.compile(
    r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,62})/(?P<key>[A-Za-z0-9._/=-]{1,900})"
)
LAST: Final = "job.json"
HERE: Final = ("127.0.0.1", "localhost", "::1")


class S3Tables:
    """endpoint: of the store; nothing: AWS_ENDPOINT_URL says it."""

    def __init__(
        self,
        endpoint: str = "",
        *,
        region: str = "us-east-1",
        plain_http: bool = False,
        login: Callable[[], tuple[Credentials, str]] = store_login,
    ) -> None:
        from urllib.parse import urlsplit

        self._endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL", "")
        self._region, self._login = region, login
        parts = urlsplit(self._endpoint)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise FalajError(
                "remote.bad-address",
                "the address of the store is not said",
                why="a bucket's name alone does not say where it lies",
                fix="AWS_ENDPOINT_URL, or endpoint in [[links.remotes]]",
            )
        if parts.scheme == "http" and not plain_http and parts.hostname not in HERE:
            raise FalajError(
                "remote.plain-http",
                f"{self._endpoint} is plain HTTP to another machine",
                why="bytes would travel in the clear, and could be exchanged on the way",
                fix="use https, or say plain_http = true",
            )

    def bring(self, address: str, to: Path) -> Path:
        """All objects under an address, or the one of that name, as files in the order of their keys."""
        objects, key = self._at(address)
        try:
            found = {
                name: size
                for name, size in objects.listed(key).items()
                if name == key or name.startswith(key.rstrip("/") + "/")
            }
            if not found:
                raise FalajError(
                    "score.no-input",
                    f"{address} names no table",
                    why="nothing lies there",
                    fix="look at the address",
                )
            for number, (name, size) in enumerate(sorted(found.items())):
                last = name.rpartition("/")[2]
                if last:  # some stores list folders, too
                    with (to / f"{number:06d}-{last[-100:]}").open("xb") as file:
                        file.writelines(objects.read(name, size))
        finally:
            objects.close()
        return to

    def send(self, folder: Path, address: str) -> int:
        """All files of a finished job, its end last; how many were not there yet.

        Sending again sends what is missing. Raises Conflict when other bytes lie under a name.
        """
        objects, key = self._at(address)
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        sent = 0
        try:
            for name in [*(name for name in names if name != LAST), LAST]:
                path, to = folder / name, f"{key.rstrip('/')}/{name}"
                size, digest = path.stat().st_size, digests.of_file(path)
                known = objects.size_of(to)
                if known is None and objects.send(
                    to, size, digest, partial(opened, path), only_new=True
                ):
                    sent += 1
                    known = objects.size_of(to)
                if known != size or hashed(objects, to, size) != digest:
                    raise Conflict(
                        "score.other-job",
                        f"{address} holds {name}, which is not of this job",
                        why="the release, the input or an option differs from the job that lies there",
                        fix="name a place where nothing lies",
                    )
        finally:
            objects.close()
        return sent

    def _at(self, address: str) -> tuple[Objects, str]:
        found = ADDRESS.fullmatch(address)
        if found is None or ".." in address:
            raise FalajError(
                "remote.bad-address",
                f"{address[:200]!r} is no address in a bucket",
                why="a bucket, and a key of letters, digits, . _ - = and /",
                fix="write it like s3://bucket/flights/2026",
            )
        objects = Objects(self._endpoint, found["bucket"], self._login, region=self._region)
        return objects, found["key"]


def opened(path: Path) -> BinaryIO:
    return path.open("rb")


def hashed(objects: Objects, key: str, size: int) -> str:
    whole = hashlib.sha256()
    for block in objects.read(key, size):
        whole.update(block)
    return f"sha256:{whole.hexdigest()}"
