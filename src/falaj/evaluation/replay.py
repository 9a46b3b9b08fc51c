"""The same evidence under other rules: nothing is measured again. Pure.

Bounds do not depend on the limit that they are held against, so a stored result can be decided
anew. What the other policy asks for and nobody measured is inconclusive, never a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from falaj.evaluation import bias, codescan, licences, slices, vulnerabilities
from falaj.evaluation.latency import MEMORY, check_memory
from falaj.evaluation.quality import JUDGED
from falaj.evaluation.robustness import shifts
from falaj.facts.checks import CheckResult, GateReport, Verdict
from falaj.facts.project import (
    BiasTable,
    DependenciesTable,
    GatesTable,
    LatencyTable,
    LeakageTable,
    QualityTable,
    RobustnessTable,
    SlicesTable,
)

__all__ = ["replay"]

AT_LEAST = "at least"
BELOW = "below"


def replay(
    report: GateReport, gates: GatesTable, required: Sequence[str], *, policy: str
) -> GateReport:
    """The report as these rules would have made it, from the numbers that are stored."""
    results: list[CheckResult] = []
    for result in report.results:
        if result.gate not in ("bias", "slices"):
            results += decided(result, gates, report.at)
    results = said_once(results)
    results += biased([r for r in report.results if r.gate == "bias"], gates.biases)
    results += sliced([r for r in report.results if r.gate == "slices"], gates.slices)
    results += unmeasured(results, gates, compared=report.champion != "")
    return replace(
        report, policy=policy, required=tuple(required), results=tuple(results), waivers=()
    )


def said_once(results: Sequence[CheckResult]) -> list[CheckResult]:
    """Each result about code repeats what its tool says of them all."""
    seen: set[tuple[str, str]] = set()
    kept = []
    for result in results:
        key = (result.check, result.verdict)
        if result.gate != "code" or key not in seen:
            kept.append(result)
        seen.add(key)
    return kept


def licensed(result: CheckResult, table: DependenciesTable | None) -> bool:
    """Whether a result about licences was reached under this very rule."""
    return table is not None and result.requirement == licences.required(table)


def decided(result: CheckResult, gates: GatesTable, at: datetime) -> list[CheckResult]:
    """One stored result under the new limit; what has no limit of its own stays as it is."""
    quality, robustness, latency = gates.quality, gates.robustness, gates.latency
    match result.gate:
        case "quality" if quality is None:
            return []
        case "quality" if quality is not None and result.metric:
            # Only the metric that these rules name: another one answers another question.
            if result.metric == quality.metric:
                side, limit = AT_LEAST, quality.at_least
                if limit is None:
                    side, limit = BELOW, quality.at_most
                return [worn(bounded(result, side, limit or 0.0), quality)]
            if result.metric == f"loss of {quality.metric}":
                return [worn(bounded(result, BELOW, quality.margin_to_champion), quality)]
            return []
        case "robustness":
            if robustness is None or gone(result, robustness):
                return []
            if result.metric.startswith("share"):
                return [shared(result, robustness.max_against)]
            return [bounded(result, BELOW, robustness.max_drop)]
        case "calibration":
            table = gates.calibration
            return [bounded(result, BELOW, table.max_error)] if table else []
        case "leakage":
            return leaked(result, gates.leakage) if gates.leakage else []
        case "checks":
            asked = [f"checks.{one.partition(':')[2]}" for one in gates.checks]
            return [result] if result.check in asked else []
        case "dependencies" if result.check.startswith("dependencies.licence"):
            return [result] if licensed(result, gates.dependencies) else []
        case "dependencies" | "dependencies-shown":
            return vulnerabilities.again(result, gates.dependencies, at)
        case "code":
            return codescan.again(result, gates.code, at)
        case "latency":
            return served(result, latency) if latency else []
        case _:
            return [result]


def served(result: CheckResult, table: LatencyTable) -> list[CheckResult]:
    """The times under the new limit; memory stands beside them, whether a limit asked or not."""
    if result.check == "latency.memory":
        return []  # decided again from what stands beside the times
    again = [bounded(result, BELOW, table.p99_ms)]
    if table.max_memory_mb is not None and MEMORY in result.details:
        again.append(check_memory(result.details[MEMORY], table.max_memory_mb, result.n))
    return again


def bounded(result: CheckResult, side: str, limit: float) -> CheckResult:
    """Pass when the near bound holds, fail when the far one does not, else inconclusive."""
    if result.verdict in (Verdict.ERROR, Verdict.SKIPPED) or result.limit is None:
        return result
    low, high = result.low, result.high
    if side == AT_LEAST:
        holds, breaks = low is not None and low >= limit, high is not None and high < limit
        requirement = f"lower bound >= {limit:g}"
    else:
        holds, breaks = high is not None and high < limit, low is not None and low >= limit
        requirement = f"upper bound < {limit:g}"
    verdict = Verdict.PASS if holds else Verdict.FAIL if breaks else Verdict.INCONCLUSIVE
    if limit == result.limit:
        verdict = result.verdict  # other reasons may have held it, such as a worn-out set
    reason = f"was held against {result.limit:g}; now {side} {limit:g}"
    return replace(result, verdict=verdict, limit=limit, requirement=requirement, reason=reason)


def worn(result: CheckResult, table: QualityTable) -> CheckResult:
    """Rows that judged more candidates than these rules allow pass nobody."""
    judged = result.details.get(JUDGED, 0)
    if judged <= table.max_reuse or result.verdict is not Verdict.PASS:
        return result
    reason = f"these rows have judged {judged} candidates, more than {table.max_reuse}"
    return replace(result, verdict=Verdict.INCONCLUSIVE, reason=f"{reason}; {result.reason}")


def shared(result: CheckResult, limit: float) -> CheckResult:
    """A share of all rows, that needs no bound."""
    if result.value is None:
        return result
    verdict = Verdict.PASS if result.value <= limit else Verdict.FAIL
    return replace(
        result, verdict=verdict, limit=limit, requirement=f"at most {limit:g} of all rows"
    )


def gone(result: CheckResult, table: RobustnessTable) -> bool:
    """A loss of inputs that these rules do not ask about."""
    known = {one.check for one in shifts(table)}
    return "=" in result.check and result.check not in known


def biased(results: Sequence[CheckResult], tables: Sequence[BiasTable]) -> list[CheckResult]:
    """Counts are stored, so all is decided again, with p-values adjusted for what is asked now."""
    stored: dict[tuple[str, str], CheckResult] = {}
    for result in results:
        if "counts" in result.details:
            column = result.details.get("group") or result.check[len("bias.") :].partition("=")[0]
            stored.setdefault((column, result.metric), result)
    wanted, counts = [], {}
    for one in bias.asked(tables):
        known = stored.get((one.table.group, one.metric))
        if known is None:
            continue
        # The default is the largest group by all rows, which the rate's own counts do not tell.
        reference = one.table.reference or known.details["reference"]
        key = f"{one.table.group}\0{one.metric}"
        wanted.append(one._replace(table=replace(one.table, group=key, reference=reference)))
        counts[key] = cells_of(known, one.metric)
    made = bias.decided(wanted, counts)
    return [
        replace(
            result,
            check=named(result.check, result.metric),
            details=result.details | {"group": result.details["group"].partition("\0")[0]},
        )
        for result in made
    ]


def named(check: str, metric: str) -> str:
    return check.replace(f"\0{metric}", "")


def cells_of(result: CheckResult, metric: str) -> dict[str, NDArray[np.int64]]:
    """Hits and rows of the rate, where the rate looks for them."""
    row = 1 if bias.RATES[metric] == "tpr" else 0
    found = {}
    for group, (hits, rows) in result.details["counts"].items():
        cells = np.zeros((2, 2), dtype=np.int64)
        cells[row] = (rows - hits, hits)
        found[group] = cells
    return found


def leaked(result: CheckResult, table: LeakageTable) -> list[CheckResult]:
    """A share is what it is; a telling input is held against its bound. A copy stays a copy."""
    if result.check == "leakage.time":
        return [result] if table.by_time else []
    if result.limit is None or result.value is None or result.low is None:
        return [result]
    if result.check == "leakage.duplicates":
        verdict = Verdict.PASS if result.value <= table.max_duplicates else Verdict.FAIL
        limit = table.max_duplicates
        words = f"at most {limit:g}"
    elif result.details["copies"] or result.details["column"] in table.allowed:
        return [result]
    else:
        limit = table.max_alone
        words = f"no input alone reaches {limit:g}"
        doubt = Verdict.INCONCLUSIVE if result.value >= limit else Verdict.PASS
        verdict = Verdict.FAIL if result.low >= limit else doubt
    return [replace(result, verdict=verdict, limit=limit, requirement=words)]


def sliced(results: Sequence[CheckResult], table: SlicesTable | None) -> list[CheckResult]:
    """All slices at once: the family of the adjusted p-values changes with the rules."""
    if table is None:
        return []
    once = {result.check.removesuffix(" drop"): result for result in results}
    again = slices.decided(list(once.values()), table)
    return [
        replace(
            result,
            verdict=Verdict.PASS if table.small_slices == "report" else Verdict.INCONCLUSIVE,
        )
        if "small" in result.details
        else result
        for result in again
        if "small" not in result.details or result.details["by"] in table.by
    ]


def unmeasured(
    results: Sequence[CheckResult], gates: GatesTable, *, compared: bool
) -> list[CheckResult]:
    """What these rules ask for and the stored evidence does not hold."""
    wanted: list[tuple[str, str]] = []
    if gates.quality is not None:
        wanted.append(("quality", f"quality.{gates.quality.metric}"))
        if compared:
            wanted.append(("quality", "quality.against_champion"))
    wanted += [
        ("bias", f"bias.{one.table.group}=\0{one.metric}") for one in bias.asked(gates.biases)
    ]
    if gates.robustness is not None:
        wanted += [("robustness", one.check) for one in shifts(gates.robustness)]
    wanted += [("checks", f"checks.{one.partition(':')[2]}") for one in gates.checks]
    if gates.calibration is not None:
        wanted.append(("calibration", "calibration.error"))
    if gates.leakage is not None:
        wanted += [("leakage", f"leakage.{kind}") for kind in ("target", "duplicates")]
    if gates.dependencies is not None:
        wanted.append(("dependencies", "dependencies.database"))
        told = any(r.check.startswith("dependencies.licence") for r in results)
        if licences.required(gates.dependencies) and not told:
            wanted.append(("dependencies", "dependencies.licences"))
    if gates.code is not None and not any(r.gate == "code" for r in results):
        wanted.append(("code", "code.scanner"))
    if gates.slices is not None:
        wanted += [("slices", f"slices.{by}") for by in gates.slices.by]
        wanted += [("slices", "slices.found")] if gates.slices.find else []
    if gates.latency is not None:
        wanted.append(("latency", "latency.p99"))
        if gates.latency.max_memory_mb is not None:
            wanted.append(("latency", "latency.memory"))
    known = [result.check for result in results]
    rates = {
        f"bias.{r.details['group']}=\0{r.metric}" for r in results if "counts" in r.details
    } | {f"{r.check}=\0{r.metric}" for r in results if r.gate == "bias"}
    return [
        CheckResult(
            check=check.partition("=")[0],
            gate=gate,
            verdict=Verdict.INCONCLUSIVE,
            reason="the stored evidence does not hold it: run `falaj gate` under this policy",
        )
        for gate, check in wanted
        if check not in rates
        and not any(
            name == check
            or (check.endswith("=") and name.startswith(check))
            or (gate == "slices" and name.startswith((f"{check}=", f"{check} too small")))
            for name in known
        )
    ]
