"""JSON: strict, no key twice, and none of the keys by which loaders run code. Also XGBoost's JSON.

Formats: RFC 8259; https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from falaj.evaluation.formats.verdict import Format, Refused

__all__ = ["CODE_KEYS", "code_of", "judge", "read"]

MOST_JSON: Final = 256 << 20
# Keys by which loaders run code that a configuration brings along.
CODE_KEYS: Final = frozenset(
    {
        "auto_map",
        "chat_template",
        "chat_templates",
        "code_revision",
        "custom_objects",
        "custom_pipeline",
        "custom_pipelines",
        "function_type",
        "loader_module",
        "model_code",
        "python_model",
        "trust_remote_code",
        "__reduce__",
        "__class__",
        "__loader__",
        "__module__",
        "__code__",
        "class_name",
        "registered_name",
        "_target_",
        "_partial_",
    }
)
LARGE: Final = 1 << 20
# Long lists of numbers in large documents are passed over: they hold no key. Whether each of them is
# a number is the loader's to find out.
NUMBERS: Final = re.compile(rb"\[[0-9+\-.eE, \t\r\n]{64,}+\]")
TOKEN: Final = re.compile(rb'(?s)"(?:[^"\\]++|\\.)*+"[ \t\r\n]*+(:?)')


def judge(data: bytes) -> Format:
    """One JSON document without code-bearing keys; a booster when it says so."""
    value = read(data)
    code = code_of(value)
    if code:
        raise Refused(f"JSON with the key {code!r}, by which loaders run code")
    match value:
        case {"learner": {"gradient_booster": dict()}, "version": [int(), int(), int()]}:
            return Format("xgboost-json", {"bytes": len(data), "version": dotted(value["version"])})
    return Format("json", {"bytes": len(data)})


def dotted(version: list[int]) -> str:
    return ".".join(map(str, version))


def read(data: bytes, what: str = "JSON") -> Any:
    """The value. A key that stands twice is refused: two readers would see two documents."""
    if len(data) > MOST_JSON:
        raise Refused(f"{what} of more than {MOST_JSON >> 20} MiB")
    if len(data) > LARGE:
        data = NUMBERS.sub(b"[]", data)
    try:
        value = msgspec.json.decode(data)
    except RecursionError:
        raise Refused(f"it begins like {what}, but is nested too deep") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"it begins like {what}, but is not: {error}") from None
    keys = sum(len(table) for table in tables(value))
    if TOKEN.findall(data).count(b":") != keys:
        raise Refused(f"{what} in which a key stands twice")
    return value


def tables(value: Any) -> list[dict[str, Any]]:
    """All objects inside a value. Lists of plain values are passed over at the speed of C."""
    found: list[dict[str, Any]] = []
    pending = [value]
    while pending:
        match pending.pop():
            case dict() as table:
                found.append(table)
                pending += [x for x in table.values() if type(x) in (dict, list)]
            case list() as items if {dict, list} & set(map(type, items)):
                pending += [x for x in items if type(x) in (dict, list)]
    return found


def code_of(value: Any) -> str:
    """The first key by which a loader would run code; empty when there is none."""
    for table in tables(value):
        found = sorted(CODE_KEYS & table.keys()) or sorted(k for k in table if k.startswith("py/"))
        if found:
            return found[0]
    return ""
