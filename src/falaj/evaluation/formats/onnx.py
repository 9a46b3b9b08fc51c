"""ONNX: a strict reader of protobuf fields; what the table does not name is refused.

Tensors outside the file are refused wherever a tensor may stand: initializers, attributes, subgraphs,
functions, sparse tensors. Operators come from the standard domains.
Field numbers: onnx.proto of onnx 1.23 (IR version 14).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import numpy as np

from falaj.evaluation.formats.verdict import Format, Refused

__all__ = ["DOMAINS", "FIELDS", "LATEST_IR", "judge"]

# Kinds: v varint, f fixed 32, d fixed 64, s text, b bytes, V F D the same repeated (packed or
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
        13: "!a tensor outside the file (external data)",
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
REPEATED: Final = frozenset("VFDsb")
ROW: Final = 16  # fields of one kind behind each other, from which on they are passed over at once
MOST_DEPTH: Final = 64
LATEST_IR: Final = 14


def judge(data: bytes) -> Format:
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
        self.numbers = np.frombuffer(data, np.uint8)
        self.counts: dict[str, int] = {}
        self.known: dict[
            tuple[str, int], dict[bytes, None]
        ] = {}  # whole fields that were held good
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
        row = before = 0
        while at < end:
            begun = at
            tag, at = self.varint(at, end)
            number, wire = tag >> 3, tag & 7
            kind = fields.get(number)
            if kind is None:
                raise Refused(f"unknown field {number} in {name}")
            if kind.startswith("!"):
                raise Refused(f"it has {kind[1:]}")
            at = self.field(name, number, kind, wire, at, end, depth)
            row = row + 1 if tag == before else 0
            before = tag
            if (
                row >= ROW
                and tag < 0x80
                and kind in REPEATED
                and (name, number) not in DOMAIN_FIELDS
            ):
                at = self.row(name, number, wire, begun, at, end)

    def row(self, name: str, number: int, wire: int, begun: int, at: int, end: int) -> int:
        """Pass over more fields of the same kind at once: models of trees hold millions of them."""
        tag = self.data[begun]
        if wire == 0:
            return self.varints(tag, at, end)
        if wire in {1, 5}:
            step = 9 if wire == 1 else 5
            while count := min((end - at) // step, 1 << 16):
                same = self.numbers[at : at + count * step : step] == tag
                good = count if same.all() else int(same.argmin())
                at += good * step
                if good < count:
                    break
            return at
        known = self.known.setdefault((name, number), {})
        field = self.data[begun:at]
        if len(field) > 64 or (field not in known and len(known) >= 32):
            return at
        known[field] = None
        found = re.compile(b"(?:" + b"|".join(map(re.escape, known)) + b")++").match(
            self.data, at, end
        )
        return found.end() if found else at

    def varints(self, tag: int, at: int, end: int) -> int:
        """Bytes below 0x80 are by turns a tag and the last byte of its number."""
        while at < end:
            part = self.numbers[at : min(end, at + (1 << 20))]
            low = np.flatnonzero(part < 0x80)
            count = len(low) // 2
            tags, lasts = low[: 2 * count : 2], low[1 : 2 * count : 2]
            if not count:
                break
            begins = np.concatenate(([0], lasts[:-1] + 1))
            good = (part[tags] == tag) & (tags == begins) & (lasts - tags <= 10)
            whole = count if good.all() else int(good.argmin())
            if not whole:
                break
            at += int(lasts[whole - 1]) + 1
            if whole < count:
                break
        return at

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
