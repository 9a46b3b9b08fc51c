"""From a statistic's verdict to a check result."""

from __future__ import annotations

import math
from typing import Any

from falaj.facts.checks import CheckResult, Verdict
from falaj.stats import paired

__all__ = ["finite", "result_of"]


def result_of(
    check: str,
    gate: str,
    found: paired.Verdict,
    *,
    metric: str,
    requirement: str,
    unit: str = "",
    details: dict[str, Any] | None = None,
) -> CheckResult:
    return CheckResult(
        check=check,
        gate=gate,
        verdict=Verdict(found.verdict),
        reason=found.reason,
        metric=metric,
        value=finite(found.value),
        low=finite(found.low),
        high=finite(found.high),
        limit=found.limit,
        requirement=requirement,
        unit=unit,
        n=found.n,
        n_needed=found.n_needed,
        details=details or {},
    )


def finite(value: float) -> float | None:
    """None where there is no number: JSON has neither NaN nor infinity."""
    return float(value) if math.isfinite(value) else None
