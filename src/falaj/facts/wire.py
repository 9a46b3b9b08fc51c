"""What all facts share on the wire.

Rules of evolution, for every family in this folder:
1. Fields are only added, at the end, with a default. 2. A name or tag is never reused.
3. A change of meaning is a new type. 4. Golden files of every version are decoded in tests.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

import msgspec

from falaj.base import canonical, digests, time

__all__ = ["Fact", "canonical_bytes", "decode", "digest", "encode", "plain"]

T = TypeVar("T")


class Fact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A noun that passes between rooms: frozen, keyword-only, refuses unknown fields."""


def plain(value: object) -> Any:
    """Builtins for canonical JSON: floats become their shortest decimal text, times RFC 3339."""
    return _exact(msgspec.to_builtins(value, builtin_types=(datetime,)))


def _exact(value: Any) -> Any:
    match value:
        case float():
            return repr(value)
        case datetime():
            return time.text(value)
        case dict():
            return {key: _exact(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_exact(inner) for inner in value]
        case _:
            return value


def canonical_bytes(value: object) -> bytes:
    return canonical.dumps(plain(value))


def digest(value: object) -> str:
    """Identity of a fact: `sha256:` of its canonical JSON."""
    return digests.of_bytes(canonical_bytes(value))


def encode(fact: msgspec.Struct) -> bytes:
    return msgspec.json.encode(fact)


def decode(kind: type[T], data: bytes) -> T:
    """Read a fact strictly. Raises msgspec.ValidationError or msgspec.DecodeError."""
    return msgspec.json.decode(data, type=kind)
