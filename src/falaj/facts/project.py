"""falaj.toml as one typed tree. Secrets are never in it, only addresses of secrets.

Every setting says what it is, its unit and its range in its annotation; the reference page and the
error messages are made from these words. Times are texts such as `30s`, `5m`, `1d`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from falaj.base.time import parse_instant, parse_span
from falaj.facts.data import PROTECTED, Classification
from falaj.facts.governance import ChangesTable, WindowTable
from falaj.facts.rollouts import MetricPlan, Mode, RolloutPlan, Strategy
from falaj.facts.wire import Fact

__all__ = [
    "AuditTable",
    "BiasTable",
    "CalibrationTable",
    "CodeTable",
    "DatasetTable",
    "DependenciesTable",
    "DriftTable",
    "DuckdbTable",
    "EncryptionTable",
    "EnvironmentTable",
    "GatesTable",
    "IgnoreTable",
    "KeysTable",
    "LabelsTable",
    "LatencyTable",
    "LeakageTable",
    "LearningTable",
    "LinksTable",
    "MlflowTable",
    "ModelTable",
    "MonitorsTable",
    "MoveTable",
    "PipelinesTable",
    "Policy",
    "Project",
    "ProjectTable",
    "QualityTable",
    "RayTable",
    "RemoteTable",
    "RobustnessTable",
    "RolloutTable",
    "SlicesTable",
    "WitnessTable",
    "WitnessedTable",
]

DAY: Final = 86400.0
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


def _is(about: str, noun: str = "", **limits: Any) -> Meta:
    """What a setting is, for the reference page; noun: what people call such a value."""
    extra = {"noun": noun} if noun else None
    return Meta(description=about, extra=extra, **limits)


def _time(about: str, least_s: float, most_s: float) -> Meta:
    return Meta(description=about, extra={"span": (least_s, most_s)})


def _share(about: str) -> Meta:
    return _is(about, "a share", ge=0, le=1)


def _seconds(words: str) -> float:
    return parse_span(words).total_seconds()


NAME: Final = r"^[a-z][a-z0-9_-]{0,62}$"
NAME_NOUN: Final = "a name of small letters, digits, - and _"
Name = Annotated[str, Meta(pattern=NAME, extra={"noun": NAME_NOUN})]
Region = Annotated[
    str,
    Meta(
        pattern=r"^([a-z]{2}(-[a-z0-9-]+)?)?$",
        extra={"noun": "a country in two small letters, with a zone or without, such as ae"},
    ),
]
Country = Annotated[
    str, Meta(pattern=r"^[A-Za-z]{2}$", extra={"noun": "a country in two letters (ISO 3166)"})
]
Words = Annotated[str, Meta(min_length=1)]
Gate = Literal[
    "data",
    "quality",
    "bias",
    "robustness",
    "latency",
    "security",
    "slices",
    "calibration",
    "leakage",
    "checks",
    "tests",
    "dependencies",
    "code",
]
Task = Literal[
    "binary-classification", "multiclass-classification", "regression", "forecasting", "ranking"
]
MetricName = Literal[
    "accuracy",
    "balanced_accuracy",
    "brier_score_loss",
    "f1",
    "f1_macro",
    "f1_weighted",
    "log_loss",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "ndcg",
    "precision",
    "r2",
    "recall",
    "roc_auc",
    "roc_auc_ovr",
    "root_mean_squared_error",
]
Watched = Literal["errors", "latency", "labels"]


class ProjectTable(Fact, frozen=True, kw_only=True):
    name: Annotated[Name, _is("The project's name, part of every id and event.")]
    region: Annotated[Region, _is("Jurisdiction of all that this project makes.", min_length=1)]


class ModelTable(Fact, frozen=True, kw_only=True):
    name: Annotated[Name, _is("The model's name in the registry and in URLs.")]
    pipeline: Annotated[
        str,
        _is(
            "The pipeline that makes the model.",
            "module:function",
            pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        ),
    ]
    task: Annotated[
        Task,
        _is(
            "What the model answers: yes or no with a score, one of many classes, a number, a number "
            "of the future, or an order."
        ),
    ]
    purpose: Annotated[str, _is("What the model is for; printed on its card.")] = ""
    intended_use: Annotated[str, _is("Who may use it how, and who may not; on its card.")] = ""


class DatasetTable(Fact, frozen=True, kw_only=True):
    name: Annotated[Name, _is("The name that a pipeline asks for.")]
    source: Annotated[
        Words, _is("Pattern of files, relative to falaj.toml, or a table of a lake or database.")
    ]
    contract: Annotated[str, _is("The data contract's file, relative to falaj.toml.")] = ""
    classification: Annotated[
        Classification, _is("How protected it is; personal and above forbid plain HTTP.")
    ] = Classification.INTERNAL
    purpose: Annotated[tuple[Words, ...], _is("What the data may be used for.")] = ()
    countries: Annotated[
        tuple[Country, ...], _is("Where it may be; nothing: only the project's region.")
    ] = ()
    quarantine_pct: (
        Annotated[
            float,
            _is(
                "Rows that break the contract are set aside, up to this percentage of all; nothing: "
                "one such row stops the run.",
                "a percentage",
                ge=0,
                le=100,
            ),
        ]
        | None
    ) = None
    sample_pct: (
        Annotated[
            float,
            _is(
                "Checks about single rows look at this percentage of them; nothing: at all.",
                "a percentage",
                gt=0,
                le=100,
            ),
        ]
        | None
    ) = None
    sample_tolerance_pct: Annotated[
        float,
        _is(
            "On a sample: percentage of rows that may break a promise which allows none; its upper "
            "95 % bound must lie below.",
            "a percentage",
            ge=0,
            lt=100,
        ),
    ] = 0.0

    def __post_init__(self) -> None:
        if self.quarantine_pct is not None and not self.contract:
            raise ValueError("quarantine_pct: without a contract no row breaks one")
        if self.quarantine_pct is not None and self.sample_pct is not None:
            raise ValueError("sample_pct: which rows are set aside is not known from a sample")


class QualityTable(Fact, frozen=True, kw_only=True):
    """What is better when larger has `at_least`; a loss, such as an error or log loss, `at_most`."""

    metric: Annotated[MetricName, _is("What is measured, by scikit-learn's name.")] = "roc_auc"
    at_least: Annotated[float, _share("The metric's lower 95 % bound must reach this.")] | None = (
        None
    )
    margin_to_champion: Annotated[
        float,
        _share(
            "Non-inferiority: how much worse than the live model is still no worse; of an error in "
            "the target's unit as a share of the live model's."
        ),
    ] = 0.01
    max_reuse: Annotated[
        int,
        _is("Candidates that one evaluation set may judge before it is worn out.", ge=1, le=10000),
    ] = 20
    at_most: (
        Annotated[float, _is("The loss's upper 95 % bound is below this, in its unit.", gt=0)]
        | None
    ) = None
    unit: Annotated[
        str,
        _is(
            "Column beside the evaluation rows of what belongs together (a customer, a day, a query): "
            "whole units are then drawn. Needed for a ranking."
        ),
    ] = ""


LOSSES: Final = (
    "brier_score_loss",
    "log_loss",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "root_mean_squared_error",
)
NUMBERS: Final = ("r2", *LOSSES[2:])
FITTING: Final[dict[str, tuple[str, ...]]] = {
    "binary-classification": (
        "roc_auc", "accuracy", "balanced_accuracy", "f1", "f1_macro", "f1_weighted", "precision",
        "recall", "log_loss", "brier_score_loss",
    ),
    "multiclass-classification": (
        "accuracy", "balanced_accuracy", "f1_macro", "f1_weighted", "roc_auc_ovr", "log_loss",
    ),
    "regression": NUMBERS,
    "forecasting": NUMBERS,
    "ranking": ("ndcg",),
}  # fmt: skip


BiasMetric = Literal[
    "equal_opportunity_ratio",
    "selection_ratio",
    "equal_opportunity_difference",
    "selection_difference",
    "false_positive_rate_difference",
]


class BiasTable(Fact, frozen=True, kw_only=True):
    """One table, or a list of them (`[[gates.bias]]`): failures are Holm's over all of them."""

    group: Annotated[
        Words,
        _is("The column whose groups are compared; `race,sex` crosses two. Never an input's name."),
    ]
    metric: Annotated[
        BiasMetric,
        _is("Ratio or difference of true positive rates, of positive answers, of false positives."),
    ] = "equal_opportunity_ratio"
    at_least: Annotated[float, _share("Each group's lower bound of a ratio must reach this.")] = 0.8
    reference: Annotated[
        str, _is("The group compared with, crossed as `white|men`; nothing: the largest.")
    ] = ""
    small_groups: Annotated[
        Literal["inconclusive", "report"],
        _is("Groups too small to judge hold the gate, or are only reported."),
    ] = "inconclusive"
    metrics: Annotated[
        tuple[BiasMetric, ...], _is("More than one: all are asked for, `metric` is then left out.")
    ] = ()
    at_most: Annotated[
        float, _share("Each group's bounds of a difference lie within plus and minus this.")
    ] = 0.1


