"""The file MLmodel: which flavors a model has, and what goes in. Read as data, never as code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from falaj.base import paths
from falaj.base.errors import FalajError
from falaj.base.strangers import plain

__all__ = ["MANIFEST", "MOST_MANIFEST", "Said", "read_manifest"]

MANIFEST: Final = "MLmodel"
MOST_MANIFEST: Final = 1 << 20
MOST_COLUMNS: Final = 10_000
NUMBERS: Final = ("boolean", "integer", "long", "float", "double")
PICKLED: Final = ("pickle", "cloudpickle", "")
AS_ONNX: Final = "log it with mlflow.onnx.log_model, or convert it there"


@dataclass(frozen=True, kw_only=True)
class Said:
    """file: the model's own. flavor: `onnx` or `sklearn-skops`. columns: name -> may be missing."""

    flavor: str
    file: str
    columns: Mapping[str, bool] = field(default_factory=dict)
    mlflow_version: str = ""


def read_manifest(data: bytes, name: str) -> Said:
    """What is to be imported. Raises FalajError for what runs code when it is loaded."""
    tree = parsed(data, name)
    flavors = tree.get("flavors")
    if not isinstance(flavors, dict) or not flavors:
        raise bad(name, "it names no flavor")
    flavor, file = chosen(flavors, name)
    if not isinstance(file, str) or paths.trouble(file):
        raise bad(name, f"it names a file {plain(file)!r}")
    return Said(
        flavor=flavor,
        file=file,
        columns=columns(tree.get("signature"), name),
        mlflow_version=plain(tree.get("mlflow_version", ""))[:40],
    )


def parsed(data: bytes, name: str) -> dict[str, Any]:
    """Aliases are refused: a few of them unfold to more than the memory holds."""
    import yaml

    try:
        for event in yaml.parse(data, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise bad(name, "it uses YAML aliases")
        tree = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise bad(name, f"it is not YAML ({type(error).__name__})") from None
    except RecursionError:
        raise bad(name, "it is nested too deeply") from None
    if not isinstance(tree, dict):
        raise bad(name, "it is no table")
    return tree


def chosen(flavors: Mapping[str, Any], name: str) -> tuple[str, object]:
    """ONNX as it is, else scikit-learn in skops; anything else is refused with the cure."""
    onnx, sklearn = flavors.get("onnx"), flavors.get("sklearn")
    if isinstance(onnx, dict):
        return "onnx", onnx.get("data")
    if isinstance(sklearn, dict):
        form = str(sklearn.get("serialization_format") or "")
        if form == "skops":
            return "sklearn-skops", sklearn.get("pickled_model")
        if form in PICKLED:
            raise FalajError(
                "imports.pickle",
                f"{name} is a pickle of scikit-learn",
                why="a pickle runs whatever its writer wants as soon as it is read; nothing here "
                "reads one",
                fix="log it again: mlflow.sklearn.log_model(..., serialization_format='skops'), "
                "or mlflow.onnx.log_model",
            )
    others = sorted(plain(one) for one in flavors if one != "python_function")
    raise FalajError(
        "imports.flavor",
        f"{name} has the flavors {', '.join(others) or 'python_function'}",
        why="imported are onnx, and sklearn with serialization_format skops; python_function is "
        "code of others",
        fix=AS_ONNX,
    )


def columns(signature: object, name: str) -> dict[str, bool]:
    """Names of the inputs in their order; nothing for a tensor without names."""
    text = signature.get("inputs") if isinstance(signature, dict) else None
    if text is None:
        return {}
    try:
        listed = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        raise bad(name, "its signature is not JSON") from None
    if not isinstance(listed, list) or len(listed) > MOST_COLUMNS:
        raise bad(name, "its signature is no list of columns")
    found: dict[str, bool] = {}
    for entry in listed:
        if not isinstance(entry, dict):
            raise bad(name, "its signature is no list of columns")
        if entry.get("type") == "tensor" and "name" not in entry and len(listed) == 1:
            return {}
        column, kind = entry.get("name"), entry.get("type")
        if not isinstance(column, str) or not column or column in found:
            raise bad(name, "its signature has a column without a name, or twice")
        if kind not in NUMBERS:
            raise FalajError(
                "imports.not-numbers",
                f"{name}: column {plain(column)!r} is of type {plain(kind)}",
                why="models are served on one matrix of numbers",
                fix="encode texts and times inside the pipeline, before the model that is logged",
            )
        found[column] = entry.get("required") is False
    return found


def bad(name: str, why: str) -> FalajError:
    return FalajError(
        "imports.bad-manifest",
        f"the file {MANIFEST} of {name} cannot be used: {why}",
        why="it is written by the other server's users and is read with care",
        fix=AS_ONNX,
    )
