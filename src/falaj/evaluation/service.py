"""Make every check that is asked for. A check that breaks is an `error`, never a crash."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import cast

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from falaj.evaluation.bias import check_biases
from falaj.evaluation.calibration import check_calibration
from falaj.evaluation.latency import check_latency, check_memory
from falaj.evaluation.leakage import check_leakage
from falaj.evaluation.quality import check_against_champion, check_quality
from falaj.evaluation.robustness import Shift, check_shift, shifts
from falaj.evaluation.sets import EvaluationSet, Reference, Scorer
from falaj.evaluation.slices import check_slices
from falaj.facts.checks import CheckResult, GateReport, Verdict, of_dataset
from falaj.facts.data import ContractReport
from falaj.facts.project import GatesTable, RobustnessTable
from falaj.stats.metrics import BINARY, CLASSES, MULTICLASS

__all__ = ["Kept", "measure"]

HALF = 0.5
USUAL = {
    "binary-classification": "roc_auc",
    "multiclass-classification": "accuracy",
    "regression": "r2",
    "forecasting": "r2",
    "ranking": "ndcg",
}
TWO = 2
OnCheck = Callable[[CheckResult], None]
Check = Callable[[], Sequence[CheckResult]]
Kept = Callable[[str, tuple[object, ...], Check], Sequence[CheckResult]]


def made_anew(_gate: str, _rules: tuple[object, ...], check: Check) -> Sequence[CheckResult]:
    """Nothing is kept."""
    return check()


def measure(
    *,
    candidate: EvaluationSet,
    score: Scorer,
    threshold: float | None,
    champion: Scorer | None,
    champion_release: str,
    gates: GatesTable,
    required: tuple[str, ...],
    contracts: Sequence[ContractReport],
    security: Sequence[CheckResult],
    latencies_us: NDArray[np.int64] | None,
    reuse: int,
    subject: str,
    policy: str,
    now: datetime,
    on_check: OnCheck,
    reference: Reference | None = None,
    kept: Kept = made_anew,
    own: Check | None = None,
    suites: Sequence[CheckResult] = (),
    tests: Sequence[CheckResult] = (),
    memory_mb: Mapping[str, float] | None = None,
    scans: Sequence[CheckResult] = (),
) -> GateReport:
    """champion: scores the candidate's own rows; None when nothing is live yet.

    reuse: candidates that these rows have judged before. subject: digest of the model's files.
    reference: rows of the training. own: makes the project's own checks. kept: remembers results by a gate's name and its rules; of the model and the rows it knows.
    suites: what other tools found in the data. tests: what the project's own tests say.
    scans: what was found in the lock and in the code. memory_mb: `ready` and `peak` of the process that gave the answers which were timed.
    """
    limit = HALF if threshold is None else threshold
    results: list[CheckResult] = []

    def keep(made: Sequence[CheckResult]) -> None:
        for result in made:
            results.append(result)
            on_check(result)

    def make(gate: str, check: Check, *rules: object) -> None:
        """rules: given for what is dear and depends on nothing else, so that it can be kept."""
        keep(guarded(gate, (lambda: kept(gate, rules, check)) if rules else check))

    live: list[NDArray[np.float64]] = []

    def champions() -> NDArray[np.float64] | None:
        if champion is not None and not live:
            live.append(champion(candidate.x))
        return live[0] if live else None

    make("data", lambda: told_apart(contracts, suites))
    make("security", lambda: security)
    make("tests", lambda: tests)
    make("code", lambda: scans)
    scores = guarded_scores(score, candidate)
    if isinstance(scores, CheckResult):
        keep([scores])
    elif not len(candidate.y) or (candidate.task in CLASSES and len(np.unique(candidate.y)) < TWO):
        keep([one_class(candidate)])
    else:
        quality, biases, robustness = gates.quality, gates.biases, gates.robustness
        slices = gates.slices
        unit = quality.unit if quality else ""
        if quality is not None:
            make(
                "quality",
                lambda: [
                    check_quality(
                        candidate.y,
                        scores,
                        limit,
                        quality,
                        reuse=reuse,
                        sample=candidate.sample(limit, unit),
                        digest=candidate.digest,
                    )
                ],
            )
        if quality is not None and champion is not None:
            make(
                "quality",
                lambda: [
                    check_against_champion(
                        candidate.y,
                        scores,
                        cast("NDArray[np.float64]", champions()),
                        limit,
                        quality,
                        reuse=reuse,
                        sample=candidate.sample(limit, unit),
                        digest=candidate.digest,
                    )
                ],
            )
        if biases:
            make(
                "bias",
                lambda: check_biases(candidate, scores, limit, biases),
                *(*biases, limit),
            )
        if slices is not None:
            metric = quality.metric if quality else USUAL[candidate.task]
            make(
                "slices",
                lambda: check_slices(
                    candidate, scores, limit, slices, metric, unit=unit, champion=champions()
                ),
                slices,
                metric,
                unit,
                limit,
                champion_release,
            )
        if gates.calibration is not None:
            calibration = gates.calibration
            make(
                "calibration",
                lambda: check_calibration(candidate, scores, calibration),
                calibration,
            )
        if robustness is not None:
            # A yes-or-no answer is measured by its order, whatever its own metric is.
            named = quality.metric if quality else USUAL[candidate.task]
            loss = "roc_auc" if candidate.task == BINARY else named
            for shift in shifts(robustness):
                make(
                    "robustness",
                    partial(
                        guarded_shift,
                        candidate,
                        scores,
                        score,
                        shift,
                        robustness,
                        limit,
                        reference,
                        loss,
                        unit,
                    ),
                    shift,
                    loss,
                    unit,
                    robustness.max_drop,
                    robustness.max_against,
                    limit,
                )
    leakage = gates.leakage
    if leakage is not None:
        make("leakage", lambda: check_leakage(candidate, reference, leakage), leakage)
    if gates.checks and own is not None:
        make("checks", own)
    latency = gates.latency
    if latency is not None and latencies_us is not None:
        make("latency", lambda: [check_latency(latencies_us, latency, memory_mb)])
        most = latency.max_memory_mb
        if most is not None:
            make("latency", lambda: [check_memory(memory_mb, most, len(latencies_us))])
    return GateReport(
        subject=subject,
        policy=policy,
        at=now,
        results=tuple(results),
        required=required,
        champion=champion_release,
    )


def told_apart(
    contracts: Sequence[ContractReport], suites: Sequence[CheckResult]
) -> list[CheckResult]:
    """Checks of all datasets under the dataset's name; one that still comes twice gets a number."""
    seen: dict[str, int] = {}
    named = []
    promised = [r for report in contracts for r in of_dataset(report.results, report.dataset)]
    for result in [*promised, *suites]:
        seen[result.check] = number = seen.get(result.check, 0) + 1
        name = result.check if number == 1 else f"{result.check}[{number}]"
        named.append(replace(result, check=name))
    return named


