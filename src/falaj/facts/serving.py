"""The traffic plan that a data plane obeys, and the counts that it gives back."""

from __future__ import annotations

import enum

from falaj.base.time import Instant
from falaj.facts.wire import Fact

__all__ = [
    "AccessPlan",
    "Arm",
    "ArmPlan",
    "Boot",
    "Counts",
    "Desired",
    "FeaturePlan",
    "LogKey",
    "ModelPlan",
    "Observed",
    "ObservedServer",
    "SplitPlan",
    "TokenIssuer",
    "TrafficPlan",
]


class Arm(enum.StrEnum):
    STABLE = "stable"
    CANARY = "canary"


class ArmPlan(Fact, frozen=True, kw_only=True):
    """release: id. folder: relative to the target's root. weight_bp: 1/10,000 of the traffic."""

    release: str
    folder: str
    weight_bp: int = 0
    timeout_ms: int = 1000

    def __post_init__(self) -> None:
        if not 0 <= self.weight_bp <= 10_000:
            raise ValueError(f"weight_bp: got {self.weight_bp}, expected 0 to 10000")


class SplitPlan(Fact, frozen=True, kw_only=True):
    """salt: base64 of 16-64 bytes, new for each rollout. stratum_ms: arms are drawn anew each.

    sticky: arms are drawn once for each `key`, for as long as the salt lives. testers: principals
    and `role:NAME`s who may choose their arm by the header `falaj-arm`; such requests count in no
    arm.
    """

    salt: str
    key: str = "request"
    sticky: bool = False
    stratum_ms: int = 60_000
    testers: tuple[str, ...] = ()


class FeaturePlan(Fact, frozen=True, kw_only=True):
    """Where inputs come from that a request does not bring: a table below the target's `features`.

    key: name in a row of the request, instead of `columns`. defaults: column -> value as JSON, where
    the table does not know it. required: without a known row no answer (503). max_age_s: what is
    older is used and counted as stale; 0 is no limit.
    """

    table: str
    key: str
    columns: tuple[str, ...]
    defaults: dict[str, str] = {}
    required: bool = False
    max_age_s: int = 0


class ModelPlan(Fact, frozen=True, kw_only=True):
    """latency_us: four thresholds frozen from stable (p50, p90, p95, p99). step: of the rollout.

    latency_margin_us: a canary's answer counts as slow only when it is above a threshold by more.
    shadow: gets copies of shadow_bp / 10,000 of the requests and never answers. rolled: where it is
    above 0, the split is by server, not by request: the first `rolled` servers of the environment
    answer with the canary alone, all others with stable alone. on_full: what happens when the
    inference log cannot take a row: `drop` it and count, or `refuse` the request (503), where an
    unlogged decision is forbidden.
    """

    stable: ArmPlan
    canary: ArmPlan | None = None
    standby: ArmPlan | None = None
    step: int = 0
    rollout: str = ""
    split: SplitPlan
    latency_us: tuple[int, ...] = ()
    latency_margin_us: int = 0
    shadow: ArmPlan | None = None
    shadow_bp: int = 0
    rolled: int = 0
    on_full: str = "drop"
    features: FeaturePlan | None = None


class LogKey(Fact, frozen=True, kw_only=True):
    """What servers seal their inference log under. public: base64 of 32 bytes, X25519.

    It opens nothing: who holds the key of `scope` reads what was sealed under this half of it.
    """

    scope: str
    version: int
    public: str
    classification: str = ""
    residency: str = ""


class TokenIssuer(Fact, frozen=True, kw_only=True):
    """Whose tokens are taken: `issuer` by exact text. keys: kid -> public key, PEM (ES256).

    prefix: stands in front of the subject of its tokens, so that two issuers' subjects differ.
    """

    issuer: str
    audience: str
    keys: dict[str, str]
    max_lifetime_s: int = 900
    prefix: str = ""


class AccessPlan(Fact, frozen=True, kw_only=True):
    """Who may ask the data plane, decided beforehand. No entry, no access.

    allow: (who, action, model). who: a principal (a token's subject, a certificate's SPIFFE URI) or
    `role:NAME`; action: `infer`, `ground-truth` or `override` (choose the arm); model: a name or `*`.
    roles: principal -> names. rate: who -> requests a second; the largest that fits counts, without
    one there is no limit. expires: from then on nobody is let in; None: with the next plan.
    """

    issuers: tuple[TokenIssuer, ...] = ()
    allow: tuple[tuple[str, str, str], ...] = ()
    roles: dict[str, tuple[str, ...]] = {}
    rate: dict[str, int] = {}
    expires: Instant | None = None


class TrafficPlan(Fact, frozen=True, kw_only=True):
    """plan.json inside its DSSE envelope (role `plan`). seq only grows; no floats.

    log_key: the inference log is sealed under it; without one it is written in the clear.
    access: without it a server on loopback answers everybody there, and any other nobody.
    """

    v: int = 1
    seq: int
    environment: str
    zone: str
    issued: Instant
    models: dict[str, ModelPlan]
    log_key: LogKey | None = None
    access: AccessPlan | None = None


class Desired(Fact, frozen=True, kw_only=True):
    """What a target should run: declarative, applied again and again without harm.

    folders: release id -> absolute folder with its files. envelope: the signed plan, JSON text.
    trust: the trust root, JSON text. port: 0 lets the target choose once and keep it.
    """

    environment: str
    plan: TrafficPlan
    envelope: str
    trust: str
    folders: dict[str, str]
    replicas: int = 1
    port: int = 0


class ObservedServer(Fact, frozen=True, kw_only=True):
    """One process of the target as it was seen."""

    name: str
    url: str
    pid: int
    boot: str
    ready: bool
    plan_seq: int
    live: dict[str, str]  # model -> release id that answers as stable
    canary: dict[str, str] = {}
    problem: str = ""


class Observed(Fact, frozen=True, kw_only=True):
    """changed: release folders that were changed by hand and put back, name@time -> files."""

    environment: str
    servers: tuple[ObservedServer, ...] = ()
    changed: dict[str, str] = {}


class Boot(Fact, frozen=True, kw_only=True):
    """Written first by each server process: which release stands behind a request id's slot."""

    boot: str  # 16 hex
    at: Instant
    pid: int
    slots: dict[str, str]  # slot -> release id


class Counts(Fact, frozen=True, kw_only=True):
    """Counts of one source (a server process) in one stratum, cumulative, with a sequence number.

    The reader keeps the highest `seq` of each (source, stratum, metric, rollout), then adds over
    sources. metric: requests carry n; errors and latency.<i> count x of n per arm.
    """

    source: str
    seq: int
    model: str
    rollout: str
    stratum: int  # milliseconds since 1970 divided by stratum_ms
    zone: str
    step: int
    metric: str
    n_c: int
    x_c: int
    n_s: int
    x_s: int