class RobustnessTable(Fact, frozen=True, kw_only=True):
    """Columns are named by patterns such as `dep_*`, several joined by `|`."""

    missing: Annotated[
        tuple[Words, ...],
        _is(
            "What is taken away, one element after another: a column, a pattern such as `dep_*`, or "
            "several of them joined by `|`, as when a whole feed is lost.",
            min_length=1,
        ),
    ] = ()
    max_drop: Annotated[float, _share("Largest loss of the quality metric for each.")] = 0.05
    noise: Annotated[tuple[Words, ...], _is("Columns that normal noise is added to.")] = ()
    noise_spread: Annotated[
        float, _is("Its standard deviation, in those of the training rows.", gt=0, le=10)
    ] = 0.1
    out_of_range: Annotated[
        tuple[Words, ...], _is("Columns set far above the largest value of the training.")
    ] = ()
    unit_error: Annotated[
        dict[str, Annotated[float, _is("", "a number", gt=0)]],
        _is("Columns in a wrong unit: pattern and factor, such as 1.609."),
    ] = {}
    unseen: Annotated[
        tuple[Words, ...], _is("Numbered categories set to one that the training has not seen.")
    ] = ()
    invariant: Annotated[
        tuple[Words, ...],
        _is("Columns whose values must not matter: answers stay when they change."),
    ] = ()
    rises: Annotated[
        tuple[Words, ...],
        _is("Columns that never lower the answer when they rise by their spread."),
    ] = ()
    falls: Annotated[
        tuple[Words, ...],
        _is("Columns that never raise the answer when they rise by their spread."),
    ] = ()
    max_against: Annotated[
        float, _share("Share of rows that may answer against `invariant`, `rises` and `falls`.")
    ] = 0.0

    @property
    def disturbs(self) -> bool:
        kinds = (self.missing, self.noise, self.out_of_range, self.unit_error, self.unseen)
        return any((*kinds, self.invariant, self.rises, self.falls))


