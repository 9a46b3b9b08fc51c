"""The frozen reference of a release: edges of each column with the counts of the training data.

Wire: canonical JSON of falaj.base, floats as C99 hex, so that the digest does not depend on a
printer. `open_reference` reads only the one spelling that `freeze` writes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from falaj.base import canonical
from falaj.base.errors import FalajError
from falaj.stats.drift import FEWEST_BLOCKS, FEWEST_ROWS, BlockNull, block_null, fit_edges
from falaj.stats.summaries import BadSummary, Edges, Hist, of_plain, to_plain

__all__ = ["SCORE", "Column", "Reference", "freeze", "open_reference"]

SCORE: Final = "score"
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its edges, its own counts on them, and how far its blocks lie apart."""

    edges: Edges
    hist: Hist
    own: BlockNull


@dataclass(frozen=True, slots=True)
class Reference:
    """rows: of the training data. columns: in the order of the model's inputs, `score` last."""

    rows: int
    columns: Mapping[str, Column]

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return tuple(name for name in self.columns if name != SCORE)


def freeze(columns: Mapping[str, Floats], blocks: NDArray[np.int64]) -> bytes:
    """Count the training data on edges of its own, for `reference/edges.json` of a release.

    Args:
        columns: name -> values, shape (n,), NaN where missing; the inputs in the model's order,
            and `score`, the model's own answers to these rows.
        blocks: shape (n,), the number of the week that a row belongs to.

    Blocks with fewer than 500 rows are left out of the block-to-block PSI: their noise would
    raise the limit of what counts as drift.
    """
    numbers = np.asarray(blocks)
    frozen = []
    for name, values in columns.items():
        if values.shape != numbers.shape:
            raise ValueError(f"{name}: got shape {values.shape}, expected {numbers.shape}")
        edges = fit_edges(_as_served(np.asarray(values, np.float64)), name)
        own = _blocks(edges, values, numbers)
        frozen.append(Column(edges, edges.hist(), own))
    return _encode(
        Reference(len(numbers), {column.edges.column: column for column in frozen}),
    )


def open_reference(data: bytes) -> Reference:
    """Read what `freeze` wrote. Raises FalajError `monitoring.reference` on any other bytes."""
    try:
        reference = _read(canonical.loads(data))
    except (canonical.NotCanonical, BadSummary, TypeError, ValueError, OverflowError) as error:
        raise _refused(str(error)) from None
    if _encode(reference) != data:
        raise _refused("it is not in the one spelling that is written")
    return reference


def as_served(edges: Edges, values: Floats) -> Floats:
    """The numbers that the model saw: rounded to float32 where the reference is of that type.

    A value such as 0.1 is sent as a double and stands among the edges as a float32: without
    rounding it would fall into the neighbouring bin.
    """
    if edges.dtype != "float32":
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32).astype(np.float64)


def _as_served(values: Floats) -> NDArray[Any]:
    """The same as float32 where that loses nothing, so that the edges remember the type."""
    with np.errstate(over="ignore", invalid="ignore"):
        single = values.astype(np.float32)
    return single if np.array_equal(single.astype(np.float64), values, equal_nan=True) else values


def _blocks(edges: Edges, values: Floats, blocks: NDArray[np.int64]) -> BlockNull:
    found, counts = np.unique(blocks, return_counts=True)
    large = found[counts >= FEWEST_ROWS]
    if len(large) < FEWEST_BLOCKS:
        return BlockNull(math.nan, len(large), known=False)
    own = block_null([edges.count(values[blocks == one]) for one in large])
    return own._replace(known=not math.isnan(own.psi))


def _encode(reference: Reference) -> bytes:
    return canonical.dumps(
        {
            "v": 1,
            "kind": "reference",
            "rows": reference.rows,
            "columns": [
                {
                    "edges": to_plain(column.edges),
                    "blocks": column.own.blocks,
                    "block_psi": column.own.psi.hex() if column.own.known else None,
                }
                for column in reference.columns.values()
            ],
        }
    )


def _read(plain: Any) -> Reference:
    if not isinstance(plain, dict) or set(plain) != {"v", "kind", "rows", "columns"}:
        raise ValueError("it has other fields")
    if (plain["v"], plain["kind"]) != (1, "reference") or type(plain["v"]) is not int:
        raise ValueError("it is of another kind or version")
    columns = [_column(one, plain["rows"]) for one in plain["columns"]]
    named = {column.edges.column: column for column in columns}
    if len(named) != len(columns) or not columns:
        raise ValueError("columns: none, or one name stands twice")
    return Reference(plain["rows"], named)


def _column(plain: Any, rows: Any) -> Column:
    if not isinstance(plain, dict) or set(plain) != {"edges", "blocks", "block_psi"}:
        raise ValueError("a column has other fields")
    edges = of_plain(plain["edges"])
    if not isinstance(edges, Edges):
        raise TypeError("a column holds no edges")
    hist = edges.hist()
    if type(rows) is not int or hist.n != rows:
        raise ValueError(f"{edges.column}: its counts do not add up to the rows")
    blocks, psi = plain["blocks"], plain["block_psi"]
    if type(blocks) is not int or not 0 <= blocks <= rows:
        raise ValueError(f"{edges.column}: blocks is no number of blocks")
    if psi is None:
        return Column(edges, hist, BlockNull(math.nan, blocks, known=False))
    value = float.fromhex(psi)
    if blocks < FEWEST_BLOCKS or not 0 <= value < math.inf:
        raise ValueError(f"{edges.column}: block_psi needs {FEWEST_BLOCKS} blocks")
    return Column(edges, hist, BlockNull(value, blocks, known=True))


def _refused(why: str) -> FalajError:
    return FalajError(
        "monitoring.reference",
        "the frozen reference of the release cannot be read",
        why=why,
        fix="build the release again with this version of Falaj",
    )
