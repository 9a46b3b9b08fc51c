"""Which known vulnerabilities a lock has. What cannot be compared is `unknown`, never silence. Pure.

Versions: PEP 440 through `packaging`; names: PEP 503. Evaluation of ranges: the OSV schema 1.7,
"Evaluation". Base scores: CVSS v3.1 specification, 7.1 and appendix A.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, cast

import msgspec
from packaging.version import InvalidVersion, Version

from falaj.base import time
from falaj.base.locks import Lock, Pin, normalised
from falaj.facts.checks import CheckResult, Verdict
from falaj.facts.project import DependenciesTable, IgnoreTable
from falaj.facts.scans import AdvisoryDatabase, Severity, Vulnerability
from falaj.ports.advisories import Advisories

__all__ = [
    "Match",
    "again",
    "base_score",
    "check_vulnerabilities",
    "find",
    "ignored",
    "match",
    "told_in_short",
]

GATE: Final = "dependencies"
FINDING: Final = "finding"  # in the details of a result: so that other rules can decide it anew
SEVERITIES: Final[tuple[Severity, ...]] = ("critical", "high", "medium", "low")
ONE_DAY: Final = timedelta(days=1)


class Match(NamedTuple):
    """Whether one record speaks about a version. fixed: versions that have the flaw no more."""

    state: str  # affected | unaffected | unknown
    why: str = ""
    fixed: tuple[str, ...] = ()


def find(lock: Lock, advisories: Advisories) -> tuple[Vulnerability, ...]:
    """Every finding about every pin; names that are aliases of each other are one finding."""
    found: list[Vulnerability] = []
    for pin in lock.pins:
        records = [r for r in advisories.of(pin.name) if not r.get("withdrawn")]
        matches = [(record, match(record, pin.name, pin.version)) for record in records]
        speaking = [(r, m) for r, m in matches if m.state != "unaffected"]
        found += [_finding(pin, group) for group in _groups(speaking)]
    return tuple(found)


def match(record: Mapping[str, Any], package: str, version: str) -> Match:
    """One record, one version. package: normalised.

    1. Listed in `versions` (as text or as the same version): affected.
    2. Within a range of versions, before its limits: affected.
    3. Something could not be read or compared, and nothing above holds: unknown.
    4. Otherwise: unaffected.
    """
    here = _version(version)
    doubts: list[str] = []
    fixed: list[str] = []
    hit = False
    entries = record.get("affected")
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        return Match("unknown", "the record does not say what is affected")
    for entry in entries:
        match entry:
            case {"package": {"name": str(name)}} if normalised(name) == package:
                pass
            case {"package": {"name": str()}}:
                continue
            case _:
                doubts.append("a part of the record names no package")
                continue
        listed = entry.get("versions") or []
        ranges = entry.get("ranges") or []
        if not isinstance(listed, list) or not isinstance(ranges, list):
            doubts.append("its versions or ranges are no list")
            continue
        if any(_same(one, version, here) for one in listed):
            hit = True
        readable = [r for r in ranges if isinstance(r, Mapping) and r.get("type") != "GIT"]
        if len(readable) != sum(not _is_git(r) for r in ranges):
            doubts.append("a range is no table")
        for one in readable:
            fixed += _fixes(one)
            if here is None:
                doubts.append(f"{version!r} is no version of PEP 440")
                continue
            inside = _within(one, here)
            if isinstance(inside, str):
                doubts.append(inside)
            hit = hit or inside is True
        if not readable and not listed:
            doubts.append("it names commits alone, no versions")
        if here is None and listed and not hit:
            doubts.append(f"{version!r} is no version of PEP 440")
    known = tuple(dict.fromkeys(fixed))
    if hit:
        return Match("affected", fixed=known)
    return Match("unknown", doubts[0], known) if doubts else Match("unaffected")


def _is_git(one: object) -> bool:
    return isinstance(one, Mapping) and one.get("type") == "GIT"


def _version(text: str) -> Version | None:
    """Without a local part: a build of one's own of a version has its flaws."""
    try:
        return Version(Version(text).public)
    except InvalidVersion:
        return None


def _same(listed: object, text: str, here: Version | None) -> bool:
    if not isinstance(listed, str):
        return False
    if listed == text:
        return True
    return here is not None and _version(listed) == here


KINDS: Final = ("introduced", "fixed", "last_affected", "limit")