class LatencyTable(Fact, frozen=True, kw_only=True):
    p99_ms: Annotated[
        float, _is("Milliseconds that 99 % of single answers stay below.", gt=0, le=60000)
    ]
    requests: Annotated[int, _is("Answers that are timed.", ge=100, le=1_000_000)] = 2000
    max_memory_mb: (
        Annotated[
            float,
            _is(
                "Megabytes that the server process stays below under this load.",
                gt=0,
                le=10_000_000,
            ),
        ]
        | None
    ) = None


class SlicesTable(Fact, frozen=True, kw_only=True):
    """Parts of the evaluation rows: those that are declared, and the worst that are found."""

    by: Annotated[
        tuple[Words, ...],
        _is("Columns whose values make slices; `origin,carrier` crosses two of them."),
    ] = ()
    metric: Annotated[
        MetricName | None, _is("Measured in each slice; nothing: the metric of the quality gate.")
    ] = None
    at_least: (
        Annotated[float, _share("The metric's lower bound in each declared slice must reach this.")]
        | None
    ) = None
    at_most: (
        Annotated[float, _is("A loss's upper bound in each declared slice is below this.", ge=0)]
        | None
    ) = None
    max_drop: (
        Annotated[float, _share("How much worse a declared slice may be than all rows together.")]
        | None
    ) = None
    find: Annotated[
        int,
        _is(
            "Worst slices that are searched on half of the rows, judged on the other.", ge=0, le=20
        ),
    ] = 5
    max_excess: Annotated[
        float,
        _share(
            "How much larger the loss of a found slice may be: share of wrong answers, or of MAE."
        ),
    ] = 0.1
    min_rows: Annotated[int, _is("Smaller slices are not judged.", ge=30, le=1_000_000)] = 100
    small_slices: Annotated[
        Literal["report", "inconclusive"],
        _is("Declared slices too small to judge are only reported, or hold the gate."),
    ] = "report"

    def __post_init__(self) -> None:
        limits = (self.at_least, self.at_most, self.max_drop)
        if self.by and limits == (None, None, None):
            raise ValueError("by: declared slices need at_least, at_most or max_drop")
        if not self.by and not self.find:
            raise ValueError("find: without declared slices and without a search nothing is judged")


class CalibrationTable(Fact, frozen=True, kw_only=True):
    max_error: Annotated[
        float, _share("The calibration error's upper bound is below this, in probability.")
    ]
    bins: Annotated[int, _is("Bins of equal mass.", ge=2, le=100)] = 15


class LeakageTable(Fact, frozen=True, kw_only=True):
    """Signs that the evaluation rows are easier than life."""

    max_alone: Annotated[
        float,
        _share(
            "AUC (of a number: rank correlation) with the target that no input alone may reach."
        ),
    ] = 0.98
    allowed: Annotated[
        tuple[Words, ...],
        _is("Inputs that may tell the target alone, because they are known then."),
    ] = ()
    max_duplicates: Annotated[
        float, _share("Share of test rows that may stand among the training rows, value for value.")
    ] = 0.01
    by_time: Annotated[
        bool,
        _is("Where `at` stands in reference and test rows, training must be older than the test."),
    ] = True


class IgnoreTable(Fact, frozen=True, kw_only=True):
    """A finding that is in doubt for a while, and no failure: a person with the role risk waives it."""

    id: Annotated[
        Words,
        _is(
            "Name of an advisory or any alias; a package, for its licence; a rule, or `rule:file`."
        ),
    ]
    reason: Annotated[Words, _is("Why it does not count here.")]
    until: Annotated[
        str,
        _is(
            "The day from which it counts again (UTC).",
            "a day such as 2026-12-31",
            pattern=r"^\d{4}-\d{2}-\d{2}$",
        ),
    ]

    def __post_init__(self) -> None:
        try:
            self.end  # noqa: B018 asked for its refusal
        except ValueError:
            raise ValueError(f"until: {self.until!r} is no day") from None

    @property
    def end(self) -> datetime:
        return parse_instant(self.until)


class DependenciesTable(Fact, frozen=True, kw_only=True):
    """Known vulnerabilities and licences of what the lock pins."""

    fail_from: Annotated[
        Literal["critical", "high", "medium", "low"],
        _is("The least severity that fails; what is below is told."),
    ] = "high"
    unrated_is: Annotated[
        Literal["critical", "high", "medium", "low"],
        _is("What an advisory counts as that nobody has rated."),
    ] = "high"
    max_age_days: Annotated[
        int, _is("Days after which the database of advisories is too old.", ge=1, le=366)
    ] = 7
    ignore: Annotated[
        tuple[IgnoreTable, ...], _is("Findings that are in doubt for a while, each with a reason.")
    ] = ()
    licences_allowed: Annotated[
        tuple[Words, ...],
        _is("SPDX names or patterns such as `BSD-*`; an empty list allows all that is not denied."),
    ] = ()
    licences_denied: Annotated[
        tuple[Words, ...], _is("SPDX names or patterns that are never allowed.")
    ] = ()


class CodeTable(Fact, frozen=True, kw_only=True):
    """What bandit and detect-secrets say about the project's own code."""

    fail_from: Annotated[
        Literal["high", "medium", "low"],
        _is("The least severity that fails; a secret is always high."),
    ] = "medium"
    ignore: Annotated[
        tuple[IgnoreTable, ...], _is("Findings that are in doubt for a while, each with a reason.")
    ] = ()


