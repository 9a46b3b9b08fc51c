"""Tables of falaj.toml that say how changes are allowed: windows, freezes, templates, approvals."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from falaj.base.time import Instant, parse_span
from falaj.facts.changes import Risk
from falaj.facts.wire import Fact

__all__ = [
    "DAYS",
    "ApprovalsTable",
    "BoundsTable",
    "ChangesTable",
    "EmergencyTable",
    "Freeze",
    "FreezeTable",
    "TemplateTable",
    "WindowTable",
]

DAY: Final = 86400.0
NAMED: Final = r"^[a-z][a-z0-9_-]{0,62}$"
Named = Annotated[
    str, Meta(pattern=NAMED, extra={"noun": "a name of small letters, digits, - and _"})
]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: Final[tuple[Day, ...]] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CLOCK: Final = r"^(([01]\d|2[0-3]):[0-5]\d|24:00)$"
LOCAL: Final = r"^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?)?$"


def _is(about: str, noun: str = "", **limits: Any) -> Meta:
    return Meta(description=about, extra={"noun": noun} if noun else None, **limits)


def _time(about: str, least_s: float, most_s: float) -> Meta:
    return Meta(description=about, extra={"span": (least_s, most_s)})


def _seconds(words: str) -> float:
    return parse_span(words).total_seconds()


class WindowTable(Fact, frozen=True, kw_only=True):
    """Days and hours in which rollouts may begin, in the time zone of the environment."""

    days: Annotated[tuple[Day, ...], _is("Days of the week.", min_length=1)] = DAYS
    opens: Annotated[str, _is("From then on.", "a time of day such as 09:00", pattern=CLOCK)] = (
        "00:00"
    )
    closes: Annotated[
        str,
        _is(
            "Until then; earlier than `opens`: on the next day.",
            "a time of day such as 16:00",
            pattern=CLOCK,
        ),
    ] = "24:00"

    def __post_init__(self) -> None:
        if self.opens in (self.closes, "24:00"):
            raise ValueError(f"closes: a window from {self.opens} to {self.closes} is never open")


class Freeze(Fact, frozen=True, kw_only=True):
    """A time without rollouts, from falaj.toml or from a calendar. ends: the first moment after it."""

    name: str
    starts: Instant
    ends: Instant


class FreezeTable(Fact, frozen=True, kw_only=True):
    """A time without rollouts, in the time zone of each environment."""

    name: Annotated[str, _is("What it is called in a refusal.", min_length=1)]
    starts: Annotated[
        str,
        _is(
            "Its first day or moment.", "a day, or a day and time (2026-12-20T18:00)", pattern=LOCAL
        ),
    ]
    ends: Annotated[
        str,
        _is("Its last day, or the moment after.", "a day, or a day and time", pattern=LOCAL),
    ]
    environments: Annotated[
        tuple[Named, ...], _is("Where it holds; an empty list: everywhere.")
    ] = ()

    def __post_init__(self) -> None:
        for name in ("starts", "ends"):
            try:
                datetime.fromisoformat(getattr(self, name))
            except ValueError:
                raise ValueError(f"{name}: got {getattr(self, name)}, no such day") from None
        if self.ends[:10] < self.starts[:10]:
            raise ValueError(f"ends: {self.ends} is before it starts ({self.starts})")


class BoundsTable(Fact, frozen=True, kw_only=True):
    """What may differ from the release that is live. Code and schema never may."""

    parameters: Annotated[tuple[str, ...], _is("Parameters of the pipeline that may differ.")] = ()
    datasets: Annotated[tuple[str, ...], _is("Datasets that may hold other rows.")] = ()
    rows_change: Annotated[
        float, _is("By which share their number of rows may differ.", ge=0, le=10)
    ] = 0.5
    metric_drop: Annotated[
        float, _is("By how much a metric of a required gate may be worse.", ge=0, le=1000)
    ] = 0.01
    packages: Annotated[bool, _is("Whether pinned packages may differ.")] = False


class TemplateTable(Fact, frozen=True, kw_only=True):
    """A standard change that is approved before it is asked for: small, known, and within bounds.

    It counts from the moment that a person other than its owner has signed it, as it stands.
    """

    environment: Annotated[Named, _is("Where it allows releases to go.")]
    owner: Annotated[str, _is("The identity that answers for it.", min_length=1)]
    expires: Annotated[
        str,
        _is(
            "Its last day, at most a year after it was signed.",
            "a day (2027-06-30)",
            pattern=r"^\d{4}-\d\d-\d\d$",
        ),
    ]
    approvals: Annotated[
        int, _is("Persons that must have signed it, none of them the owner.", ge=1, le=10)
    ] = 1
    max_per_month: Annotated[int, _is("Standard changes by it in one month.", ge=1, le=1000)] = 10
    about: Annotated[str, _is("What it is for, in the words of its owner.")] = ""
    bounds: BoundsTable = BoundsTable()

    def __post_init__(self) -> None:
        try:
            date.fromisoformat(self.expires)
        except ValueError:
            raise ValueError(f"expires: got {self.expires}, no such day") from None


class ApprovalsTable(Fact, frozen=True, kw_only=True):
    """Persons who must approve, by risk; what an environment asks for is never less than this."""

    low: Annotated[int, _is("Of a change of low risk.", ge=0, le=10)] = 1
    medium: Annotated[int, _is("Of medium risk.", ge=0, le=10)] = 1
    high: Annotated[int, _is("Of high risk.", ge=1, le=10)] = 2
    validator: Annotated[
        Literal["never", "high", "medium", "always"],
        _is("From which risk on one of them is a validator, from a group without an author."),
    ] = "high"
    life: Annotated[str, _time("How long an approval counts.", 1, 366 * DAY)] = "30d"
    decide_within: Annotated[
        str, _time("A change that nobody has decided about expires.", 1, 366 * DAY)
    ] = "30d"

    def of(self, risk: Risk) -> int:
        return {Risk.LOW: self.low, Risk.MEDIUM: self.medium, Risk.HIGH: self.high}[risk]

    def needs_validator(self, risk: Risk) -> bool:
        order = list(Risk)
        if self.validator in ("never", "always"):
            return self.validator == "always"
        return order.index(risk) >= order.index(Risk(self.validator))

    @property
    def life_s(self) -> float:
        return _seconds(self.life)

    @property
    def decide_within_s(self) -> float:
        return _seconds(self.decide_within)


class EmergencyTable(Fact, frozen=True, kw_only=True):
    """A hotfix or containment. Windows and freezes do not hold it up; its gates are owed."""

    approvals: Annotated[
        int, _is("Persons who must approve, none of them an author.", ge=1, le=10)
    ] = 1
    gates_within: Annotated[
        str, _time("Gates that were deferred have passed by then.", 1, 30 * DAY)
    ] = "24h"
    review_within: Annotated[
        str, _time("Its review, and that of every failure, is written by then.", 1, 90 * DAY)
    ] = "7d"

    @property
    def gates_within_s(self) -> float:
        return _seconds(self.gates_within)

    @property
    def review_within_s(self) -> float:
        return _seconds(self.review_within)


class ChangesTable(Fact, frozen=True, kw_only=True):
    approvals: ApprovalsTable = ApprovalsTable()
    emergency: EmergencyTable = EmergencyTable()
    freezes: tuple[FreezeTable, ...] = ()
    templates: dict[Named, TemplateTable] = {}
