"""What a running step can say about itself: metrics, and its seed."""

from __future__ import annotations

import math
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from falaj.base.errors import FalajError

__all__ = ["RUNNING", "Running", "log", "seed"]


@dataclass
class Running:
    """The step that runs now, in this context."""

    step: str
    seed: int
    metrics: dict[str, float] = field(default_factory=dict)
    points: list[tuple[str, int, float]] = field(default_factory=list)


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
                running.points.append((name, int(step), number))


def seed() -> int:
    """The seed of the running step, 0 to 2**64 - 1; 0 outside a run."""
    running = RUNNING.get()
    return 0 if running is None else running.seed
