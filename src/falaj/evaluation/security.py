"""The gate of model formats: an allow-list by content, everything else is quarantined.

The extension is never asked. Nothing here runs or unpickles what it reads.
Field numbers: onnx.proto of onnx 1.23 (IR version 14). Formats: safetensors, NEP 1 (npy), RFC 8259.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from falaj.base import canonical, paths
from falaj.facts.checks import CheckResult, Verdict

__all__ = [
    "ALLOWED",
    "Format",
    "Quarantine",
    "check_model_file",
    "check_model_files",
    "decide",
    "decide_bytes",
]


class Format(NamedTuple):
    """A file whose structure is known through and through. details: facts for people."""

    name: str
    details: Mapping[str, Any]


class Quarantine(NamedTuple):
    """A file that may not come near a model server."""

    reason: str


ALLOWED: Final = ("onnx", "safetensors", "npy", "npz", "json")
MOST_BYTES: Final = 2**31 - 1  # protobuf's own limit
MOST_JSON: Final = 64 << 20
MOST_HEADER: Final = 100 << 20  # safetensors
MOST_UNPACKED: Final = 4 << 30
MOST_RATIO: Final = 200  # unpacked to packed, for members above 16 MiB
# Keys by which loaders run code that a configuration brings along.
CODE_KEYS: Final = frozenset(
    {
        "auto_map",
        "chat_template",
        "custom_pipelines",
        "trust_remote_code",
        "py/object",
        "py/reduce",
        "py/function",
        "py/type",
        "__reduce__",
        "__class__",
        "__module__",
        "class_name",
        "registered_name",
        "_target_",
    }
)
FAMILIAR: Final = (
    (b"\x89HDF\r\n\x1a\n", "HDF5 (Keras and others), whose layers may hold code"),
    (b"\x1f\x8b", "compressed data (gzip)"),
    (b"BZh", "compressed data (bzip2)"),
    (b"\xfd7zXZ\0", "compressed data (xz)"),
    (b"\x28\xb5\x2f\xfd", "compressed data (zstandard)"),
    (b"\x04\x22\x4d\x18", "compressed data (lz4)"),
    (b"ZF\x05", "compressed data (joblib)"),
    (b"7z\xbc\xaf\x27\x1c", "an archive (7z)"),
    (b"Rar!", "an archive (rar)"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"#!", "a script"),
    (b"GGUF", "GGUF, which may hold a chat template that is run"),
)


def decide(path: Path) -> Format | Quarantine:
    """Say what a file is, by magic bytes and structure. Never raises for what the file holds."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        size = os.fstat(handle).st_size
        if size > MOST_BYTES:
            return Quarantine(f"{size} bytes, more than {MOST_BYTES}")
        return decide_bytes(file.read(MOST_BYTES + 1))


def decide_bytes(data: bytes) -> Format | Quarantine:
    """The same for bytes that were read already, so that what is judged is what is loaded."""
    try:
        return _decide(data)
    except Refused as refused:
        return Quarantine(str(refused))


def check_model_file(
    path: Path, name: str = "", *, allow: Collection[str] = ALLOWED
) -> CheckResult:
    """One result for one file of a model. A failed check is a verdict, not an exception."""
    name = name or path.name
    requirement = f"a format on the allow-list: {', '.join(sorted(allow))}"
    try:
        found = decide(path)
    except OSError as error:
        return CheckResult(
            check=f"security.format.{name}",
            gate="security",
            verdict=Verdict.ERROR,
            reason=f"{name} cannot be read: {error.strerror}",
            requirement=requirement,
        )
    if isinstance(found, Format) and found.name in allow:
        return CheckResult(
            check=f"security.format.{name}",
            gate="security",
            verdict=Verdict.PASS,
            reason=f"{name} is {found.name}, read through to its last byte",
            requirement=requirement,
            details={"format": found.name, **found.details},
        )
    why = found.reason if isinstance(found, Quarantine) else f"{found.name} is not allowed here"
    return CheckResult(
        check=f"security.format.{name}",
        gate="security",
        verdict=Verdict.FAIL,
        reason=f"{name} is quarantined: {why}",
        requirement=requirement,
    )


