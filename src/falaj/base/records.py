"""Plain JSON into named tuples, by their annotations; for who must read facts without a library.

Strict about what is there: a missing field or another type is refused with its path. Fields that are
not known are passed over, because families grow by fields at their end.
"""

from __future__ import annotations

from datetime import datetime
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

from falaj.base import time

__all__ = ["Misread", "read"]

T = TypeVar("T")
PLAIN: Final = (str, int, bool)


class Misread(ValueError):
    """Not what was expected; names the place."""


def read(kind: type[T], value: object, *, only_known: bool = False) -> T:
    """`value`, as it came out of JSON, as a `kind`: a NamedTuple, or a list or tuple of them.

    only_known: a field that the named tuple does not have is refused.
    """
    found: T = _read(kind, value, "$", only_known)
    return found


def _read(kind: Any, value: Any, path: str, only: bool) -> Any:
    if kind is Any:
        return value
    if kind in PLAIN:
        if type(value) is not kind:
            raise Misread(f"{path}: got {type(value).__name__}, expected {kind.__name__}")
        return value
    if kind is datetime:
        return _instant(value, path)
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and NoneType in parts:
            return None
        (one,) = (part for part in parts if part is not NoneType)
        return _read(one, value, path, only)
    if origin in (list, tuple):
        if not isinstance(value, list):
            raise Misread(f"{path}: got {type(value).__name__}, expected a list")
        return origin(_read(parts[0], item, f"{path}[{n}]", only) for n, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise Misread(f"{path}: got {type(value).__name__}, expected an object")
        return {key: _read(parts[1], item, f"{path}.{key}", only) for key, item in value.items()}
    return _record(kind, value, path, only)


def _record(kind: Any, value: Any, path: str, only: bool) -> Any:
    if not isinstance(value, dict):
        raise Misread(f"{path}: got {type(value).__name__}, expected an object")
    hints = get_type_hints(kind)
    missing = [f for f in kind._fields if f not in value and f not in kind._field_defaults]
    if missing:
        raise Misread(f"{path}: {missing[0]} is missing")
    if only and value.keys() - set(kind._fields):
        raise Misread(f"{path}: {min(value.keys() - set(kind._fields))} is not known here")
    return kind(
        **{
            field: _read(hints[field], value[field], f"{path}.{field}", only)
            for field in kind._fields
            if field in value
        }
    )


def _instant(value: Any, path: str) -> datetime:
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise Misread(f"{path}: not a time") from None
    if at.tzinfo is None:
        raise Misread(f"{path}: a time without a zone")
    return time.parse_instant(value)