def _within(one: Mapping[str, Any], here: Version) -> bool | str:
    """Whether a range holds the version, or why that cannot be said."""
    events = one.get("events")
    if not isinstance(events, list) or not events:
        return "a range has no events"
    read: list[tuple[Version | None, int, str]] = []
    limits: list[Version | None] = []
    for event in events:
        if not isinstance(event, Mapping) or len(event) != 1:
            return "an event of a range is no event"
        ((kind, text),) = event.items()
        if kind not in KINDS or not isinstance(text, str):
            return f"an event of a range is {kind!r}, which is not known"
        if kind == "limit":
            at = None if text == "*" else _version(text)
            if at is None and text != "*":
                return f"{text!r} in a range is no version of PEP 440"
            limits.append(at)
            continue
        at = None if kind == "introduced" and text == "0" else _version(text)
        if at is None and text != "0":
            return f"{text!r} in a range is no version of PEP 440"
        # Of two events at one version the end comes first: what begins again there is affected.
        read.append((at, 1 if kind == "introduced" else 0, kind))
    if not any(kind == "introduced" for _, _, kind in read):
        return "a range never begins"
    if limits and not any(at is None or here < at for at in limits):
        return False
    inside = False
    lowest = Version("0.dev0")
    for at, _, kind in sorted(read, key=lambda e: (e[0] is not None, e[0] or lowest, e[1])):
        if kind == "introduced" and (at is None or here >= at):
            inside = True
        elif at is not None and (
            (kind == "fixed" and here >= at) or (kind == "last_affected" and here > at)
        ):
            inside = False
    return inside


def _fixes(one: Mapping[str, Any]) -> list[str]:
    events = one.get("events")
    return [
        str(event["fixed"])
        for event in (events if isinstance(events, list) else [])
        if isinstance(event, Mapping) and "fixed" in event
    ]


def _groups(
    speaking: Sequence[tuple[Mapping[str, Any], Match]],
) -> list[list[tuple[Mapping[str, Any], Match]]]:
    """Records that share a name are about one flaw."""
    groups: list[tuple[set[str], list[tuple[Mapping[str, Any], Match]]]] = []
    for record, found in speaking:
        names = set(_names(record))
        mine = [(record, found)]
        apart = []
        for known, members in groups:
            if known & names:
                names |= known
                mine = [*members, *mine]
            else:
                apart.append((known, members))
        groups = [*apart, (names, mine)]
    return [members for _, members in groups]


def _names(record: Mapping[str, Any]) -> list[str]:
    aliases = record.get("aliases")
    more = [one for one in aliases if isinstance(one, str)] if isinstance(aliases, list) else []
    return [str(record.get("id")), *more]


def _finding(pin: Pin, group: Sequence[tuple[Mapping[str, Any], Match]]) -> Vulnerability:
    names = sorted({name for record, _ in group for name in _names(record)})
    own = sorted((str(record.get("id")) for record, _ in group), key=lambda n: (_rank(n), n))
    sure = [found for _, found in group if found.state == "affected"]
    rated = [_rating(record) for record, _ in group]
    severity = min((s for s, _ in rated), key=_order)
    scores = [score for _, score in rated if score is not None]
    summaries = [str(record["summary"]) for record, _ in group if record.get("summary")]
    return Vulnerability(
        package=pin.name,
        version=pin.version,
        id=own[0],
        ids=tuple(names),
        severity=severity,
        state="affected" if sure else "unknown",
        why="" if sure else group[0][1].why,
        summary=" ".join(summaries[0].split())[:200] if summaries else "",
        fixed=tuple(dict.fromkeys(f for _, found in group for f in found.fixed)),
        cvss=max(scores, default=None),
        line=pin.line,
    )


def _rank(name: str) -> int:
    """GHSA is rated, PYSEC often not; people look either up."""
    return 0 if name.startswith("GHSA-") else 1


def _order(severity: Severity) -> int:
    return (*SEVERITIES, "unrated").index(severity)


WORDS: Final[dict[str, Severity]] = {
    "critical": "critical",
    "high": "high",
    "important": "high",
    "moderate": "medium",
    "medium": "medium",
    "low": "low",
    "none": "low",
}


