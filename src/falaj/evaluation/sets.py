"""The rows that judge a model: held out, labelled, with the columns to group by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["EvaluationSet", "Scorer"]

Scorer = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""Score of the positive class for each row, shape (n,)."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """x: shape (n, d), in the order of `columns`. y: shape (n,), 0 or 1. groups: name -> (n,).

    digest: identity of the rows, so that it can be counted how many models they have judged.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int8]
    columns: tuple[str, ...]
    digest: str
    groups: dict[str, NDArray[np.str_]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.y)
        if self.x.shape != (n, len(self.columns)) or any(len(g) != n for g in self.groups.values()):
            raise ValueError(
                f"x is {self.x.shape}, y has {n} rows, {len(self.columns)} columns are named"
            )
        if not np.isin(self.y, (0, 1)).all():
            raise ValueError("y must be 0 or 1")
