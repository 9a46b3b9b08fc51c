"""Boosters: XGBoost's UBJSON and LightGBM's text. Numbers and names, read to the last byte.

Formats: https://ubjson.org (draft 12, as XGBoost writes it); LightGBM 4, src/boosting/gbdt_model_text.cpp
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any, Final

from falaj.evaluation.formats.verdict import Format, Refused

__all__ = ["begins_ubj", "judge_lightgbm", "judge_ubj"]

MOST_DEPTH: Final = 32
WIDTH: Final = {b"i": 1, b"U": 1, b"I": 2, b"l": 4, b"L": 8, b"d": 4, b"D": 8}
COUNTS: Final = {
    ord("i"): struct.Struct(">b"),
    ord("U"): struct.Struct(">B"),
    ord("I"): struct.Struct(">h"),
    ord("l"): struct.Struct(">i"),
    ord("L"): struct.Struct(">q"),
}
LEARNER: Final = frozenset(
    {
        "attributes",
        "cats",
        "feature_names",
        "feature_types",
        "gradient_booster",
        "learner_model_param",
        "learner_train_param",
        "objective",
    }
)


def begins_ubj(data: bytes) -> bool:
    """An object whose first key has a length: no JSON goes on like that."""
    return data[:1] == b"{" and data[1:2] in (b"i", b"U", b"I", b"l", b"L")


def judge_ubj(data: bytes) -> Format:
    reader = Ubj(data)
    value, at = reader.value(0, 0)
    if at != len(data):
        raise Refused("XGBoost with bytes behind its model")
    match value:
        case {"learner": {"gradient_booster": dict()} as learner, "version": [a, b, c]}:
            strange = sorted(learner.keys() - LEARNER)
            if strange:
                raise Refused(f"XGBoost with the unknown part {strange[0]!r}")
            return Format("xgboost-ubj", {"bytes": len(data), "version": f"{a}.{b}.{c}"})
    raise Refused("UBJSON that is no model of XGBoost")


class Ubj:
    """A strict reader of UBJSON; arrays of one type are passed over, not kept."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.tape: list[tuple[bytes, int, int]] | None = None

    def count(self, at: int) -> tuple[int, int]:
        form = COUNTS.get(self.data[at])
        if form is None:
            raise Refused("UBJSON with a length that is no whole number")
        (value,) = form.unpack_from(self.data, at + 1)
        at += 1 + form.size
        if not 0 <= value <= self.size:
            raise Refused("UBJSON with a length beyond the file")
        return value, at

    def text(self, at: int) -> tuple[str, int]:
        length, at = self.count(at)
        if at + length > self.size:
            raise Refused("UBJSON that is cut off")
        return self.data[at : at + length].decode(), at + length

    def value(self, at: int, depth: int) -> tuple[Any, int]:
        if at >= self.size:
            raise Refused("UBJSON that is cut off")
        mark = self.data[at]
        if mark == 0x7B:  # {
            return self.table(at + 1, depth)
        if mark == 0x5B:  # [
            return self.row(at + 1, depth)
        if mark == 0x53:  # S
            return self.text(at + 1)
        form = COUNTS.get(mark)
        if form is not None:
            (number,) = form.unpack_from(self.data, at + 1)
            return number, at + 1 + form.size
        if mark in b"ZTF":
            return None, at + 1
        if mark in b"dD":
            at += 5 if mark == 0x64 else 9
            if at > self.size:
                raise Refused("UBJSON that is cut off")
            return 0.0, at
        if mark == 0x43:  # C
            return "", at + 2
        raise Refused(f"UBJSON with the unknown mark {bytes([mark])!r}")

    def table(self, at: int, depth: int) -> tuple[dict[str, Any], int]:
        if depth > MOST_DEPTH:
            raise Refused(f"UBJSON nested deeper than {MOST_DEPTH}")
        found: dict[str, Any] = {}
        while True:
            if at >= self.size:
                raise Refused("UBJSON that is cut off")
            if self.data[at] == 0x7D:
                return found, at + 1
            begun = at
            key, at = self.text(at)
            if key in found:
                raise Refused("UBJSON in which a key stands twice")
            place, tape = at, self.tape
            if tape is not None and self.data[at : at + 1] == b"{":
                tape.append((self.data[begun : at + 1], 0, 0))
            found[key], at = self.value(at, depth + 1)
            if self.tape is not None:
                self.note(begun, place, at)

    def note(self, begun: int, place: int, end: int) -> None:
        """Write down how a key and its value begin, and how long the rest is."""
        data, tape = self.data, self.tape
        assert tape is not None  # noqa: S101 asked by the caller
        mark = data[place]
        if mark == 0x7B:
            tape.append((b"}", 0, 0))
        elif mark == 0x5B:  # [$type#L
            tape.append((data[begun : place + 5], 0, WIDTH[data[place + 2 : place + 3]]))
        elif mark == 0x53:  # SL
            tape.append((data[begun : place + 2], 0, 1))
        else:
            tape.append((data[begun : place + 1], end - place - 1, 0))
        if (mark == 0x5B and data[place + 4] != 0x4C) or (mark == 0x53 and data[place + 1] != 0x4C):
            self.tape = None  # another width of lengths: read each by itself

    def alike(self, tape: list[tuple[bytes, int, int]], at: int) -> int:
        """The end of a table that has the keys and kinds of the one before it; else nothing."""
        data = self.data
        for head, fixed, width in tape:
            if not data.startswith(head, at):
                return 0
            at += len(head) + fixed
            if width:
                at += 8 + width * int.from_bytes(data[at : at + 8], "big")
        return at + 1 if data[at : at + 1] == b"}" else 0

    def row(self, at: int, depth: int) -> tuple[list[Any], int]:
        if depth > MOST_DEPTH:
            raise Refused(f"UBJSON nested deeper than {MOST_DEPTH}")
        data = self.data
        if data[at] == 0x24:  # $: all of one type, bytes behind each other
            kind = data[at + 1 : at + 2]
            width = WIDTH.get(kind)
            if width is None or data[at + 2] != 0x23:
                raise Refused("UBJSON with an array of unknown numbers")
            count, at = self.count(at + 3)
            at += count * width
            if at > self.size:
                raise Refused("UBJSON that is cut off")
            return [], at
        found: list[Any] = []
        known: list[tuple[bytes, int, int]] = []
        count = -1
        if data[at] == 0x23:  # #
            count, at = self.count(at + 1)
        while len(found) != count if count >= 0 else data[at] != 0x5D:
            if data[at : at + 1] != b"{":
                self.tape = None
                one, at = self.value(at, depth + 1)
                found.append(one)
                continue
            end = self.alike(known, at + 1) if known else 0
            if not end:
                self.tape = []
                _, end = self.value(at, depth + 1)
                known = self.tape or []
            found.append({})
            at = end
        self.tape = None
        return found, at if count >= 0 else at + 1