def check_model_files(
    files: Mapping[str, Path], *, allow: Collection[str] = ALLOWED
) -> tuple[CheckResult, ...]:
    """One result a file, in the order of the names. No file at all is inconclusive."""
    if not files:
        return (
            CheckResult(
                check="security.format",
                gate="security",
                verdict=Verdict.INCONCLUSIVE,
                reason="the model has no file",
                requirement="at least one model file",
            ),
        )
    return tuple(check_model_file(files[name], name, allow=allow) for name in sorted(files))


class Refused(Exception):
    """Why a file is quarantined; caught in this module."""


def _decide(data: bytes) -> Format:
    if not data:
        raise Refused("it is empty")
    if len(data) > MOST_BYTES:
        raise Refused(f"more than {MOST_BYTES} bytes")
    for magic, words in FAMILIAR:
        if data.startswith(magic):
            raise Refused(f"it is {words}")
    if data[0] == 0x80 and len(data) > 1 and data[1] <= 5:
        raise Refused("it is a pickle, which runs code when it is loaded")
    if data.startswith((b"PK\3\4", b"PK\5\6", b"PK\7\x08")):
        return _npz(data)
    if data.startswith(b"\x93NUMPY"):
        return _npy(data)
    if data.lstrip(b" \t\r\n")[:1] in {b"{", b"["}:
        return _json(data)
    if data[8:9] == b"{" and 2 <= int.from_bytes(data[:8], "little") <= len(data) - 8:
        return _safetensors(data)
    return _onnx(data)


def _json(data: bytes) -> Format:
    if len(data) > MOST_JSON:
        raise Refused(f"JSON of more than {MOST_JSON >> 20} MiB")
    try:
        value = canonical.loads(data)
    except (canonical.NotCanonical, UnicodeDecodeError) as error:
        raise Refused(f"it begins like JSON, but {error}") from None
    pending = [value]
    while pending:
        match pending.pop():
            case dict() as found:
                code = sorted(CODE_KEYS & found.keys())
                if code:
                    raise Refused(f"JSON with the key {code[0]!r}, by which loaders run code")
                pending.extend(found.values())
            case list() as found:
                pending.extend(found)
    return Format("json", {"bytes": len(data)})


ITEM_BITS: Final = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
}


def _safetensors(data: bytes) -> Format:
    length = int.from_bytes(data[:8], "little")
    if length > MOST_HEADER:
        raise Refused("safetensors with a header of more than 100 MB")
    try:
        header = canonical.loads(data[8 : 8 + length])
    except (canonical.NotCanonical, UnicodeDecodeError) as error:
        raise Refused(f"safetensors whose header is {error}") from None
    if not isinstance(header, dict):
        raise Refused("safetensors whose header is no table")
    notes = header.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise Refused("safetensors whose metadata is not text")
    if CODE_KEYS & notes.keys():
        raise Refused("safetensors whose metadata brings code along")
    spans = sorted(_span(name, entry) for name, entry in header.items())
    at = 0
    for begin, end, name in spans:
        if begin != at:
            raise Refused(f"safetensors with a hole or an overlap before {name!r}")
        at = end
    if 8 + length + at != len(data):
        raise Refused("safetensors that is cut off or has bytes behind its last tensor")
    return Format("safetensors", {"bytes": len(data), "tensors": len(spans)})


def _span(name: str, entry: object) -> tuple[int, int, str]:
    match entry:
        case {
            "dtype": str(dtype),
            "shape": list(shape),
            "data_offsets": [int(begin), int(end)],
        } if (
            len(entry) == 3  # type: ignore[arg-type]
            and dtype in ITEM_BITS
            and all(type(side) is int and side >= 0 for side in shape)
            and end - begin == math.prod(shape) * ITEM_BITS[dtype] // 8
        ):
            return begin, end, name
        case _:
            raise Refused(f"safetensors whose tensor {name!r} does not fit its place")


def _npy(data: bytes) -> Format:
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise Refused(f"npy of version {version}")
        shape, _, dtype = read(file)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, OverflowError):
        raise Refused("npy whose header is damaged") from None
    if dtype.hasobject:
        raise Refused("npy that holds Python objects, which are pickles")
    if math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise Refused("npy that is cut off or has bytes behind its array")
    return Format("npy", {"bytes": len(data), "dtype": str(dtype)})


