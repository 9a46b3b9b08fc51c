"""The rows that judge a model: held out, labelled, with the columns to group by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from falaj.stats.metrics import BINARY, CLASSES, Sample

__all__ = ["EvaluationSet", "Reference", "Scorer", "coded"]

Scorer = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""Score of the positive class or value for each row, shape (n,); of many classes, shape (n, k)."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """x: shape (n, d), in the order of `columns`. y: shape (n,). groups: name -> (n,).

    digest: identity of the rows, so that it can be counted how many models they have judged.
    y: 0 or 1; of many classes the place in `classes`; else a value. at: the time of each row.
    limits: least and largest value that the model's schema lets through, by column.
    """

    x: NDArray[np.float32]
    y: NDArray[Any]
    columns: tuple[str, ...]
    digest: str
    groups: dict[str, NDArray[np.str_]] = field(default_factory=dict)
    task: str = BINARY
    classes: tuple[str, ...] = ("0", "1")
    at: NDArray[np.datetime64] | None = None
    limits: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.y)
        if self.x.shape != (n, len(self.columns)) or any(len(g) != n for g in self.groups.values()):
            raise ValueError(
                f"x is {self.x.shape}, y has {n} rows, {len(self.columns)} columns are named"
            )
        if self.task in CLASSES:
            if not np.isin(self.y, range(len(self.classes))).all():
                known = "0 or 1" if self.task == BINARY else f"0 to {len(self.classes) - 1}"
                raise ValueError(f"y must be {known}")
        elif not np.isfinite(self.y).all():
            raise ValueError("y must be a number in each row")

    def sample(self, threshold: float = 0.5, unit: str = "") -> Sample:
        """What a metric sees of these rows. unit: the column of rows that belong together.

        Raises ValueError: there is no such column.
        """
        place = None
        if unit:
            if unit not in self.groups:
                known = ", ".join(sorted(self.groups)) or "none"
                raise ValueError(f"the held-out rows have no column {unit!r}; they have: {known}")
            place = coded(self.groups[unit])[0]
        return Sample(
            self.y, task=self.task, classes=len(self.classes), threshold=threshold, unit=place
        )


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Rows of the training, in the order of the model's columns. at: the time of each row."""

    x: NDArray[np.float32]
    at: NDArray[np.datetime64] | None = None
    digest: str = ""


def coded(values: NDArray[np.str_]) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Places of the values among the sorted words; much faster than sorting all rows."""
    rows = values.tolist()
    words = sorted(set(rows))
    place = {word: number for number, word in enumerate(words)}
    return np.fromiter((place[row] for row in rows), np.intp, len(rows)), tuple(words)
