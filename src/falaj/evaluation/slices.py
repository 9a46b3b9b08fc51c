"""Slices: the metric in declared parts of the rows, and the worst parts that a search finds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from falaj.evaluation.sets import EvaluationSet, coded
from falaj.evaluation.verdicts import finite
from falaj.facts.checks import CheckResult, Verdict
from falaj.facts.project import SlicesTable
from falaj.stats import metrics, paired
from falaj.stats import slices as parts
from falaj.stats.metrics import METRICS, Sample
from falaj.stats.slices import Coded, Judgement, Numbers
from falaj.stats.special import ndtr

__all__ = ["check_slices", "decided"]

GATE: Final = "slices"
Floats = NDArray[np.float64]

MOST_SLICES: Final = 200
MOST_VALUES: Final = 12  # of a number that is cut by its values
CUTS: Final = (0.2, 0.4, 0.6, 0.8)
MOST_WORDS: Final = 50  # of a text column that is searched
AGAINST: Final = f"{GATE}.against_champion"


def check_slices(
    rows: EvaluationSet,
    answer: Floats,
    threshold: float,
    table: SlicesTable,
    metric: str,
    *,
    unit: str = "",
    champion: Floats | None = None,
) -> list[CheckResult]:
    """metric: measured where the table names none. champion: the live model's answers."""
    if rows.task == metrics.RANKING:
        reason = "a ranking is judged by whole queries, not by parts of its rows"
        return [CheckResult(check=f"{GATE}.by", gate=GATE, verdict=Verdict.ERROR, reason=reason)]
    sample = rows.sample(threshold, unit)
    found: list[CheckResult] = []
    if table.by:
        found += declared(rows, sample, answer, table, table.metric or metric, champion)
    if table.find:
        found += searched(rows, sample, answer, table)
    return decided(found, table)


class Slice(NamedTuple):
    """by: as it was declared. words: what the rows have in common."""

    by: str
    words: str
    rows: NDArray[np.bool_]


def declared(
    rows: EvaluationSet,
    sample: Sample,
    answer: Floats,
    table: SlicesTable,
    metric: str,
    champion: Floats | None,
) -> list[CheckResult]:
    """Numbers of every slice, without verdicts yet."""
    found, slices = [], []
    for by in table.by:
        names = [name.strip() for name in by.split(",")]
        missing = [name for name in names if name not in (*rows.groups, *rows.columns)]
        if missing:
            found.append(unknown(by, missing[0], rows))
            continue
        slices += crossed(by, [cut(rows, name) for name in names])
    if len(slices) > MOST_SLICES:
        reason = f"`by` makes {len(slices)} slices, at most {MOST_SLICES} are judged"
        return [CheckResult(check=f"{GATE}.by", gate=GATE, verdict=Verdict.ERROR, reason=reason)]
    whole = metrics.influence(metric, sample, answer)
    small: dict[str, list[tuple[str, int]]] = {by: [] for by in table.by}
    for one in slices:
        n = int(one.rows.sum())
        numbers = (
            f"{n} rows, below {table.min_rows}"
            if n < table.min_rows
            else parts.measured(metric, sample, answer, whole, one.rows)
        )
        if isinstance(numbers, str):
            small[one.by].append((f"{one.words} ({numbers})", n))
        else:
            found.append(pending(f"{GATE}.{one.by}={one.words}", one.words, numbers, by=one.by))
    found += [few(by, those, table) for by, those in small.items() if those]
    if champion is not None and slices:
        found.append(harm(sample, answer, champion, slices, table.min_rows))
    return found


def searched(
    rows: EvaluationSet, sample: Sample, answer: Floats, table: SlicesTable
) -> list[CheckResult]:
    """The worst slices of one half of the rows, with their numbers on the other half."""
    loss = metrics.losses(sample, answer)
    finding = parts.halves(rows.digest, len(loss), sample.unit)
    least = max(table.min_rows, clearing(loss, sample, table.max_excess))
    names = [
        *rows.columns,
        *(name for name in rows.groups if len(coded(rows.groups[name])[1]) <= MOST_WORDS),
    ]
    worst, tried = parts.worst(
        loss, [cut(rows, name) for name in names], finding, least=least, most=table.find
    )
    told = (
        f"{tried:,} slices of {least:,} rows or more were searched on {int(finding.sum()):,} rows"
    )
    if not worst:
        return [
            CheckResult(
                check=f"{GATE}.found",
                gate=GATE,
                verdict=Verdict.PASS if tried else Verdict.INCONCLUSIVE,
                reason=f"{told}: {'none is surely worse' if tried else 'too few rows to search'}",
                n=len(loss),
                requirement=f"no found slice is worse by {table.max_excess:g}",
            )
        ]
    rest = ~finding
    other = sample.only(rest)
    made = []
    for one in worst:
        numbers = parts.loss_numbers(loss[rest], one.rows[rest], other)
        made.append(pending(f"{GATE}.found={one.words}", one.words, numbers, searched=told))
    return made


