"""From evidence to outcome: what a canary rollout should do next, and every number behind it.

**Promotion of a metric that has an SLO.** A metric with almost no bad events can never prove "the
odds ratio is below the margin": without events there is nothing to compare. For a metric with an
absolute limit the claim is therefore "within the margin OR below the SLO". Its null is the
intersection of two nulls, A: the odds ratio is at least the margin in every stratum, and B: the
canary's rate is at least the SLO in every stratum. Under the intersection both hold, so both
processes are e-processes, and so is their mean, whatever their dependence: it exceeds 1/beta at
any time with probability beta at most. The mean costs a factor 2 (ln 2 of evidence), not validity.

**Regression over metrics.** The weighted mean of e-processes is an e-process under any dependence;
one e_i >= 1/(.9 alpha w_i) makes it cross. Promotion takes the minimum over required metrics and
thresholds: each must be proven, and no correction is needed (intersection-union).

**alpha** is spent once per rollout: .9 on regressions, .1 on the canary's SLO guard.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from falaj.stats.eproc import TWO_SIDED_GRID, State, log_increment, mixture, start
from falaj.stats.special import logsumexp

__all__ = [
    "BETTER",
    "NO_DATA",
    "NO_DIFFERENCE_YET",
    "WORSE",
    "Exposure",
    "MetricRule",
    "Outcome",
    "Policy",
    "analyse",
    "e_text",
    "start_states",
]

BETTER: Final = "better"
NO_DIFFERENCE_YET: Final = "no difference yet"
WORSE: Final = "worse"
NO_DATA: Final = "no data"

INVALID_E: Final = 1000.0  # SRM, A/A and late counts
STABLE_SLO_E: Final = 10.0
LATE_SHARE: Final = 0.01
REGRESSION_SHARE: Final = 0.9
GUARD_SHARE: Final = 0.1

States = Mapping[str, Sequence[State]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRule:
    """How one metric is judged.

    weight: relative to the other metrics. thresholds: names of the tables of one metric (latency:
    p50, p90, p95, p99); empty means one table. slo: absolute rate, for a metric of one table.
    """

    tolerate: float = 1.0
    margin: float = 1.25
    weight: float = 1.0
    slo: float | None = None
    thresholds: tuple[str, ...] = ()
    required: bool = True

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError(f"got weight {self.weight}, expected above 0")
        if self.slo is not None and self.thresholds:
            raise ValueError("an SLO speaks of one threshold: make it a metric of its own")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """alpha: probability of rolling back a release that is no worse, over the whole rollout.

    beta: of promoting one whose odds ratio reaches the margin. min_requests: of the canary.
    """

    metrics: Mapping[str, MetricRule]
    alpha: float = 0.01
    beta: float = 0.05
    min_requests: int = 500
    min_minutes: float = 10
    business_cycle_minutes: float = 0

    def __post_init__(self) -> None:
        if not (0 < self.alpha < 1 and 0 < self.beta < 1):
            raise ValueError(f"got alpha {self.alpha} and beta {self.beta}, expected 0 .. 1")
        if not any(rule.required for rule in self.metrics.values()):
            raise ValueError("at least one metric must be required: nothing proves nothing")

    def weight(self, name: str) -> float:
        return self.metrics[name].weight / sum(rule.weight for rule in self.metrics.values())


class Exposure(NamedTuple):
    """What the rollout has seen besides the states.

    n_c, n_s: requests. minutes: since the rollout began. step_reached: the step's planned exposure
    is complete. silent: arms that should have traffic and sent no counts for `stall`.
    srm, aa: largest log e so far, of the split and of each metric's A/A strata.
    late_c, late_s: requests that were counted too late. unmergeable: reason, or "".
    """

    n_c: int
    n_s: int
    minutes: float
    step_reached: bool = False
    silent: tuple[str, ...] = ()
    srm: float = 0.0
    aa: Mapping[str, float] = {}
    late_c: int = 0
    late_s: int = 0
    unmergeable: str = ""


class Outcome(NamedTuple):
    """outcome: `invalid`, `rollback`, `pause`, `promote` or `continue`; exactly one.

    advance: on `continue`, the next weight is due. word, words: for people, whole and per metric.
    reasons: sentences; the first is the deciding one. numbers: every number in them, by name;
    names ending in `log_e` are natural logarithms.
    """

    outcome: str
    advance: bool
    word: str
    words: Mapping[str, str]
    reasons: tuple[str, ...]
    numbers: Mapping[str, float]


def start_states(policy: Policy) -> dict[str, tuple[State, ...]]:
    """The states before any count: one a threshold, its metric named `metric` or `metric/name`."""
    return {
        name: tuple(
            start(key, tolerate=rule.tolerate, margin=rule.margin, slo=rule.slo)
            for key in ([f"{name}/{one}" for one in rule.thresholds] or [name])
        )
        for name, rule in policy.metrics.items()
    }


def analyse(states: States, policy: Policy, exposure: Exposure) -> Outcome:
    """Judge a rollout. Pure; the first rule that holds wins.

    1. invalid: the split, the A/A comparison or the counts themselves cannot be trusted.
    2. rollback: a regression is proven, or the canary breaks its SLO while stable keeps it.
    3. pause: stable breaks its SLO, or an arm is silent: an incident, not the release.
    4. promote: every required metric is proven good enough, after the minimum exposure.
    5. continue: otherwise. No data never promotes.

    Raises:
        ValueError: a state was made under another margin, tolerance or SLO than the policy's.
    """
    _check(states, policy)
    told = _Told()
    reasons: list[str] = []
    outcome = "continue"
    for name, rule in _RULES:
        holds, sentences = rule(states, policy, exposure, told)
        reasons = [*sentences, *reasons] if holds else [*reasons, *sentences]
        if holds:
            outcome = name
            break
    if outcome == "continue":
        # the deciding sentences are those that say what promotion still lacks
        reasons = [*sentences, *reasons[: -len(sentences)]]
    words = {name: _word(states.get(name, ()), policy, name) for name in policy.metrics}
    advance = outcome == "continue" and exposure.step_reached
    word = _whole_word(outcome, exposure, words)
    return Outcome(outcome, advance, word, words, tuple(reasons), told.numbers)


# --- the rules, each with its sentences ---


@dataclass(slots=True)
class _Told:
    """Collects every number that a sentence names."""

    numbers: dict[str, float] = field(default_factory=dict)

    def e(self, name: str, log_e: float) -> str:
        self.numbers[f"{name}.log_e"] = log_e
        return e_text(log_e)

    def number(self, name: str, value: float) -> str:
        self.numbers[name] = value
        return f"{value:.6g}"

    def limit(self, name: str, value: float) -> str:
        return self.number(f"{name}.limit", value)


Told = tuple[bool, list[str]]


def _invalid(_: States, policy: Policy, exposure: Exposure, told: _Told) -> Told:
    if exposure.unmergeable:
        return True, [f"the summaries cannot be merged: {exposure.unmergeable}"]
    limit = told.limit("invalid", INVALID_E)
    found: list[str] = []
    quiet: list[str] = []
    sentence = f"evidence against the planned split is {told.e('srm', exposure.srm)}, limit {limit}"
    (found if exposure.srm >= math.log(INVALID_E) else quiet).append(sentence)
    for name in policy.metrics:
        if name in exposure.aa:
            log_e = exposure.aa[name]
            sentence = f"{name}: evidence that two halves of stable differ is "
            sentence += f"{told.e(f'aa.{name}', log_e)}, limit {limit}"
            (found if log_e >= math.log(INVALID_E) else quiet).append(sentence)
    if exposure.late_c or exposure.late_s:
        holds, sentence = _late(exposure, told, limit)
        (found if holds else quiet).append(sentence)
    return bool(found), [*found, *quiet]


def _late(exposure: Exposure, told: _Told, limit: str) -> tuple[bool, str]:
    all_c, all_s = exposure.n_c + exposure.late_c, exposure.n_s + exposure.late_s
    share_c, share_s = exposure.late_c / max(all_c, 1), exposure.late_s / max(all_s, 1)
    log_e = mixture(log_increment(exposure.late_c, all_c, exposure.late_s, all_s, TWO_SIDED_GRID))
    holds = max(share_c, share_s) > LATE_SHARE and log_e >= math.log(INVALID_E)
    return holds, (
        f"late counts are {told.number('late.canary', share_c)} of canary and "
        f"{told.number('late.stable', share_s)} of stable, limit "
        f"{told.limit('late', LATE_SHARE)}; evidence that the arms differ is "
        f"{told.e('late', log_e)}, limit {limit}"
    )


def _rollback(states: States, policy: Policy, _: Exposure, told: _Told) -> Told:
    log_limit = -math.log(REGRESSION_SHARE * policy.alpha)
    parts = {
        name: (policy.weight(name), _regression(states.get(name, ()))) for name in policy.metrics
    }
    whole = float(logsumexp([math.log(w) + log_e for w, log_e in parts.values()]))
    guilty = [name for name, (w, log_e) in parts.items() if math.log(w) + log_e >= log_limit]
    regression = whole >= log_limit
    shares = ", ".join(
        f"{name} {told.e(f'rollback.{name}', log_e)} x {told.number(f'weight.{name}', w)}"
        for name, (w, log_e) in parts.items()
    )
    sentence = (
        f"evidence of a regression is {told.e('rollback', whole)}, limit "
        f"{told.limit('rollback', math.exp(log_limit))} ({shares})"
    )
    if regression:
        sentence = f"worse: {', '.join(guilty) or 'jointly, no metric alone'}; {sentence}"
    guard, guard_sentence = _guard(states, policy, told)
    lines = [guard_sentence] if guard_sentence else []
    if guard and not regression:
        return True, [*lines, sentence]
    return regression, [sentence, *lines]


def _guard(states: States, policy: Policy, told: _Told) -> tuple[bool, str]:
    """The canary breaks its SLO while stable keeps it."""
    guards = _guards(states)
    if guards is None:
        return False, ""
    log_limit = -math.log(GUARD_SHARE * policy.alpha)
    canary, stable = guards
    return canary >= log_limit and stable < math.log(STABLE_SLO_E), (
        f"evidence that the canary breaks its SLO is {told.e('slo.canary', canary)}, limit "
        f"{told.limit('slo', math.exp(log_limit))}; that stable does, "
        f"{told.e('slo.stable', stable)}, which must be below "
        f"{told.limit('slo.stable', STABLE_SLO_E)}"
    )


def _pause(states: States, policy: Policy, exposure: Exposure, told: _Told) -> Told:
    lines = [f"no counts from {arm}, which should have traffic" for arm in exposure.silent]
    guards = _guards(states)
    log_limit = -math.log(GUARD_SHARE * policy.alpha)
    if guards is not None and guards[1] >= log_limit:
        lines.append(
            "stable itself breaks its SLO, evidence "
            f"{told.e('slo.stable', guards[1])}, limit {told.limit('slo', math.exp(log_limit))}: "
            "an incident, not the release"
        )
    return bool(lines), lines


def _promote(states: States, policy: Policy, exposure: Exposure, told: _Told) -> Told:
    log_limit = -math.log(policy.beta)
    lines, holds = [], True
    for name, rule in policy.metrics.items():
        if not rule.required:
            continue
        here = states.get(name, ())
        log_e = min((one.log_e_promote for one in here), default=0.0)
        proven = log_e >= log_limit
        holds = holds and proven
        claim = f"an odds ratio below {told.number(f'margin.{name}', rule.margin)}"
        if rule.slo is not None:
            claim += f" or a rate below {told.number(f'slo_rate.{name}', rule.slo)}"
        lines.append(
            f"{name}: evidence for {claim} is {told.e(f'promote.{name}', log_e)}, "
            f"{'reaches' if proven else 'below'} {told.limit('promote', math.exp(log_limit))}"
        )
    least = max(policy.min_minutes, policy.business_cycle_minutes)
    holds = holds and exposure.n_c >= policy.min_requests and exposure.minutes >= least
    lines.append(
        f"{told.number('requests.canary', exposure.n_c)} canary requests of at least "
        f"{told.limit('requests', policy.min_requests)}, "
        f"{told.number('minutes', exposure.minutes)} minutes of at least "
        f"{told.limit('minutes', least)}"
    )
    return holds, lines


_RULES: Final[tuple[tuple[str, Callable[[States, Policy, Exposure, _Told], Told]], ...]] = (
    ("invalid", _invalid),
    ("rollback", _rollback),
    ("pause", _pause),
    ("promote", _promote),
)


# --- small parts ---


def e_text(log_e: float) -> str:
    """An e-value for people; powers of ten where a float would overflow."""
    if abs(log_e) < 600:
        return f"{math.exp(log_e):.4g}"
    return f"10^{log_e / math.log(10):.0f}"


def _regression(states: Sequence[State]) -> float:
    """Mean of the e-processes of a metric's thresholds."""
    return mixture([one.log_e for one in states]) if states else 0.0


