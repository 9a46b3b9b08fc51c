"""What a step sees of a dataset: its values and who they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from falaj.facts.data import DatasetVersion

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Dataset"]


class Dataset(Protocol):
    """One version of a declared dataset; annotate a parameter of a step with it.

    The parameter's name is the dataset's name in falaj.toml.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> DatasetVersion:
        """Made on first use: the data is read once."""

    def read(self) -> pl.DataFrame:
        """All rows, with the types of the contract."""

    def scan(self) -> pl.LazyFrame:
        """The same, read when it is needed and only what is needed."""