def _npz(data: bytes) -> Format:
    """Every member is npy, and the archive holds nothing else."""
    if data[-22:-18] != b"PK\5\6" or data[-2:] != b"\0\0":
        raise Refused("a zip file with bytes behind its end")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            names = [info.filename for info in infos]
            if len(set(names)) != len(names) or not names or infos[0].header_offset != 0:
                raise Refused("a zip file with doubled or hidden members")
            unpacked = 0
            for info in infos:
                unpacked += info.file_size
                _member(archive, info, unpacked)
    except Refused:
        raise
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        OSError,
        EOFError,
        ValueError,
        RuntimeError,
        zlib.error,
    ) as error:
        raise Refused(f"a zip file that is damaged: {error}") from None
    return Format("npz", {"bytes": len(data), "arrays": len(names)})


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, unpacked: int) -> None:
    name = info.filename
    if paths.trouble(name) or not name.endswith(".npy"):
        raise Refused(
            f"a zip file with the member {name!r} (torch, Keras, skops and pickles are so)"
        )
    if info.flag_bits & 1:
        raise Refused("an encrypted zip file")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise Refused("a zip file with an unusual compression")
    big = info.file_size > 16 << 20
    if unpacked > MOST_UNPACKED or (big and info.file_size > MOST_RATIO * info.compress_size):
        raise Refused("a zip file that grows too large when unpacked")
    with archive.open(info) as file:
        inner = file.read(info.file_size + 1)
    if len(inner) != info.file_size:
        raise Refused(f"a zip file whose member {name!r} is not as long as it says")
    if not inner.startswith(b"\x93NUMPY"):
        raise Refused(f"a zip file whose member {name!r} is no npy")
    _npy(inner)


# ONNX. Kinds: v varint, f fixed 32, d fixed 64, s text, b bytes, V F D the same repeated (packed or
# not), !reason a field that may not be there, else the message's name.
FIELDS: Final[Mapping[str, Mapping[int, str]]] = {
    "Model": {
        1: "v",
        2: "s",
        3: "s",
        4: "s",
        5: "v",
        6: "s",
        7: "Graph",
        8: "OperatorSetId",
        14: "Entry",
        20: "!training information",
        25: "Function",
        26: "!device configurations",
    },
    "OperatorSetId": {1: "s", 2: "v"},
    "Graph": {
        1: "Node",
        2: "s",
        5: "Tensor",
        10: "s",
        11: "ValueInfo",
        12: "ValueInfo",
        13: "ValueInfo",
        14: "Annotation",
        15: "SparseTensor",
        16: "Entry",
    },
    "Node": {
        1: "s",
        2: "s",
        3: "s",
        4: "s",
        5: "Attribute",
        6: "s",
        7: "s",
        8: "s",
        9: "Entry",
        10: "!device configurations",
    },
    "Attribute": {
        1: "s",
        2: "f",
        3: "v",
        4: "b",
        5: "Tensor",
        6: "Graph",
        7: "F",
        8: "V",
        9: "b",
        10: "Tensor",
        11: "Graph",
        13: "s",
        14: "Type",
        15: "Type",
        20: "v",
        21: "s",
        22: "SparseTensor",
        23: "SparseTensor",
    },
    "Tensor": {
        1: "V",
        2: "v",
        3: "!a tensor in segments",
        4: "F",
        5: "V",
        6: "b",
        7: "V",
        8: "s",
        9: "b",
        10: "D",
        11: "V",
        12: "s",
        13: "!external data",
        14: "v",
        16: "Entry",
    },
    "Entry": {1: "s", 2: "s"},
    "SparseTensor": {1: "Tensor", 2: "Tensor", 3: "V"},
    "ValueInfo": {1: "s", 2: "Type", 3: "s", 4: "Entry"},
    "Type": {
        1: "TensorType",
        4: "SequenceType",
        5: "MapType",
        6: "s",
        7: "!an opaque type",
        8: "TensorType",
        9: "SequenceType",
    },
    "TensorType": {1: "v", 2: "Shape"},
    "Shape": {1: "Dimension"},
    "Dimension": {1: "v", 2: "s", 3: "s"},
    "SequenceType": {1: "Type"},
    "MapType": {1: "v", 2: "Type"},
    "Annotation": {1: "s", 2: "Entry"},
    "Function": {
        1: "s",
        4: "s",
        5: "s",
        6: "s",
        7: "Node",
        8: "s",
        9: "OperatorSetId",
        10: "s",
        11: "Attribute",
        13: "s",
        12: "ValueInfo",
        14: "Entry",
    },
}
WIRE: Final = {"v": 0, "f": 5, "d": 1, "s": 2, "b": 2}
DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml"})
# Fields that hold the name of an operator domain.
DOMAIN_FIELDS: Final = {("OperatorSetId", 1), ("Node", 7), ("Function", 10)}
MOST_DEPTH: Final = 64
LATEST_IR: Final = 14