class GatesTable(Fact, frozen=True, kw_only=True):
    """A gate that an environment requires must stand here; data, security, tests need no table."""

    quality: QualityTable | None = None
    bias: BiasTable | tuple[BiasTable, ...] | None = None
    robustness: RobustnessTable | None = None
    latency: LatencyTable | None = None
    slices: SlicesTable | None = None
    calibration: CalibrationTable | None = None
    leakage: LeakageTable | None = None
    checks: Annotated[
        tuple[
            Annotated[
                str,
                Meta(
                    pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
                    extra={"noun": "module:function"},
                ),
            ],
            ...,
        ],
        _is("The project's own checks, functions with `@falaj.check`."),
    ] = ()
    checks_timeout: Annotated[str, _time("All own checks together end within this.", 1, DAY)] = "5m"
    dependencies: DependenciesTable | None = None
    code: CodeTable | None = None

    def __post_init__(self) -> None:
        if self.robustness is not None and not self.robustness.disturbs:
            raise ValueError(
                "robustness.missing: nothing is disturbed; name columns for one of the kinds"
            )

    @property
    def checks_timeout_s(self) -> float:
        return _seconds(self.checks_timeout)

    @property
    def biases(self) -> tuple[BiasTable, ...]:
        """All bias tables, in the order of the file."""
        if self.bias is None:
            return ()
        return (self.bias,) if isinstance(self.bias, BiasTable) else self.bias


class OwnMetricTable(Fact, frozen=True, kw_only=True):
    """A metric of the user's own: how many of all events were bad, in both arms."""

    source: Annotated[
        Literal["kpi", "prometheus"],
        _is("kpi: reported by the user's system (`falaj kpi`); prometheus: asked for."),
    ] = "kpi"
    at_least: Annotated[
        float | None, _is("A reported value below this is a bad event.", "a number")
    ] = None
    at_most: Annotated[
        float | None, _is("A reported value above this is a bad event.", "a number")
    ] = None
    url: Annotated[str, _is("Where Prometheus listens: http://HOST:PORT, or https.")] = ""
    all: Annotated[
        str, _is("PromQL of a counter of all events; `{release}` and `{version}` name the arm.")
    ] = ""
    bad: Annotated[str, _is("The same for bad events.")] = ""
    tolerate: Annotated[
        float, _is("Odds ratio of bad events that counts as no worse.", ge=1, le=10)
    ] = 1.0
    margin: Annotated[
        float, _is("Promotion proves that the odds ratio is below this.", gt=1, le=20)
    ] = 1.25
    weight: Annotated[
        float, _is("Its part of alpha, beside 1 of each other metric.", gt=0, le=100)
    ] = 1.0
    slo: Annotated[
        float | None, _is("Largest share of bad events, also after the rollout.", "a share")
    ] = None
    prove: Annotated[bool, _is("Whether promotion waits for its proof.")] = False

    def __post_init__(self) -> None:
        if self.source == "prometheus" and not (self.url and self.all and self.bad):
            raise ValueError("url: a metric of prometheus needs url, all and bad")
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url: must begin with http:// or https://, got {self.url[:60]}")
        if self.margin <= self.tolerate:
            raise ValueError(
                f"margin: must be above what is tolerated, got {self.margin} and "
                f"tolerate = {self.tolerate}"
            )
        if self.slo is not None and not 0 < self.slo < 1:
            raise ValueError(f"slo: must be a share above 0 and below 1, got {self.slo}")

    def plan(self) -> MetricPlan:
        return MetricPlan(**{name: getattr(self, name) for name in self.__struct_fields__})


