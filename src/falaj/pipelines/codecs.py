"""Codecs that need no library: JSON values, bytes, files and folders."""

from __future__ import annotations

import atexit
import datetime as dt
import enum
import functools
import json
import math
import tempfile
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from falaj.base import digests
from falaj.base.paths import trouble
from falaj.facts.runs import Artifact
from falaj.ports.blobs import Blobs
from falaj.ports.codecs import BadValue, Codec

__all__ = ["BytesCodec", "JsonCodec", "PathCodec", "choose", "is_plain", "plain_value"]

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


class PathCodec:
    """A file or folder that the step made.

    Its reader gets a copy of its own, which goes away with the process.
    """

    def takes(self, kind: Any) -> bool:
        return kind is Path

    def write(self, value: Any, kind: Any, name: str, blobs: Blobs) -> Artifact:  # noqa: ARG002 the port's form
        if not isinstance(value, Path):
            raise BadValue(f"got {type(value).__name__}, expected pathlib.Path")
        if value.is_symlink() or not (value.is_file() or value.is_dir()):
            raise BadValue(f"{value.name} is neither a file nor a folder")
        if value.is_file():
            digest, size = blobs.put_file(value), value.stat().st_size
            files = {f"{name}{value.suffix}": digest}
            return Artifact(name=name, kind="file", digest=digest, files=files, size=size)
        found = sorted(value.rglob("*"))
        strange = [
            path for path in found if path.is_symlink() or not path.is_file() | path.is_dir()
        ]
        if strange:
            raise BadValue(f"{strange[0].relative_to(value)} is a link; copy what it points to")
        within = [path for path in found if path.is_file()]
        for path in within:
            name_within = path.relative_to(value).as_posix()
            if words := trouble(name_within):
                raise BadValue(f"the name {name_within!r} {words}")
        if not within:
            raise BadValue(f"the folder {value.name} is empty")
        files = {path.relative_to(value).as_posix(): blobs.put_file(path) for path in within}
        size = sum(path.stat().st_size for path in within)
        return Artifact(
            name=name, kind="tree", digest=digests.of_tree(files), files=files, size=size
        )

    def read(self, artifact: Artifact, kind: Any, blobs: Blobs) -> Path:  # noqa: ARG002 the port's form
        home = Path(tempfile.mkdtemp(dir=_scratch(), prefix=f"{artifact.name}-"))
        for name, digest in artifact.files.items():
            path = home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            blobs.copy(digest, path)
        return home if artifact.kind == "tree" else next(home.iterdir())


@functools.cache
def _scratch() -> str:
    folder = tempfile.TemporaryDirectory(prefix="falaj-files-")
    atexit.register(folder.cleanup)
    return folder.name
