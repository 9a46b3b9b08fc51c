"""Names and values as MLflow takes them. Limits: MLflow 3.17.2, `mlflow/utils/validation.py`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

__all__ = ["MOST_TAG", "batches", "cut", "renamed"]

MOST_NAME: Final = 250
MOST_PARAM: Final = 6000
MOST_TAG: Final = 8000
FOREIGN: Final = re.compile(r"[^\w\-./ ]")
MOST_OF: Final = {"params": 100, "tags": 100, "metrics": 1000}
MOST_ITEMS: Final = 1000
MOST_BYTES: Final = 900_000  # of one request; the server takes 1 MB


def renamed(names: Iterable[str]) -> dict[str, str]:
    """Our name -> a name that MLflow takes. No two become one, and most stay as they are."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(names, key=lambda one: (_plain(one) != one, one)):
        plain = _plain(name)
        if plain in taken or len(plain) > MOST_NAME:
            plain = f"{plain[: MOST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        taken.add(plain)
        found[name] = plain
    return found


def _plain(name: str) -> str:
    """Letters, digits, `_ - . /` and space, and a path that means nothing else than itself."""
    parts = [part for part in FOREIGN.sub("_", name).split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or "_"


def cut(text: str, most: int = MOST_PARAM) -> str:
    """The server cuts without a word; we say that it was cut, and which text it was."""
    if len(text) <= most:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    tail = f" ... {len(text)} characters, sha256:{digest}"
    return text[: most - len(tail)] + tail


def batches(**given: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, list[Any]]]:
    """Params, metrics and tags in requests that the server takes; always in the same order."""
    import json

    body: dict[str, list[Any]] = {}
    items = size = 0
    for kind, entries in given.items():
        for entry in entries:
            weight = len(json.dumps(entry)) + 1
            full = len(body.get(kind, ())) >= MOST_OF[kind]
            if body and (full or items >= MOST_ITEMS or size + weight > MOST_BYTES):
                yield body
                body, items, size = {}, 0, 0
            body.setdefault(kind, []).append(entry)
            items, size = items + 1, size + weight
    if body:
        yield body
