"""Entry of a process that runs a project's own checks: `python -m falaj.doors.worker.checks FOLDER`.

FOLDER holds order.json, model/ and rows.parquet; the results are left there as results.json.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from falaj.facts.models import Schema
from falaj.pipelines.checking import run_checks
from falaj.serving.runtimes.scoring import scorer

__all__ = ["main"]


def main() -> None:
    import polars as pl

    folder = Path(sys.argv[1])
    order = msgspec.json.decode((folder / "order.json").read_bytes())
    schema = msgspec.convert(order["schema"], Schema)
    home = folder / "model"
    files = {
        path.relative_to(home).as_posix(): path.read_bytes()
        for path in home.rglob("*")
        if path.is_file()
    }
    score = scorer(files, schema, many=order["many"], runtime=order.get("runtime", "onnx"))
    results = run_checks(
        order["checks"],
        Path(order["root"]),
        score,
        pl.read_parquet(folder / "rows.parquet"),
        [column.name for column in schema.inputs[0].columns],
    )
    (folder / "results.json").write_bytes(msgspec.json.encode(results))


if __name__ == "__main__":
    main()
