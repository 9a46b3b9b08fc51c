"""Arrow columns as numpy, with what is missing and what is wrong told apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from falaj.base.errors import FalajError
from falaj.ports.rows import Block

__all__ = ["BLOCK", "block_of", "extra_missing", "unreadable"]

BLOCK: Final = 16_384
TRUE: Final = frozenset({"true", "True", "TRUE", "1"})
FALSE: Final = frozenset({"false", "False", "FALSE", "0"})


def extra_missing() -> FalajError:
    return FalajError(
        "score.extra-missing",
        "tables are read by PyArrow, which is not installed",
        fix="pip install 'falaj[batch]'",
    )


def unreadable(name: str, error: Exception | str) -> FalajError:
    words = str(error).splitlines() or [type(error).__name__]
    return FalajError(
        "score.unreadable",
        f"{name} cannot be read",
        why=words[0][:300],
        fix="look at the file with the program that wrote it",
    )


def block_of(batch: Any, wanted: Mapping[str, str], kept: Any, name: str) -> Block:
    """A record batch as a block. Texts are read as numbers where a number is wanted (CSV)."""
    import pyarrow as pa

    columns: dict[str, NDArray[Any]] = {}
    nulls: dict[str, NDArray[Any]] = {}
    wrong: dict[tuple[int, str], str] = {}
    for column, kind in wanted.items():
        array = batch.column(batch.schema.get_field_index(column))
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if kind == "number":
            if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
                array, found = numbers(array)
                wrong.update({(at, column): words for at, words in found.items()})
            elif pa.types.is_boolean(array.type):
                array = array.cast(pa.uint8())
            elif pa.types.is_decimal(array.type) or pa.types.is_float16(array.type):
                array = array.cast(pa.float64())
            elif not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
                raise other_type(name, column, array.type, "numbers")
        elif kind == "bool":
            if pa.types.is_string(array.type):
                array, found = booleans(array)
                wrong.update({(at, column): words for at, words in found.items()})
            elif not pa.types.is_boolean(array.type):
                raise other_type(name, column, array.type, "true and false")
        elif not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
            raise other_type(name, column, array.type, "texts")
        if array.null_count:
            mask = np.asarray(array.is_null())
            for at, column_ in list(wrong):
                if column_ == column:
                    mask[at] = False
            if mask.any():
                nulls[column] = mask
            if kind != "text":
                array = array.fill_null(False if kind == "bool" else 0)
            else:
                array = array.fill_null("")
        columns[column] = array.to_numpy(zero_copy_only=False)
    return Block(batch.num_rows, columns, nulls, wrong, kept)


def numbers(array: Any) -> tuple[Any, dict[int, str]]:
    """Texts as numbers; an empty one is no value. The slow way only where a text is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    array = pc.if_else(pc.equal(pc.utf8_trim_whitespace(array), ""), None, array)
    try:
        return pc.cast(array, pa.float64()), {}
    except pa.ArrowInvalid:
        found: dict[int, str] = {}
        values: list[float | None] = []
        for at, text in enumerate(array.to_pylist()):
            try:
                values.append(None if text is None else float(text))
            except ValueError:
                values.append(None)
                found[at] = f"got {text[:60]!r}, expected a number"
        return pa.array(values, pa.float64()), found


def booleans(array: Any) -> tuple[Any, dict[int, str]]:
    import pyarrow as pa

    found: dict[int, str] = {}
    values: list[bool | None] = []
    for at, text in enumerate(array.to_pylist()):
        known = None if text in (None, "") else text in TRUE if text in TRUE | FALSE else ...
        if known is ...:
            found[at] = f"got {text[:60]!r}, expected true or false"
            known = None
        values.append(known)
    return pa.array(values, pa.bool_()), found


def other_type(name: str, column: str, kind: Any, expected: str) -> FalajError:
    return FalajError(
        "score.column-type",
        f"{name}: column {column!r} holds {kind}, and the release takes {expected}",
        fix="cast the column before, as the pipeline does",
    )
