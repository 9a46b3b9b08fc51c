"""What a running step can say about itself: metrics, plots, evidence of suites, and its seed."""

from __future__ import annotations

import difflib
import math
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from falaj.base.errors import FalajError
from falaj.base.points import Series
from falaj.facts.checks import CheckResult, of_dataset
from falaj.facts.runs import Plot
from falaj.ports.evidence import EvidenceReader

__all__ = ["RUNNING", "Running", "evidence", "log", "plot", "seed"]

MOST_ROWS: Final = 2000  # of a plot: no eye sees more, and every run keeps them
MARKS: Final = ("line", "bars", "points")


@dataclass
class Running:
    """The step that runs now, in this context. files: name -> bytes that are kept with the run.

    readers: of other tools' results, given by the wiring. beside: lines that are handed over when
    the step ends, as they are now. datasets: that the project declares.
    """

    step: str
    seed: int
    metrics: dict[str, float] = field(default_factory=dict)
    lines: dict[str, Series] = field(default_factory=dict)
    plots: dict[str, Plot] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    checks: list[CheckResult] = field(default_factory=list)
    readers: tuple[EvidenceReader, ...] = ()
    beside: list[Callable[[], list[Series]]] = field(default_factory=list)
    datasets: tuple[str, ...] = ()


RUNNING: Final[ContextVar[Running | None]] = ContextVar("falaj_running", default=None)


def log(*, step: int | None = None, **metrics: float) -> None:
    """Record metrics of the run: `falaj.log(auc=0.7)`, or a point of a line with `step=10`.

    The last value of a name is the run's metric. Outside a run it does nothing, so that a step
    can be called in a unit test. Raises FalajError for a value that is not a finite number.
    """
    running = RUNNING.get()
    for name, value in metrics.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise FalajError(
                "pipelines.metric-not-finite",
                f"metric {name!r}: got {value!r}, expected a finite number",
                fix="log only numbers; leave the metric out when it does not exist",
            )
        if running is not None:
            running.metrics[name] = number
            if step is not None:
                line = running.lines.get(name)
                if line is None:
                    line = running.lines[name] = Series(name)
                line.add(int(step), time.time(), number)


def plot(name: str, table: Any, /, *, x: str, y: str, mark: str = "line") -> None:
    """Keep a small table of the run that is drawn: `falaj.plot("roc", table, x="fpr", y="tpr")`.

    Args:
        name: of the plot; a second one of the same name takes its place.
        table: a Polars frame, or a dict of columns; at most 2,000 rows.
        x: the column drawn from left to right; numbers or texts.
        y: the column drawn upwards; numbers.
        mark: `line`, `bars` or `points`.

    Outside a run the table is checked and not kept. Raises FalajError for a table that cannot be
    drawn.
    """
    problem = ""
    columns = table.to_dict(as_series=False) if hasattr(table, "to_dict") else table
    if not isinstance(columns, Mapping):
        problem = f"got {type(table).__name__}, expected a frame or a dict of columns"
    elif mark not in MARKS:
        problem = f"mark is {mark!r}, expected one of {', '.join(MARKS)}"
    elif missing := [column for column in (x, y) if column not in columns]:
        problem = f"there is no column {missing[0]!r}; there are {', '.join(map(str, columns))}"
    else:
        across, up = list(columns[x]), list(columns[y])
        if len(across) != len(up):
            problem = f"{x} has {len(across)} rows, {y} has {len(up)}"
        elif not 1 <= len(up) <= MOST_ROWS:
            problem = f"got {len(up)} rows, expected 1 to {MOST_ROWS}"
        elif not all(map(is_number, up)):
            problem = f"{y} holds what is no finite number"
        elif not (all(map(is_number, across)) or all(isinstance(v, str) for v in across)):
            problem = f"{x} holds neither finite numbers alone nor texts alone"
    if problem:
        raise FalajError(
            "pipelines.plot-table",
            f"plot {name!r}: {problem}",
            fix="give a small table, such as every tenth row of a curve",
        )
    running = RUNNING.get()
    if running is not None:
        running.plots[name] = Plot(
            name=name,
            x=x,
            y=y,
            mark=mark,
            columns={
                x: tuple(v if isinstance(v, str) else float(v) for v in across),
                y: tuple(float(v) for v in up),
            },
        )


def is_number(value: object) -> bool:
    if isinstance(value, bool | str) or value is None:
        return False
    try:
        return math.isfinite(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def seed() -> int:
    """The seed of the running step, 0 to 2**64 - 1; 0 outside a run."""
    running = RUNNING.get()
    return 0 if running is None else running.seed


def evidence(result: Any, /, *, dataset: str, rows: Any = None) -> tuple[CheckResult, ...]:
    """Keep what a suite of another tool found; the gate `data` counts it like a contract's checks.

    Args:
        result: a `SchemaErrors` or a schema of Pandera, a `Validate` of Pointblank that was
            interrogated, a validation or checkpoint result of Great Expectations.
        dataset: what the suite looked at, as declared in falaj.toml; it stands in the names of the
            checks. For a frame that a step made of it: the dataset that it came from.
        rows: the frame; asked for with a schema of Pandera, which is then held against it.

    Returns the check results; it is for the step to decide whether to go on. No value of a row is
    kept. Outside a run nothing is read and nothing is kept.

    Raises FalajError for what is no result, or proves nothing: a suite that was not run, or that
    looked at the schema alone; and for a dataset that the project does not declare.
    """
    running = RUNNING.get()
    if running is None:
        return ()
    for reader in running.readers:
        if reader.takes(result):
            if dataset not in running.datasets:
                raise unknown(dataset, running.datasets)
            found = of_dataset(reader.read(result, rows), dataset)
            running.checks += found
            return found
    known = ", ".join(reader.tool for reader in running.readers) or "no tool"
    raise FalajError(
        "data.evidence-unreadable",
        f"got {type(result).__module__}.{type(result).__name__}, which is no result of a suite",
        why=f"read are results of: {known}",
        fix="hand in the tool's own result object",
    )


def unknown(dataset: str, known: tuple[str, ...]) -> FalajError:
    near = difflib.get_close_matches(dataset, known, 1)
    return FalajError(
        "data.unknown-dataset",
        f"there is no dataset {dataset!r} that a suite could have looked at",
        why=f"falaj.toml declares: {', '.join(known) or 'none'}",
        fix=f"did you mean {near[0]!r}?" if near else "name one of them, or declare it",
    )