def clearing(loss: Floats, sample: Sample, limit: float) -> int:
    """Rows that a harmless slice needs to be cleared: smaller ones would only raise doubt."""
    mean, spread = float(loss.mean()), float(loss.std())
    scale = mean if sample.task in metrics.NUMBERS else 1.0
    if limit <= 0 or scale <= 0:
        return 0
    power = paired.Z_TAIL + paired.Z_POWER
    return int(np.ceil((power * spread / (limit * scale)) ** 2))


# --- verdicts from numbers: also for rules that come later ---


def decided(found: Sequence[CheckResult], table: SlicesTable) -> list[CheckResult]:
    """Give every slice its verdict: failures are Holm's over all slices of one family."""
    made: list[CheckResult] = []
    families: dict[str, list[tuple[CheckResult, Numbers, Judgement, str, float]]] = {}
    for result in found:
        if "numbers" not in result.details:
            made.append(result)
            continue
        numbers = Numbers(**result.details["numbers"])
        family = "found" if result.check.startswith(f"{GATE}.found=") else "declared"
        for kind, limit in questions(result, numbers, table, family):
            judge = parts.drop if kind in ("max_drop", "max_excess") else parts.level
            one = (result, numbers, judge(numbers, limit), kind, limit)
            families.setdefault(family, []).append(one)
    for those in families.values():
        adjusted = paired.holm([judged.p for _, _, judged, _, _ in those]).tolist()
        for (result, numbers, judged, kind, limit), p in zip(those, adjusted, strict=True):
            made.append(verdict_on(result, numbers, judged, kind, limit, p, len(those)))
    return made


def questions(
    result: CheckResult, numbers: Numbers, table: SlicesTable, family: str
) -> list[tuple[str, float]]:
    if family == "found":
        return [("max_excess", table.max_excess)] if table.find else []
    if result.details["by"] not in table.by:
        return []
    own = table.at_least if METRICS[numbers.metric].greater else table.at_most
    name = "at_least" if METRICS[numbers.metric].greater else "at_most"
    return [
        (kind, limit)
        for kind, limit in ((name, own), ("max_drop", table.max_drop))
        if limit is not None
    ]


def verdict_on(
    result: CheckResult,
    one: Numbers,
    judged: Judgement,
    kind: str,
    limit: float,
    p: float,
    family: int,
) -> CheckResult:
    value, low, high = judged.bounds
    rising = kind == "at_least"
    holds = low >= limit if rising else high < limit
    undecided = Verdict.PASS if holds else Verdict.INCONCLUSIVE
    verdict = Verdict.FAIL if p < paired.TAIL else undecided
    words = result.details["slice"]
    said = f"{words}: {one.n:,} rows, {one.metric} {one.value:.4g}, all rows {one.whole:.4g}"
    if kind in ("max_drop", "max_excess"):
        said += f"; worse by {value:.4g}, at least {low:.4g}, at most {high:.4g}"
    else:
        said += f", at least {low:.4g}, at most {high:.4g}"
    needed = None
    if verdict is not Verdict.PASS:
        said += f"; p that the limit holds {judged.p:.4f}, over all {family} slices {p:.4f}"
    if verdict is Verdict.INCONCLUSIVE:
        needed = paired.n_needed(one.n, (high - low) / (2 * paired.Z_TAIL), value - limit)
        said += f"; {'no sensible number of' if needed is None else f'about {needed:,}'} rows of it decide"
    bound = f"lower bound >= {limit:g}" if rising else f"upper bound < {limit:g}"
    asked = {"max_drop": "worse than all rows: ", "max_excess": "worse than all rows: "}
    suffix = " drop" if kind == "max_drop" else ""
    return CheckResult(
        check=result.check.removesuffix(" drop") + suffix,
        gate=GATE,
        verdict=verdict,
        reason=said,
        metric=f"drop of {one.metric}" if kind in ("max_drop", "max_excess") else one.metric,
        value=finite(value),
        low=finite(low),
        high=finite(high),
        limit=limit,
        requirement=asked.get(kind, "") + bound,
        n=one.n,
        n_needed=needed,
        details=result.details,
    )


def pending(check: str, words: str, numbers: Numbers, **more: str) -> CheckResult:
    """Measured, and not decided yet."""
    return CheckResult(
        check=check,
        gate=GATE,
        verdict=Verdict.SKIPPED,
        reason="",
        details={"slice": words, "numbers": numbers._asdict(), **more},
    )