class RolloutTable(Fact, frozen=True, kw_only=True):
    """How a release walks into an environment. Defaults and ranges: STATISTICS, 5."""

    strategy: Annotated[
        Strategy,
        _is(
            "canary compares with what is live; blue-green switches whole and back; rolling goes "
            "server after server; shadow answers nobody; direct switches at once."
        ),
    ] = Strategy.CANARY
    steps_pct: Annotated[
        tuple[Annotated[int, _is("", "a percentage", ge=1, le=100)], ...],
        _is("Traffic shares in percent, strictly rising, the last is 100."),
    ] = (5, 25, 50, 100)
    alpha: Annotated[
        float, _is("Probability of rolling back a release that is no worse.", gt=0, le=0.2)
    ] = 0.01
    beta: Annotated[
        float, _is("Probability of promoting one that is worse than the margin.", gt=0, le=0.2)
    ] = 0.05
    tolerate: Annotated[
        float, _is("Odds ratio of errors that counts as no worse.", ge=1, le=10)
    ] = 1.0
    margin: Annotated[
        float, _is("Promotion proves that the odds ratio of errors is below this.", gt=1, le=20)
    ] = 1.25
    margins: Annotated[
        dict[Watched, Annotated[float, _is("", ge=1.000001, le=20)]],
        _is("Margins of single metrics, where they differ."),
    ] = {}
    latency_tolerate: Annotated[
        float, _is("Odds ratio of slow answers that counts as no worse.", ge=1, le=10)
    ] = 1.1
    latency_difference: Annotated[
        str,
        _time("An answer of the canary that is slower by less counts as no slower.", 0, 60),
    ] = "1ms"
    slo: Annotated[
        dict[Watched, Annotated[float, _share("")]],
        _is("Largest share of bad answers, by metric."),
    ] = {}
    prove: Annotated[
        tuple[Watched, ...], _is("Metrics that must be proven before 100 % of the traffic.")
    ] = ("errors", "labels")
    stratum: Annotated[
        str, _time("Counts are compared inside one such stretch of time.", 0.1, 3600)
    ] = "1m"
    warmup: Annotated[str, _time("Left out of the analysis: a cold start is slow.", 0, DAY)] = "2m"
    hold: Annotated[str, _time("Least time on each step.", 0, 30 * DAY)] = "0s"
    min_requests: Annotated[
        int, _is("Least answers of the canary before promotion.", ge=1, le=1_000_000_000)
    ] = 500
    min_time: Annotated[str, _time("Least time before promotion.", 0, 30 * DAY)] = "10m"
    stall: Annotated[
        str, _time("Silence of an arm after which the rollout pauses.", 1, 7 * DAY)
    ] = "5m"
    grace: Annotated[str, _time("Wait for late counts of a closed stratum.", 0, 3600)] = "5s"
    mode: Annotated[
        Mode, _is("Who moves it: observe and advise leave that to people; act does it by itself.")
    ] = Mode.ACT
    pause_pct: Annotated[
        tuple[Annotated[int, _is("", "a percentage", ge=1, le=100)], ...],
        _is("Shares of `steps_pct` before which a person is asked."),
    ] = ()
    aa: Annotated[
        str, _time("How long two arms of what is live are compared first.", 0, 30 * DAY)
    ] = "0s"
    key: Annotated[
        str,
        Meta(
            pattern=r"^(request|header:[A-Za-z0-9-]{1,128})$",
            description="What draws the arm: `request`, or `header:NAME`.",
            extra={"noun": "request or header:NAME"},
        ),
    ] = "request"
    sticky: Annotated[bool, _is("Whether a key keeps its arm; each key then counts once.")] = False
    testers: Annotated[
        tuple[Words, ...], _is("Who may choose an arm by `falaj-arm`: names, or role:NAME.")
    ] = ()
    incident: Annotated[
        float, _is("Share of errors that is an incident, whoever makes them.", gt=0, lt=1)
    ] = 0.25
    shadow_pct: Annotated[
        int, _is("Share of the requests that a shadow sees.", "a percentage", ge=1, le=100)
    ] = 100
    metrics: Annotated[dict[Name, OwnMetricTable], _is("Metrics of the user's own, by name.")] = {}
    go_back_on: Annotated[
        tuple[Literal["labels", "kpi", "drift"], ...],
        _is("Alerts on the live release that take it back, also long after its rollout."),
    ] = ()

    def __post_init__(self) -> None:
        steps = self.steps_pct
        if self.sticky and self.key == "request":
            raise ValueError("sticky: a request cannot keep its arm; name a header as key")
        if not set(self.pause_pct) <= set(steps):
            raise ValueError("pause_pct: names a share that steps_pct does not have")
        taken = sorted({"errors", "latency", "labels", "requests"} & set(self.metrics))
        if taken:
            raise ValueError(f"metrics: {taken[0]} is one of falaj's own")
        if list(steps) != sorted(set(steps)) or steps[-1:] != (100,):
            raise ValueError(
                f"steps_pct: must rise strictly and end with 100, got {', '.join(map(str, steps))}"
            )
        if self.margin <= self.tolerate:
            raise ValueError(
                f"margin: must be above what is tolerated, got {self.margin} and "
                f"tolerate = {self.tolerate}"
            )

    def plan(self, strategy: Strategy | None = None, *, replicas: int = 1) -> RolloutPlan:
        """The same in seconds, as the rollout takes it. strategy: where it is not the file's."""
        chosen = strategy or self.strategy
        return RolloutPlan(
            strategy=chosen,
            steps_pct=_steps(chosen, self.steps_pct, replicas),
            hold_s=_seconds(self.hold),
            stratum_s=_seconds(self.stratum),
            grace_s=_seconds(self.grace),
            alpha=self.alpha,
            beta=self.beta,
            margin=self.margin,
            tolerate=self.tolerate,
            latency_tolerate=self.latency_tolerate,
            latency_margin_us=round(_seconds(self.latency_difference) * 1e6),
            margins={str(metric): ratio for metric, ratio in self.margins.items()},
            slo={str(metric): share for metric, share in self.slo.items()},
            prove=self.prove,
            min_requests=self.min_requests,
            min_time_s=_seconds(self.min_time),
            warmup_s=_seconds(self.warmup),
            stall_s=_seconds(self.stall),
            mode=self.mode,
            pause_pct=self.pause_pct,
            aa_s=_seconds(self.aa),
            key=self.key,
            sticky=self.sticky,
            testers=self.testers,
            incident=self.incident,
            shadow_pct=self.shadow_pct,
            metrics={name: own.plan() for name, own in self.metrics.items()},
        )