def _rating(record: Mapping[str, Any]) -> tuple[Severity, float | None]:
    """By the word of those who keep the record, else by the score of its vectors."""
    affected = record.get("affected")
    parts = [record, *(affected if isinstance(affected, list) else [])]
    words: list[Severity] = []
    scores: list[float] = []
    for part in parts:
        if not isinstance(part, Mapping):
            continue
        for key in ("database_specific", "ecosystem_specific"):
            said = part.get(key)
            word = said.get("severity") if isinstance(said, Mapping) else None
            if isinstance(word, str) and word.lower() in WORDS:
                words.append(WORDS[word.lower()])
        vectors = part.get("severity")
        for vector in vectors if isinstance(vectors, list) else []:
            score = base_score(vector.get("score")) if isinstance(vector, Mapping) else None
            if score is not None:
                scores.append(score)
    score = max(scores, default=None)
    if words:
        return min(words, key=_order), score
    return ("unrated" if score is None else _word(score)), score


def _word(score: float) -> Severity:
    if score >= 9.0:
        return "critical"
    if score >= 7.0:
        return "high"
    return "medium" if score >= 4.0 else "low"


METRICS: Final[dict[str, dict[str, float]]] = {
    "AV": {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2},
    "AC": {"L": 0.77, "H": 0.44},
    "UI": {"N": 0.85, "R": 0.62},
    "C": {"H": 0.56, "L": 0.22, "N": 0.0},
    "I": {"H": 0.56, "L": 0.22, "N": 0.0},
    "A": {"H": 0.56, "L": 0.22, "N": 0.0},
}
PRIVILEGES: Final = {"N": (0.85, 0.85), "L": (0.62, 0.68), "H": (0.27, 0.5)}  # scope U, C


def base_score(vector: object) -> float | None:
    """CVSS v3.0 or v3.1 base score; None for anything else, such as v2, v4, a damaged vector.

    >>> base_score("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H")
    9.8
    """
    if not isinstance(vector, str) or not vector.startswith(("CVSS:3.0/", "CVSS:3.1/")):
        return None
    said = dict(part.partition(":")[::2] for part in vector.split("/")[1:])
    try:
        m = {name: values[said[name]] for name, values in METRICS.items()}
        changed = {"U": False, "C": True}[said["S"]]
        privileges = PRIVILEGES[said["PR"]][changed]
    except KeyError:
        return None
    lost = 1 - (1 - m["C"]) * (1 - m["I"]) * (1 - m["A"])
    impact = 7.52 * (lost - 0.029) - 3.25 * (lost - 0.02) ** 15 if changed else 6.42 * lost
    if impact <= 0:
        return 0.0
    ease = 8.22 * m["AV"] * m["AC"] * privileges * m["UI"]
    return _up(min((1.08 if changed else 1.0) * (impact + ease), 10.0))


def _up(value: float) -> float:
    """The smallest number with one decimal that is not below; appendix A, free of float noise."""
    whole = round(value * 100_000)
    return whole / 100_000 if whole % 10_000 == 0 else (math.floor(whole / 10_000) + 1) / 10


# --- verdicts ---


def ignored(
    names: Sequence[str], table: Sequence[IgnoreTable], now: datetime
) -> IgnoreTable | None:
    """The entry of the ignore list that still holds for one of these names."""
    return next((one for one in table if one.id in names and now < one.end), None)


def check_vulnerabilities(
    found: Sequence[Vulnerability],
    lock: Lock,
    table: DependenciesTable,
    database: AdvisoryDatabase | None,
    *,
    lock_digest: str,
    now: datetime,
) -> list[CheckResult]:
    """The gate `dependencies`, without licences.

    1. No database, an empty lock, a line without a version: inconclusive, since nothing was looked
       at. A database older than `max_age_days`: fail.
    2. A finding at or above `fail_from` fails; what nobody rated counts as `unrated_is`.
    3. A finding that cannot be compared is inconclusive, and so is one on the ignore list until
       its end: a person with the role risk waives it, or nobody.
    4. Findings below are told and not counted.
    """
    told: dict[str, Any] = {"lock": lock_digest}
    if database is None:
        why = "no advisories are here: falaj scan database import BUNDLE"
        return [_result("database", Verdict.INCONCLUSIVE, why, told)]
    told |= {"database": database.id, "built_at": time.text(database.built_at)}
    results = [_age(database, table, now, told)]
    if not lock.pins:
        why = "the lock pins no package, so none was looked up"
        results.append(_result("lock", Verdict.INCONCLUSIVE, why, told))
    results += [
        _result(f"unread.{number}", Verdict.INCONCLUSIVE, f"its version is not known: {line}", told)
        for number, line in enumerate(lock.unread, 1)
    ]
    counted = [_judged(one, table, now, told) for one in found]
    results += counted
    below = sum(result.gate != GATE for result in counted)
    failed = sum(r.verdict is Verdict.FAIL and r.gate == GATE for r in counted)
    open_ = len(counted) - below - failed
    words = f"{len(lock.pins)} packages held against {database.records:,} advisories"
    if not failed and not open_ and lock.pins:
        more = f"; {below} below {table.fail_from}" if below else ""
        results.append(_result("vulnerabilities", Verdict.PASS, f"{words}: none{more}", told))
    return results