def few(by: str, those: Sequence[tuple[str, int]], table: SlicesTable) -> CheckResult:
    """Slices that are too small: counted and named, never merged into others."""
    report = table.small_slices == "report"
    named = ", ".join(words for words, _ in those[:5]) + (", ..." if len(those) > 5 else "")
    rows = sum(n for _, n in those)
    return CheckResult(
        check=f"{GATE}.{by} too small",
        gate=GATE,
        verdict=Verdict.PASS if report else Verdict.INCONCLUSIVE,
        reason=f"{len(those)} slices with {rows:,} rows are too small to judge"
        f"{'; reported only' if report else ''}: {named}",
        n=rows,
        details={"by": by, "small": [words for words, _ in those]},
    )


def harm(
    sample: Sample, answer: Floats, champion: Floats, slices: Sequence[Slice], least: int
) -> CheckResult:
    """No slice is shown to be worse than with the live model: McNemar's mid-p, Holm over all.

    A harm test, not a proof of equality: with many small slices such a proof is out of reach.
    """
    mine, live = metrics.losses(sample, answer), metrics.losses(sample, champion)
    large = [one for one in slices if int(one.rows.sum()) >= least]
    if not large:
        return CheckResult(
            check=AGAINST, gate=GATE, verdict=Verdict.INCONCLUSIVE,
            reason=f"no slice has {least} rows",
        )  # fmt: skip
    gaps = [(mine - live)[one.rows] for one in large]
    if sample.task in metrics.CLASSES:
        p = [paired.mcnemar_mid_p(int((g > 0).sum()), int((g < 0).sum())) for g in gaps]
    else:
        p = [rising(g) for g in gaps]
    adjusted = paired.holm(p)
    worst = int(np.argmin(adjusted))
    one, gap = large[worst], float(gaps[worst].mean())
    failed = [s.words for s, q in zip(large, adjusted, strict=True) if q < paired.TAIL]
    said = f"{one.words}: loss {gap:+.4g} on {len(gaps[worst]):,} rows, p over all {len(large)} slices {adjusted[worst]:.4f}"
    return CheckResult(
        check=AGAINST,
        gate=GATE,
        verdict=Verdict.FAIL if failed else Verdict.PASS,
        reason=(
            "harmed: " + "; ".join(failed) + "; worst "
            if failed
            else "none is shown to be worse; least sure "
        )
        + said,
        metric="rise of the loss",
        value=gap,
        requirement="no slice harmed, Holm over all at 5 %",
        n=len(mine),
        details={"slices": len(large), "p": float(adjusted[worst])},
    )


def rising(gap: Floats) -> float:
    spread = float(gap.std(ddof=1)) / np.sqrt(len(gap))
    if spread == 0:
        return 1.0 if gap.mean() <= 0 else 0.0
    return float(ndtr(-gap.mean() / spread))


def unknown(by: str, name: str, rows: EvaluationSet) -> CheckResult:
    known = ", ".join(sorted({*rows.groups, *rows.columns}))
    return CheckResult(
        check=f"{GATE}.{by}",
        gate=GATE,
        verdict=Verdict.ERROR,
        reason=f"the held-out rows have no column {name!r}; they have: {known}",
    )


# --- columns in words ---


def cut(rows: EvaluationSet, name: str) -> Coded:
    """A text by its values; a number by its values when few, else at its quintiles."""
    if name in rows.groups:
        code, known = coded(rows.groups[name])
        return Coded(name, code, tuple(f"{name} is {word}" for word in known))
    x = rows.x[:, rows.columns.index(name)].astype(np.float64)
    holes = np.isnan(x)
    there = x[~holes]
    some = np.unique(there[:: max(len(there) // 5000, 1)])
    values = np.unique(there) if len(some) <= MOST_VALUES else some
    if len(values) <= MOST_VALUES:
        code = np.searchsorted(values, x)
        words = [f"{name} is {value:g}" for value in values]
    else:
        edges = np.unique(np.quantile(there, CUTS))
        code = np.searchsorted(edges, x)
        told = [f"{edge:g}" for edge in edges]
        words = [f"{name} up to {told[0]}"]
        words += [f"{name} above {a} up to {b}" for a, b in pairwise(told)]
        words += [f"{name} above {told[-1]}"]
    if holes.any():
        words.append(f"{name} is missing")
    return Coded(name, np.where(holes, len(words) - 1, code).astype(np.intp), tuple(words))


def crossed(by: str, cuts: Sequence[Coded]) -> list[Slice]:
    code, words = cuts[0].code, list(cuts[0].words)
    for other in cuts[1:]:
        code = code * len(other.words) + other.code
        words = [f"{a} and {b}" for a in words for b in other.words]
    counts = np.bincount(code, minlength=len(words))
    return [Slice(by, words[k], code == k) for k in np.flatnonzero(counts).tolist()]