def _steps(strategy: Strategy, steps_pct: tuple[int, ...], replicas: int) -> tuple[int, ...]:
    """Shares of the traffic: warm and whole; server after server; or as the file says."""
    if strategy in (Strategy.BLUE_GREEN, Strategy.SHADOW):
        return (0, 100)
    if strategy is Strategy.ROLLING:
        return tuple(100 * number // replicas for number in range(1, replicas + 1))
    return steps_pct


class EnvironmentTable(Fact, frozen=True, kw_only=True):
    """Environments are ordered as they stand in the file: a release walks from one to the next."""

    target: Annotated[Literal["local"], _is("Where releases run: processes on this machine.")]
    region: Annotated[Region, _is("Its jurisdiction; nothing: the project's.")] = ""
    requires: Annotated[
        tuple[Gate, ...], _is("Gates that a release must pass; an empty list asks for none.")
    ]
    approvals: Annotated[
        int, _is("Persons who must approve, none of them an author.", ge=0, le=10)
    ] = 1
    replicas: Annotated[int, _is("Server processes of each release.", ge=1, le=64)] = 1
    rollout: RolloutTable = RolloutTable()
    after: Annotated[
        tuple[Name, ...] | None,
        _is(
            "Environments that a release has been promoted in before; not said: the one above in "
            "this file; an empty list: none."
        ),
    ] = None
    soak: Annotated[
        str, _time("How long a release has answered in the environment before.", 0, 90 * DAY)
    ] = "0s"
    protected: Annotated[
        bool,
        _is("Only committed code goes there, and no author of a release starts its rollout."),
    ] = False
    groups: Annotated[
        dict[Name, Annotated[int, _is("", ge=1, le=10)]],
        _is("Groups that must be among the approvers: name and number of persons."),
    ] = {}
    timezone: Annotated[
        str, _is("Time zone of its windows and freezes, such as Asia/Dubai.", min_length=1)
    ] = "UTC"
    windows: tuple[WindowTable, ...] = ()
    calendar: Annotated[
        str,
        _is("A calendar file (iCalendar) whose events are freezes, relative to falaj.toml."),
    ] = ""

    def __post_init__(self) -> None:
        if self.protected and not (self.requires and self.approvals):
            missing = "requires" if not self.requires else "approvals"
            raise ValueError(f"{missing}: a protected environment asks for gates and for approvals")
        if self.timezone != "UTC":
            from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

            try:
                ZoneInfo(self.timezone)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                raise ValueError(
                    f"timezone: {self.timezone!r} is no time zone that this machine knows; names are "
                    "such as Asia/Dubai, the files come with the system's package tzdata"
                ) from None

    @property
    def soak_s(self) -> float:
        return _seconds(self.soak)


class DriftTable(Fact, frozen=True, kw_only=True):
    """The reference is the one frozen in the release, so it cannot be chosen here."""

    window: Annotated[str, _time("Answers are compared window by window.", 60, 366 * DAY)] = "1d"
    features: Annotated[tuple[Words, ...], _is("Columns that are watched; nothing: all.")] = ()
    min_rows: Annotated[
        int, _is("A window with fewer rows is inconclusive.", ge=1, le=1_000_000_000)
    ] = 500
    psi_limit: Annotated[
        float, _is("Population stability index that matters in practice.", gt=0, le=10)
    ] = 0.1

    @property
    def window_s(self) -> float:
        return _seconds(self.window)


class LabelsTable(Fact, frozen=True, kw_only=True):
    window: Annotated[str, _time("Ground truth is judged window by window.", 60, 366 * DAY)] = "1d"
    delay: Annotated[str, _time("How long the truth takes to arrive.", 0, 366 * DAY)] = "0s"
    max_wrong: Annotated[float, _share("Largest share of wrong answers; an alert above.")]
    min_rows: Annotated[
        int, _is("A window with fewer labelled rows is inconclusive.", ge=1, le=1_000_000_000)
    ] = 500

    @property
    def window_s(self) -> float:
        return _seconds(self.window)

    @property
    def delay_s(self) -> float:
        return _seconds(self.delay)


class MonitorsTable(Fact, frozen=True, kw_only=True):
    drift: DriftTable | None = None
    labels: LabelsTable | None = None


class MoveTable(Fact, frozen=True, kw_only=True):
    """How one parameter of the pipeline moves when a retraining is proposed."""

    by: Annotated[int, _is("Added to the parameter of the last run.", ge=-1_000_000, le=1_000_000)]
    at_least: Annotated[int | None, _is("Never below.")] = None
    at_most: Annotated[int | None, _is("Never above.")] = None

    def moved(self, value: int) -> int:
        value += self.by
        if self.at_least is not None:
            value = max(value, self.at_least)
        return value if self.at_most is None else min(value, self.at_most)


class LearningTable(Fact, frozen=True, kw_only=True):
    retrain: Annotated[bool, _is("An alert proposes a retraining; people decide about it.")] = False
    on: Annotated[tuple[Literal["drift", "labels"], ...], _is("Alerts that propose one.")] = (
        "drift",
        "labels",
    )
    parameters: dict[Name, MoveTable] = {}

    def moved(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Parameters of the next run, from those of the last. Raises TypeError, naming one."""
        after = dict(parameters)
        for name, move in self.parameters.items():
            value = parameters.get(name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"learning.parameters.{name}: got {value!r}, a whole number moves")
            after[name] = move.moved(value)
        return after


class PipelinesTable(Fact, frozen=True, kw_only=True):
    seed: Annotated[int, _is("Seed of all runs; each step gets its own.", ge=0, le=2**53 - 1)] = 0
    code: Annotated[
        tuple[Words, ...],
        _is("Folders whose code belongs to the model, relative to falaj.toml.", min_length=1),
    ] = (".",)
    parameters: Annotated[
        dict[str, Any], _is("Values of pipeline parameters, over the defaults in code.")
    ] = {}
    executor: Annotated[
        Literal["worker", "in-process", "ray"],
        _is(
            "Steps run in processes of their own, in the one that was asked for the run, or on the "
            "nodes of the Ray cluster that [links.ray] names."
        ),
    ] = "worker"
    parallel: Annotated[
        int,
        _is(
            "Steps that run at the same time; 0: as many as the machine has cores, or the cluster "
            "has room for.",
            ge=0,
            le=256,
        ),
    ] = 0


Shown = Literal["params", "metrics", "plots", "models"]


class MlflowTable(Fact, frozen=True, kw_only=True):
    """A tracking server of others: shows what happens here, and models are imported from it."""

    url: Annotated[
        str,
        _is(
            "Address of the tracking server; plain HTTP on this machine alone.",
            "an address that begins with https://",
            pattern=r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$",
        ),
    ]
    region: Annotated[
        Region,
        _is("Its jurisdiction; what may not be there is not shown there.", min_length=1),
    ]
    what: Annotated[
        tuple[Shown, ...],
        _is("What is shown there; an empty list: nothing, and models can still be imported."),
    ] = ("params", "metrics", "plots", "models")
    experiment: Annotated[
        str, _is("The experiment that runs are shown in; nothing: falaj/ and the project's name.")
    ] = ""
    token_file: Annotated[
        str,
        _is("A file with the bearer token, relative to falaj.toml; never the token itself."),
    ] = ""
    user: Annotated[
        str, _is("For basic authentication: the account whose password `token_file` holds.")
    ] = ""

    def __post_init__(self) -> None:
        if self.user and not self.token_file:
            raise ValueError("user: its password is read from token_file, which is not there")


class DuckdbTable(Fact, frozen=True, kw_only=True):
    """What an SQL rule of a contract may take. Beyond it the rule is an error, never a hang."""

    timeout: Annotated[str, _time("Each rule answers within this.", 0.1, DAY)] = "1m"
    memory_mb: Annotated[
        int, _is("Megabytes that a rule may hold; none is written to a disk.", ge=64, le=10_000_000)
    ] = 2048
    threads: Annotated[int, _is("Cores that a rule may use.", ge=1, le=256)] = 2

    @property
    def timeout_s(self) -> float:
        return _seconds(self.timeout)


class RayTable(Fact, frozen=True, kw_only=True):
    """A cluster that runs already, with token authentication; none is ever started."""

    address: Annotated[
        str,
        _is(
            "The cluster's head; this machine must be one of its nodes.",
            "host:port",
            pattern=r"^[A-Za-z0-9.-]+:[0-9]{1,5}$",
        ),
    ]
    region: Annotated[
        Region,
        _is("Its jurisdiction; data that may not be there is not worked on there.", min_length=1),
    ]
    token_file: Annotated[
        Words, _is("The file that holds the cluster's token, relative to falaj.toml.")
    ]


class RemoteTable(Fact, frozen=True, kw_only=True):
    """A place of others that releases may be brought to."""

    address: Annotated[
        str,
        _is(
            "Its address, or the beginning of it up to a `/`.",
            "an address that begins with oci:// or s3://",
            pattern=r"^(oci|s3)://[^\s?#@]+$",
        ),
    ]
    region: Annotated[
        Region,
        _is("Its jurisdiction; what may not be there is not brought there.", min_length=1),
    ]
    plain_http: Annotated[
        bool, _is("Speak plain HTTP there; on this machine that is so without saying it.")
    ] = False
    endpoint: Annotated[
        str,
        _is(
            "Of a bucket: the address of its store, in the form `https://HOST`.",
            "an address that begins with https://",
            pattern=r"^(https?://[^\s/?#@]+)?$",
        ),
    ] = ""
    s3_region: Annotated[
        str, _is("Of a bucket: the region that requests are signed for.", min_length=1)
    ] = "us-east-1"

    def __post_init__(self) -> None:
        if self.address.startswith("s3://") and self.region and not self.endpoint:
            raise ValueError("endpoint: a bucket needs the address of its store")


class LinksTable(Fact, frozen=True, kw_only=True):
    """Systems of others that this project speaks to."""

    mlflow: MlflowTable | None = None
    duckdb: DuckdbTable = DuckdbTable()
    ray: RayTable | None = None
    remotes: tuple[RemoteTable, ...] = ()


class KeysTable(Fact, frozen=True, kw_only=True):
    """Where the private keys of this workspace lie."""

    store: Annotated[
        Literal["files", "token"],
        _is("In files of this user, or on a token (PKCS#11), which never lets them out."),
    ] = "files"
    module: Annotated[str, _is("The token's library, such as /usr/lib/softhsm/libsofthsm2.so.")] = (
        ""
    )
    token: Annotated[str, _is("The label of the token.")] = ""
    pin_file: Annotated[
        str, _is("A file with the PIN, mode 600, relative to falaj.toml; never the PIN itself.")
    ] = ""

    def __post_init__(self) -> None:
        missing = [n for n in ("module", "token", "pin_file") if not getattr(self, n)]
        if self.store == "token" and missing:
            raise ValueError(f"{missing[0]}: keys on a token need it")


class EncryptionTable(Fact, frozen=True, kw_only=True):
    """Encryption at rest of what pipelines make and keep."""

    at_rest: Annotated[
        Literal["nothing", "personal", "all"],
        _is("What is sealed: all artifacts where a dataset is personal or sensitive, or always."),
    ] = "nothing"
    key_backups: Annotated[
        str,
        _time(
            "How long copies of the store are kept: erasing keys is complete after it.",
            0,
            366 * DAY,
        ),
    ] = "7d"

    @property
    def key_backups_s(self) -> float:
        return _seconds(self.key_backups)


def _is_address(words: str) -> bool:
    """TLS, or plain HTTP to this machine; nothing that a reader could take for something else."""
    try:
        parts = urlsplit(words)
        named = bool(parts.hostname) and not (parts.username or parts.query or parts.fragment)
    except ValueError:
        return False
    safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
    return named and safe and words.isprintable() and " " not in words


class WitnessTable(Fact, frozen=True, kw_only=True):
    """A place that holds the checkpoints of the audit log where its administrator cannot alter them."""

    name: Annotated[Name, _is("What it is called here.", NAME_NOUN)]
    kind: Annotated[
        Literal["file", "git", "http", "s3"],
        _is(
            "A folder, a git repository, a witness that cosigns (c2sp.org/tlog-witness), a bucket."
        ),
    ]
    place: Annotated[
        Words,
        _is("The folder or repository, relative to falaj.toml, or the address of the server."),
    ]
    key: Annotated[
        str, _is("Of a witness that cosigns: its key, as its operator told it (NAME+ID+KEY).")
    ] = ""
    branch: Annotated[str, _is("Of a repository; nothing: falaj-checkpoints.")] = ""
    remote: Annotated[str, _is("Of a repository: pushed there after each commit.")] = ""
    bucket: Annotated[str, _is("Of a store: the bucket.")] = ""
    prefix: Annotated[str, _is("Of a store: what the names of objects begin with.")] = ""
    s3_region: Annotated[str, _is("Of a store: the region that requests are signed for.")] = (
        "us-east-1"
    )
    token_file: Annotated[
        str, _is("Of a witness that cosigns: a file with the bearer token, relative to falaj.toml.")
    ] = ""
    credentials_file: Annotated[
        str,
        _is("Of a store: a file of two lines, key and secret, relative to falaj.toml."),
    ] = ""

    def __post_init__(self) -> None:
        wanted = {"http": ("key",), "s3": ("bucket", "credentials_file")}.get(self.kind, ())
        for name in wanted:
            if not getattr(self, name):
                raise ValueError(f"{name}: a witness of kind {self.kind} needs it")
        if self.kind in ("http", "s3") and not _is_address(self.place):
            raise ValueError("place: expected an address that begins with https://")
        if self.branch.startswith("-") or self.remote.startswith("-"):
            raise ValueError("remote: a name that begins with - would be an option of git")


class WitnessedTable(Fact, frozen=True, kw_only=True):
    """A log of others whose checkpoints are witnessed here."""

    key: Annotated[Words, _is("Its key, as its operator told it (NAME+ID+KEY).")]


class AuditTable(Fact, frozen=True, kw_only=True):
    witnesses: tuple[WitnessTable, ...] = ()
    logs: tuple[WitnessedTable, ...] = ()

    def __post_init__(self) -> None:
        names = [witness.name for witness in self.witnesses]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise ValueError(f"witnesses.{index}.name: {name!r} stands twice")


class Policy(Fact, frozen=True, kw_only=True):
    """Rules on their own, as `falaj gate --what-if FILE` reads them.

    requires: gates that are asked for; nothing: those of the report.
    """

    gates: GatesTable
    requires: tuple[Gate, ...] = ()


class Project(Fact, frozen=True, kw_only=True):
    project: ProjectTable
    model: ModelTable
    datasets: tuple[DatasetTable, ...] = ()
    gates: GatesTable = GatesTable()
    environments: dict[Name, EnvironmentTable] = {}
    monitors: MonitorsTable = MonitorsTable()
    learning: LearningTable = LearningTable()
    pipelines: PipelinesTable = PipelinesTable()
    links: LinksTable = LinksTable()
    keys: KeysTable = KeysTable()
    encryption: EncryptionTable = EncryptionTable()
    audit: AuditTable = AuditTable()
    changes: ChangesTable = ChangesTable()

    def before(self, environment: str) -> tuple[str, ...]:
        """Environments that a release must have been promoted in before it comes to this one."""
        said = self.environments[environment].after
        if said is not None:
            return said
        names = list(self.environments)
        place = names.index(environment)
        return tuple(names[place - 1 : place]) if place else ()

    @property
    def classification(self) -> Classification:
        """The strictest class of its datasets."""
        order = list(Classification)
        found = [order.index(dataset.classification) for dataset in self.datasets]
        return order[max(found)] if found else Classification.INTERNAL

    @property
    def seals(self) -> bool:
        """Whether artifacts are sealed at rest: what was made of personal data is personal."""
        wanted = self.encryption.at_rest
        return wanted == "all" or (
            wanted == "personal" and any(d.classification in PROTECTED for d in self.datasets)
        )

    def __post_init__(self) -> None:
        self._metrics_must_fit()
        if self.pipelines.executor == "ray" and self.links.ray is None:
            raise ValueError(
                "pipelines.executor: ray needs [links.ray] with `address`, `region` and `token_file`"
            )
        names = [dataset.name for dataset in self.datasets]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise ValueError(f"datasets.{index}.name: {name!r} stands twice")
        for name, environment in self.environments.items():
            for index, gate in enumerate(environment.requires):
                if gate in ("data", "security", "tests") or getattr(self.gates, gate):
                    continue
                raise ValueError(
                    f"environments.{name}.requires.{index}: gate {gate!r} is required, "
                    f"but there is no [gates.{gate}]"
                )
        self._changes_must_fit()

    def _changes_must_fit(self) -> None:
        """Names in the rules of changes are those of environments, in their order."""
        names = list(self.environments)
        for place, (name, environment) in enumerate(self.environments.items()):
            for index, before in enumerate(environment.after or ()):
                if before not in names[:place]:
                    raise ValueError(
                        f"environments.{name}.after.{index}: {before!r} is no environment above it"
                    )
        for index, freeze in enumerate(self.changes.freezes):
            for at, name in enumerate(freeze.environments):
                if name not in names:
                    raise ValueError(
                        f"changes.freezes.{index}.environments.{at}: there is no [environments.{name}]"
                    )
        for name, template in self.changes.templates.items():
            if template.environment not in names:
                raise ValueError(
                    f"changes.templates.{name}.environment: there is no "
                    f"[environments.{template.environment}]"
                )

    def _metrics_must_fit(self) -> None:
        task, quality, slices = self.model.task, self.gates.quality, self.gates.slices
        known = FITTING[task]
        for table, name in ((quality, "quality"), (slices, "slices")):
            metric = table.metric if table else None
            if metric is not None and metric not in known:
                raise ValueError(
                    f"gates.{name}.metric: {metric} is not measured for a {task}; "
                    f"write one of {', '.join(known)}"
                )
        if quality is None:
            return
        wanted, other = (
            ("at_most", "at_least") if quality.metric in LOSSES else ("at_least", "at_most")
        )
        if getattr(quality, wanted) is None or getattr(quality, other) is not None:
            raise ValueError(
                f"gates.quality.{other if getattr(quality, other) is not None else 'metric'}: "
                f"{quality.metric} needs `{wanted}`, and no `{other}`"
            )
        if task == "ranking" and not quality.unit:
            raise ValueError("gates.quality.unit: a ranking needs the column of the query")
