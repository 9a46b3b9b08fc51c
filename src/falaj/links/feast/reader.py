"""Features as a dataset: `feast:<repository>#<service>?entities=<dataset>[&at=..][&names=full]`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

from falaj.base.errors import FalajError
from falaj.base.snapshots import Snapshot, keep, kept
from falaj.ports.datasets import Dataset
from falaj.ports.features import FeatureService

__all__ = ["FeastTables"]

FORM: Final = re.compile(
    r"feast:(?P<repo>[^#?@]+)#(?P<service>[^#?@]+)(@(?P<pin>sha256:[0-9a-f]{64}))?\?(?P<rest>.+)"
)
WORDS: Final = frozenset(("entities", "at", "names"))
TIME: Final = "event_timestamp"


class FeastTables:
    """The port JoiningReader over FeastStore: rows of a dataset with features of their time.

    A digest after the service pins its definitions: `#service@sha256:..`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def takes(self, source: str) -> bool:
        return source.startswith("feast:")

    def asks(self, source: str) -> str:
        return _parsed("", source)[1]["entities"]

    def snapshot(self, source: str, *, name: str, root: Path, fresh: bool) -> Snapshot:
        del root, fresh
        raise _bad(name, source, f"dataset {self.asks(source)!r} is not declared")

    def joined(
        self, source: str, *, name: str, root: Path, fresh: bool, rows: Callable[[], Dataset]
    ) -> Snapshot:
        found, words = _parsed(name, source)
        dataset = rows()
        asked = dataset.version.content
        old = kept(self._folder, source)
        # Of other rows the snapshot tells nothing, whoever asks.
        if old is not None and not fresh and old.engine.get("rows") == asked:
            return old

        def write(part: Path) -> dict[str, str]:
            from falaj.links.feast.store import FeastStore  # a child process: only when it is asked

            with FeastStore(root / found["repo"], full_names="names" in words) as store:
                frame, service = store.historical(
                    found["service"],
                    dataset.read(),
                    at=words.get("at", TIME),
                    expect=found["pin"],
                )
            frame.write_parquet(part, compression="zstd", compression_level=1)
            return _ids(service, asked)

        return keep(self._folder, source, write)


def _ids(service: FeatureService, rows: str) -> dict[str, str]:
    engine, _, version = service.engine.partition(" ")
    said = {"engine": engine, engine: version, "service": service.name}
    said |= {"digest": service.digest, "registry": service.registry, "rows": rows}
    return said | {f"view {name}": digest for name, digest in service.views.items()}


def _parsed(name: str, source: str) -> tuple[dict[str, str], dict[str, str]]:
    found = FORM.fullmatch(source)
    if not found:
        raise _bad(name, source, "it is not of this form")
    pairs = parse_qsl(found["rest"], keep_blank_values=True)
    words = dict(pairs)
    others = sorted(set(words) - WORDS)
    if others or len(pairs) > len(words):
        raise _bad(
            name, source, f"unknown words: {', '.join(others)}" if others else "a word twice"
        )
    if not words.get("entities") or words.get("names", "full") != "full":
        raise _bad(name, source, "it says no entities, or names that are not `full`")
    return found.groupdict(default=""), words


def _bad(name: str, source: str, why: str) -> FalajError:
    return FalajError(
        "data.bad-source",
        f"dataset {name}: got {source!r}, expected feast:<repository>#<service>?entities=<dataset>",
        why=why,
        fix="write it as feast:features#driver_activity?entities=trips&at=asked_at",
    )