def _onnx(data: bytes) -> Format:
    walk = Walk(data)
    try:
        walk.message("Model", 0, len(data), 0)
    except Refused as refused:
        if not walk.counts.get("Graph"):
            raise Refused(f"no format on the allow-list (read as ONNX: {refused})") from None
        raise Refused(f"ONNX: {refused}") from None
    if not walk.counts.get("Graph") or walk.ir is None:
        raise Refused("no format on the allow-list (read as ONNX: no graph or no version)")
    if not walk.counts.get("OperatorSetId"):
        raise Refused("ONNX: it imports no operator set")
    if not 3 <= walk.ir <= LATEST_IR:
        raise Refused(f"ONNX: IR version {walk.ir}, expected 3 to {LATEST_IR}")
    return Format(
        "onnx",
        {
            "bytes": len(data),
            "ir_version": walk.ir,
            "domains": sorted(walk.domains),
            "nodes": walk.counts.get("Node", 0),
        },
    )


class Walk:
    """A strict reader of protobuf fields: what the table does not name is refused."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.counts: dict[str, int] = {}
        self.domains: set[str] = set()
        self.ir: int | None = None

    def varint(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            if at >= end or shift > 63:
                raise Refused("a number is cut off or too long")
            byte = self.data[at]
            value |= (byte & 0x7F) << shift
            at += 1
            if byte < 0x80:
                return value, at
            shift += 7

    def message(self, name: str, at: int, end: int, depth: int) -> None:
        if depth > MOST_DEPTH:
            raise Refused(f"nested deeper than {MOST_DEPTH}")
        fields = FIELDS[name]
        while at < end:
            tag, at = self.varint(at, end)
            number, wire = tag >> 3, tag & 7
            kind = fields.get(number)
            if kind is None:
                raise Refused(f"unknown field {number} in {name}")
            if kind.startswith("!"):
                raise Refused(f"it has {kind[1:]}")
            at = self.field(name, number, kind, wire, at, end, depth)

    def field(
        self, name: str, number: int, kind: str, wire: int, at: int, end: int, depth: int
    ) -> int:
        single = kind.lower()
        # A repeated number may come packed; everything else has exactly one wire type.
        wanted = WIRE.get(single, 2)
        if wire != wanted and not (kind in {"V", "F", "D"} and wire == 2):
            raise Refused(f"field {number} in {name} has wire type {wire}")
        if wire == 0:
            value, at = self.varint(at, end)
            if (name, number) == ("Model", 1):
                self.ir = value
            if (name, number) == ("Tensor", 14) and value != 0:
                raise Refused("a tensor lies outside the file (external data)")
            return at
        if wire in {1, 5}:
            at += 8 if wire == 1 else 4
            if at > end:
                raise Refused("a number is cut off")
            return at
        length, at = self.varint(at, end)
        stop = at + length
        if stop > end:
            raise Refused(f"field {number} in {name} is cut off")
        if kind in FIELDS:
            self.counts[kind] = self.counts.get(kind, 0) + 1
            self.message(kind, at, stop, depth + 1)
        elif kind == "s":
            self.text(name, number, at, stop)
        elif kind in {"F", "D"} and length % (4 if kind == "F" else 8):
            raise Refused(f"packed numbers in {name} are cut off")
        return stop

    def text(self, name: str, number: int, at: int, stop: int) -> None:
        try:
            words = self.data[at:stop].decode()
        except UnicodeDecodeError:
            raise Refused(f"text in {name} is not UTF-8") from None
        if (name, number) in DOMAIN_FIELDS:
            if words not in DOMAINS:
                raise Refused(f"operators of the domain {words!r}, which are not standard")
            self.domains.add(words)
