"""Checks, their verdicts, and the gate that asks for them."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any, Never

import msgspec

from falaj.base.time import Instant
from falaj.facts.wire import Fact

__all__ = ["CheckResult", "GateReport", "Verdict", "Waiver", "of_dataset", "shown_word", "worst"]


class Verdict(enum.StrEnum):
    PASS = "pass"  # noqa: S105 a verdict, not a secret
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"
    SKIPPED = "skipped"


ORDER = (Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE, Verdict.SKIPPED, Verdict.PASS)


def worst(verdicts: tuple[Verdict, ...]) -> Verdict:
    """The verdict that decides: fail before error before inconclusive before skipped.

    No verdict at all is inconclusive: silence is not health.
    """
    return min(verdicts, key=ORDER.index, default=Verdict.INCONCLUSIVE)


class CheckResult(Fact, frozen=True, kw_only=True):
    """One check: what was measured, what was required, and why the verdict is what it is.

    low, high: one-sided 95 % bounds of `value`. limit: what the deciding bound is held against.
    n: independent rows behind the value. n_needed: rows that would decide it, when inconclusive.
    """

    check: str  # e.g. `quality.roc_auc`, `bias.origin=JFK`
    gate: str  # facts/project.py, Gate; data-shown: only told
    verdict: Verdict
    reason: str
    metric: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    requirement: str = ""
    unit: str = ""
    n: int = 0
    n_needed: int | None = None
    details: dict[str, Any] = {}

    def __bool__(self) -> Never:
        raise TypeError("a check result has five verdicts; ask .verdict")


def shown_word(gate: str, verdict: str, severity: str = "") -> str:
    """The verdict for people: what is told and not counted is never called a failure.

    severity: of a contract's rule, such as `warning` or `info`.
    """
    counts = not gate.endswith("-shown")
    if counts or verdict not in (Verdict.FAIL, Verdict.ERROR):
        return str(verdict)
    return "note" if severity == "info" else "warning"


def of_dataset(results: Iterable[CheckResult], dataset: str) -> tuple[CheckResult, ...]:
    """The same checks under names that tell datasets apart: `data.flights.hour.range`."""
    return tuple(
        msgspec.structs.replace(
            result,
            check=f"data.{dataset}.{result.check.removeprefix('data.')}",
            details={**result.details, "dataset": dataset},
        )
        for result in results
    )


class Waiver(Fact, frozen=True, kw_only=True):
    """Lets one inconclusive check through: signed by the risk role, with reason and expiry."""

    check: str
    owner: str
    reason: str
    expires: Instant


class GateReport(Fact, frozen=True, kw_only=True):
    """All checks that were made on one model, under one policy."""

    id: str = ""
    run: str = ""
    model_version: str = ""
    subject: str  # digest of the model's file tree
    policy: str  # digest of the rules that decided
    at: Instant
    results: tuple[CheckResult, ...]
    required: tuple[str, ...]  # names of gates
    champion: str = ""  # release that the candidate was compared with
    waivers: tuple[Waiver, ...] = ()

    def verdict_of(self, gate: str) -> Verdict:
        """The gate's verdict; a required gate without any result is inconclusive."""
        return worst(tuple(r.verdict for r in self.results if r.gate == gate))

    @property
    def verdict(self) -> Verdict:
        return worst(tuple(self.verdict_of(gate) for gate in self.required))