NUMBERS: Final = b"0123456789 .+-einfaNI"
WORDS: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
HEAD: Final = {
    "version": "word",
    "num_class": "numbers",
    "num_tree_per_iteration": "numbers",
    "label_index": "numbers",
    "max_feature_idx": "numbers",
    "objective": "word",
    "average_output": "flag",
    "feature_names": "word",
    "monotone_constraints": "numbers",
    "feature_infos": "word",
    "tree_sizes": "numbers",
}
TREE: Final = frozenset(
    {
        "Tree",
        "num_leaves",
        "num_cat",
        "split_feature",
        "split_gain",
        "threshold",
        "decision_type",
        "left_child",
        "right_child",
        "leaf_value",
        "leaf_weight",
        "leaf_count",
        "internal_value",
        "internal_weight",
        "internal_count",
        "cat_boundaries",
        "cat_threshold",
        "is_linear",
        "leaf_const",
        "num_features",
        "leaf_features",
        "leaf_coeff",
        "shrinkage",
    }
)


def judge_lightgbm(data: bytes) -> Format:
    """Head, trees of the sizes that the head says, and what is known of the training behind them."""
    at = data.find(b"\nTree=0\n") + 1
    if not at:  # a model without trees
        at = data.find(b"\nend of trees\n") + 1
    head = data[:at]
    lines = head.decode().rstrip("\n").split("\n")
    said: dict[str, str] = {}
    for line in lines[1:]:
        key, _, value = line.partition("=")
        kind = HEAD.get(key)
        if kind is None or key in said:
            raise Refused(f"LightGBM with the unknown line {line[:40]!r}")
        if kind == "numbers" and value.encode().translate(None, NUMBERS):
            raise Refused(f"LightGBM whose {key} are no numbers")
        if not WORDS.fullmatch(value):
            raise Refused(f"LightGBM whose {key} holds control characters")
        said[key] = value
    if lines[0] != "tree" or not {"version", "tree_sizes", "feature_names"} <= said.keys():
        raise Refused("text that is no model of LightGBM")
    sizes = [int(size) for size in said["tree_sizes"].split()]
    for number, size in enumerate(sizes):
        if size <= 0 or at + size > len(data):
            raise Refused("LightGBM that is cut off")
        tree(data[at : at + size], number)
        at += size
    rest = data[at:]
    if not rest.startswith(b"end of trees\n"):
        raise Refused("LightGBM whose trees are not of the sizes that it says")
    behind(rest.decode())
    return Format("lightgbm", {"bytes": len(data), "version": said["version"], "trees": len(sizes)})


def tree(part: bytes, number: int) -> None:
    seen = set()
    lines = part.rstrip(b"\n").split(b"\n")
    if lines[0] != b"Tree=%d" % number:
        raise Refused("LightGBM whose trees are not of the sizes that it says")
    for line in lines:
        key, is_there, value = line.partition(b"=")
        name = key.decode("ascii", "replace")
        if name not in TREE or not is_there or name in seen:
            raise Refused(f"LightGBM with the unknown line {line[:40]!r} in a tree")
        if value.translate(None, NUMBERS):
            raise Refused(f"LightGBM whose {name} are no numbers")
        seen.add(name)


BEHIND: Final[dict[str, Callable[[str], bool]]] = {
    "feature_importances": lambda line: "=" in line,
    "parameters": lambda line: line.startswith("[") and line.endswith("]") and ":" in line,
}


def behind(text: str) -> None:
    """Importances, parameters, categories: kept by LightGBM as notes."""
    section = ""
    for line in text.split("\n")[1:]:
        if not WORDS.fullmatch(line):
            raise Refused("LightGBM with control characters behind its trees")
        if line in ("feature_importances:", "parameters:"):
            section = line[:-1]
        elif line == "end of parameters" or line.startswith("pandas_categorical:"):
            section = ""
        elif line and not (section and BEHIND[section](line)):
            raise Refused(f"LightGBM with the unknown line {line[:40]!r}")