def _age(
    database: AdvisoryDatabase, table: DependenciesTable, now: datetime, told: dict[str, Any]
) -> CheckResult:
    age = (now - database.built_at) / ONE_DAY
    old = age > table.max_age_days
    why = f"built {time.text(database.built_at)[:10]}, {max(age, 0):.1f} days ago"
    return CheckResult(
        check="dependencies.database",
        gate=GATE,
        verdict=Verdict.FAIL if old else Verdict.PASS,
        reason=f"{why}: what became known since is not in it" if old else why,
        metric="age of the advisories",
        value=round(max(age, 0.0), 3),
        limit=float(table.max_age_days),
        requirement=f"at most {table.max_age_days} days old",
        unit="days",
        details=told,
    )


def _judged(
    one: Vulnerability, table: DependenciesTable, now: datetime, told: dict[str, Any]
) -> CheckResult:
    name = f"{one.package}.{one.id}"
    severity = table.unrated_is if one.severity == "unrated" else one.severity
    rated = "unrated" if one.severity == "unrated" else severity
    score = f", CVSS {one.cvss:.1f}" if one.cvss is not None else ""
    cure = f"; fixed in {', '.join(one.fixed[:3])}" if one.fixed else "; no fix is known"
    what = f"{one.package} {one.version}: {one.summary or 'no summary'} ({rated}{score}){cure}"
    told = {**told, FINDING: msgspec.to_builtins(one)}
    below = _order(cast("Severity", severity)) > _order(table.fail_from)
    lasting = ignored(one.ids, table.ignore, now)
    if below:
        return _result(name, Verdict.FAIL, what, {**told, "severity": "info"}, gate=f"{GATE}-shown")
    if lasting is not None:
        why = f"{what}. Ignored until {lasting.until}: {lasting.reason}"
        return _result(name, Verdict.INCONCLUSIVE, why, {**told, "ignored_until": lasting.until})
    if one.state == "unknown":
        return _result(name, Verdict.INCONCLUSIVE, f"{what}. It cannot be said: {one.why}", told)
    return _result(name, Verdict.FAIL, what, told)


def _result(
    name: str, verdict: Verdict, reason: str, told: dict[str, Any], *, gate: str = GATE
) -> CheckResult:
    return CheckResult(
        check=f"dependencies.{name}",
        gate=gate,
        verdict=verdict,
        reason=reason,
        requirement="no known vulnerability that counts",
        details=told,
    )


def again(result: CheckResult, table: DependenciesTable | None, at: datetime) -> list[CheckResult]:
    """A stored result under other rules, at the time of the report. Nothing is looked up."""
    if table is None:
        return []
    told = {key: value for key, value in result.details.items() if key not in (FINDING, "severity")}
    if FINDING in result.details:
        one = msgspec.convert(result.details[FINDING], Vulnerability)
        return [_judged(one, table, at, told)]
    if result.check == "dependencies.database" and result.value is not None:
        old = result.value > table.max_age_days
        return [
            msgspec.structs.replace(
                result,
                verdict=Verdict.FAIL if old else Verdict.PASS,
                limit=float(table.max_age_days),
                requirement=f"at most {table.max_age_days} days old",
            )
        ]
    return [result]


def told_in_short(one: Vulnerability) -> str:
    """One line for an alert."""
    doubt = " (cannot be compared)" if one.state == "unknown" else ""
    cure = f", fixed in {one.fixed[0]}" if one.fixed else ""
    return f"{one.id} in {one.package} {one.version}: {one.severity}{doubt}{cure}"