def _guards(states: States) -> tuple[float, float] | None:
    """Mean SLO guards of canary and stable over the metrics that have an SLO."""
    found = [one.log_e_guard for some in states.values() for one in some]
    known = np.array([one for one in found if one is not None])
    return (mixture(known[:, 0]), mixture(known[:, 1])) if len(known) else None


def _word(states: Sequence[State], policy: Policy, name: str) -> str:
    if not states or any(min(one.n_c, one.n_s) == 0 for one in states):
        return NO_DATA
    log_limit = -math.log(REGRESSION_SHARE * policy.alpha * policy.weight(name))
    if _regression(states) >= log_limit:
        return WORSE
    better = min(one.log_e_better for one in states) >= -math.log(policy.beta)
    return BETTER if better else NO_DIFFERENCE_YET


def _whole_word(outcome: str, exposure: Exposure, words: Mapping[str, str]) -> str:
    if outcome == "rollback":
        return WORSE
    if outcome == "invalid" or exposure.silent or NO_DATA in words.values():
        return NO_DATA
    return BETTER if BETTER in words.values() else NO_DIFFERENCE_YET


def _check(states: States, policy: Policy) -> None:
    for name, some in states.items():
        rule = policy.metrics.get(name)
        if rule is None:
            raise ValueError(f"got states of {name!r}, which the policy does not name")
        wanted = (rule.tolerate, rule.margin, rule.slo)
        for one in some:
            if (one.tolerate, one.margin, one.slo) != wanted:
                raise ValueError(f"{one.metric}: the state was made under another rule")
        if len(some) != max(1, len(rule.thresholds)):
            raise ValueError(f"{name}: got {len(some)} states, the rule names other thresholds")
