"""The checks of one gate as a table, for every page that shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from falaj.base.charts import interval, short
from falaj.base.sheets import Html, bdi, table, verdict

__all__ = ["Measured", "check_tables"]

MOST_SHOWN: Final = 12  # passes of one gate that stand open
KINDS: Final = "--nnfnnt"


class Measured(Protocol):
    """A check with its bounds. verdict: its text is the word."""

    @property
    def check(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def verdict(self) -> object: ...
    @property
    def value(self) -> float | None: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...
    @property
    def limit(self) -> float | None: ...
    @property
    def unit(self) -> str: ...
    @property
    def n(self) -> int: ...
    @property
    def reason(self) -> str: ...


def check_tables(results: Sequence[Measured], say: Callable[[str], str]) -> Iterator[Html]:
    """Many passes are folded; what did not pass always stands open. say: the page's language."""
    head = [say(word) for word in ("Check", "Verdict", "Value", "Interval")]
    head += ["", say("Limit"), say("Rows"), say("Reason")]
    passed = [one for one in results if str(one.verdict) == "pass"]
    folded = passed if len(passed) > MOST_SHOWN else []
    shown = [one for one in results if one not in folded]
    yield table(head, [_row(one, results, say) for one in shown], KINDS)
    if folded:
        many = table(head, [_row(one, results, say) for one in folded], KINDS)
        count = f"{verdict('pass', say('pass'))} {bdi(len(folded))}"
        yield Html(f"<details><summary>{count}</summary>{many}</details>")


def _row(
    result: Measured, among: Sequence[Measured], say: Callable[[str], str]
) -> tuple[object, ...]:
    word = str(result.verdict)
    known = result.low is not None or result.high is not None
    return (
        bdi(result.check),
        verdict(word, say(word)),
        "" if result.value is None else f"{short(result.value)} {result.unit}".strip(),
        f"{short(result.low) or '..'} - {short(result.high) or '..'}" if known else "",
        _forest(result, among) if known else "",
        short(result.limit),
        f"{result.n:,}" if result.n else "",
        bdi(result.reason),
    )


def _forest(result: Measured, among: Sequence[Measured]) -> Html:
    """On one scale with the checks of the same metric."""
    same = [one for one in among if one.metric == result.metric]
    ends = [v for one in same for v in (one.low, one.high, one.value, one.limit) if v is not None]
    room = 0.05 * ((max(ends) - min(ends)) or 1.0)
    span = (min(ends) - room, max(ends) + room)
    return interval(result.value, result.low, result.high, span, limit=result.limit)
