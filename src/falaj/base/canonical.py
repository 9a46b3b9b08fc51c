"""Canonical JSON: RFC 8785 on a subset, so that one value has one digest on every machine.

The subset: ASCII keys, no floats (decimals travel as strings), integers within +-(2**53 - 1).
RFC 8785 sorts keys by UTF-16 units and Python by code points; ASCII keys make them equal.
"""

from __future__ import annotations

import json
from typing import Any, Final

__all__ = ["NotCanonical", "dumps", "loads"]

LARGEST: Final = 2**53 - 1


class NotCanonical(ValueError):
    """The value is outside the subset, or the text holds a key twice."""


def dumps(value: object) -> bytes:
    """Return the one spelling of `value`. Raises NotCanonical, naming the path."""
    _check(value, "$")
    return json.dumps(
        value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    ).encode()


def loads(text: bytes) -> Any:
    """Read JSON strictly: a doubled key or a constant such as NaN raises NotCanonical.

    Floats are read (foreign documents hold them), though `dumps` does not write them.
    """
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_refuse)
    except NotCanonical:
        raise
    except (ValueError, RecursionError) as error:
        raise NotCanonical(f"not JSON: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise NotCanonical(f"key {key!r} stands twice")
            seen.add(key)
    return found


def _refuse(name: str) -> None:
    raise NotCanonical(f"{name} is not JSON")


def _check(value: object, path: str) -> None:
    match value:
        case None | bool():
            return
        case str():
            _check_text(value, path)
        case int():
            if abs(value) > LARGEST:
                raise NotCanonical(f"{path}: {value} is beyond 2**53 - 1")
        case dict():
            for key, inner in value.items():
                if not isinstance(key, str) or not key.isascii():
                    raise NotCanonical(f"{path}: key {key!r} is not ASCII text")
                _check(inner, f"{path}.{key}")
        case list() | tuple():
            for index, inner in enumerate(value):
                _check(inner, f"{path}[{index}]")
        case _:
            raise NotCanonical(f"{path}: {type(value).__name__} has no canonical form")


def _check_text(value: str, path: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise NotCanonical(f"{path}: text holds a lone surrogate") from None
