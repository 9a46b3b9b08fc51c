"""One piece of a table through a model: columns -> inputs, checked -> engine -> outputs; bad rows aside.

The same checks as online: names, types, gaps, ranges; whole columns at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from falaj.base.errors import FalajError
from falaj.facts.models import Column, Datatype, Schema, Tensor
from falaj.ports.rows import Block
from falaj.serving.schema import DTYPES

__all__ = ["Scored", "Scorer", "fits", "wanted"]

FLOATS: Final = frozenset({Datatype.FP16, Datatype.FP32, Datatype.FP64})


class Scored(NamedTuple):
    """outputs: of the good rows, by column. good: mask, None when all are. reasons: bad row -> words."""

    outputs: dict[str, NDArray[Any]]
    good: NDArray[np.bool_] | None
    reasons: dict[int, str]


class Cell(NamedTuple):
    """One column of the input table, and where in which tensor it goes."""

    name: str
    tensor: Tensor
    place: int
    column: Column | None


def cells(schema: Schema) -> tuple[Cell, ...]:
    """Columns by the names of callers; a tensor without columns is one column of its name."""
    found: list[Cell] = []
    for tensor in schema.inputs:
        if tensor.datatype is Datatype.BF16:
            raise FalajError(
                "score.column-type",
                f"input {tensor.name} of the release holds {tensor.datatype}, which no table does",
                fix="ask it through its server, in binary tensors",
            )
        if tensor.columns:
            found += [Cell(c.name, tensor, at, c) for at, c in enumerate(tensor.columns)]
        elif len(tensor.shape) == 1 or tensor.shape[1:] == (1,):
            found.append(Cell(tensor.name, tensor, 0, None))
        else:
            raise FalajError(
                "score.no-columns",
                f"input {tensor.name} of the release has shape {list(tensor.shape)} and no columns",
                why="a table has columns, and each has to have its place in the inputs",
                fix="pack the model with a schema that names the columns",
            )
    return tuple(found)


def wanted(schema: Schema) -> dict[str, str]:
    """Column -> what it has to hold: number, bool, text."""
    kinds = {Datatype.BOOL: "bool", Datatype.BYTES: "text"}
    return {cell.name: kinds.get(cell.tensor.datatype, "number") for cell in cells(schema)}


def fits(schema: Schema, columns: Sequence[str], keep: Sequence[str], address: str) -> None:
    """Raises FalajError with every column that is missing."""
    from difflib import get_close_matches

    missing = [name for name in (*wanted(schema), *keep) if name not in columns]
    if missing:
        near = get_close_matches(missing[0], columns, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise FalajError(
            "score.columns",
            f"{address}: column {', '.join(repr(name) for name in missing[:10])} is missing",
            why=f"{hint}it has {', '.join(list(columns)[:20])}",
            fix="name the columns as the release does: falaj release show VERSION",
        )
    taken = sorted(set(keep) & set(output_names(schema)))
    if taken:
        raise FalajError(
            "score.columns",
            f"column {taken[0]!r} cannot go through: an output of the model has its name",
            fix="leave it out of --keep, or rename it",
        )


def output_names(schema: Schema) -> list[str]:
    names: list[str] = []
    for tensor in schema.outputs:
        width = max(tensor.shape[1], 1) if len(tensor.shape) == 2 else 1
        if tensor.columns:
            names += [f"{tensor.name}.{column.name}" for column in tensor.columns]
        else:
            names += [tensor.name] if width == 1 else [f"{tensor.name}.{at}" for at in range(width)]
    return names


class Scorer:
    """Checks and runs blocks. runtime: of a verified release; nothing is kept between blocks."""

    def __init__(self, schema: Schema, runtime: Any) -> None:
        self.schema, self.runtime = schema, runtime
        self.cells = cells(schema)
        self.names = output_names(schema)
        self.may_gap = [
            bool(tensor.columns) and all(column.nullable for column in tensor.columns)
            for tensor in schema.outputs
        ]

    def score(self, block: Block) -> Scored:
        bad: dict[int, str] = {}
        for (row, name), words in block.wrong.items():
            bad.setdefault(row, f"{name}: {words}")
        feeds = self.feeds(block, bad)
        good = None
        if bad:
            good = np.ones(block.n, np.bool_)
            good[list(bad)] = False
            feeds = {name: array[good] for name, array in feeds.items()}
        n = block.n - len(bad)
        parts = list(self.run(feeds, n, 0)) if n else []
        outputs = {name: [] for name in self.names}  # type: dict[str, list[NDArray[Any]]]
        failed: dict[int, str] = {}
        for at, size, found in parts:
            if isinstance(found, str):
                failed[at] = found
                continue
            for name, array in zip(self.names, columns_of(found, size), strict=True):
                outputs[name].append(array)
        whole = {
            name: arrays[0]
            if len(arrays) == 1
            else np.concatenate(arrays)
            if arrays
            else np.zeros(0, DTYPES[self.type_of(name)])
            for name, arrays in outputs.items()
        }
        if failed:
            places = np.flatnonzero(good) if good is not None else np.arange(block.n)
            good = np.ones(block.n, np.bool_) if good is None else good
            for at, words in failed.items():
                bad[int(places[at])] = words
                good[places[at]] = False
        whole, good = self.finite(whole, good, block.n, bad)
        return Scored(whole, good, dict(sorted(bad.items())))

    def type_of(self, name: str) -> Datatype:
        for tensor in self.schema.outputs:
            if name == tensor.name or name.startswith(f"{tensor.name}."):
                return tensor.datatype
        return Datatype.FP32

    # inputs

    def feeds(self, block: Block, bad: dict[int, str]) -> dict[str, NDArray[Any]]:
        made: dict[str, NDArray[Any]] = {}
        for cell in self.cells:
            tensor = cell.tensor
            if tensor.name not in made:
                shape = (block.n, *(max(size, 1) for size in tensor.shape[1:]))
                if tensor.columns:
                    shape = (block.n, len(tensor.columns))
                made[tensor.name] = np.empty(shape, DTYPES[tensor.datatype])
            to = made[tensor.name]
            self.fill(block, cell, to[:, cell.place] if to.ndim == 2 else to, bad)
        return made

    def fill(self, block: Block, cell: Cell, to: NDArray[Any], bad: dict[int, str]) -> None:
        given = block.columns[cell.name]
        nulls = block.nulls.get(cell.name)
        kind = cell.tensor.datatype
        nullable = bool(cell.column and cell.column.nullable)
        if kind is Datatype.BYTES or kind is Datatype.BOOL:
            to[:] = given
        elif kind in FLOATS:
            with np.errstate(over="ignore", invalid="ignore"):
                to[:] = given
            self.finite_in(cell, given, to, nullable, bad)
        else:
            self.whole(cell, given, nulls, to, bad)
        if nulls is not None:
            if kind in FLOATS and nullable:
                to[nulls] = np.nan
            else:
                told(bad, nulls, cell.name, lambda _: "no value")
        if cell.column is not None and kind is not Datatype.BYTES:
            self.ranged(cell.name, cell.column, given, bad)

    def finite_in(
        self, cell: Cell, given: NDArray[Any], to: NDArray[Any], nullable: bool, bad: dict[int, str]
    ) -> None:
        """One look at the sum: a gap or an infinity anywhere shows in it."""
        if nullable and given.dtype == to.dtype:
            return  # gaps and infinities are values here, and nothing was lost on the way
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(to.sum(dtype=np.float64)):
                return
        gaps = np.isnan(to)
        if not nullable:
            told(bad, gaps, cell.name, lambda _: "no value")
        if given.dtype != to.dtype:
            lost = np.isinf(to) & np.isfinite(given.astype(np.float64))
            told(
                bad,
                lost,
                cell.name,
                lambda at: f"{given[at]!s} does not fit into {cell.tensor.datatype}",
            )

    def whole(
        self,
        cell: Cell,
        given: NDArray[Any],
        nulls: NDArray[Any] | None,
        to: NDArray[Any],
        bad: dict[int, str],
    ) -> None:
        info = np.iinfo(to.dtype)
        wrong = np.zeros(len(given), np.bool_)
        if given.dtype.kind == "f":
            with np.errstate(invalid="ignore"):
                wrong = ~(np.floor(given) == given)
                wrong |= ~((given >= info.min) & (given < float(info.max) + 1))
        elif given.dtype.kind in "iu":
            wrong = np.asarray([False])
            if int(given.min(initial=0)) < info.min or int(given.max(initial=0)) > info.max:
                wrong = np.array([not info.min <= int(value) <= info.max for value in given])
        with np.errstate(invalid="ignore"):
            to[:] = np.where(wrong, 0, given) if wrong.any() else given
        if wrong.any():
            if nulls is not None:
                wrong = wrong & ~nulls
            told(
                bad,
                wrong,
                cell.name,
                lambda at: f"got {given[at]!s}, expected {cell.tensor.datatype}",
            )

    def ranged(self, name: str, column: Column, given: NDArray[Any], bad: dict[int, str]) -> None:
        with np.errstate(invalid="ignore"):
            if column.minimum is not None:
                low = given < column.minimum
                told(
                    bad,
                    low,
                    name,
                    lambda at: f"got {given[at]!s}, expected at least {column.minimum!r}",
                )
            if column.maximum is not None:
                high = given > column.maximum
                told(
                    bad,
                    high,
                    name,
                    lambda at: f"got {given[at]!s}, expected at most {column.maximum!r}",
                )

    # the engine

    def run(
        self, feeds: dict[str, NDArray[Any]], n: int, first: int
    ) -> Iterator[tuple[int, int, list[Any] | str]]:
        """(place, rows, outputs) in order; a row that the engine cannot answer comes alone, with words."""
        try:
            found = self.runtime.run(feeds)
            for array, tensor in zip(found, self.schema.outputs, strict=True):
                if np.shape(array)[:1] != (n,):
                    raise ValueError(f"{tensor.name}: got {np.shape(array)} for {n} rows")
        except Exception as error:  # guarded edge: engines raise classes of their own
            if n == 1:
                words = str(error).splitlines() or [type(error).__name__]
                yield first, 1, f"the model failed: {words[0][:200]}"
                return
            half = n // 2
            yield from self.run({k: v[:half] for k, v in feeds.items()}, half, first)
            yield from self.run({k: v[half:] for k, v in feeds.items()}, n - half, first + half)
            return
        yield first, n, found

    def finite(
        self,
        outputs: dict[str, NDArray[Any]],
        good: NDArray[np.bool_] | None,
        n: int,
        bad: dict[int, str],
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_] | None]:
        """NaN and infinity are answers only where the schema says so."""
        wrong: NDArray[np.bool_] | None = None
        strict = {
            t.name for t, gap in zip(self.schema.outputs, self.may_gap, strict=True) if not gap
        }
        for name, array in outputs.items():
            owner = next(
                t.name
                for t in self.schema.outputs
                if name == t.name or name.startswith(f"{t.name}.")
            )
            if owner not in strict or array.dtype.kind != "f":
                continue
            if np.isfinite(array.sum(dtype=np.float64)):
                continue
            lost = ~np.isfinite(array)
            wrong = lost if wrong is None else wrong | lost
        if wrong is None or not wrong.any():
            return outputs, good
        places = np.flatnonzero(good) if good is not None else np.arange(n)
        good = np.ones(n, np.bool_) if good is None else good
        for at in np.flatnonzero(wrong):
            bad[int(places[at])] = "the model answered NaN or infinity"
            good[places[at]] = False
        return {name: array[~wrong] for name, array in outputs.items()}, good


def columns_of(found: Sequence[Any], n: int) -> Iterator[NDArray[Any]]:
    for array in found:
        flat = np.asarray(array).reshape(n, -1)
        for at in range(flat.shape[1]):
            yield flat[:, at]


def told(bad: dict[int, str], mask: NDArray[Any], name: str, words: Any) -> None:
    """The first finding of a row stays."""
    if mask.any():
        for at in np.flatnonzero(mask):
            bad.setdefault(int(at), f"{name}: {words(at)}")
