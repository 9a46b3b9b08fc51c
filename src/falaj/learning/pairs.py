"""Shadow: both models have answered the same row, and its truth is known. Pure, in memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from falaj.base import time
from falaj.facts.rollouts import Stratum
from falaj.learning.join import Labelled

__all__ = ["PAIRS", "SHADOW", "Pairing", "ScoreCounts"]

PAIRS: Final = "labels.pairs"
SHADOW: Final = "shadow"
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MOST: Final = 262_144
Key = tuple[str, int]


class Shadowed(NamedTuple):
    """What the shadow said of a row, and when. score: NaN where it failed."""

    at_ms: int
    release: str
    score: float


class Pairing:
    """Pairs of one rollout. The oldest that waits is dropped when there are too many."""

    def __init__(self) -> None:
        self._shadows: dict[Key, Shadowed] = {}
        self._labelled: dict[Key, Labelled] = {}
        self._cells: dict[tuple[int, int], list[int]] = {}

    def shadow(self, row: Mapping[str, Any]) -> None:
        """A row of the inference log that the shadow wrote.

        No answer is a wrong one: it must not be judged on the easy rows alone.
        """
        score = row.get("score")
        known = float(score) if isinstance(score, int | float) else math.nan
        at = row["at"]
        moment = time.parse_instant(at) if isinstance(at, str) else at
        at_ms = (moment - EPOCH) // timedelta(milliseconds=1)
        said = Shadowed(at_ms, row["release"], known)
        keep(self._shadows, (row["request"], row["row"]), said)

    def labelled(self, rows: Iterable[Labelled]) -> None:
        """Answers of the champion, with their truth."""
        for one in rows:
            keep(self._labelled, (one.request, one.row), one)

    def strata(
        self, thresholds: Mapping[str, float], stratum_ms: int, *, zone: str
    ) -> list[Stratum]:
        """By arrival of the last of the three: answer, shadow, truth.

        n_c: all pairs; x_c, x_s: only the challenger, only the champion was wrong; n_s: both.
        """
        for key in list(self._labelled):
            shadow = self._shadows.pop(key, None)
            if shadow is None:
                continue
            one = self._labelled.pop(key)
            predicted = shadow.score > thresholds.get(shadow.release, 0.5)
            challenger = math.isnan(shadow.score) or int(predicted) != one.value
            at = max(one.arrival_ms, shadow.at_ms) // stratum_ms
            cell = self._cells.setdefault((at, one.step), [0, 0, 0, 0])
            cell[0] += 1
            cell[1] += challenger and not one.wrong
            cell[2] += challenger and one.wrong
            cell[3] += one.wrong and not challenger
        return [
            Stratum(
                stratum=at,
                zone=zone,
                step=step,
                metric=PAIRS,
                n_c=n,
                x_c=challenger,
                n_s=both,
                x_s=champion,
            )
            for (at, step), (n, challenger, both, champion) in sorted(self._cells.items())
        ]


class ScoreCounts:
    """How many scores of each arm lie above thresholds, by stratum of the request and by step."""

    def __init__(self, thresholds: tuple[float, ...]) -> None:
        self.thresholds = thresholds
        self._cells: dict[tuple[int, int], list[int]] = {}

    def row(self, row: Mapping[str, Any]) -> None:
        score = row.get("score")
        if row["stratum"] < 0 or not isinstance(score, int | float):
            return
        size = 1 + len(self.thresholds)
        cell = self._cells.setdefault((row["stratum"], row["step"]), [0] * (2 * size))
        arm = 0 if row["assigned"] == "canary" else size
        cell[arm] += 1
        for at, limit in enumerate(self.thresholds, start=1):
            cell[arm + at] += score > limit

    def strata(self, *, zone: str) -> list[Stratum]:
        size = 1 + len(self.thresholds)
        return [
            Stratum(
                stratum=at,
                zone=zone,
                step=step,
                metric=f"score.{number}",
                n_c=cell[0],
                x_c=cell[1 + number],
                n_s=cell[size],
                x_s=cell[size + 1 + number],
            )
            for (at, step), cell in sorted(self._cells.items())
            for number in range(len(self.thresholds))
        ]


def keep(into: dict[Key, Any], key: Key, value: Any) -> None:
    into[key] = value
    if len(into) > MOST:
        del into[next(iter(into))]