def guarded(gate: str, check: Callable[[], Sequence[CheckResult]]) -> Sequence[CheckResult]:
    try:
        return check()
    except Exception as error:
        return [broken(gate, error)]


def guarded_shift(
    rows: EvaluationSet,
    scores: NDArray[np.float64],
    model: Scorer,
    shift: Shift,
    table: RobustnessTable,
    threshold: float,
    reference: Reference | None,
    metric: str,
    unit: str,
) -> Sequence[CheckResult]:
    """A model that breaks without an input is not robust: that is a failure, not a broken check."""

    def guarded_model(x: NDArray[np.float32]) -> NDArray[np.float64]:
        try:
            return model(x)
        except Exception as error:
            raise _Breaks(f"{type(error).__name__}: {error}") from None

    try:
        found = check_shift(
            rows,
            scores,
            guarded_model,
            shift,
            table,
            metric=metric,
            threshold=threshold,
            unit=unit,
            reference=reference,
        )
    except _Breaks as breaks:
        words = "without these inputs" if shift.kind == "missing" else "then"
        found = CheckResult(
            check=shift.check,
            gate="robustness",
            verdict=Verdict.FAIL,
            reason=f"no answers {words}: {breaks}",
            n=len(rows.y),
        )
    return [found]


class _Breaks(Exception):
    """The model, not the check."""


def guarded_scores(score: Scorer, rows: EvaluationSet) -> NDArray[np.float64] | CheckResult:
    """The candidate's scores; a model that gives no number cannot be judged."""
    try:
        found = score(rows.x)
    except Exception as error:
        return broken("quality", error)
    many = rows.task == MULTICLASS
    if found.shape != ((len(rows.y), len(rows.classes)) if many else rows.y.shape):
        what = f"{len(rows.classes)} for each" if many else "one for each"
        return CheckResult(
            check="quality.scores",
            gate="quality",
            verdict=Verdict.ERROR,
            reason=f"got scores of shape {found.shape}, expected {what} of {len(rows.y)} rows",
            n=len(rows.y),
        )
    bad = int((~np.isfinite(found)).any(axis=tuple(range(1, found.ndim))).sum())
    if bad:
        return CheckResult(
            check="quality.scores",
            gate="quality",
            verdict=Verdict.FAIL,
            reason=f"{bad} of {len(found)} scores are no number",
            n=len(found),
        )
    return found


def one_class(rows: EvaluationSet) -> CheckResult:
    n = len(rows.y)
    what = f"the {n} held-out rows are all of one class" if n else "there are no held-out rows"
    return CheckResult(
        check="quality.classes",
        gate="quality",
        verdict=Verdict.INCONCLUSIVE,
        reason=f"{what}: nothing can be told apart",
        n=n,
    )


def broken(gate: str, error: Exception) -> CheckResult:
    return CheckResult(
        check=f"{gate}.error",
        gate=gate,
        verdict=Verdict.ERROR,
        reason=f"the check itself failed: {type(error).__name__}: {error}",
    )
