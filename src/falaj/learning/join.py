"""Joins answers with their ground truth, whichever comes first. Pure, in memory.

Nothing here is stored: the spool has both sides. After a restart feed the join with all that was
read before (and drop what it gives back), then go on from the stored positions: what it gives back
from there on was never given before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from sys import intern
from typing import Any, Final, NamedTuple

from falaj.base import time
from falaj.facts.rollouts import Stratum
from falaj.facts.serving import Arm

__all__ = ["Join", "Labelled", "strata"]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND: Final = timedelta(milliseconds=1)
ANSWERS: Final = 262_144
TRUTHS: Final = 65_536

Key = tuple[str, int]


class Labelled(NamedTuple):
    """One answered row with its truth.

    assigned: the arm that the split chose, also where stable rescued. stratum: of the request; -1
    when it was outside the counts of a rollout. arrival_ms: Unix milliseconds at which answer and
    truth were both here. event_time: what the row is about, else when it was answered.
    """

    request: str
    row: int
    release: str
    assigned: str
    rollout: str
    step: int
    stratum: int
    arrival_ms: int
    event_time: datetime
    score: float
    predicted: int
    value: float
    wrong: bool


class Answer(NamedTuple):
    """What is remembered of a log row until its truth comes."""

    at: datetime
    release: str
    assigned: str
    rollout: str
    step: int
    stratum: int
    event_time: datetime
    score: float


class Truth(NamedTuple):
    value: float
    at: datetime


class Join:
    """Gives each (request, row) once; the first truth of a row counts, corrections do not.

    Memory is bounded: the oldest waiting answer or truth is dropped and counted. `counts` tells
    what was left out and why.
    """

    def __init__(
        self, *, threshold: float = 0.5, answers: int = ANSWERS, truths: int = TRUTHS
    ) -> None:
        self.threshold = threshold
        self.thresholds: Mapping[str, float] = {}  # of releases that have one of their own
        self.most_answers = answers
        self.most_truths = truths
        self.counts = {
            "joined": 0,
            "dropped_answers": 0,  # their truth comes too late for the memory
            "dropped_truths": 0,  # no answer is known for them
            "no_score": 0,  # the model gave no answer: a matter of errors, not of truth
            "no_class": 0,  # the truth is neither 0 nor 1
            "repeated": 0,  # told again, or corrected after it was joined
        }
        self._answers: dict[Key, Answer] = {}
        self._truths: dict[Key, Truth] = {}
        self._done: dict[Key, None] = {}

    @property
    def waiting(self) -> tuple[int, int]:
        """Return how many answers and truths wait for the other side."""
        return len(self._answers), len(self._truths)

    def answers(self, rows: Iterable[Mapping[str, Any]]) -> list[Labelled]:
        """Take rows of the inference log; return those whose truth was here already."""
        found = []
        for row in rows:
            key = (row["request"], row["row"])
            if key in self._done or key in self._answers:
                self.counts["repeated"] += 1
                continue
            score = _score(row)
            if score is None:
                self.counts["no_score"] += 1
                self._truths.pop(key, None)
                continue
            answer = _answer(row, score)
            truth = self._truths.pop(key, None)
            if truth is not None:
                found.append(self._joined(key, answer, truth))
                continue
            self._answers[key] = answer
            if len(self._answers) > self.most_answers:
                del self._answers[next(iter(self._answers))]
                self.counts["dropped_answers"] += 1
        return found

    def truths(self, rows: Iterable[Mapping[str, Any]]) -> list[Labelled]:
        """Take rows of ground truth; return those whose answer was here already."""
        found = []
        for row in rows:
            key = (row["request"], row["row"])
            if key in self._done or key in self._truths:
                self.counts["repeated"] += 1
                continue
            value = row["value"]
            if not isinstance(value, int | float) or value not in (0, 1):
                self.counts["no_class"] += 1
                continue
            truth = Truth(float(value), _arrival(row))
            answer = self._answers.pop(key, None)
            if answer is not None:
                found.append(self._joined(key, answer, truth))
                continue
            self._truths[key] = truth
            if len(self._truths) > self.most_truths:
                del self._truths[next(iter(self._truths))]
                self.counts["dropped_truths"] += 1
        return found

    def _joined(self, key: Key, answer: Answer, truth: Truth) -> Labelled:
        self.counts["joined"] += 1
        self._done[key] = None
        if len(self._done) > self.most_answers:
            del self._done[next(iter(self._done))]
        limit = self.thresholds.get(answer.release, self.threshold)
        predicted = int(answer.score > limit)  # as the server labels its answers
        return Labelled(
            request=key[0],
            row=key[1],
            release=answer.release,
            assigned=answer.assigned,
            rollout=answer.rollout,
            step=answer.step,
            stratum=answer.stratum,
            arrival_ms=(max(truth.at, answer.at) - EPOCH) // MILLISECOND,
            event_time=answer.event_time,
            score=answer.score,
            predicted=predicted,
            value=truth.value,
            wrong=predicted != truth.value,
        )


def strata(
    labelled: Iterable[Labelled], stratum_ms: int, *, rollout: str = "", zone: str = ""
) -> list[Stratum]:
    """Wrong answers of both arms, by arrival of the truth and by step: metric `labels`.

    rollout: only answers of this rollout. Answers outside the counts of a rollout are left out:
    they were not split at random. Counted by assigned arm, or a canary that is rescued would lose
    its failures to stable.
    """
    cells: dict[tuple[int, int], list[int]] = {}
    for one in labelled:
        if one.stratum < 0 or (rollout and one.rollout != rollout):
            continue
        cell = cells.setdefault((one.arrival_ms // stratum_ms, one.step), [0, 0, 0, 0])
        arm = 0 if one.assigned == Arm.CANARY else 2
        cell[arm] += 1
        cell[arm + 1] += one.wrong
    return [
        Stratum(
            stratum=stratum,
            zone=zone,
            step=step,
            metric="labels",
            n_c=n_c,
            x_c=x_c,
            n_s=n_s,
            x_s=x_s,
        )
        for (stratum, step), (n_c, x_c, n_s, x_s) in sorted(cells.items())
    ]


def _answer(row: Mapping[str, Any], score: float) -> Answer:
    at = _instant(row["at"])
    about = row.get("event_time")
    return Answer(
        at=at,
        release=intern(row["release"]),
        assigned=intern(row["assigned"]),
        rollout=intern(row["rollout"]),
        step=row["step"],
        stratum=row["stratum"],
        event_time=at if about is None else _instant(about),
        score=score,
    )


def _score(row: Mapping[str, Any]) -> float | None:
    """The score as the server wrote it, else the last output; None when there is no number."""
    score = row.get("score")
    if score is None and row.get("y"):
        score = row["y"][-1]
    if not isinstance(score, int | float) or not math.isfinite(score):
        return None
    return float(score)


def _arrival(row: Mapping[str, Any]) -> datetime:
    """When the server received the truth; a sender's own time only where nothing else is known."""
    received = row.get("received")
    told = row.get("at") if received is None else received
    return EPOCH if told is None else _instant(told)


def _instant(value: Any) -> datetime:
    return time.parse_instant(value) if isinstance(value, str) else value
