"""What engines give, as the schema promises it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from falaj.base.errors import FalajError, Unverified
from falaj.facts.models import Schema, Tensor
from falaj.serving.schema import DTYPES

__all__ = ["broken", "engine_missing", "file_of", "matrix_of", "promised", "shaped"]


def file_of(folder: Path, *names: str) -> Path:
    """The one model file, under the first of these names that is there. Raises Unverified."""
    found = [folder / name for name in names if (folder / name).is_file()]
    if len(found) != 1:
        raise Unverified(
            "serving.model-file",
            f"model/: got {len(found)} of {', '.join(names)}, expected exactly one",
            fix="build the release again",
        )
    return found[0]


def broken(name: str, engine: str, error: Exception) -> Unverified:
    words = str(error).splitlines() or [type(error).__name__]
    return Unverified(
        "serving.model-broken",
        f"model/{name}: {engine} cannot load it",
        why=words[0][:300],
        fix="build the release again",
    )


def engine_missing(engine: str, extra: str) -> FalajError:
    return FalajError(
        "serving.engine-missing",
        f"the release is served by {engine}, which is not installed here",
        fix=f"pip install 'falaj[{extra}]'",
    )


def matrix_of(schema: Schema, width: int, engine: str) -> str:
    """The name of the one matrix that goes in. Raises Unverified when the schema has another form."""
    inputs = schema.inputs
    one = inputs[0] if len(inputs) == 1 else None
    if one is None or len(one.shape) != 2 or one.shape[1] not in (width, -1):
        said = ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in inputs)
        raise Unverified(
            "serving.model-schema",
            f"release.json: schema: the inputs are {said}; {engine} takes one matrix of {width} columns",
            fix="build the release again",
        )
    return one.name


def promised(found: Any, schema: Schema, n: int) -> list[Any]:
    """One array for each output, from a mapping by name, a sequence, or the one array.

    Raises ValueError when it is not what the schema says.
    """
    outputs = schema.outputs
    if isinstance(found, Mapping):
        missing = [tensor.name for tensor in outputs if tensor.name not in found]
        if missing:
            raise ValueError(f"it gave no output {missing[0]!r}")
        return [shaped(found[tensor.name], tensor, n) for tensor in outputs]
    if len(outputs) == 1:
        return [shaped(found, outputs[0], n)]
    if not isinstance(found, list | tuple) or len(found) != len(outputs):
        raise ValueError(f"it gave no {len(outputs)} outputs")
    return [shaped(part, tensor, n) for part, tensor in zip(found, outputs, strict=True)]


def shaped(found: Any, tensor: Tensor, n: int) -> NDArray[Any]:
    """An array of the promised type and shape. Of two probabilities one is enough. Raises ValueError."""
    array = np.asarray(found)
    if array.shape[:1] != (n,):
        raise ValueError(f"{tensor.name}: got shape {array.shape} for {n} rows")
    fixed = [size for size in tensor.shape[1:] if size > 0]
    if len(fixed) == len(tensor.shape[1:]):
        width = math.prod(fixed)
        if width == 1 and array.ndim == 2 and array.shape[1] == 2:
            array = array[:, 1]
        if array.size != n * width:
            raise ValueError(
                f"{tensor.name}: got shape {array.shape}, expected {list(tensor.shape)}"
            )
        array = array.reshape(n, *tensor.shape[1:])
    wanted = np.dtype(DTYPES[tensor.datatype])
    if array.dtype == wanted:
        return array
    try:
        return array.astype(wanted, casting="same_kind")
    except TypeError:
        words = f"{tensor.name}: got {array.dtype}, expected {tensor.datatype}"
        raise ValueError(words) from None
