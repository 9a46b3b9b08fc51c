"""Codecs that need no library: JSON values and bytes."""

from __future__ import annotations

import datetime as dt
import enum
import json
import math
import types
import typing
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from falaj.facts.runs import Artifact
from falaj.ports.blobs import Blobs
from falaj.ports.codecs import BadValue, Codec

__all__ = ["BytesCodec", "JsonCodec", "choose", "is_plain", "plain_value"]

LEAVES: Final = (bool, int, float, str, dt.date, dt.datetime, dt.timedelta, dt.time, type(None))


def choose(codecs: Sequence[Codec], kind: Any) -> Codec | None:
    """The first codec that takes the annotation."""
    return next((codec for codec in codecs if codec.takes(kind)), None)


def is_plain(kind: Any) -> bool:
    """Whether every value of this annotation can be written as JSON and read back."""
    kind = _bare(kind)
    if kind is None or kind in LEAVES or kind in {dict, list, tuple}:
        return True
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return True
    if origin in {typing.Union, types.UnionType}:
        return all(is_plain(part) for part in parts)
    if origin in {list, tuple}:
        return all(part is Ellipsis or is_plain(part) for part in parts)
    if origin is dict:
        return _bare(parts[0]) is str and is_plain(parts[1])
    return isinstance(kind, type) and issubclass(kind, enum.Enum | msgspec.Struct)


def _bare(kind: Any) -> Any:
    return typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind


def plain_value(value: Any, kind: Any) -> Any:
    """Builtins of a value, checked against its annotation. Raises BadValue, naming the path."""
    try:
        plain = msgspec.to_builtins(value, enc_hook=_numpy_scalar)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise BadValue(str(error)) from None
    _check(plain, "$")
    if kind is not Any:
        try:
            msgspec.convert(plain, type=kind)
        except msgspec.ValidationError as error:
            raise BadValue(str(error)) from None
    return plain


def _numpy_scalar(value: Any) -> Any:
    """A numpy number is what most metrics are."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    raise NotImplementedError(f"{type(value).__module__}.{type(value).__qualname__} is no JSON")


def _check(value: Any, path: str) -> None:
    match value:
        case float() if not math.isfinite(value):
            raise BadValue(f"{path}: {value} has no JSON form; use None")
        case dict():
            for key, inner in value.items():
                if not isinstance(key, str):
                    raise BadValue(f"{path}: key {key!r} is not text")
                _check(inner, f"{path}.{key}")
        case list() | tuple():
            for index, inner in enumerate(value):
                _check(inner, f"{path}[{index}]")
        case _:
            return


class JsonCodec:
    """Canonical JSON: sorted keys, no NaN."""

    def takes(self, kind: Any) -> bool:
        return is_plain(kind)

    def write(self, value: Any, kind: Any, name: str, blobs: Blobs) -> Artifact:
        plain = plain_value(value, kind)
        text = json.dumps(plain, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        data = text.encode()
        digest = blobs.put(data)
        return Artifact(
            name=name,
            kind="json",
            digest=digest,
            files={f"{name}.json": digest},
            size=len(data),
        )

    def read(self, artifact: Artifact, kind: Any, blobs: Blobs) -> Any:
        plain = json.loads(blobs.get(artifact.digest))
        return plain if kind is Any else msgspec.convert(plain, type=kind)


class BytesCodec:
    """Bytes as they are."""

    def takes(self, kind: Any) -> bool:
        return kind is bytes

    def write(self, value: Any, kind: Any, name: str, blobs: Blobs) -> Artifact:  # noqa: ARG002 the port's form
        if not isinstance(value, bytes):
            raise BadValue(f"got {type(value).__name__}, expected bytes")
        digest = blobs.put(value)
        size = len(value)
        return Artifact(name=name, kind="bytes", digest=digest, files={name: digest}, size=size)

    def read(self, artifact: Artifact, kind: Any, blobs: Blobs) -> Any:  # noqa: ARG002 the port's form
        return blobs.get(artifact.digest)
