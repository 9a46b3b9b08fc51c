"""Where steps run. An order is plain data: no function object ever travels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, runtime_checkable

from falaj.base.points import Series
from falaj.facts.checks import CheckResult
from falaj.facts.runs import Artifact, Ending
from falaj.facts.wire import Fact

__all__ = ["MOVED", "Executor", "Hear", "Line", "Order", "Outcome", "TellingExecutor"]

# Metrics of a running step, and the points that are new since it was told last.
Hear = Callable[[Mapping[str, float], Sequence[Series]], None]
MOVED: Final = "Moved"  # the error of an order whose code or data changed since it was given


class Line(Fact, frozen=True, kw_only=True):
    """A line of the user's own code that an exception went through."""

    file: str
    line: int
    function: str


class Order(Fact, frozen=True, kw_only=True):
    """One attempt of one step of a plan that both sides can make from the same project.

    call: the call's id in the plan. id: of this step run, which is another one for an element of
    `falaj.map`. parameters: of the pipeline, as JSON. bound: arguments that became known while the
    run went on, each `{"value": ..}` or `{"ref": id}`. made: artifacts that it reads, by step run.
    lists: elements of a mapped call. code: path -> digest, so that a file that was edited
    meanwhile is noticed. dynamic: it imports by computed names. datasets: name -> content digest. seed: of the run.
    resources: what the step takes. variables: of the environment, as digests, None where not set.
    """

    run: str
    root: str
    roots: tuple[str, ...]
    pipeline: str
    parameters: dict[str, Any]
    call: str
    id: str
    attempt: int
    seed: int
    timeout_s: float | None = None
    isolate: bool = False
    bound: dict[str, dict[str, Any]] = {}
    made: dict[str, dict[str, Artifact]] = {}
    lists: dict[str, tuple[str, ...]] = {}
    code: dict[str, str] = {}
    dynamic: bool = False
    datasets: dict[str, str] = {}
    resources: dict[str, float] = {}
    variables: dict[str, str | None] = {}


class Outcome(Fact, frozen=True, kw_only=True):
    """How the attempt ended, and what it made.

    error, message: class and text of an exception; of a lost worker, how it went. listed: the
    step's retry_on names the exception. lines: outermost first, the user's own only.
    lost_input: the step run whose artifact could not be read. points, plots: digests.
    extras: project files that were loaded by computed names. log: what was printed. files, params,
    tags, checks, peak_mb: as in a StepRun.
    """

    ending: Ending
    outputs: tuple[Artifact, ...] = ()
    metrics: dict[str, float] = {}
    points: str = ""
    plots: dict[str, str] = {}
    extras: dict[str, str] = {}
    error: str = ""
    message: str = ""
    listed: bool = False
    lines: tuple[Line, ...] = ()
    lost_input: str = ""
    log: str = ""
    seconds: float = 0.0
    cpu_s: float = 0.0
    files: dict[str, str] = {}
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    checks: tuple[CheckResult, ...] = ()
    peak_mb: float = 0.0


class Executor(Protocol):
    """Runs orders. Every adapter passes tests/contracts/test_executor.py."""

    @property
    def at_once(self) -> int:
        """How many orders may run at the same time; each is handed over by a thread of its own."""

    def run(self, order: Order) -> Outcome:
        """Run one attempt to its end, whatever that is. Raises nothing that the step did.

        An executor never tries again by itself: the rules of the room decide. Output of the step
        is in the outcome, the first and the last 5 MiB of it.
        """

    def close(self) -> None:
        """End everything that still runs; leave no process behind. Not an error twice."""


@runtime_checkable
class TellingExecutor(Protocol):
    """An executor that can also tell what a step logs while it runs."""

    def run_telling(self, order: Order, hear: Hear) -> Outcome:
        """As `run`. hear: called about each second, from any thread, never after the end.

        The outcome holds all of it once more; only a step whose process went away has said no more
        than was told.
        """
