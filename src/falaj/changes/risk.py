"""How risky a change is, computed from what is different. Pure; people may only raise it.

Each section of the difference gives one factor: the highest risk of its rows, and their points. The
risk of the change is that of its highest factor; the score, all points added, orders changes of one
risk. COMPLIANCE, 6: novelty, reversibility, exposure, classification.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from falaj.facts.changes import Risk, RiskFactor
from falaj.facts.checks import GateReport
from falaj.facts.data import PROTECTED, Classification
from falaj.facts.releases import DiffRow, Release, ReleaseDiff

__all__ = ["factors", "risk_of", "same_shape", "score_of"]

LOW, MEDIUM, HIGH = Risk.LOW, Risk.MEDIUM, Risk.HIGH
ORDER: Final = tuple(Risk)
POINTS: Final = {LOW: 1, MEDIUM: 3, HIGH: 9}
NAMED: Final = 3  # of a section's rows in its reason


class Weighed(NamedTuple):
    """One row of the difference."""

    risk: Risk
    words: str


def factors(
    release: Release,
    previous: Release | None,
    report: GateReport,
    difference: ReleaseDiff | None,
    *,
    classification: Classification = Classification.INTERNAL,
) -> tuple[RiskFactor, ...]:
    """Everything that makes it risky, the highest first.

    difference: from the release that is live; None where there is none, or where it cannot be read.
    """
    found = [*_general(release, previous, report, difference, classification)]
    for section in ("code", "data", "features", "parameters", "dependencies", "metrics", "gates",
                    "evidence"):  # fmt: skip
        rows = [row for row in difference.rows if row.section == section] if difference else []
        weighed = [one for row in rows for one in [WEIGH[section](row)] if one is not None]
        if weighed:
            found.append(_factor(section, weighed))
    return tuple(sorted(found, key=lambda one: (-ORDER.index(one.risk), -one.points)))


def risk_of(found: Sequence[RiskFactor]) -> Risk:
    return max((one.risk for one in found), key=ORDER.index, default=LOW)


def score_of(found: Iterable[RiskFactor]) -> int:
    return sum(one.points for one in found)


def _general(
    release: Release,
    previous: Release | None,
    report: GateReport,
    difference: ReleaseDiff | None,
    classification: Classification,
) -> Iterator[RiskFactor]:
    if previous is None:
        words = "first release of this model here: nothing to go back to"
        yield RiskFactor(what="reversibility", risk=MEDIUM, points=POINTS[MEDIUM], reason=words)
    elif previous.tree == release.tree:
        words = "same model file as the live release"
        yield RiskFactor(what="model", risk=LOW, points=0, reason=words)
    else:
        words = "new model file"
        yield RiskFactor(what="model", risk=MEDIUM, points=POINTS[MEDIUM], reason=words)
    if report.waivers:
        names = ", ".join(waiver.check for waiver in report.waivers[:NAMED])
        words = f"{len(report.waivers)} check(s) waived: {names}"
        yield RiskFactor(what="gates waived", risk=HIGH, points=POINTS[HIGH], reason=words)
    if classification in PROTECTED:
        words = f"made from {classification} data"
        yield RiskFactor(what="classification", risk=MEDIUM, points=POINTS[MEDIUM], reason=words)
    if previous is not None and difference is None:
        words = "what differs from the live release cannot be read"
        yield RiskFactor(what="novelty", risk=HIGH, points=POINTS[HIGH], reason=words)
    if difference is not None and difference.findings:
        words = f"a folder does not hold: {difference.findings[0]}"
        yield RiskFactor(what="integrity", risk=HIGH, points=POINTS[HIGH], reason=words)


def _factor(section: str, rows: Sequence[Weighed]) -> RiskFactor:
    highest = max((row.risk for row in rows), key=ORDER.index)
    words = [row.words for row in rows if row.risk is highest]
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return RiskFactor(
        what=section,
        risk=highest,
        points=POINTS[highest] + sum(1 for row in rows if row.risk is not highest),
        reason=f"{section}: {', '.join(words[:NAMED])}{more}",
    )


def _code(row: DiffRow) -> Weighed | None:
    if row.what == "code files":
        return Weighed(MEDIUM, "other code")
    if row.what == "changes that are not committed":
        return Weighed(MEDIUM, "code that is in no commit")
    if row.what in ("commit", "branch"):
        return Weighed(LOW, f"another {row.what}")
    return None  # files one by one: counted with the tree


def _data(row: DiffRow) -> Weighed | None:
    name, _, part = row.what.partition(": ")
    if name == "label":
        return Weighed(HIGH, f"{part} was {row.before or 'nothing'}, is {row.after or 'nothing'}")
    if not part:
        return Weighed(HIGH, f"dataset {name} {row.change}")
    if part in ("source", "contract", "schema"):
        return Weighed(MEDIUM, f"{part} of {name}")
    if part.startswith("column ") and row.change != "changed":
        return Weighed(MEDIUM, f"{part} of {name} {row.change}")
    if part in ("content", "rows"):
        return Weighed(LOW, f"other rows in {name}")
    return None


def _features(row: DiffRow) -> Weighed | None:
    if row.what == "threshold":
        return Weighed(MEDIUM, f"threshold from {row.before} to {row.after}")
    if same_shape(row):
        return Weighed(LOW, f"range of {row.what}")
    return Weighed(HIGH, f"{row.what} {row.change}")


def same_shape(row: DiffRow) -> bool:
    """Whether only the range of a column differs, which each training finds anew."""
    return row.change == "changed" and _shape(row.before) == _shape(row.after)


def _shape(said: str) -> tuple[str, str]:
    """Place, unit and nulls of a column without its range: callers notice only these."""
    place, comma, rest = said.partition(", ")
    if not comma:
        return said, ""
    words = rest.split(" ")
    return place, " ".join(words[3:])  # LOW to HIGH


def _parameters(row: DiffRow) -> Weighed | None:
    if row.what == "pipeline":
        return Weighed(HIGH, "another pipeline")
    if row.what == "seed":
        return Weighed(LOW, "another seed")
    return Weighed(MEDIUM, f"{row.what} from {row.before or 'nothing'} to {row.after or 'nothing'}")


def _dependencies(row: DiffRow) -> Weighed | None:
    if row.what.endswith(": hashes"):
        return Weighed(HIGH, f"{row.what.removesuffix(': hashes')} with other files")
    if row.what == "platform":
        return Weighed(LOW, "another platform")
    return Weighed(MEDIUM, f"{row.what} {row.before or 'new'} to {row.after or 'gone'}")


def _metrics(row: DiffRow) -> Weighed | None:
    apart = row.note == "the intervals lie apart"
    return Weighed(MEDIUM if apart else LOW, f"{row.what} moved")


def _gates(row: DiffRow) -> Weighed | None:
    if row.what == "digest of the rules":
        return Weighed(MEDIUM, "the rules of the gates")
    if "(required" in row.before and "(required" not in row.after:
        return Weighed(HIGH, f"{row.what} is no longer required")
    return Weighed(LOW, f"{row.what} was {row.before or 'nothing'}, is {row.after}")


def _evidence(row: DiffRow) -> Weighed | None:
    if row.change == "removed" and not row.what.startswith(("model/", "reference/")):
        return Weighed(MEDIUM, f"{row.what} is missing")
    return None


WEIGH: Final = {
    "code": _code,
    "data": _data,
    "features": _features,
    "parameters": _parameters,
    "dependencies": _dependencies,
    "metrics": _metrics,
    "gates": _gates,
    "evidence": _evidence,
}
