"""Rows that break their contract, apart from those that keep it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from falaj.base.errors import FalajError, Place
from falaj.data.checks import checks_of
from falaj.data.masking import masked
from falaj.data.odcs import Contract, read_contract
from falaj.data.scan import BROKEN, ROW, SAMPLE, Masks, broken_rows
from falaj.facts.checks import CheckResult, Verdict
from falaj.facts.data import Classification

if TYPE_CHECKING:
    from falaj.data.datasets import DatasetHandle

__all__ = ["Split", "counts", "quarantine_check", "rejected", "split"]

KIND: Final = "quarantine"
PROJECT: Final = "falaj.toml"
OPEN: Final = (Classification.PUBLIC, Classification.INTERNAL)
NO_OTHERS: Final[Mapping[str, pl.DataFrame]] = MappingProxyType({})


class Split(NamedTuple):
    """good: rows that keep the contract. bad: the others, with the checks in `falaj_broken`."""

    good: pl.DataFrame
    bad: pl.DataFrame


def split(
    rows: pl.DataFrame | pl.LazyFrame,
    contract: str | Path | Contract,
    /,
    *,
    table: str = "",
    references: Mapping[str, pl.DataFrame | pl.LazyFrame] = NO_OTHERS,
) -> Split:
    """Rows that keep a contract, and those that break it: `good, bad = falaj.split(rows, "c.yaml")`.

    Args:
        rows: of a dataset of the contract.
        contract: a file, from the working folder or the project's; a step names it in
            `@step(reads=[..])` as well, so that another contract is another result.
        table: which of the contract's tables; nothing: its only one.
        references: other datasets by name, for foreign keys; without one its check is left out.

    A row is bad when it breaks a promise that allows no row to do so; rules with a tolerance,
    warnings and rules about the whole dataset leave it where it is. Of equal keys the first is
    good. `bad` has one column more, the list `falaj_broken` of the names of the checks.

    Raises FalajError for what no loss of rows mends: an absent column, another type.
    """
    said = contract if isinstance(contract, Contract) else read_contract(_found(Path(contract)))
    frame = rows.lazy()
    broken, lost = broken_rows(
        checks_of(said, table),
        frame,
        references={name: other.lazy() for name, other in references.items()},
        unreadable={},
    )
    if lost:
        raise FalajError(
            "data.cannot-split",
            f"{lost[0].check}: {lost[0].reason}",
            place=_place(lost[0]),
            why="every row breaks it, so no row can be set aside for it",
            fix="mend the rows, or the contract",
        )
    numbered = frame.with_row_index(ROW)
    bad = numbered.join(broken.lazy(), on=ROW, how="inner", maintain_order="left").drop(ROW)
    good = numbered.join(broken.lazy(), on=ROW, how="anti", maintain_order="left").drop(ROW)
    made = pl.collect_all([good, bad])
    return Split(made[0], made[1])


def _found(path: Path) -> Path:
    if path.is_file() or path.is_absolute():
        return path
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / PROJECT).is_file():
            return folder / path
    return path


def _place(result: CheckResult) -> Place | None:
    at = result.details.get("place")
    return Place(file=at["file"], line=at["line"], column=at["column"]) if at else None


def rejected(dataset: DatasetHandle, mask_key: bytes) -> pl.DataFrame:
    """The rows that are set aside, as they may be shown: number from 1, broken checks, values.

    Values of columns of class confidential are shapes, those of personal ones are tokens.
    """
    broken = dataset.broken
    chosen = (
        dataset.whole()
        .with_row_index(ROW)
        .join(broken.lazy(), on=ROW, how="inner", maintain_order="left")
        .with_columns(pl.col(ROW) + 1)
        .collect()
    )
    masks = Masks(classes=dataset.classes, default=dataset.label.classification, key=mask_key)
    shown = [chosen[ROW], chosen[BROKEN]]
    for name in chosen.columns:
        if name in (ROW, BROKEN):
            continue
        kind = masks.classes.get(name, masks.default)
        texts = dataset.unreadable_texts.get(name)
        values = chosen[name]
        if texts is not None:
            # What could not be read as the contract's type is null among the values.
            raw = texts.gather(chosen[ROW] - 1)
            values = raw.zip_with(raw.is_not_null(), values.cast(pl.String)).alias(name)
        if kind not in OPEN:
            told = [None if v is None else str(masked(v, name, kind, mask_key)) for v in values]
            values = pl.Series(name, told, dtype=pl.String)
        shown.append(values)
    return pl.DataFrame(shown)


def counts(broken: pl.DataFrame) -> dict[str, int]:
    """Check -> rows that break it, the most frequent first."""
    found = Counter(check for checks in broken[BROKEN] for check in checks)
    return dict(found.most_common())


def quarantine_check(dataset: DatasetHandle, mask_key: bytes) -> CheckResult:
    """Whether no more rows are set aside than may be."""
    most, rows = dataset.quarantine_pct, dataset.rows_in_all
    assert most is not None  # noqa: S101 nobody asks it of a dataset without one
    broken = dataset.broken
    found = counts(broken)
    share = 100 * len(broken) / rows if rows else 0.0
    asked = f"at most {most:g} % of the rows are set aside"
    told = ", ".join(f"{check} {n:,}" for check, n in list(found.items())[:5])
    why = f"{len(broken):,} of {rows:,} rows ({share:.3g} %) are set aside"
    verdict = Verdict.PASS if share <= most else Verdict.FAIL
    if not rows:
        verdict, why = Verdict.INCONCLUSIVE, "the dataset has no rows: nothing was measured"
    elif found:
        why += f": {told}" + (f" and {len(found) - 5} more checks" if len(found) > 5 else "")
    details: dict[str, Any] = {"kind": KIND, "set_aside": found, "severity": "error"}
    if verdict is Verdict.FAIL:
        details["code"] = "data.quarantine-full"
        details["fix"] = (
            f"mend the rows (falaj data quarantine {dataset.name}), or raise quarantine_pct"
        )
    if found:
        first = rejected(dataset, mask_key).head(SAMPLE)
        details["sample"] = [
            {"row": row, "value": ", ".join(checks)}
            for row, checks in zip(first[ROW], first[BROKEN], strict=True)
        ]
    return CheckResult(
        check=f"data.{KIND}",
        gate="data",
        verdict=verdict,
        reason=why,
        metric="rows set aside",
        value=float(len(broken)),
        limit=most,
        requirement=asked,
        unit="rows",
        n=rows,
        details=details,
    )
