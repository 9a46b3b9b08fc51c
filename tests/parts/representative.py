"""One representative of each fact, all fields set. Run as a script to add what is new to the golden files.

What stands in a golden file is never changed: fields are only added, at the end, with a default.
"""

from __future__ import annotations

import inspect
import json
import pkgutil
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from msgspec import inspect as types

import falaj.facts
from falaj.facts.wire import Fact, decode, encode

__all__ = ["GOLDEN", "facts", "representative"]

GOLDEN = Path(__file__).parents[1] / "house" / "golden"
AT = "2026-03-01T12:00:00Z"

# Where a type alone does not say what makes sense.
WORDS: dict[str, Any] = {
    "DatasetTable.sample_pct": None,  # a quarantine looks at all rows
    "EnvironmentTable.requires": ["quality", "security"],
    "QualityTable.at_most": None,  # a metric has one limit
    "ModelTable.pipeline": "pipeline:delay",
    "RolloutPlan.steps_pct": [5, 25, 100],
    "RolloutTable.steps_pct": [5, 25, 100],
    "RolloutTable.pause_pct": [25],
    "RolloutTable.key": "header:x-customer",
    "OwnMetricTable.url": "http://prometheus.example.org:9090",
    "OwnMetricTable.tolerate": 1.05,
    "OwnMetricTable.margin": 1.25,
    "OwnMetricTable.slo": 0.5,
    "OwnMetricTable.source": "prometheus",
    "RolloutTable.tolerate": 1.05,
    "RolloutTable.margin": 1.25,
    "RolloutTable.margins": {"latency": 1.5},
    "ProjectTable.region": "ae-az",
    "EnvironmentTable.after": None,
    "EnvironmentTable.timezone": "UTC",
    "WindowTable.days": ["sun", "mon"],
    "WindowTable.opens": "09:00",
    "WindowTable.closes": "16:00",
    "FreezeTable.starts": "2026-12-20",
    "FreezeTable.ends": "2027-01-03T08:00",
    "FreezeTable.environments": [],
    "TemplateTable.expires": "2027-06-30",
    "TemplateTable.environment": "a-name",
    "ChangesTable.templates": {},
    "MlflowTable.url": "https://mlflow.example.org",
    "RayTable.address": "ray.example.org:6379",
    "IgnoreTable.until": "2026-12-31",
    "RemoteTable.endpoint": "https://s3.example.org",
    "RemoteTable.address": "oci://registry.example.org/team",
    "Resource.authors": ["01PERSON"],
}
BY_NAME: dict[str, Any] = {"region": "ae", "name": "a-name", "country": "AE"}


def facts() -> dict[str, type[Fact]]:
    """Every fact of every family by its name."""
    found: dict[str, type[Fact]] = {}
    for module in pkgutil.iter_modules(falaj.facts.__path__):
        home = import_module(f"falaj.facts.{module.name}")
        for name, kind in inspect.getmembers(home, inspect.isclass):
            if issubclass(kind, Fact) and kind is not Fact and kind.__module__ == home.__name__:
                assert name not in found, f"two facts are called {name}"
                found[name] = kind
    return found


def representative(kind: type[Fact]) -> dict[str, Any]:
    """As builtins, with every field."""
    return struct(types.type_info(kind))


def struct(info: Any) -> dict[str, Any]:
    made = {}
    for field in info.fields:
        at = f"{info.cls.__name__}.{field.encode_name}"
        made[field.encode_name] = WORDS[at] if at in WORDS else value(field.type, field.encode_name)
    return made


def value(info: Any, name: str) -> Any:
    match info:
        case types.Metadata():
            return spanned(info, name)
        case types.UnionType():
            return value(next(t for t in info.types if not isinstance(t, types.NoneType)), name)
        case types.StructType():
            return struct(info)
        case types.EnumType():
            return next(iter(info.cls)).value
        case types.LiteralType():
            return info.values[0]
        case types.StrType():
            return text(info, name)
        case types.IntType():
            return int(between(info, 3))
        case types.FloatType():
            return float(between(info, 0.5))
        case types.BoolType():
            return True
        case types.DateTimeType():
            return AT
        case types.VarTupleType() | types.ListType():
            return [value(info.item_type, name)]
        case types.TupleType():
            return [value(item, name) for item in info.item_types]
        case types.DictType():
            return {str(value(info.key_type, "key")): value(info.value_type, name)}
        case types.AnyType():
            return {"some": ["thing", 1]}
    raise TypeError(f"{name}: {info}")


def spanned(info: Any, name: str) -> Any:
    """A text that is a time, such as 5m, in the middle of its range."""
    span = (info.extra or {}).get("span")
    if span is None:
        return value(info.type, name)
    return f"{max(int(span[0]), 1)}s" if span[1] < 3600 else f"{max(int(span[0]), 3600)}s"


def text(info: Any, name: str) -> str:
    if info.pattern is None:
        return name
    for candidate in (BY_NAME.get(name, name), "ae", "AE", "a-name", "module:function"):
        if re.search(info.pattern, candidate):
            return str(candidate)
    raise ValueError(f"{name}: say in WORDS what fits {info.pattern}")


def between(info: Any, wish: float) -> float:
    low = info.ge if info.ge is not None else info.gt
    high = info.le if info.le is not None else info.lt
    found = wish
    if low is not None and found <= low:
        found = low + 1
    if high is not None and found >= high:
        found = high / 2 if low is None or high / 2 > low else (low + high) / 2
    return found


def grown(old: Any, new: Any) -> Any:
    """`old` with what only `new` has."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {k: grown(old[k], v) if k in old else v for k, v in new.items()}
    return old


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for name, kind in facts().items():
        path = GOLDEN / f"{name}.json"
        made = json.loads(encode(decode(kind, json.dumps(representative(kind)).encode())))
        if path.exists():
            made = grown(json.loads(path.read_text()), made)
        path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
