"""Whether a change stays inside what was approved before it was asked for. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final

from falaj.base.errors import Problem
from falaj.changes.risk import same_shape
from falaj.facts.changes import Preapproval
from falaj.facts.checks import CheckResult, GateReport, Verdict
from falaj.facts.governance import BoundsTable, TemplateTable
from falaj.facts.releases import DiffRow, Release, ReleaseDiff
from falaj.facts.wire import digest

__all__ = ["digest_of", "last_moment", "live_signatures", "outside", "unusable"]

LONGEST: Final = timedelta(days=366)
LOSSES: Final = frozenset({
    "brier_score_loss",
    "log_loss",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "root_mean_squared_error",
})  # fmt: skip
# Rows that tell of the same values by another road, or that follow from what the bounds allow.
SILENT: Final = frozenset({"commit", "branch", "seed"})


def digest_of(name: str, table: TemplateTable) -> str:
    """What signatures are given over: every word of the template."""
    return digest({"template": name, "table": table})


def last_moment(table: TemplateTable, zone: tzinfo) -> datetime:
    """The first moment at which it no longer holds: its last day is over."""
    day = date.fromisoformat(table.expires) + timedelta(days=1)
    return datetime.combine(day, time(), zone).astimezone(UTC)


def live_signatures(
    name: str, table: TemplateTable, given: Sequence[Preapproval], owner: str, *, now: datetime
) -> tuple[Preapproval, ...]:
    """One a person: over these very words, not void, not expired, none by its owner."""
    wanted = digest_of(name, table)
    counted: dict[str, Preapproval] = {}
    for one in given:
        if (
            one.template == name
            and one.digest == wanted
            and not one.void
            and one.at <= now < min(one.expires, one.at + LONGEST)
            and one.person != owner
        ):
            counted.setdefault(one.person, one)
    return tuple(counted.values())


def unusable(
    name: str,
    table: TemplateTable,
    signatures: Sequence[Preapproval],
    given: Sequence[Preapproval],
    *,
    environment: str,
    used: int,
    zone: tzinfo,
    now: datetime,
) -> Iterator[Problem]:
    """Why the template allows nothing now. used: standard changes by it in this month."""
    if table.environment != environment:
        yield Problem(
            code="changes.template-environment",
            message=f"template {name!r} allows changes of {table.environment}, not of {environment}",
            why="a template holds in one environment (rule template-environment)",
            fix="open a normal change: leave out --template",
        )
    if now >= last_moment(table, zone):
        yield Problem(
            code="changes.template-expired",
            message=f"template {name!r} expired: its last day was {table.expires}",
            why="what was approved beforehand is looked at again once a year (rule template-expired)",
            fix=f"set a new `expires` in [changes.templates.{name}] and have it signed: "
            f"`falaj --as NAME change preapprove {name} -m ...`",
        )
    if len(signatures) < table.approvals:
        stale = any(one.digest != digest_of(name, table) and not one.void for one in given)
        yield Problem(
            code="changes.template-not-signed",
            message=f"template {name!r} has {len(signatures)} of {table.approvals} signature(s)",
            why=("it was signed with other words than it has now" if stale
                 else "a template counts once others than its owner have signed it")
            + " (rule template-signed)",
            fix=f"falaj --as NAME change preapprove {name} -m ...",
        )  # fmt: skip
    if used >= table.max_per_month:
        yield Problem(
            code="changes.template-month",
            message=f"template {name!r} was used {used} times this month, "
            f"{table.max_per_month} are allowed",
            why="many small changes are a large one (rule template-month)",
            fix="open a normal change: leave out --template",
        )


def outside(
    bounds: BoundsTable,
    release: Release,
    previous: Release | None,
    difference: ReleaseDiff | None,
    report: GateReport,
    live: GateReport | None,
    *,
    returns: bool,
) -> Iterator[Problem]:
    """Each thing in which the release leaves the template's bounds.

    report, live: newest gate reports of the release and of the one that answers now. returns: it goes
    out beside the live one and comes back by itself.
    """
    if previous is None or difference is None:
        yield _beyond("there is no live release that it could be compared with")
        return
    if difference.findings:
        yield _beyond(f"a folder does not hold: {difference.findings[0]}")
    if release.tree == previous.tree:
        return  # the same model file
    for row in difference.rows:
        words = _beyond_row(bounds, row)
        if words:
            yield _beyond(words)
    yield from _rows(bounds, difference)
    if report.waivers:
        yield _beyond(f"{report.waivers[0].check} is waived; a standard change is green by itself")
    if not returns:
        yield _beyond(
            "its rollout would not come back by itself (strategy direct, or a mode that does not act)"
        )
    yield from _worse(bounds, report, live)


def _beyond(words: str) -> Problem:
    return Problem(
        code="changes.beyond-template",
        message=words,
        why="a standard change stays inside the bounds of its template (rule template-bounds)",
        fix="open a normal change: leave out --template",
    )


def _beyond_row(bounds: BoundsTable, row: DiffRow) -> str:
    said = f"{row.what} {row.change}" + (f": {row.before} to {row.after}" if row.before else "")
    match row.section:
        case "code":
            return "the code differs" if row.what == "code files" or _uncommitted(row) else ""
        case "features":
            return "" if same_shape(row) else f"the schema differs: {said}"
        case "parameters" if row.what not in SILENT and row.what not in bounds.parameters:
            return f"parameter {row.what} differs: {row.before} to {row.after}"
        case "dependencies" if not bounds.packages:
            return f"packages differ: {said}"
        case "data":
            return _beyond_data(bounds, row)
        case "gates" if "(required" in row.before and "(required" not in row.after:
            return f"gate {row.what} is no longer required"
        case "gates" if row.what == "digest of the rules":
            return "the rules of the gates differ"
    return ""


def _uncommitted(row: DiffRow) -> bool:
    return row.what == "changes that are not committed" and bool(row.after)


def _beyond_data(bounds: BoundsTable, row: DiffRow) -> str:
    name, _, part = row.what.partition(": ")
    if name == "label" or not part:
        return f"{row.what} {row.change}: {row.before or 'nothing'} to {row.after or 'nothing'}"
    if part in ("schema", "contract", "source") or (
        part.startswith("column ") and row.change != "changed"
    ):
        return f"{part} of dataset {name} differs"
    if name not in bounds.datasets:
        return f"dataset {name} differs, and the template does not name it"
    return ""


def _rows(bounds: BoundsTable, difference: ReleaseDiff) -> Iterator[Problem]:
    for row in difference.rows:
        if row.section != "data" or not row.what.endswith(": rows"):
            continue
        before, after = _number(row.before), _number(row.after)
        share = abs(after - before) / before if before else float("inf")
        if share > bounds.rows_change:
            name = row.what.removesuffix(": rows")
            yield _beyond(
                f"dataset {name} has {after:,.0f} rows, it had {before:,.0f}: {share:.0%} apart, "
                f"{bounds.rows_change:.0%} is allowed"
            )


def _number(said: str) -> float:
    return float(said.replace(",", "") or 0)


def _worse(bounds: BoundsTable, report: GateReport, live: GateReport | None) -> Iterator[Problem]:
    before: Mapping[str, CheckResult] = {r.check: r for r in live.results} if live else {}
    for result in report.results:
        if result.gate not in report.required:
            continue
        if result.verdict is not Verdict.PASS:
            yield _beyond(f"{result.check}: {result.verdict}; a standard change is green by itself")
            continue
        old = before.get(result.check)
        if result.gate != "quality" or old is None or result.value is None or old.value is None:
            continue
        sign = -1.0 if result.metric in LOSSES else 1.0
        drop = sign * (old.value - result.value)
        if drop > bounds.metric_drop:
            yield _beyond(
                f"{result.check} is {result.value:.4g}, live is {old.value:.4g}: worse by "
                f"{drop:.4g}, {bounds.metric_drop:g} is allowed"
            )
