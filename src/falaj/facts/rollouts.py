"""Rollouts: how a release walks into an environment, and why it goes on or back."""

from __future__ import annotations

import enum
from typing import Any

from falaj.base.time import Instant
from falaj.facts.serving import TrafficPlan
from falaj.facts.wire import Fact

__all__ = [
    "Deployment",
    "KpiReport",
    "LiveMove",
    "MetricPlan",
    "Mode",
    "Outcome",
    "Phase",
    "Rollout",
    "RolloutDecision",
    "RolloutPlan",
    "Strategy",
    "Stratum",
]


class Strategy(enum.StrEnum):
    CANARY = "canary"
    DIRECT = "direct"  # the first release of a model: there is nothing to compare with
    BLUE_GREEN = "blue-green"  # all of it at once, the other one whole beside it; instant return
    ROLLING = "rolling"  # server after server
    SHADOW = "shadow"  # copies of requests, judged on the same rows; answers nobody


class Mode(enum.StrEnum):
    """Who moves: nobody but people, people who are told what to do, or the analysis itself."""

    OBSERVE = "observe"
    ADVISE = "advise"
    ACT = "act"


class Phase(enum.StrEnum):
    STARTING = "starting"  # folders and processes are being made ready, no traffic yet
    MEASURING = "measuring"  # A/A: two arms of the release that is live, for their dispersion
    PROGRESSING = "progressing"
    PAUSED = "paused"
    PROMOTING = "promoting"  # the proof is there; the target is being switched
    PROMOTED = "promoted"
    ROLLING_BACK = "rolling-back"  # traffic goes back; retried until the target confirms
    ROLLED_BACK = "rolled-back"
    ABORTED = "aborted"


class Outcome(enum.StrEnum):
    """What the analysis says (STATISTICS, 5)."""

    CONTINUE = "continue"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    PAUSE = "pause"
    INVALID = "invalid"


class MetricPlan(Fact, frozen=True, kw_only=True):
    """One metric of the user's own: bad events of all events, in both arms.

    source: `kpi` (reported by the user's system) or `prometheus`. at_least, at_most: for reported
    values: what is below or above is a bad event. all, bad: PromQL of counters; `{release}` and
    `{version}` stand for the arm's. slo: largest share of bad events. prove: promotion needs it.
    """

    source: str = "kpi"
    at_least: float | None = None
    at_most: float | None = None
    url: str = ""
    all: str = ""
    bad: str = ""
    tolerate: float = 1.0
    margin: float = 1.25
    weight: float = 1.0
    slo: float | None = None
    prove: bool = False


class RolloutPlan(Fact, frozen=True, kw_only=True):
    """steps_pct: traffic shares in percent, strictly rising, last is 100. Times in seconds.

    alpha: probability of rolling back a release that is no worse, over the whole rollout.
    beta: probability of promoting one that is worse than `margin`. tolerate: odds ratio that counts
    as no worse. margins: per metric, where it differs from `margin`. slo: largest share of bad
    answers per metric. prove: metrics that must be proven within their margin before 100 %.
    pause_pct: shares before which a person is asked. aa_s: how long two arms of the release that is
    live are compared first. incident: share of errors of both arms that is an incident. shadow_pct:
    share of requests that the shadow sees. metrics: of the user's own, by name.
    """

    strategy: Strategy
    steps_pct: tuple[int, ...] = (5, 25, 50, 100)
    hold_s: float = 0.0
    stratum_s: float = 60.0
    grace_s: float = 5.0
    alpha: float = 0.01
    beta: float = 0.05
    margin: float = 1.25
    tolerate: float = 1.0
    latency_tolerate: float = 1.1
    margins: dict[str, float] = {}
    slo: dict[str, float] = {}
    prove: tuple[str, ...] = ("errors", "labels")
    min_requests: int = 500
    min_time_s: float = 600.0
    warmup_s: float = 120.0
    stall_s: float = 300.0
    latency_margin_us: int = 1000  # what the canary may be slower at every threshold
    mode: Mode = Mode.ACT
    pause_pct: tuple[int, ...] = ()
    aa_s: float = 0.0
    key: str = "request"
    sticky: bool = False
    testers: tuple[str, ...] = ()
    incident: float = 0.25
    shadow_pct: int = 100
    metrics: dict[str, MetricPlan] = {}

    def __post_init__(self) -> None:
        if list(self.steps_pct) != sorted(set(self.steps_pct)) or self.steps_pct[-1:] != (100,):
            raise ValueError(f"steps_pct must rise strictly and end with 100, got {self.steps_pct}")


class Rollout(Fact, frozen=True, kw_only=True):
    """One walk. `analysis` is the state of the e-processes, replayable from the strata."""

    id: str
    change: str
    environment: str
    model: str
    release: str
    version: str
    previous: str = ""  # release that was stable before; the way back
    previous_version: str = ""
    plan: RolloutPlan
    phase: Phase
    step: int = 0
    salt: str
    latency_us: tuple[int, ...] = ()
    started: Instant
    since: Instant  # of this step or phase
    done_stratum: int = -1  # highest stratum that the analysis has taken
    analysis: dict[str, Any] = {}
    why: str = ""  # why it stands where it stands
    asked: str = ""  # a person's pending wish: pause, resume, promote, abort, rollback
    asked_by: str = ""
    asked_why: str = ""
    promotion: str = ""  # DSSE, JSON text: what policy allowed, and on what grounds
    opened: Instant | None = None  # when it first carried traffic
    dispersion: dict[str, Any] = {}  # by table, as A/A measured it: phi, upper, share, strata
    let_through: int = -1  # the highest step that a person let through
    advised: str = ""  # the move that people were told to make last


class Stratum(Fact, frozen=True, kw_only=True):
    """Counts of one metric in one closed stratum, added over sources: input of the analysis."""

    stratum: int
    zone: str
    step: int
    metric: str
    n_c: int
    x_c: int
    n_s: int
    x_s: int


class RolloutDecision(Fact, frozen=True, kw_only=True):
    """One look of the analysis that mattered, with every number it used. Append-only."""

    id: str
    rollout: str
    at: Instant
    step: int
    outcome: Outcome
    action: str  # hold | advance | promote | rollback | pause | abort
    reasons: tuple[str, ...]
    numbers: dict[str, Any]


class KpiReport(Fact, frozen=True, kw_only=True):
    """What the user's system counted of one metric in both arms, since its last report.

    id: the sender's; the same again counts once. at: when it arrived.
    """

    id: str
    model: str
    metric: str
    n_c: int
    x_c: int
    n_s: int
    x_s: int
    at: Instant


class LiveMove(Fact, frozen=True, kw_only=True):
    """The ledger: from `at` on, this is what answers. Append-only."""

    id: str
    environment: str
    model: str
    stable: str
    stable_version: str
    canary: str = ""
    canary_version: str = ""
    weight_bp: int = 0
    at: Instant
    cause: str  # rollout id, or the rollback's
    seq: int


class Deployment(Fact, frozen=True, kw_only=True):
    """What an environment should run: the signed plan of the highest seq. id: the environment.

    servers: name -> boot that was last seen ready. amiss: name -> what is not as declared, until it
    is repaired. down: a person stopped it.
    """

    id: str
    seq: int
    plan: TrafficPlan
    envelope: str  # DSSE, JSON text
    since: Instant
    servers: dict[str, str] = {}
    amiss: dict[str, str] = {}
    down: bool = False
    told: tuple[str, ...] = ()
